r"""What a run would cost, on paper: operations, memory, and device-hours on accelerators.

  python -m rethink_gen.estimate --config=configs/inception.py
  python -m rethink_gen.estimate --config=configs/inception.py --price=2.5 \
      --config.precision=bfloat16 --config.batch_size=1024

Takes --config and --config.FIELD as rethink_gen.main does; nothing is trained and no image
is read (but for an .npz file), so the data set need not be there if its size is known.
--price is what an hour of one device costs, in any currency; without it no money is named.

The gradient step that training compiles is traced from shapes alone. XLA counts its
floating-point operations: those of matrix products and convolutions, without products with
zeros that padding or dilation puts in, and one for each number that anything else computes.
A program can do with that, so this count is taken: it is 8 % below the usual one (6
operations a multiply-add of every whole window, less the gradient to the images) for small
Inception, 12 % below for AlexNet and 1 % above for MLP 1x512. The step then takes at least

  max(operations / (peak * share), bytes / bandwidth) + all-reduces.

Operations, batch and activations are split over the devices; parameters and their updates
are on each. Bytes are those that products and convolutions read and write and the update
of the parameters needs, as if all else were fused into them: no program moves fewer through
a memory without a large cache. The share of peak is an assumption, --share_of_peak; on
this machine, whose peak is that of a large matrix product just now, it is 1. Not counted:
compiling, launching, the host, decoding images, checkpoints. So the times are lower bounds
where products reach no more than that share, but for the all-reduce, which a compiler may
hide behind the backward pass.
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before all that is slow to import

import functools
import math

import jax
import rich
from absl import flags
from ml_collections import config_flags
from rich import box
from rich.table import Table

from rethink_gen import cli
from rethink_gen import config as config_lib
from rethink_gen.estimate import accelerators, counting, roofline
from rethink_gen.text import format_quantity
from rethink_gen.train import compiled, loading

if __name__ == '__main__':
  interrupt.leave_at_once()  # before all that is slow to import

CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='The config file of the run, such as configs/inception.py.'
)
PRICE = flags.DEFINE_float(
  'price', None, 'What an hour of one device costs, in any currency.', lower_bound=0
)
SHARE_OF_PEAK = flags.DEFINE_float(
  'share_of_peak',
  0.5,
  "The share of an accelerator's peak that products are assumed to reach.",
  lower_bound=0.01,
  upper_bound=1,
)
for number in (PRICE, SHARE_OF_PEAK):  # bounds let nan pass
  flags.register_validator(
    number, lambda v: v is None or math.isfinite(v), 'it must be a finite number'
  )


def main(_):
  cli.setup()
  arguments = CONFIG.value, SHARE_OF_PEAK.value, PRICE.value
  cli.call(lambda _: report(*arguments), 'the estimate')


def report(config, share, price):
  """Prints what a run of this config would cost; raises BadInput where it cannot be.

  share is that of accelerators' peaks, price that of a device-hour or None.
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


def describe(run):
  """Sentences that say what a run is made of."""
  config, dataset, step = run.config, run.dataset, run.step(run.config.batch_size)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
  examples = dataset.num_train + dataset.num_test
  yield (
    f'{config.model.name} on {config.dataset.name}, {config.precision}: {parameters:,} '
    f'parameters, {dataset.num_train:,} training and {dataset.num_test:,} test examples.'
  )
  yield (
    f'A step of {config.batch_size:,} examples: {format_quantity(step.flops, "FLOP")}, '
    f'{format_quantity(step.flops / config.batch_size, "FLOP")} an example; at least '
    f'{format_quantity(step.bytes, "B")} of memory traffic, '
    f'{format_quantity(step.unfused, "B")} if nothing were fused.'
  )
  yield (
    f'On one device it holds about {format_quantity(roofline.memory(run, 1), "B")}; '
    f'several sum {format_quantity(counting.size(run.state.params), "B")} of gradients.'
  )
  yield (
    f'A run: at most {config.num_epochs:,} epochs of {run.steps_per_epoch:,} steps and '
    f'{run.evaluations:,} evaluations of '
    f'{format_quantity(run.evaluation(examples).flops, "FLOP")}.'
  )


def explain(run, share, price):
  """Sentences that say how to read the table."""
  money = '' if price is None else f', then money at {price:g} each'
  yield (
    'Training for an epoch on one device; then the whole run on 1 to 1,024 devices that '
    f'share each batch: its time, below it device-hours{money}. Lower bounds, at '
    f'{share:g} of the peak of an accelerator, which is assumed, and at what '
    'a large product and a large copy reach on this machine, measured just now.'
  )
  size = run.config.batch_size
  refused = [n for n in roofline.DEVICES if size % n]
  if refused:
    few = [f'{n:,}' for n in refused if n > size]
    yield (
      f'-: {size:,} examples cannot be shared by so many devices equally'
      + (f'; {" and ".join(few)} are more devices than examples.' if few else '.')
    )
  if run.config.dataset.streaming:
    yield 'Whether the hosts decode images fast enough is another matter.'


if __name__ == '__main__':
  cli.run(main, functools.partial(cli.parse, config=CONFIG))
