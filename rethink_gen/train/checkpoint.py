"""Checkpoints of a run's TrainState, kept by Orbax in `checkpoints/` of its folder."""

import contextlib
import functools
import hashlib
import itertools
import logging as standard_logging
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from rethink_gen.errors import BadInput
from rethink_gen.train import multihost
from rethink_gen.train.sgd import TrainState

KEPT = 2  # the newest, and one to fall back on when the newest is damaged


class _Folder(type(epath.Path())):  # type: ignore[misc]
  """A path with [, * and ? taken literally; etils's `glob` would expand them."""

  def glob(self, pattern):
    return map(type(self), pathlib.Path(self).glob(pattern))


def _folder(workdir):
  return _Folder(pathlib.Path(workdir).absolute() / 'checkpoints')


def check_folder(workdir: pathlib.Path) -> None:
  """Raises BadInput if Orbax or TensorStore would misread the path."""
  for part in workdir.parts:
    if os.fsencode(part) != part.encode(errors='surrogatepass'):
      reason = f'{part!r} in its path is not UTF-8, or the locale is not'
    # Orbax turns every 'gs:/' into 'gs://', and TensorStore every backslash into '/'.
    elif '\\' in part or part.endswith('gs:'):
      reason = f'Orbax cannot read {part!r} in its path'
    else:
      continue
    break
  else:
    if os.fspath(_Folder(workdir)) == str(workdir):
      return
    reason = f'Orbax mistakes /{workdir.parts[1]} for an object store'
  raise BadInput(
    f'The folder {workdir} cannot hold checkpoints because {reason}; choose another '
    '--workdir.'
  )


@contextlib.contextmanager
def open_manager(workdir: str | os.PathLike) -> Iterator[ocp.CheckpointManager]:
  """Yields a run's checkpoint manager; leaving the `with` waits for the last save.

  Raises:
    OSError: from a later `save` or on leaving the `with`, if a checkpoint cannot be
      written, for example because the disk is full.
  """
  folder = _folder(workdir)
  options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True)
  _quiet_orbax()
  with _with_os_errors(folder):
    with ocp.CheckpointManager(folder, options=options) as manager:
      yield manager


@functools.cache
def _quiet_orbax():
  """Hides the tracebacks that Orbax's threads print for errors it also raises.

  Permanently, since the last ones are printed when the program exits.
  """
  before = sys.unraisablehook

  def print_unraisable(unraisable):
    # Raised for arrays still being written when the first one failed: TensorStore calls
    # back into an event loop that Orbax has already closed.
    if str(unraisable.exc_value) != 'Event loop is closed':
      before(unraisable)

  def is_not_of_orbax(record):
    if record.name == 'asyncio':
      return 'exception was never retrieved' not in record.getMessage()
    return f'{os.sep}orbax{os.sep}' not in record.pathname

  sys.unraisablehook = print_unraisable
  warnings.filterwarnings('ignore', "coroutine 'async_serialize", RuntimeWarning)
  for logger in (logging.get_absl_logger(), standard_logging.getLogger('asyncio')):
    logger.addFilter(is_not_of_orbax)


@contextlib.contextmanager
def _with_os_errors(folder):
  """Converts the ValueError that TensorStore raises for a failed system call to OSError."""
  try:
    yield
  except ValueError as error:
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if not number:
      raise
    reason = os.strerror(int(number[1]))
    raise OSError(int(number[1]), reason, str(folder)) from error


def save(manager: ocp.CheckpointManager, state: TrainState) -> None:
  """Starts saving the state in the background, in a checkpoint named after its step."""
  step = int(state.step)
  if step not in manager.all_steps():
    items = {
      'state': ocp.args.StandardSave(state),
      'digest': ocp.args.JsonSave({'blake2b': _digest(state)}),
    }
    manager.save(step, args=ocp.args.Composite(**items))


