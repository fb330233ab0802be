r"""Estimates the cost of a run: operations, memory, and device-hours on accelerators.

  python -m rethink_gen.estimate --config=configs/inception.py
  python -m rethink_gen.estimate --config=configs/inception.py --price=2.5 \
      --config.precision=bfloat16 --config.batch_size=1024

Takes --config and --config.FIELD like rethink_gen.main. Nothing is trained and no image is
read (except from an .npz file), so the data set can be absent if its size is known. --price
is the cost of one device-hour, in any currency; without it, no cost is shown.

The gradient step that training compiles is traced from shapes only. XLA counts its
floating-point operations: those of matrix products and convolutions, without products with
zeros from padding or dilation, and one for each number that any other operation computes.
A program needs no more than that, so this count is used. Compared with the usual count (6
operations per multiply-add of every full window, without the gradient with respect to the
images), it is 8% lower for small Inception, 12% lower for AlexNet and 1% higher for MLP
1x512. The step then takes at least

  max(operations / (peak * share), bytes / bandwidth) + all-reduces.

Operations, batch and activations are split over the devices; parameters and their updates
are replicated. Bytes are those that products and convolutions read and write, plus those of
the parameter update, as if everything else were fused: no program moves fewer through
memory without a large cache. The share of peak is an assumption, --share_of_peak; on this
machine, whose peak is that of a large matrix product measured at the start, it is 1.
Compilation, launches, the host, image decoding and checkpoints are not counted. So the
times are lower bounds if products reach no more than that share, except for the all-reduce,
which a compiler may overlap with the backward pass.
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before the slow imports

import functools
import math

import jax
import rich
from absl import flags
from ml_collections import config_flags
from rich import box
from rich.table import Table

from rethink_gen import cli, sharding
from rethink_gen import config as config_lib
from rethink_gen.estimate import accelerators, ahead, counting, roofline, targets
from rethink_gen.text import format_quantity
from rethink_gen.train import compiled, loading

CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='The config file of the run, such as configs/inception.py.'
)
PRICE = flags.DEFINE_float(
  'price', None, 'The cost of one device-hour, in any currency.', lower_bound=0
)
SHARE_OF_PEAK = flags.DEFINE_float(
  'share_of_peak',
  0.5,
  "The share of an accelerator's peak that matrix products are assumed to reach.",
  lower_bound=0.01,
  upper_bound=1,
)
COMPILE_FOR = flags.DEFINE_string(
  'compile_for',
  None,
  'Devices to compile the run for, which need not exist: a TPU slice such as v5e:4x4, two '
  'slices 2*v5e:4x4, or GPUs such as h100:8. Prints what the compiler says.',
)
for number in (PRICE, SHARE_OF_PEAK):  # bounds let nan pass
  flags.register_validator(
    number, lambda v: v is None or math.isfinite(v), 'it must be a finite number'
  )


def main(_):
  cli.setup()
  if COMPILE_FOR.value:
    arguments = CONFIG.value, SHARE_OF_PEAK.value, COMPILE_FOR.value
    cli.call(lambda _: report_compiled(*arguments), 'the estimate')
  else:
    arguments = CONFIG.value, SHARE_OF_PEAK.value, PRICE.value
    cli.call(lambda _: report(*arguments), 'the estimate')


def report(config, share, price):
  """Prints the estimated cost of a run; raises BadInput if it cannot be estimated.

  share is the share of an accelerator's peak, price the cost of a device-hour or None.
  """
  config_lib.validate(config)
  dataset = counting.describe_data(config)
  loading.check_data(config, dataset)
  with compiled.matmul_precision(config):
    run = counting.count(config, dataset)
    machines = {'this machine': accelerators.measure_machine(config.precision)}
  for name, machine in accelerators.ACCELERATORS.items():
    machines[name] = machine._replace(
      bfloat16=share * machine.bfloat16, float32=share * machine.float32
    )
  console = rich.get_console()
  for line in describe(run):
    console.print(line, highlight=False)
  table = Table(box=box.SIMPLE_HEAD, padding=0)
  table.add_column('')
  for header in ('epoch on 1', *(f'{n:,}' for n in roofline.DEVICES)):
    table.add_column(header, justify='right')
  for name, machine in machines.items():
    rate = getattr(machine, config.precision) / 1e12
    epoch = run.steps_per_epoch * roofline.step_seconds(run, machine, 1)
    cells = [roofline.cell(run, machine, devices, price) for devices in roofline.DEVICES]
    table.add_row(
      f'{name}\n{rate:,.3g} TFLOP/s', roofline.say(epoch), *cells, end_section=True
    )
  console.print(table)
  for line in explain(run, share, price):
    console.print(line, highlight=False)


def report_compiled(config, share, name):
  """Prints what a compiler says of a run on the devices `name`; arguments as for `report`.

  Raises:
    BadInput: for devices that are unknown, or that the run does not fit.
  """
  target = targets.find_target(name)
  with sharding.compiling_for(target.devices):
    config_lib.validate(config)
  dataset = counting.describe_data(config)
  loading.check_data(config, dataset)
  with compiled.matmul_precision(config):
    plan = counting.count(config, dataset)
  for line in describe(plan):
    print(line)
  print('Compiling, which takes minutes for large networks.', flush=True)
  for line in ahead.describe(
    ahead.compile_training(config, dataset, target), target, plan, share
  ):
    print(line)


def describe(run):
  """Sentences that describe a run."""
  config, dataset, step = run.config, run.dataset, run.step(run.config.batch_size)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
  examples = dataset.num_train + dataset.num_test
  yield (
    f'{config.model.name} on {config.dataset.name}, {config.precision}: {parameters:,} '
    f'parameters, {dataset.num_train:,} training and {dataset.num_test:,} test examples.'
  )
  yield (
    f'A step of {config.batch_size:,} examples: {format_quantity(step.flops, "FLOP")}, '
    f'{format_quantity(step.flops / config.batch_size, "FLOP")} per example; at least '
    f'{format_quantity(step.bytes, "B")} of memory traffic, '
    f'{format_quantity(step.unfused, "B")} if nothing were fused.'
  )
  yield (
    f'One device holds about {format_quantity(roofline.memory(run, 1), "B")}; several '
    f'exchange {format_quantity(counting.size(run.state.params), "B")} of gradients.'
  )
  yield (
    f'A run: at most {config.num_epochs:,} epochs of {run.steps_per_epoch:,} steps and '
    f'{run.evaluations:,} evaluations of '
    f'{format_quantity(run.evaluation(examples).flops, "FLOP")}.'
  )


def explain(run, share, price):
  """Sentences that explain how to read the table."""
  money = '' if price is None else f', then the cost at {price:g} each'
  yield (
    'The time to train for one epoch on one device; then the whole run on 1 to 1,024 '
    f'devices that share each batch: its time, below it device-hours{money}. These are '
    f'lower bounds, at an assumed {share:g} of the peak of an accelerator, and on this '
    'machine at the measured rates of a large matrix product and a large copy.'
  )
  size = run.config.batch_size
  refused = [n for n in roofline.DEVICES if size % n]
  if refused:
    few = [f'{n:,}' for n in refused if n > size]
    yield (
      f'-: {size:,} examples cannot be divided equally among that many devices'
      + (f'; {" and ".join(few)} are more devices than examples.' if few else '.')
    )
  if run.config.dataset.streaming:
    yield 'Whether the hosts decode images fast enough is not estimated.'


if __name__ == '__main__':
  cli.run(main, functools.partial(cli.parse, config=CONFIG))
