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

import collections
import functools
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich
from absl import flags
from jax.extend import core
from jax.interpreters import partial_eval
from ml_collections import config_flags
from rich import box
from rich.table import Table

from rethink_gen import command_line, models, programs, sgd, train
from rethink_gen import config as config_lib
from rethink_gen.data import preprocess, sources
from rethink_gen.errors import BadInput
from rethink_gen.models import layers

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
DEVICES = (1, 8, 64, 256, 1024)
HOP = 1e-6  # seconds from one device to the next, an assumption: about a microsecond


class Accelerator(NamedTuple):
  """One device, as its vendor describes it.

  Attributes:
    bfloat16, float32: peak operations per second of dense products whose inputs are so. In
      float32 a TPU makes six passes in bfloat16 (docs.jax.dev, jax.lax.Precision), and a
      GPU does without its tensor cores: `programs.matmul_precision` asks for no less.
    memory: bytes.
    bandwidth: of the memory, bytes per second.
    link: bytes per second that a device sends to others of its group, all links together;
      None where it is alone. Vendors quote twice that, for both directions.
    group: how many devices are so linked, a pod or a server.
    network: bytes per second that a device sends beyond its group; None where none of
      DEVICES does.
  """

  bfloat16: float
  float32: float
  memory: float
  bandwidth: float
  link: float | None
  group: int
  network: float | None


def tpu(peak, *rest):
  return Accelerator(peak, peak / 6, *rest)


ACCELERATORS = {
  # https://cloud.google.com/tpu/docs/v4, and six links of 50 GB/s: arXiv:2304.01433
  'TPU v4': tpu(275e12, 32 * 2**30, 1200e9, 300e9, 4096, None),
  # https://cloud.google.com/tpu/docs/v5e: 400 GB/s both ways, 6.4 Tbit/s a pod of 256
  'TPU v5e': tpu(197e12, 16e9, 819e9, 200e9, 256, 25e9 / 8),
  # https://cloud.google.com/tpu/docs/v5p: 1,200 GB/s both ways
  'TPU v5p': tpu(459e12, 95e9, 2765e9, 600e9, 8960, None),
  # https://cloud.google.com/tpu/docs/v6e: 800 GB/s both ways, 25.6 Tbit/s a pod of 256
  'TPU v6e': tpu(918e12, 32e9, 1600e9, 400e9, 256, 100e9 / 8),
  # SXM, 80 GB. https://www.nvidia.com/en-us/data-center/a100/: 600 GB/s both ways; eight
  # and a 200 Gbit/s adapter for each in a https://docs.nvidia.com/dgx/dgxa100-user-guide/
  'A100': Accelerator(312e12, 19.5e12, 80e9, 2039e9, 300e9, 8, 25e9),
  # SXM, without sparsity. https://www.nvidia.com/en-us/data-center/h100/: 900 GB/s both
  # ways; 400 Gbit/s for each in a https://docs.nvidia.com/dgx/dgxh100-user-guide/
  'H100': Accelerator(989e12, 67e12, 80e9, 3350e9, 450e9, 8, 50e9),
  # SXM, without sparsity. https://www.nvidia.com/en-us/data-center/h200/
  'H200': Accelerator(989e12, 67e12, 141e9, 4800e9, 450e9, 8, 50e9),
}


class Cost(NamedTuple):
  """What something costs one device.

  Attributes:
    flops: floating-point operations, as XLA counts them.
    bytes: what must at least move between memory and arithmetic.
    unfused: the same if every operation read its inputs from memory and wrote them there.
    memory: bytes that are there at once, at most.
  """

  flops: float
  bytes: float
  unfused: float
  memory: float


