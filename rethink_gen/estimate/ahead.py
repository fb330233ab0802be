"""Compiles a run for accelerators that this machine does not have.

The compilers of TPUs (libtpu) and of NVIDIA GPUs (JAX's CUDA plugin) run on any machine.
What they compile says what would run: memory per device, collectives, kernels and, on TPUs,
the compiler's own estimate of the cycles of every fusion.
"""

import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import config_dict

from rethink_gen import sharding
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.estimate import accelerators, counting, roofline, targets
from rethink_gen.text import format_duration, format_quantity
from rethink_gen.train import compiled, optimizers, streaming

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute')
REPLICATED = PartitionSpec()
OUT_OF_MEMORY = 'Used ([0-9.]+[KMGT]?) of ([0-9.]+[KMGT]?) hbm'


class Compiled(NamedTuple):
  """What a compiler says of the compiled training step or epoch.

  Attributes:
    memory: bytes on each device: arguments, outputs, temporaries and code.
    temporary: bytes of temporaries among them.
    cycles: on TPUs, the compiler's estimate for one step, summed over its operations, those
      inside loops within the step counted once; None elsewhere.
    extra_cycles: the same for what runs once per call, outside the loop over steps.
    collectives: [(kind, bytes)], the operations between devices in one step.
    kernels: {name: number} of fusions and library calls in the program.
    seconds: of compiling.
  """

  memory: int
  temporary: int
  cycles: int | None
  extra_cycles: int | None
  collectives: list
  kernels: dict
  seconds: float


def compile_training(
  config: config_dict.ConfigDict, dataset: sources.Dataset, target: targets.Target
) -> Compiled:
  """Compiles what training runs: the epoch, or the step for data that are streamed.

  Args:
    config: a config whose batch the devices can share.
    dataset: its Dataset, of which only shapes and dtypes matter, as from
      `counting.describe_data`.
    target: the devices.

  Raises:
    BadInput: if the program does not fit into the devices' memory.
  """
  started = time.monotonic()
  with sharding.compiling_for(target.devices), compiled.matmul_precision(config):
    lower = _lower_step if config.dataset.streaming else _lower_epoch
    try:
      program = lower(config, dataset).compile()
    except Exception as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise BadInput(
        f'{config.model.name} with config.batch_size {config.batch_size} does not fit into '
        f'the memory of {target.name} ({_needed(str(error))}); use a smaller batch or more '
        'devices.'
      ) from error
  return read(program, not config.dataset.streaming, time.monotonic() - started)


def _needed(message):
  found = re.search(OUT_OF_MEMORY, message)
  return f'it needs {found[1]} of {found[2]} per device' if found else 'out of memory'


def shapes(tree: Any, spec: PartitionSpec = REPLICATED) -> Any:
  """The shapes of a tree's arrays on the mesh, to lower a function with."""
  layout = NamedSharding(sharding.mesh(), spec)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), tree
  )


def _lower_epoch(config, dataset):
  # Not from the cache of `compile_program`, whose functions have this process's mesh.
  program = compiled.make_program(config, dataset)
  initialize, epoch, _, _ = compiled.compile_program.__wrapped__(program)
  key = jax.eval_shape(lambda: jax.random.key(0))
  count, shape = len(dataset.x_train), dataset.x_train.shape[1:]
  spec = PartitionSpec('data') if config.dataset.shard_rows else REPLICATED
  if config.dataset.shard_rows:
    count += -count % sharding.mesh().size
  images = jax.ShapeDtypeStruct((count, int(np.prod(shape))), dataset.x_train.dtype)
  return epoch.lower(
    shapes(jax.eval_shape(initialize, key)),
    shapes(jax.ShapeDtypeStruct((), jnp.int32)),
    shapes(images, spec),
    shapes(jax.ShapeDtypeStruct(dataset.y_train.shape, jnp.int32)),
    shapes(key),
    optimizers.rates(config),
  )


