"""Checkpoints of a run's State, by Orbax, in the run's folder `checkpoints/`."""

import pathlib

import orbax.checkpoint as ocp
from absl import logging

KEPT = 2  # the newest, and one to fall back on when the newest is damaged


def open_manager(workdir):
  """The manager of a run's checkpoints; use it in a `with`, which waits for the last."""
  return ocp.CheckpointManager(
    pathlib.Path(workdir).absolute() / 'checkpoints',
    options=ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True),
  )


def save(manager, state):
  """Starts writing the state in the background; its step names the checkpoint."""
  step = int(state.step)
  if step not in manager.all_steps():
    manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))


def restore(manager, state):
  """The newest state that can be read, like `state` in shapes and sharding, or `state`.

  A checkpoint that cannot be read is renamed to STEP.damaged with a warning, so that the
  run can write that step again, and the one before it is tried.
  """
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      restored = manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(state))
      )
      return restored['state']
    except Exception as error:  # Orbax raises many kinds for the many kinds of damage.
      reason = ' '.join(str(error).split())[:120]
      folder = pathlib.Path(manager.directory) / str(step)
      aside = _unused(folder.with_name(f'{step}.damaged'))
      logging.warning(
        'Checkpoint %s cannot be read (%s: %s); it is kept as %s and the one before it '
        'is used.',
        *(folder, type(error).__name__, reason, aside.name),
      )
      folder.rename(aside)
      manager.reload()
  return state


def _unused(path):
  """The path itself, or with the first number behind it that is not taken."""
  candidates = (path.with_name(f'{path.name}{n}') for n in range(1, 10_000))
  return path if not path.exists() else next(c for c in candidates if not c.exists())