class Run(NamedTuple):
  """What is known of a run before it.

  Attributes:
    config, dataset: as of `train.run`, the Dataset of shapes alone.
    state: the `sgd.State`, of shapes.
    step: step(b) is the Cost of a gradient step on a device that has b of the examples.
    evaluation: evaluation(b) is the Cost of evaluating b examples.
  """

  config: Any
  dataset: sources.Dataset
  state: sgd.State
  step: Callable
  evaluation: Callable

  @property
  def steps_per_epoch(self):
    return len(self.state.losses)

  @property
  def evaluations(self):
    """How often it evaluates if it does not stop early, as `train.is_due` says."""
    return -(-self.config.num_epochs // self.config.eval_every)


def main(_):
  command_line.prepare()
  arguments = CONFIG.value, SHARE_OF_PEAK.value, PRICE.value
  command_line.call(lambda _: report(*arguments), 'the estimate')


def report(config, share, price):
  """Prints what a run of this config would cost; raises BadInput where it cannot be.

  share is that of accelerators' peaks, price that of a device-hour or None.
  """
  config_lib.validate(config)
  dataset = describe_data(config)
  train.check_data(config, dataset)
  with programs.matmul_precision(config):
    run = count(config, dataset)
    machines = {'this machine': measure_machine(config.precision)}
  for name, machine in ACCELERATORS.items():
    machines[name] = machine._replace(
      bfloat16=share * machine.bfloat16, float32=share * machine.float32
    )
  console = rich.get_console()
  for line in describe(run):
    console.print(line, highlight=False)
  table = Table(box=box.SIMPLE_HEAD, padding=0)
  table.add_column('')
  for header in ('epoch on 1', *(f'{n:,}' for n in DEVICES)):
    table.add_column(header, justify='right')
  for name, machine in machines.items():
    rate = getattr(machine, config.precision) / 1e12
    epoch = run.steps_per_epoch * step_seconds(run, machine, 1)
    cells = [cell(run, machine, devices, price) for devices in DEVICES]
    table.add_row(f'{name}\n{rate:,.3g} TFLOP/s', say(epoch), *cells, end_section=True)
  console.print(table)
  for line in explain(run, share, price):
    console.print(line, highlight=False)


def describe_data(config):
  """The Dataset that a config would learn, of its sizes alone.

  Its arrays have the shapes and types that `sources.load` gives, and one element each that
  is repeated. Images that are streamed have the shape of the network's input.

  Raises:
    BadInput: the size of the data set is neither known nor to be found out, or is
      smaller than the config says.
  """
  name, path = config.dataset.name, config.dataset.path
  if name == 'npz':
    real = sources.load(name, path=path)
    sizes = real.num_train, real.num_test, real.x_train.shape[1:], real.num_classes
  else:
    sizes = sources.SIZES.get(name) or find_sizes(name, config.dataset.data_dir)
  *counts, shape, num_classes = sizes
  if config.dataset.streaming:
    shape = (config.dataset.crop_size, config.dataset.crop_size, 3)
  elif shape is None:
    raise BadInput(
      f'The images of {name} have many sizes, so they can only be streamed; set '
      'config.dataset.streaming=True and config.dataset.crop_size.'
    )
  pixel = np.float32(0) if config.corruption.mode == 'gaussian' else np.uint8(0)
  arrays = []
  for field, available in zip(('num_train', 'num_test'), counts, strict=True):
    number = config.dataset[field] or available
    if number > available:
      raise BadInput(
        f'config.dataset.{field} is {number}, but {name} has {available}; take at most '
        'that many.'
      )
    arrays += [
      np.broadcast_to(pixel, (number, *shape)),
      np.broadcast_to(np.int32(0), number),
    ]
  return sources.Dataset(*arrays, num_classes)


def find_sizes(name, data_dir):
  """As sources.SIZES, of a data set that is prepared; raises BadInput if it is not."""
  folder = sources.find(name, sources.tfds_folder(data_dir))
  import tensorflow_datasets as tfds  # slow to import

  try:
    info = tfds.builder_from_directory(str(folder)).info
    test = 'test' if 'test' in info.splits else 'validation'
    shape = info.features['image'].shape
    return (
      info.splits['train'].num_examples,
      info.splits[test].num_examples,
      None if None in shape else shape,
      info.features['label'].num_classes,
    )
  except Exception as error:  # TFDS raises many kinds for what is not as expected
    raise BadInput(
      f'The size of the data set in {folder} cannot be read ({sources.reason(error)}); it '
      'must be image classification with a training and a test split.'
    ) from None


def count(config, dataset):
  """The Run of a config and its Dataset, which may be of shapes alone."""
  train_step, evaluate, state, key = functions(config, dataset)
  images = dataset.x_train[: config.batch_size]
  # Training reads parameters and momentum and writes both, whatever the batch.
  update = 2 * (size(state.params) + size(state.opt_state))
  with layers.whole():
    step = per_example(train_step, state, images, key, update)
    return Run(config, dataset, state, step, per_example(evaluate, state, images, key))


def functions(config, dataset):
  """(train_step, evaluate, state, key), as `programs` and `streamed` put them together.

  train_step(state, images, labels, key) is a gradient step, the body of the compiled epoch:
  of that itself XLA would count one step, for it does not know how many there are.
  evaluate, with the same arguments, gives logits. state and key are of shapes alone.
  """
  config = config.copy_and_resolve_references()
  # It changes no operation but the all-reduces, and needs the devices to be there.
  config.model.batch_norm_per_device = None
  *height_width, channels = dataset.x_train.shape[1:]
  streaming = config.dataset.streaming
  crop_shape = preprocess.crop_shape(*height_width, config.dataset.crop_size)
  model = models.create(config, dataset.num_classes)
  transformation = sgd.optimizer(config, sgd.rates(config))
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    sgd.make_initialise(
      model,
      transformation,
      (*crop_shape, channels),
      dataset.num_train // config.batch_size,
    ),
    key,
  )

  def prepare(images, *random):
    if streaming:
      return preprocess.scale(images)
    return preprocess.preprocess(images, crop_shape, *random)

  def train_step(state, images, labels, key):
    inputs = prepare(images, config.regularization, key)
    return sgd.train_step(model, transformation, state, inputs, labels, key)

  def evaluate(state, images, labels, key):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    return model.apply(variables, prepare(images), train=False)

  return train_step, evaluate, state, key


