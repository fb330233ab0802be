"""What becomes of every training example: when it was fitted, how often it was forgotten.

Recorded where `config.record_examples` asks for it. FITTED holds a row of bits for each
epoch, EXAMPLES what they and the last evaluation say of each example.
"""

import io
import pathlib

import numpy as np

from rethink_gen import files
from rethink_gen.errors import BadInput

FITTED = 'fitted.npy'  # uint8 (epochs, ceil(n / 8)): bits, which examples were right
EXAMPLES = 'examples.npz'


def summarize(fitted, last):
  """{name: array (n,)}: the history of each example, and how it stands at the end.

  Args:
    fitted: bool (epochs, n), whether an example was right after each epoch.
    last: `evaluation.Examples` of the last state.

  Returns:
    first_fitted and last_fitted, int32: the epochs, from 1, after which it was right for
    the first time, and after which it was right for the last time without having been
    right an epoch before; 0: never. forgotten, float32: as `count_forgotten` gives it. loss
    and margin, float32, and right, bool: at the end.
  """
  before = np.zeros_like(fitted)
  before[1:] = fitted[:-1]
  learned = fitted & ~before
  ever, epochs = learned.any(0), len(fitted)
  first_fitted = np.where(ever, learned.argmax(0) + 1, 0).astype(np.int32)
  return {
    'first_fitted': first_fitted,
    'last_fitted': np.where(ever, epochs - learned[::-1].argmax(0), 0).astype(np.int32),
    'forgotten': count_forgotten(first_fitted, (~fitted & before).sum(0)),
    'loss': np.asarray(last.loss),
    'right': np.asarray(last.right),
    'margin': np.asarray(last.margin),
  }


def count_forgotten(first_fitted, lost):
  """float32 (n,): how often each example was forgotten; infinity if it was never fitted.

  As in arXiv:1812.05159: an example is forgotten where it is wrong after it had been right
  an epoch before (definition 2.1), and one that was never right ranks before all others
  (section 3), although it was never lost.

  Args:
    first_fitted: int (n,), 0 where an example was never right.
    lost: (n,), how often an example that had been right an epoch before was wrong.
  """
  return np.where(first_fitted > 0, lost, np.inf).astype(np.float32)


def write_fitted(workdir, rows):
  """Writes the rows of bits, one uint8 (ceil(n / 8),) an epoch."""
  content = io.BytesIO()
  np.save(content, np.array(rows, np.uint8))
  files.write_bytes(pathlib.Path(workdir) / FITTED, content.getvalue())


def read_fitted(workdir, epochs):
  """The rows of the first so many epochs.

  Raises:
    BadInput: where they are not there.
  """
  if not epochs:
    return []
  try:
    rows = np.load(pathlib.Path(workdir) / FITTED)[:epochs]
  except (OSError, ValueError, EOFError):
    rows = []
  if len(rows) < epochs:
    raise BadInput(
      f'{workdir}/{FITTED} does not hold the {epochs} epochs that are behind this run; '
      'choose another --workdir to train it from the start.'
    )
  return list(rows)


def write(workdir, rows, last):
  """Writes what `summarize` says of these rows of bits and the last evaluation."""
  count = len(last.right)
  fitted = np.unpackbits(np.array(rows, np.uint8), axis=1, count=count).astype(bool)
  content = io.BytesIO()
  np.savez(content, **summarize(fitted, last))
  files.write_bytes(pathlib.Path(workdir) / EXAMPLES, content.getvalue())


def read(workdir):
  """{name: array (n,)} as `summarize` gives it, or None where there is none.

  Raises:
    BadInput: where it is damaged.
  """
  path = pathlib.Path(workdir) / EXAMPLES
  if not path.exists():
    return None
  try:
    with np.load(path) as file:
      found = {name: file[name] for name in file}
    if len({array.shape for array in found.values()}) != 1:
      raise ValueError('its arrays are not of the same examples')
    if {'first_fitted', 'forgotten'} <= found.keys():
      # Older files have 0 for examples that were never fitted.
      found['forgotten'] = count_forgotten(found['first_fitted'], found['forgotten'])
  except Exception as error:  # of many kinds, from an archive that is damaged
    reason = ' '.join(str(error).split())[:100] or type(error).__name__
    raise BadInput(
      f'{path} is damaged ({reason}); copy the run anew from where it ran.'
    ) from error
  return found


def pack(right):
  """uint8 (ceil(n / 8),) of bool (n,)."""
  return np.packbits(np.asarray(right))
