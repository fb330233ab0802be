"""Arrays of any shape as a Dataset, and its randomization before training.

The random bits are those that `corruption` gives each example, so images come out as they
do in the package's own runs.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from absl import logging
from jax import dtypes

from rethink_gen import errors
from rethink_gen.data import corruption, sources
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity

HELD_OUT = 0.2  # of the training examples, if there is no test set
# {how random labels are drawn: mode of the Setup that replaces labels}
LABELS = {'uniform': 'partial_labels', 'shuffled': 'shuffled_labels'}
LOST = 0.01  # rounding error, as a fraction of a feature's range, above which to warn


class Setup(NamedTuple):
  """What is done to the data before training."""

  name: str  # also of its folder
  mode: str  # a key of corruption.CORRUPTIONS, or shuffled_labels, or random_signs
  label_noise: float  # the probability that a label is replaced by a random one


def make_dataset(
  x_train: np.typing.ArrayLike,
  y_train: np.typing.ArrayLike,
  x_test: np.typing.ArrayLike | None,
  y_test: np.typing.ArrayLike | None,
) -> tuple[sources.Dataset, bool]:
  """(Dataset with inputs of any shape, whether its test set was held out).

  Inputs and training labels keep their dtype, except that training and test inputs of
  different dtypes both get the wider one.
  """
  held_out = x_test is None and y_test is None
  if not held_out and (x_test is None or y_test is None):
    raise BadInput('Only one of x_test and y_test is given; give both, or neither.')
  x, y = _inputs('x_train', x_train), _labels('y_train', y_train)
  _check_lengths('train', x, y)
  classes = np.unique(y)
  if len(classes) < 2:
    raise BadInput(
      f'All labels in y_train are {classes[0]}, but there must be at least two classes.'
    )
  if classes[0] != 0 or classes[-1] != len(classes) - 1:
    raise BadInput(
      f'The labels range from {classes[0]} to {classes[-1]} and y_train has {len(classes)} '
      'classes, but the classes must be 0, 1, ..., each with a training example; '
      'numpy.unique(labels, return_inverse=True) numbers them that way.'
    )
  if held_out:
    train, test = hold_out(y)
    x, x_test, y, y_test = x[train], x[test], y[train], y[test]
  x_test, y_test = _inputs('x_test', x_test), _labels('y_test', y_test)
  _check_lengths('test', x_test, y_test)
  x, x_test = _same_type(x, x_test)
  if unknown := sorted({*np.unique(y_test).tolist()} - {*classes.tolist()}):
    raise BadInput(
      f'y_test has the labels {_listed(unknown)}, which y_train lacks; leave these test '
      'examples out, or give training examples of their classes.'
    )
  return sources.Dataset(x, y, x_test, y_test.astype(np.int32), len(classes)), held_out


def hold_out(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(training, test) indices, with a fifth drawn at random for the test set.

  Examples of a class that would have no training example stay in the training set.
  """
  if len(labels) < 10:
    raise BadInput(f'There are {len(labels)} examples and no test set; give 10 or more.')
  from sklearn import model_selection  # slow to import

  train, test = model_selection.train_test_split(
    np.arange(len(labels)), test_size=HELD_OUT, random_state=0
  )
  alone = ~np.isin(labels[test], labels[train])
  train, test = np.concatenate([train, test[alone]]), test[~alone]
  if not len(test):
    raise BadInput(
      'No test set is given, and none can be held out because nearly every example is the '
      'only one of its class; give x_test and y_test.'
    )
  return train, test


def _array(name, value) -> np.ndarray:
  """The user's value as a NumPy array; raises BadInput if it cannot be one."""
  if hasattr(value, 'toarray'):  # from SciPy, which np.asarray treats as a single object
    raise BadInput(f'{name} is a sparse matrix; give {name}.toarray().')
  if np.ma.is_masked(value):
    raise BadInput(
      f'{name} has masked values, which would be used as if they were not masked; fill '
      'them or leave these examples out.'
    )
  try:
    array = np.asarray(value)
  except Exception as error:  # A user's __array__ can raise anything.
    raise BadInput(
      f'{name} cannot be made a NumPy array ({type(error).__name__}: '
      f'{errors.reason(error)}); give numbers in rows of equal length, and convert a '
      'tensor to an array first, such as tensor.detach().cpu().float().numpy().'
    ) from error
  # NumPy knows only the size of types such as bfloat16.
  if array.dtype.kind == 'V' and dtypes.issubdtype(array.dtype, np.number):
    is_float = dtypes.issubdtype(array.dtype, np.floating)
    array = array.astype(np.float32 if is_float else np.int32)
  return array