def per_example(function, state, images, key, update=0):
  """cost(b): what function(state, images, labels, key) costs with b examples.

  All of it is a constant and so much an example (memory nearly: its highest point can move
  to another equation), so two batches tell: as many examples as there are images, and twice
  as many.

  Args:
    function, state, key: of shapes alone, to be traced.
    images: an array (n, h, w, c) of the type and size of the images.
    update: bytes to add to those of products.
  """
  batch_size = len(images)

  def trace(b):
    inputs = jax.ShapeDtypeStruct((b, *images.shape[1:]), images.dtype)
    labels = jax.ShapeDtypeStruct((b,), jnp.int32)
    traced = jax.jit(function).trace(state, inputs, labels, key)
    analysis = traced.lower().cost_analysis()
    jaxpr, _ = partial_eval.dce_jaxpr(
      traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.out_avals)
    )
    return Cost(
      analysis['flops'],
      update + bytes_of_products(jaxpr),
      analysis['bytes accessed'],
      most_at_once(jaxpr),
    )

  one, two = trace(batch_size), trace(2 * batch_size)

  def cost(b):
    share = b / batch_size - 1
    return Cost(*(x + share * (y - x) for x, y in zip(one, two, strict=True)))

  return cost


def bytes_of_products(jaxpr):
  """Bytes of the inputs and outputs of matrix products and convolutions."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      total += sum(size(v.aval) for v in (*equation.invars, *equation.outvars))
    total += sum(map(bytes_of_products, core.jaxprs_in_params(equation.params)))
  return total


def most_at_once(jaxpr):
  """Bytes of the arrays that are in use at once, at most, in the order of the equations.

  What an inner function holds while it runs is left out. Measured beside XLA's own count
  for CPUs: see tests/test_estimate.py.
  """
  last = {v: None for v in jaxpr.outvars if isinstance(v, core.Var)}  # never freed
  frees = collections.defaultdict(list)
  for number, equation in reversed(list(enumerate(jaxpr.eqns))):
    for v in equation.invars:
      if isinstance(v, core.Var) and v not in last:
        last[v] = number
        frees[number].append(v)
  now = most = sum(size(v.aval) for v in jaxpr.invars)
  for number, equation in enumerate(jaxpr.eqns):
    now += sum(size(v.aval) for v in equation.outvars)
    most = max(most, now)
    now -= sum(size(v.aval) for v in frees[number])
  return most


def size(tree):
  """Bytes of all arrays in it."""
  return sum(
    math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  )


def compute_seconds(run, machine, cost):
  """The roofline: what arithmetic or memory, whichever is slower, takes at least."""
  peak = getattr(machine, run.config.precision)
  return max(cost.flops / peak, cost.bytes / machine.bandwidth)


def all_reduce_seconds(machine, devices, num_bytes, times=1):
  """Seconds of summing so many bytes, which each device holds, over all of them.

  Of n devices each sends 2 (n - 1) / n of the bytes, on its links; beyond a group of n each
  then sums its n-th of them over the groups, on the network. To this come 2 log2(n) hops,
  as often as there are all-reduces that the bytes are part of.
  """
  if devices == 1:
    return 0.0
  within = min(devices, machine.group)
  across = devices // within
  seconds = 2 * (within - 1) / within * num_bytes / machine.link
  if across > 1:
    seconds += 2 * (across - 1) / across * num_bytes / within / machine.network
  return seconds + times * 2 * math.log2(devices) * HOP


def step_seconds(run, machine, devices):
  """Seconds of a gradient step, whose gradients are summed over devices."""
  # Mean and variance of each layer travel together, and so do their gradients: twice a
  # layer, as many times as there are such arrays. Those of a device's own part of the
  # batch go with the parameters' gradients.
  own = run.config.model.batch_norm_per_device
  times = 1 if own else 1 + len(jax.tree.leaves(run.state.batch_stats))
  num_bytes = size((run.state.params, run.state.batch_stats))
  cost = run.step(run.config.batch_size / devices)
  return compute_seconds(run, machine, cost) + all_reduce_seconds(
    machine, devices, num_bytes, times
  )


def run_seconds(run, machine, devices):
  """Seconds of all epochs, and of their evaluations over both whole splits."""
  examples = run.dataset.num_train + run.dataset.num_test
  evaluation = compute_seconds(run, machine, run.evaluation(examples / devices))
  steps = run.steps_per_epoch * run.config.num_epochs
  return steps * step_seconds(run, machine, devices) + run.evaluations * evaluation


def memory(run, devices):
  """Bytes on each device while it trains: the step's own, and the images."""
  needed = run.step(run.config.batch_size / devices).memory
  if run.config.dataset.streaming:
    return needed
  images = run.dataset.x_train.nbytes + run.dataset.x_test.nbytes
  return needed + images / (devices if run.config.dataset.shard_rows else 1)


