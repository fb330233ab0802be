"""Many runs in one compiled program: `train.run` for all of them at once.

The runs share a model and images, and differ in labels, seed, Rates and stopping point:
the noise levels of a figure, the seeds of a row, the learning rates of a sweep. Their
states are stacked along a first axis, which the compiled epoch is vmapped over and which is
sharded over the devices: each device has whole runs, so no communication is needed. Every
run keeps its own loop, `loop.fit`, and with it its own folder, records, checkpoints and
stopping.

It pays off when one run leaves the machine idle: small networks on an accelerator.
"""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import files, paths, sharding
from rethink_gen.data import corruption
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.progress import progress_bar
from rethink_gen.train import compiled as compiled_lib
from rethink_gen.train import evaluation, loading, optimizers, sgd, signals, workdirs
from rethink_gen.train import loop as loop_lib
from rethink_gen.train import summaries as summaries_lib

# Fields in which runs of one program may differ, if corruption leaves the images unchanged.
FREE = (
  *('seed', 'corruption.mode', 'corruption.label_noise', 'corruption.seed'),
  *('optimizer.learning_rate', 'regularization.weight_decay', 'num_epochs'),
  *('stop_at_train_accuracy', 'eval_every', 'checkpoint_every', 'record_examples'),
)
WHOLE, PARTS = PartitionSpec(), PartitionSpec('data')
# The sharding of a stacked TrainState: runs are spread over devices, their common step is
# replicated.
LAYOUT = sgd.TrainState._make([WHOLE, *5 * [PARTS]])


def run(configs: dict, progress: Callable = progress_bar) -> dict[pathlib.Path, dict]:
  """Trains runs together, each with the result of `train.run` up to rounding.

  Args:
    configs: {folder: ConfigDict}, equal except in the fields of FREE.
    progress: as for `train.run`.

  Returns:
    {folder: summary}; complete runs are not repeated. `seconds` in a summary is the time
    all runs together had taken by then, and `runs_at_once` is their number.

  Raises:
    BadInput: for what `train.run` rejects, and for runs that cannot share a program.
    train.Interrupted, OSError: as from `train.run`; all runs resume from what was saved.
  """
  started = time.monotonic()
  configs = {
    pathlib.Path(paths.local(folder)).absolute(): each for folder, each in configs.items()
  }
  check_configs(configs)
  summaries = {
    folder: workdirs.read_summary(config, folder) for folder, config in configs.items()
  }
  left = {folder: configs[folder] for folder in configs if not summaries[folder]}
  if not left:
    return summaries
  original = loading.load_original(next(iter(left.values())))
  data = {folder: loading.corrupt(config, original) for folder, config in left.items()}
  with contextlib.ExitStack() as stack:
    for folder, config in left.items():
      workdirs.occupy(config, folder, stack)
    datasets = {folder: dataset for folder, (dataset, _) in data.items()}
    for folder, outcome in learn(left, datasets, started, progress):
      dataset, labels_changed = data[folder]
      summary = summaries_lib.summarize(left[folder], dataset, labels_changed, *outcome)
      summaries[folder] = summary | {'runs_at_once': len(left)}
      files.write_json(folder / 'summary.json', summaries[folder])
  return summaries


def check_configs(configs: dict[pathlib.Path, config_dict.ConfigDict]) -> None:
  """Raises BadInput unless these runs can share a program."""
  first = None
  for folder, config in configs.items():
    config_lib.validate(config)
    if obstacle(config):
      raise BadInput(
        f'The run in {folder} cannot train together with others because '
        f'{obstacle(config)}; train it on its own.'
      )
    first = first or shared(config)
    for field, value in shared(config).items():
      if first[field] != value:
        raise BadInput(
          f'The run in {folder} cannot train together with the first because config.'
          f'{field} is {value!r} here and {first[field]!r} there; runs may differ in '
          f'{", ".join(FREE)}, and in the corruption only if it leaves the images alone.'
        )


def obstacle(config: config_dict.ConfigDict) -> str | None:
  """Why a run cannot share a program with others, or None."""
  if jax.process_count() > 1:
    return 'there are several processes'
  for field in ('dataset.streaming', 'dataset.shard_rows', 'model.batch_norm_per_device'):
    if config_lib.flatten(config)[field]:
      return f'config.{field} is set'
  return None


def shared(config: config_dict.ConfigDict) -> dict[str, Any]:
  """{field: value} for everything that runs of one program must have in common."""
  fields = config_lib.flatten(config)
  of_labels = not corruption.CORRUPTIONS[config.corruption.mode].images
  images = {
    'corruption.mode': 'of labels' if of_labels else config.corruption.mode,
    'corruption.seed': 'any' if of_labels else config.corruption.seed,
  }
  return {f: value for f, value in fields.items() if f not in FREE} | images