def _inputs(name, value) -> np.ndarray:
  array = _array(name, value)
  if array.dtype.kind not in 'biuf' or array.ndim < 2:
    raise BadInput(
      f'{name} is {array.dtype} of shape {array.shape}, but it must be numbers of shape '
      '(n, ...), with examples along the first axis.'
    )
  if not array.size:
    raise BadInput(f'{name} is empty, of shape {array.shape}; give at least one example.')
  if not np.isfinite(array).all():
    bad = int((~np.isfinite(array)).reshape(len(array), -1).any(1).sum())
    raise BadInput(
      f'{name} has NaN or infinite values in {bad:,} examples; replace or leave them out.'
    )
  return array


def _labels(name, value) -> np.ndarray:
  array = _array(name, value)
  if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
    raise BadInput(
      f'{name} is {array.dtype} of shape {array.shape}, but labels must be integers of '
      'shape (n,).'
    )
  return array.astype(np.int64) if array.dtype == np.uint64 else array


def _same_type(x, x_test) -> tuple[np.ndarray, np.ndarray]:
  """Both inputs in a common dtype; raises BadInput if their kinds or shapes differ."""
  common = np.result_type(x, x_test)
  kinds = {_kind(array.dtype) for array in (x, x_test)}
  if x.shape[1:] != x_test.shape[1:] or kinds != {_kind(common)}:
    raise BadInput(
      f'x_train is {x.dtype} of shape {x.shape} and x_test {x_test.dtype} of shape '
      f'{x_test.shape}, but they may differ only in length.'
    )
  return x.astype(common, copy=False), x_test.astype(common, copy=False)


def _kind(dtype):
  """What inputs of this dtype are: images, tokens or numbers."""
  if dtype == np.uint8:
    return 'images'
  return 'tokens' if dtype.kind in 'iu' else 'numbers'


def _listed(values, most=5):
  return ', '.join(map(str, values[:most])) + (', ...' if len(values) > most else '')


def for_network(dataset: sources.Dataset) -> sources.Dataset:
  """The Dataset in the dtypes that networks take: uint8, float32, or int32 for integers.

  Raises:
    BadInput: for numbers beyond the range of that dtype.
  """
  train, test = (
    _for_network(f'x_{split}', array)
    for split, array in (('train', dataset.x_train), ('test', dataset.x_test))
  )
  return dataset._replace(
    x_train=train, x_test=test, y_train=dataset.y_train.astype(np.int32)
  )


def _for_network(name, x):
  kind = _kind(x.dtype)
  if kind == 'images':
    return x
  if kind == 'tokens':
    limits = np.iinfo(np.int32)
    if x.min() < limits.min or x.max() > limits.max:
      raise BadInput(
        f'{name} has integers from {x.min()} to {x.max()}, but a network takes int32, up '
        f'to {limits.max}; number the tokens from 0, or give floats.'
      )
    return x.astype(np.int32)
  with np.errstate(over='ignore'):
    found = x.astype(np.float32)
  if not np.isfinite(found).all():
    raise BadInput(
      f'{name} has values up to {np.abs(x).max():.3g}, but a network takes float32, up to '
      f'{np.finfo(np.float32).max:.3g}; scale the inputs.'
    )
  spread = np.ptp(x, 0) if x.dtype.kind == 'f' else np.zeros(1)
  # A feature that is constant up to rounding loses nothing.
  varies = spread > 1e-12 * np.abs(x).max(0)
  lost = np.abs(x - found).max(0) > LOST * spread if varies.any() else varies
  if count := int((lost & varies).sum()):
    logging.warning(
      '%s loses precision in %d of its features when converted to float32 for networks: '
      'their rounding errors are large compared with their range; subtract their means.',
      *(name, count),
    )
  return found


def _check_lengths(split, x, y):
  if len(x) != len(y):
    raise BadInput(
      f'x_{split} has {len(x):,} examples and y_{split} {len(y):,} labels, but there must '
      'be one label per example.'
    )


def make_setups(
  noise_levels: Iterable[float], x: np.ndarray, random_labels: str = 'uniform'
) -> list[Setup]:
  """The Setups: labels from none to all random, randomized inputs, random signs."""
  if random_labels not in LABELS:
    raise BadInput(
      f'random_labels is {random_labels!r}, but it must be one of {", ".join(LABELS)}.'
    )
  try:
    levels = sorted({0.0, 1.0, *(round(float(level), 6) for level in noise_levels)})
  except (TypeError, ValueError):
    levels = [-1]
  if not all(0 <= level <= 1 for level in levels):
    raise BadInput(
      f'noise_levels is {noise_levels!r}, but it must be probabilities from 0 to 1.'
    )
  of_images = {m: kind for m, kind in corruption.CORRUPTIONS.items() if kind.images}
  if _kind(x.dtype) == 'tokens':
    of_images = {mode: kind for mode, kind in of_images.items() if not kind.dtype}
  if x[0].size < 2:  # nothing to permute
    of_images = {mode: kind for mode, kind in of_images.items() if kind.dtype}
  return [
    *(Setup(f'label_noise_{level:g}', LABELS[random_labels], level) for level in levels),
    *(Setup(mode, mode, 0.0) for mode in of_images),
    Setup('random_signs', 'random_signs', 1.0),
  ]