def cell(run, machine, devices, price=None):
  """What the table says of so many devices: time, device-hours, and money at a price."""
  if machine.link is None and devices > 1:
    return ''
  if run.config.batch_size % devices:
    return '-'
  if memory(run, devices) > machine.memory:
    return 'does not\nfit'
  seconds = run_seconds(run, machine, devices)
  hours = devices * seconds / 3600
  lines = [say(seconds), f'{hours:,.3g}']
  if price is not None:
    lines.append(f'{hours * price:,.2f}')
  return '\n'.join(lines)


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
    f'A step of {config.batch_size:,} examples: {scaled(step.flops, "FLOP")}, '
    f'{scaled(step.flops / config.batch_size, "FLOP")} an example; at least '
    f'{scaled(step.bytes, "B")} of memory traffic, {scaled(step.unfused, "B")} '
    'if nothing were fused.'
  )
  yield (
    f'On one device it holds about {scaled(memory(run, 1), "B")}; several sum '
    f'{scaled(size(run.state.params), "B")} of gradients.'
  )
  yield (
    f'A run: at most {config.num_epochs:,} epochs of {run.steps_per_epoch:,} steps and '
    f'{run.evaluations:,} evaluations of '
    f'{scaled(run.evaluation(examples).flops, "FLOP")}.'
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
  refused = [n for n in DEVICES if size % n]
  if refused:
    few = [f'{n:,}' for n in refused if n > size]
    yield (
      f'-: {size:,} examples cannot be shared by so many devices equally'
      + (f'; {" and ".join(few)} are more devices than examples.' if few else '.')
    )
  if run.config.dataset.streaming:
    yield 'Whether the hosts decode images fast enough is another matter.'


def say(seconds):
  """A time in one unit, to three digits."""
  for unit, length, most in (('ms', 1e-3, 1), ('s', 1, 100), ('min', 60, 6000)):
    if seconds < most:
      return f'{seconds / length:,.3g} {unit}'
  hours = seconds / 3600
  return f'{hours:,.3g} h' if hours < 100 else f'{hours:,.0f} h'


def scaled(number, unit):
  """So many of the unit in thousands, millions, ... of it, to three digits: '1.21 GB'."""
  number = float(f'{number:.3g}')  # 999.9 is a thousand
  power = min(6, int(math.log10(max(number, 1)) / 3 + 1e-9))
  return f'{number / 1000**power:.3g} {("", *"kMGTPE")[power]}{unit}'


def measure_machine(precision):
  """One device of this machine as an Accelerator: the best of five products and copies.

  The copy is a negation in place: new memory would be slow where it has to be mapped first.
  """
  device = jax.devices()[0]
  on_cpu = device.platform == 'cpu'
  side = 2048 if on_cpu else 8192
  matrix = jnp.ones((side, side), precision, device=device)
  multiply = jax.jit(jnp.matmul)
  numbers = jnp.ones(2**26 if on_cpu else 2**28, jnp.float32, device=device)
  num_bytes = 2 * numbers.nbytes  # read and written
  negate = jax.jit(jnp.negative, donate_argnums=0)
  products, copies = [], []
  for _ in range(6):  # the first compiles
    started = time.perf_counter()
    jax.block_until_ready(multiply(matrix, matrix))
    products.append(time.perf_counter() - started)
    started = time.perf_counter()
    numbers = jax.block_until_ready(negate(numbers))
    copies.append(time.perf_counter() - started)
  peak, bandwidth = 2 * side**3 / min(products), num_bytes / min(copies)
  if on_cpu:
    available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  else:
    available = device.memory_stats()['bytes_limit']
  return Accelerator(peak, peak, available, bandwidth, None, 1, None)


if __name__ == '__main__':
  command_line.run(main, functools.partial(command_line.parse, config=CONFIG))