def learn(
  configs: dict[pathlib.Path, config_dict.ConfigDict],
  datasets: dict[pathlib.Path, Dataset],
  started: float,
  progress: Callable,
) -> Iterator[tuple[pathlib.Path, tuple[sgd.TrainState, list[dict], str]]]:
  """Yields (folder, (state, records, stopped_by)) for each run as it ends.

  Answers the requests of all loops, round after round. Runs at the lowest step go first, so
  runs that a kill left at different steps are soon in step again.

  Args:
    configs, datasets: {folder: ConfigDict}, and {folder: Dataset} with the same images.
    started, progress: as for `loop.fit`.

  Raises:
    train.Interrupted: after a signal, with the state of every run saved.
  """
  config, dataset = next(iter(configs.values())), next(iter(datasets.values()))
  program = compiled_lib.make_program(config, dataset)
  initialize, *_ = compiled_lib.compile_program(program)
  compiled = compile_stack(program)
  everywhere = NamedSharding(sharding.mesh(), WHOLE)
  rows = [x.reshape(len(x), -1) for x in (dataset.x_train, dataset.x_test)]
  images = jax.device_put(rows, everywhere)
  last_step = max(each.num_epochs for each in configs.values()) * program.steps_per_epoch
  stack, interrupted = None, None
  with contextlib.ExitStack() as exits:
    exits.enter_context(compiled_lib.matmul_precision(config))
    received = exits.enter_context(signals.stop_signals())
    update, say = exits.enter_context(progress(last_step, 0))
    loops = {}
    for folder, each in configs.items():
      state = initialize(jax.random.key(each.seed))
      loop = loop_lib.fit(each, state, folder, started, lines(say, folder), received)
      loops[folder] = exits.enter_context(contextlib.closing(loop))
    requests = {folder: next(loop) for folder, loop in loops.items()}
    while requests:
      stack = assemble(stack, requests, configs, datasets)
      stack, answers = answer(stack, requests, compiled, images)
      description = f'{len(stack.members)} of {len(configs)} runs'
      update(int(stack.state.step), description, *loop_lib.running(config, stack.state))
      for folder, given in answers.items():
        try:
          requests[folder] = loops[folder].send(given)
        except StopIteration as end:
          del requests[folder]
          yield folder, end.value
        except signals.Interrupted as error:
          del requests[folder]
          interrupted = error
  if interrupted:
    raise interrupted


class Stack(NamedTuple):
  """The runs at one step, stacked along the first axis of everything but that step.

  If they are fewer than the stack's size, copies of the first one fill it up.
  """

  members: list[pathlib.Path]  # their folders
  state: sgd.TrainState
  keys: jax.Array  # (size,)
  rates: optimizers.Rates  # float32 (size,)
  train_labels: jax.Array  # int32 (size, n)
  test_labels: jax.Array