def changes_inputs(mode: str) -> bool:
  """Whether a mode randomizes inputs rather than labels."""
  return mode in corruption.CORRUPTIONS and bool(corruption.CORRUPTIONS[mode].images)


def randomize(dataset: sources.Dataset, setup: Setup, seed: int) -> sources.Dataset:
  """The Dataset of a setup, using the random bits that `corruption` gives each example.

  Inputs and labels keep their dtypes, except that Gaussian inputs are floating point.
  """
  if setup.mode == 'random_signs':
    # Two of the classes represent the signs; the test labels are then meaningless.
    signs = signs_of(dataset, seed) > 0
    return dataset._replace(y_train=signs.astype(dataset.y_train.dtype))
  if setup.mode == 'partial_labels':
    changed = corruption.corrupt(dataset, setup.mode, seed, setup.label_noise)
    return changed._replace(y_train=changed.y_train.astype(dataset.y_train.dtype))
  if setup.mode == 'shuffled_labels':
    return dataset._replace(
      y_train=shuffled_labels(dataset.y_train, setup.label_noise, seed)
    )
  if has_channels_first(dataset.x_train):
    return _move(randomize(_move(dataset, 1, -1), setup, seed), -1, 1)
  as_images, shape = layout(dataset.x_train, setup.mode), dataset.x_train.shape[1:]
  flat = dataset._replace(
    x_train=dataset.x_train.reshape(-1, *as_images),
    x_test=dataset.x_test.reshape(-1, *as_images),
  )
  changed = corruption.corrupt(flat, setup.mode, seed)
  return changed._replace(
    x_train=changed.x_train.reshape(-1, *shape), x_test=changed.x_test.reshape(-1, *shape)
  )


def shuffled_labels(labels: np.ndarray, label_noise: float, seed: int) -> np.ndarray:
  """int32 (n,): each label replaced by another example's with probability `label_noise`.

  At a noise of 1 the labels are permuted, so class frequencies do not change. The replaced
  labels are those that `corruption.noisy_labels` replaces, and as there, each is replaced
  in the same way at every higher noise level.
  """
  bits = corruption.random_bits(seed, corruption.LABELS, 0, len(labels), 2)
  replaced = bits[:, 0] * 2.0**-64 < label_noise
  return np.where(replaced, labels[np.argsort(bits[:, 1])], labels)


def has_channels_first(x: np.ndarray) -> bool:
  """Whether inputs look like images (n, c, h, w) or volumes, with few channels first."""
  return x.ndim >= 4 and x.shape[1] <= 4 < min(x.shape[2:])


def _move(dataset, source, destination):
  moved = (
    np.ascontiguousarray(np.moveaxis(x, source, destination))
    for x in (dataset.x_train, dataset.x_test)
  )
  return dataset._replace(**dict(zip(('x_train', 'x_test'), moved, strict=True)))


def layout(x: np.ndarray, mode: str) -> tuple[int, int, int]:
  """(positions, 1, channels): the shape of inputs as images, as `corruption` takes them.

  For images with channels first, the shape is that after moving the channels last.
  """
  size = math.prod(x.shape[1:])
  if x.ndim == 2:
    own_dtype = corruption.CORRUPTIONS[mode].dtype
    return (1, 1, size) if own_dtype else (size, 1, 1)
  if x.ndim == 3 and x.dtype == np.uint8:
    return size, 1, 1
  channels = x.shape[1 if has_channels_first(x) else -1]
  return size // channels, 1, channels


def warn_of_layout(x: np.ndarray) -> None:
  """Warns how inputs are interpreted if their shape is ambiguous."""
  shape = ' x '.join(map(str, x.shape[1:]))
  if has_channels_first(x):
    logging.warning(
      'Inputs of %s are treated as images with %d channels first; with channels last, the '
      'shape is (n, h, w, c).',
      *(shape, x.shape[1]),
    )
  elif x.ndim == 3 and x.shape[1] == x.shape[2] and x.dtype != np.uint8:
    logging.warning(
      'Inputs of %s that are not uint8 are treated as sequences of %d steps, each of %d '
      'numbers that are permuted together; if they are images, use (n, %d, %d, 1).',
      *(shape, *x.shape[1:], *x.shape[1:]),
    )


def signs_of(dataset: sources.Dataset, seed: int) -> np.ndarray:
  """int8 (n,): one draw of random signs."""
  return complexity.random_signs(1, dataset.num_train, seed)[0]
