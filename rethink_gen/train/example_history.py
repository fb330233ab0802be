"""The history of each training example: when it was fitted, how often it was forgotten.

Recorded if `config.record_examples` is set. FITTED holds one row of bits per epoch,
EXAMPLES the history that follows from them and each example's final evaluation.
"""

import io
import os
import pathlib

import numpy as np

from rethink_gen import files
from rethink_gen.errors import BadInput
from rethink_gen.train.evaluation import Examples

FITTED = 'fitted.npy'  # uint8 (epochs, ceil(n / 8)), packed bits: which examples were right
EXAMPLES = 'examples.npz'


def summarize(fitted: np.ndarray, last: Examples) -> dict[str, np.ndarray]:
  """{name: array (n,)}: the history of each example and its final evaluation.

  Args:
    fitted: bool (epochs, n), whether an example was classified correctly ("right") after
      each epoch.
    last: `evaluation.Examples` of the final state.

  Returns:
    first_fitted and last_fitted, int32: the first and the last epoch, counted from 1, after
    which the example was right without having been right one epoch earlier; 0: never.
    forgotten, float32: see `count_forgotten`. loss and margin, float32, and right, bool:
    from `last`.
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


def count_forgotten(first_fitted: np.ndarray, lost: np.ndarray) -> np.ndarray:
  """float32 (n,): how often each example was forgotten; infinity if it was never fitted.

  As in arXiv:1812.05159: an example is forgotten when it is wrong after being right one
  epoch earlier (definition 2.1), and one that was never right ranks as the most forgotten
  (section 3), although it was never lost.

  Args:
    first_fitted: int (n,), 0 if an example was never right.
    lost: (n,), how often an example was wrong after being right one epoch earlier.
  """
  return np.where(first_fitted > 0, lost, np.inf).astype(np.float32)


def write_fitted(workdir: str | os.PathLike, rows: list[np.ndarray]) -> None:
  """Writes the rows of packed bits, one uint8 (ceil(n / 8),) per epoch."""
  content = io.BytesIO()
  np.save(content, np.array(rows, np.uint8))
  files.write_bytes(pathlib.Path(workdir) / FITTED, content.getvalue())


def read_fitted(workdir: str | os.PathLike, epochs: int) -> list[np.ndarray]:
  """Reads the rows of packed bits of the first `epochs` epochs.

  Raises:
    BadInput: if the file does not hold that many.
  """
  if not epochs:
    return []
  try:
    rows = np.load(pathlib.Path(workdir) / FITTED)[:epochs]
  except (OSError, ValueError, EOFError):
    rows = []
  if len(rows) < epochs:
    raise BadInput(
      f'{workdir}/{FITTED} does not hold the {epochs} epochs this run has completed; '
      'choose another --workdir to train from the start.'
    )
  return list(rows)


def write(workdir: str | os.PathLike, rows: list[np.ndarray], last: Examples) -> None:
  """Writes the `summarize` of these rows of packed bits and the final evaluation."""
  count = len(last.right)
  fitted = np.unpackbits(np.array(rows, np.uint8), axis=1, count=count).astype(bool)
  content = io.BytesIO()
  np.savez(content, **summarize(fitted, last))  # type: ignore[arg-type]
  files.write_bytes(pathlib.Path(workdir) / EXAMPLES, content.getvalue())


def read(workdir: str | os.PathLike) -> dict[str, np.ndarray] | None:
  """Reads what `write` wrote, {name: array (n,)}; None if there is no file.

  Raises:
    BadInput: if the file is damaged.
  """
  path = pathlib.Path(workdir) / EXAMPLES
  if not path.exists():
    return None
  try:
    with np.load(path) as file:
      found = {name: file[name] for name in file}
    if len({array.shape for array in found.values()}) != 1:
      raise ValueError('its arrays differ in length')
    if {'first_fitted', 'forgotten'} <= found.keys():
      # Older files have 0 for examples that were never fitted.
      found['forgotten'] = count_forgotten(found['first_fitted'], found['forgotten'])
  except Exception as error:  # a damaged archive raises many types
    reason = ' '.join(str(error).split())[:100] or type(error).__name__
    raise BadInput(
      f'{path} is damaged ({reason}); copy the run again from where it was trained.'
    ) from error
  return found


def pack(right: np.typing.ArrayLike) -> np.ndarray:
  """Packs bool (n,) into bits, uint8 (ceil(n / 8),)."""
  return np.packbits(np.asarray(right))