def _lower_step(config, dataset):
  shape, count = dataset.x_train.shape[1:], config.batch_size
  initialize, step, _, _ = streaming.compile_step.__wrapped__(
    streaming.program_fields(config),
    shape,
    dataset.num_classes,
    dataset.num_train // count,
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  split = PartitionSpec('data')
  return step.lower(
    shapes(jax.eval_shape(initialize, key)),
    shapes(jax.ShapeDtypeStruct((count, *shape), dataset.x_train.dtype), split),
    shapes(jax.ShapeDtypeStruct((count,), jnp.int32), split),
    shapes(key),
    optimizers.rates(config),
  )


def read(program: Any, has_loop: bool, seconds: float = 0.0) -> Compiled:
  """The Compiled of a `jax.stages.Compiled`, from its text and its memory analysis.

  Args:
    program: a compiled step, or an epoch, which has the steps in a loop.
    has_loop: whether it is an epoch.
    seconds: what compiling took.
  """
  text, memory = program.as_text(), program.memory_analysis()
  in_loop, outside, collectives, kernels = [], [], [], {}
  computation = ''
  for line in text.splitlines():
    if header := re.match(r'(ENTRY )?%?([\w.-]+) \(.*\{$', line):
      computation = 'ENTRY' if header[1] else header[2]
      continue
    if cycles := re.search(r'"estimated_cycles":"(\d+)"', line):
      # Where the compiler has no estimate it prints -1 as an unsigned number.
      known = int(cycles[1]) if int(cycles[1]) < 2**63 else 0
      (outside if computation == 'ENTRY' else in_loop).append(known)
    found = re.match(r'\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z-]+)\(', line)
    if not found:
      continue
    kind = found[2].removesuffix('-start')
    if kind in COLLECTIVES and not found[2].endswith('-done'):
      collectives.append((kind, _bytes(found[1])))
    if kind == 'custom-call':
      kind = re.search(r'custom_call_target="([^"]*)"', line)[1]
    if kind == 'fusion' or found[2] == 'custom-call':
      kernels[kind] = kernels.get(kind, 0) + 1
  has_cycles = bool(in_loop or outside)
  step, rest = (in_loop, outside) if has_loop else (in_loop + outside, [])
  return Compiled(
    memory=memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
    - memory.alias_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
    cycles=sum(step) if has_cycles else None,
    extra_cycles=sum(rest) if has_cycles else None,
    collectives=collectives,
    kernels=kernels,
    seconds=seconds,
  )


def describe(found: Compiled, target: targets.Target, plan: counting.Plan, share: float):
  """Yields what the compiler says of a run, a sentence each.

  Args:
    found: as from `compile_training`.
    target: what was compiled for.
    plan: of the same run.
    share: of the peak that the roofline's lower bound assumes.
  """
  machine, count = accelerators.ACCELERATORS[target.accelerator], len(target.devices)
  yield (
    f'Compiled for {target.name} ({count:,} {"devices" if count > 1 else "device"}) in '
    f'{format_duration(found.seconds)}: each device holds '
    f'{format_quantity(found.memory, "B")} of {format_quantity(machine.memory, "B")}, '
    f'{format_quantity(found.temporary, "B")} of it temporary.'
  )
  kinds = {kind: [b for k, b in found.collectives if k == kind] for kind in COLLECTIVES}
  between = [
    f'{len(sizes)} {kind}{"s" if len(sizes) > 1 else ""} of '
    f'{format_quantity(sum(sizes), "B")}'
    for kind, sizes in kinds.items()
    if sizes
  ]
  yield f'Between devices, in each step: {", ".join(between) or "nothing"}.'
  assumed = machine._replace(
    bfloat16=share * machine.bfloat16, float32=share * machine.float32
  )
  bound = roofline.step_seconds(plan, assumed, count)
  words = f'the lower bound of the roofline at {share:g} of peak is {roofline.say(bound)}.'
  if found.cycles is None:
    kernels = ', '.join(f'{number} {kind}' for kind, number in found.kernels.items())
    yield f'The program calls {kernels}; its compiler estimates no time, and {words}'
    return
  step = step_seconds(found, target)
  yield (
    f"A step takes {found.cycles / 1e6:,.3g} million cycles by the compiler's estimate, "
    f'with its all-reduces {roofline.say(step)} (an epoch '
    f'{roofline.say(plan.steps_per_epoch * step)}, '
    f'{plan.config.batch_size / step / count:,.0f} examples/s per device); {words}'
  )


def step_seconds(found: Compiled, target: targets.Target) -> float:
  """Seconds of a step on TPUs: the compiler's cycles, and all-reduces over the links."""
  machine, count = accelerators.ACCELERATORS[target.accelerator], len(target.devices)
  reduces = (
    roofline.all_reduce_seconds(machine, count, size)
    for kind, size in found.collectives
    if kind == 'all-reduce'
  )
  return found.cycles / targets.clock(target.accelerator) + sum(reduces)


def _bytes(text):
  """Bytes of all arrays in the text of an operation's result type."""
  sizes = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4}
  total = 0
  for dtype, dimensions in re.findall(r'\b([a-z]+\d*)\[([\d,]*)\]', text):
    if dtype in sizes:
      total += sizes[dtype] * int(np.prod([int(n) for n in dimensions.split(',') if n]))
  return total