def _digest(state):
  """A digest of the arrays' bytes; Orbax does not detect bit flips in most arrays."""
  digest = hashlib.blake2b(digest_size=16)
  for leaf in jax.tree.leaves(jax.device_get(state)):
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()


def restore(manager: ocp.CheckpointManager, state: TrainState) -> TrainState:
  """Restores the newest readable checkpoint; returns `state` if there is none.

  `state` determines shapes and sharding. An unreadable checkpoint is renamed to
  STEP.damaged with a warning, so that the run can save that step again, and the one before
  it is tried.
  """
  for step in sorted(manager.all_steps(), reverse=True):
    found, reason = _attempt(lambda step=step: _restore(manager, step, state))
    reasons = multihost.exchange(reason)
    if not any(reasons):
      return found
    multihost.on_primary(functools.partial(_put_aside, manager, step, max(reasons)))
    manager.reload()
  return state


def _restore(manager, step, state):
  items = {'state': ocp.args.StandardRestore(state), 'digest': ocp.args.JsonRestore()}
  found = manager.restore(step, args=ocp.args.Composite(**items))
  if found['digest']['blake2b'] != _digest(found['state']):
    raise ValueError('its arrays differ from those that were saved')
  return found['state']


def _attempt(read):
  """Returns (read(), ''), or (None, why the checkpoint cannot be read)."""
  try:
    return read(), ''
  except (MemoryError, PermissionError):
    raise
  except Exception as error:  # Which type Orbax raises depends on the damage.
    return None, f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'


def read_newest(workdir: str | os.PathLike, complete: Callable) -> TrainState | None:
  """Reads the newest readable state, on any machine and without writing anything.

  An unreadable checkpoint is left in place, with a warning, and the one before it is tried.
  The run may still be training meanwhile, and delete old checkpoints.

  Args:
    workdir: the folder of a run.
    complete: turns {field: nested dicts of jax.ShapeDtypeStruct} into a state to restore;
      Orbax stores the shapes but not the container types.

  Returns:
    The state with NumPy arrays, or None if there is no checkpoint.

  Raises:
    BadInput: if there are checkpoints but none can be read.
  """
  folder = _folder(workdir)
  options = ocp.CheckpointManagerOptions(
    read_only=True, create=False, save_interval_steps=0
  )
  handlers = {
    'state': ocp.StandardCheckpointHandler(),
    'digest': ocp.JsonCheckpointHandler(),
  }
  _quiet_orbax()
  damaged, tried = {}, set()
  with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
    while left := set(manager.all_steps()) - tried:
      step = max(left)
      found, reason = _attempt(lambda step=step: _read(manager, step, complete))
      if not reason:
        return found
      if (folder / str(step)).exists():
        damaged[step] = reason
        logging.warning('Checkpoint %s cannot be read (%s).', folder / str(step), reason)
      tried.add(step)
      manager.reload()
  if damaged:
    raise BadInput(
      f'No checkpoint in {folder} can be read (step {max(damaged)}: '
      f'{damaged[max(damaged)]}); copy the folder again, or resume the run, which then '
      'starts from the beginning.'
    )
  return None


def _read(manager, step, complete):
  tree = manager.item_metadata(step)['state'].tree
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
  # With NumPy arrays as the target, Orbax does not require the devices that saved them.
  state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), complete(shapes))
  return _restore(manager, step, state)


def _put_aside(manager, step, reason):
  folder = pathlib.Path(manager.directory) / str(step)
  aside = _unused(folder.with_name(f'{step}.damaged'))
  logging.warning(
    'Checkpoint %s cannot be read (%s); it is kept as %s and the one before it is used.',
    *(folder, reason, aside.name),
  )
  folder.rename(aside)


def _unused(path):
  """The path itself, or with the first unused number appended."""
  numbered = (path.with_name(f'{path.name}{n}') for n in itertools.count(1))
  return next(p for p in itertools.chain([path], numbered) if not p.exists())
