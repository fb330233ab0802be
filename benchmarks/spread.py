"""Compiles for a TPU slice what is spread over its chips without sharing a batch.

  python -m benchmarks.spread --compile_for=v5e:4x4

Runs trained at once (`train.vmapped`), here one on each chip. The kernel solver
(`theory.gram_matrix`): each chip has panels of the Gram matrix of all of MNIST. Needs no
TPU, but its compiler, as `benchmarks.ahead` does. Prints a table.
"""

import functools
import time

import jax
import jax.numpy as jnp
from absl import flags

from rethink_gen import cli, sharding
from rethink_gen import config as config_lib
from rethink_gen.estimate import accelerators, ahead, counting, targets
from rethink_gen.estimate.ahead import shapes
from rethink_gen.text import format_duration, format_quantity
from rethink_gen.theory import gram_matrix
from rethink_gen.train import compiled, optimizers, vmapped

TARGET = flags.DEFINE_string('compile_for', 'v5e:4x4', 'The devices to compile for.')
CONFIGS = flags.DEFINE_list(
  'configs', ['mlp_1x512', 'alexnet', 'inception'], 'The configs of the runs at once.'
)
EXAMPLES, DIMENSIONS, CLASSES, LANDMARKS = 60_000, 784, 10, 2_000  # of MNIST's kernel


def main(_):
  cli.setup()
  cli.call(lambda _: tabulate(), 'the programs')


def tabulate():
  target = targets.find_target(TARGET.value)
  configs = {name: config_lib.named(name) for name in CONFIGS.value}
  runs = len(target.devices)
  print('| program | memory of a device | temporary | cycles | between devices | seconds |')
  print('|---|---:|---:|---:|---|---:|')
  for name, config in configs.items():
    config.precision = 'bfloat16'
    found = compile_runs(config, counting.describe_data(config), runs, target)
    show(f'{runs} runs of {name}, a step of each', found, target)
  layout, programs = compile_kernel(EXAMPLES, DIMENSIONS, target)
  for name, found in programs.items():
    show(f'kernel, {EXAMPLES:,} examples: {name}', found, target)
  panel = 4 * layout.size * layout.width
  print(
    f'\nThe Gram matrix is {layout.panels} panels of {format_quantity(panel, "B")} on '
    f'each device, {format_quantity(layout.panels * panel, "B")} together.'
  )


def show(name, found, target):
  """Prints a row of the table."""
  available = accelerators.ACCELERATORS[target.accelerator].memory
  between = [f'{kind} {format_quantity(size, "B")}' for kind, size in found.collectives]
  cells = [
    name,
    f'{format_quantity(found.memory, "B")} of {format_quantity(available, "B")}',
    format_quantity(found.temporary, 'B'),
    '–' if found.cycles is None else f'{found.cycles:,}',
    ', '.join(between) or 'nothing',
    format_duration(found.seconds),
  ]
  print(f'| {" | ".join(cells)} |', flush=True)


def compile_runs(config, dataset, runs, target):
  """The `ahead.Compiled` of an epoch of several runs at once."""
  with sharding.compiling_for(target.devices), compiled.matmul_precision(config):
    config_lib.validate(config)
    program = compiled.make_program(config, dataset)
    initialize, *_ = compiled.compile_program.__wrapped__(program)
    one = jax.eval_shape(lambda: initialize(jax.random.key(0)))
    stacked = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape), leaf.dtype), one
    )._replace(step=one.step)
    state = type(one)._make(map(shapes, stacked, vmapped.LAYOUT))
    count = len(dataset.x_train)
    images = jax.ShapeDtypeStruct((count, dataset.x_train[0].size), dataset.x_train.dtype)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    labels = jax.ShapeDtypeStruct((runs, count), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), runs))
    rates = [jax.ShapeDtypeStruct((runs,), jnp.float32) for _ in optimizers.rates(config)]
    epoch = vmapped.compile_stack.__wrapped__(program).epoch
    spread = shapes((labels, keys, optimizers.Rates(*rates)), vmapped.PARTS)
    lower = functools.partial(epoch.lower, state, shapes(step), shapes(images), *spread)
    return compile_timed(lower, has_loop=True)


def compile_kernel(examples, dimensions, target):
  """(Layout, {program: `ahead.Compiled`}) of the Gaussian kernel's panels and products."""

  def array(*shape, spec=ahead.REPLICATED):
    return shapes(jax.ShapeDtypeStruct(shape, jnp.float32), spec)

  with sharding.compiling_for(target.devices):
    layout = gram_matrix.make_layout(examples)
    rows = layout.devices * layout.size
    features, chosen = array(2 * layout.padded, dimensions), array(LANDMARKS, dimensions)
    panel = array(rows, layout.width, spec=gram_matrix.ROWS)
    images = array(layout.devices, CLASSES, 2 * layout.padded, spec=gram_matrix.ROWS)
    vectors = array(CLASSES, 2 * layout.padded)
    j = shapes(jax.ShapeDtypeStruct((), jnp.int32))
    calls = {
      'a panel': (gram_matrix.add_panel, None, features, chosen, j, 0.02, layout),
      'its product': (gram_matrix.multiply_panel, images, panel, vectors, j, layout),
      'the sum over devices': (gram_matrix.fold, images),
    }
    found = {
      name: compile_timed(functools.partial(function.lower, *arguments), has_loop=False)
      for name, (function, *arguments) in calls.items()
    }
  return layout, found


def compile_timed(lower, has_loop):
  """The `ahead.Compiled` of what lower() returns."""
  started = time.monotonic()
  return ahead.read(lower().compile(), has_loop, time.monotonic() - started)


if __name__ == '__main__':
  cli.run(main, lambda argv: cli.refuse_rest(cli.parse_flags(argv)))