def assemble(
  stack: Stack | None,
  requests: dict[pathlib.Path, loop_lib.Request],
  configs: dict[pathlib.Path, config_dict.ConfigDict],
  datasets: dict[pathlib.Path, Dataset],
) -> Stack:
  """Stacks the runs at the lowest step, reusing `stack` if its members have not changed.

  When some have left it, the others continue in a stack of the same size, whose program is
  already compiled, until they fill only half of it.
  """
  step = min(int(request.state.step) for request in requests.values())
  members = [f for f, request in requests.items() if int(request.state.step) == step]
  if stack and stack.members == members:
    return stack
  size = len(stack.keys) if stack else 0
  if not len(members) <= size < 2 * len(members):
    size = -(-len(members) // jax.device_count()) * jax.device_count()
  rows = members + members[:1] * (size - len(members))
  rates = np.array([optimizers.rates(configs[folder]) for folder in rows], np.float32)
  arrays = (
    jnp.stack([jax.random.key(configs[folder].seed) for folder in rows]),
    optimizers.Rates(*rates.T),
    np.stack([datasets[folder].y_train for folder in rows]),
    np.stack([datasets[folder].y_test for folder in rows]),
  )
  spread = NamedSharding(sharding.mesh(), PARTS)
  state = stack_states([requests[folder].state for folder in rows])
  return Stack(members, state, *jax.device_put(arrays, spread))


def answer(
  stack: Stack,
  requests: dict[pathlib.Path, loop_lib.Request],
  compiled: 'Compiled',
  images: list[jax.Array],
) -> tuple[Stack, dict[pathlib.Path, Any]]:
  """(Stack, {folder: answer}): evaluations for the runs that request one, else steps."""
  folders = stack.members
  tasks = {folder: requests[folder].task for folder in folders}
  if set(tasks.values()) != {'train'}:
    task = 'evaluate' if 'evaluate' in tasks.values() else 'examine'
    look = evaluate if task == 'evaluate' else examine
    found = look(compiled, stack, images)
    each = {f: own for f, own in zip(folders, found, strict=False) if tasks[f] == task}
    return stack, each
  step = int(stack.state.step)
  ahead = [int(r.state.step) for folder, r in requests.items() if folder not in folders]
  stop = min(ahead + [requests[folder].stop for folder in folders])
  labels = stack.train_labels
  state = compiled.epoch(stack.state, stop, images[0], labels, stack.keys, stack.rates)
  # If some request no step, only compilation, the requests of the others stay open.
  answers = {
    folder: one
    for folder, one in zip(folders, unstack_states(state), strict=False)
    if stop > step or requests[folder].stop == step
  }
  return stack._replace(state=state), answers


def evaluate(
  compiled: 'Compiled', stack: Stack, images: list[jax.Array]
) -> list[dict[str, float]]:
  """Evaluates each run of a stack."""
  totals = jax.device_get(
    [
      compiled.evaluate(stack.state, images[0], stack.train_labels),
      compiled.evaluate(stack.state, images[1], stack.test_labels),
    ]
  )
  return [
    compiled_lib.measures(
      *jax.tree.map(lambda x, run=run: x[run], totals), *map(len, images)
    )
    for run in range(len(stack.keys))
  ]


def examine(
  compiled: 'Compiled', stack: Stack, images: list[jax.Array]
) -> list[evaluation.Examples]:
  """The `evaluation.Examples` of each run of a stack."""
  found = compiled.examine(stack.state, images[0], stack.train_labels)
  return [evaluation.Examples(*own) for own in zip(*jax.device_get(found), strict=True)]


class Compiled(NamedTuple):
  """The functions of `compiled.compile_program` for a stacked TrainState of r runs.

  epoch(state, stop, images, labels (r, n), keys (r,), rates of (r,)) -> stacked TrainState;
  evaluate(state, images, labels (r, n)) -> `evaluation.Totals` of (r,) and (r, units);
  examine, with the same arguments, -> `evaluation.Examples` of (r, n).
  """

  epoch: jax.stages.Wrapped
  evaluate: jax.stages.Wrapped
  examine: jax.stages.Wrapped


@functools.lru_cache(maxsize=4)
def compile_stack(program: compiled_lib.Program) -> Compiled:
  """Compiles a Program for stacked runs."""
  model, make_tx, batch_size = program.model, program.make_tx, program.batch_size
  to_inputs = compiled_lib.from_rows(program)
  epoch = sgd.epoch_function(model, make_tx, to_inputs, batch_size, None)
  look = evaluation.examine_function(model, to_inputs, compiled_lib.EVALUATION_BATCH, None)
  # The axis of the runs, which share their step.
  runs = sgd.TrainState._make([None, *5 * [0]])
  epochs = jax.vmap(epoch, (runs, None, None, 0, 0, 0), runs)
  examinations = jax.vmap(lambda *arguments: look(*arguments)[0], (runs, None, 0))
  evaluations = jax.vmap(
    lambda *arguments: evaluation.totals(*look(*arguments)), (runs, None, 0)
  )
  spread = functools.partial(jax.shard_map, mesh=sharding.mesh(), check_vma=False)
  epochs = spread(
    epochs, in_specs=(LAYOUT, WHOLE, WHOLE, PARTS, PARTS, PARTS), out_specs=LAYOUT
  )
  evaluations, examinations = (
    spread(function, in_specs=(LAYOUT, WHOLE, PARTS), out_specs=PARTS)
    for function in (evaluations, examinations)
  )
  return Compiled(
    jax.jit(epochs, donate_argnums=0), jax.jit(evaluations), jax.jit(examinations)
  )


def stack_states(states: list[sgd.TrainState]) -> sgd.TrainState:
  """Stacks several TrainStates at the same step."""
  layout = jax.tree.map(lambda spec: NamedSharding(sharding.mesh(), spec), LAYOUT)
  return _stack_states(layout)(states)


@functools.lru_cache(maxsize=1)
def _stack_states(layout):
  def stack(states):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return stacked._replace(step=states[0].step)

  return jax.jit(stack, out_shardings=layout)


def unstack_states(state: sgd.TrainState) -> list[sgd.TrainState]:
  """Splits a stacked TrainState into one per run."""
  return _unstack_states(NamedSharding(sharding.mesh(), WHOLE))(state)


@functools.lru_cache(maxsize=1)
def _unstack_states(everywhere):
  def unstack(state):
    stacked = state._replace(step=jnp.broadcast_to(state.step, len(state.losses)))
    leaves, structure = jax.tree.flatten(stacked)
    return [structure.unflatten(own) for own in zip(*leaves, strict=True)]

  return jax.jit(unstack, out_shardings=everywhere)


def lines(say: Callable, folder: pathlib.Path) -> Callable:
  """Progress of one of many runs: its lines, prefixed with its name."""

  @contextlib.contextmanager
  def progress(*_):
    yield (lambda *_: None), lambda line, step=None: say(f'{folder.name}  {line}', step)

  return progress
