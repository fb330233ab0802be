"""Arrays of any shape as a Dataset, and all that is done to it before training.

The bits are those that `corruption` gives each example, so images come out as they do for
the package's own runs.
"""

import math
from typing import NamedTuple

import numpy as np
from absl import logging
from jax import dtypes

from rethink_gen.data import corruption, sources
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity

HELD_OUT = 0.2  # of the training examples, where there is no test set
# How random labels are drawn: the mode of a Setup that replaces labels.
LABELS = {'uniform': 'partial_labels', 'shuffled': 'shuffled_labels'}
LOST = 0.01  # of a feature's range, a rounding error from which a warning is due


class Setup(NamedTuple):
  """What is done to the data before training."""

  name: str  # of its folder
  mode: str  # a key of corruption.CORRUPTIONS, or shuffled_labels, or random_signs
  label_noise: float  # the probability that a label is replaced by a random one


def make_dataset(x_train, y_train, x_test, y_test):
  """(Dataset of inputs of any shape, whether its test set was held out).

  Inputs and training labels keep the type they are given in, but where training and test
  inputs differ in it, both get the wider one.
  """
  held_out = x_test is None and y_test is None
  if not held_out and (x_test is None or y_test is None):
    raise BadInput('Of x_test and y_test one is missing; give both, or neither.')
  x, y = _inputs('x_train', x_train), _labels('y_train', y_train)
  _check_lengths('train', x, y)
  classes = np.unique(y)
  if len(classes) < 2:
    raise BadInput(
      f'All labels of y_train are {classes[0]}, but there must be at least two classes.'
    )
  if classes[0] != 0 or classes[-1] != len(classes) - 1:
    raise BadInput(
      f'The labels are from {classes[0]} to {classes[-1]} and y_train has {len(classes)} '
      'classes, but the classes must be 0, 1, ..., each with a training example; '
      'numpy.unique(labels, return_inverse=True) numbers them so.'
    )
  if held_out:
    train, test = hold_out(y)
    x, x_test, y, y_test = x[train], x[test], y[train], y[test]
  x_test, y_test = _inputs('x_test', x_test), _labels('y_test', y_test)
  _check_lengths('test', x_test, y_test)
  x, x_test = _same_type(x, x_test)
  if unknown := sorted({*np.unique(y_test).tolist()} - {*classes.tolist()}):
    raise BadInput(
      f'y_test has the labels {_listed(unknown)}, of which y_train has no example; leave '
      'these test examples out, or give training examples of their classes.'
    )
  return sources.Dataset(x, y, x_test, y_test.astype(np.int32), len(classes)), held_out


def hold_out(labels):
  """Indices (of training examples, of test examples): a fifth, drawn at random.

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


def _array(name, value):
  """What the user gave as a NumPy array; raises BadInput where it cannot be one."""
  if hasattr(value, 'toarray'):  # of SciPy, which np.asarray takes for a single object
    raise BadInput(f'{name} is a sparse matrix; give {name}.toarray().')
  if np.ma.is_masked(value):
    raise BadInput(
      f'{name} has masked values, which would count as if they were not masked; fill them '
      'or leave these examples out.'
    )
  try:
    array = np.asarray(value)
  except Exception as error:  # Anybody's __array__: anything may come out of it.
    raise BadInput(
      f'{name} cannot be made a NumPy array ({type(error).__name__}: '
      f'{sources.reason(error)}); give numbers in rows of equal length, and of a tensor '
      'first make an array, such as tensor.detach().cpu().float().numpy().'
    ) from error
  # NumPy knows only the size of types such as bfloat16.
  if array.dtype.kind == 'V' and dtypes.issubdtype(array.dtype, np.number):
    is_float = dtypes.issubdtype(array.dtype, np.floating)
    array = array.astype(np.float32 if is_float else np.int32)
  return array


def _inputs(name, value):
  array = _array(name, value)
  if array.dtype.kind not in 'biuf' or array.ndim < 2:
    raise BadInput(
      f'{name} is {array.dtype} of shape {array.shape}, but it must be numbers of shape '
      '(n, ...), an example along the first axis.'
    )
  if not array.size:
    raise BadInput(f'{name} is empty, of shape {array.shape}; give at least one example.')
  if not np.isfinite(array).all():
    bad = int((~np.isfinite(array)).reshape(len(array), -1).any(1).sum())
    raise BadInput(
      f'{name} has NaN or infinite values in {bad:,} examples; replace or leave them out.'
    )
  return array


def _labels(name, value):
  array = _array(name, value)
  if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
    raise BadInput(
      f'{name} is {array.dtype} of shape {array.shape}, but labels must be integers of '
      'shape (n,).'
    )
  return array.astype(np.int64) if array.dtype == np.uint64 else array


def _same_type(x, x_test):
  """Both inputs in one type; raises BadInput where they are of two kinds or shapes."""
  common = np.result_type(x, x_test)
  kinds = {_kind(array.dtype) for array in (x, x_test)}
  if x.shape[1:] != x_test.shape[1:] or kinds != {_kind(common)}:
    raise BadInput(
      f'x_train is {x.dtype} of shape {x.shape} and x_test {x_test.dtype} of shape '
      f'{x_test.shape}, but they may differ in their lengths alone.'
    )
  return x.astype(common, copy=False), x_test.astype(common, copy=False)


def _kind(dtype):
  """What inputs of this type are: images, tokens or numbers."""
  if dtype == np.uint8:
    return 'images'
  return 'tokens' if dtype.kind in 'iu' else 'numbers'


def _listed(values, most=5):
  return ', '.join(map(str, values[:most])) + (', ...' if len(values) > most else '')


def for_network(dataset):
  """The Dataset as networks compute with it: uint8, or else float32, int32 of integers.

  Raises:
    BadInput: for numbers that are beyond that type.
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
        f'{name} has integers from {x.min()} to {x.max()}, but a network gets int32, which '
        f'ends at {limits.max}; number the tokens from 0, or give floats.'
      )
    return x.astype(np.int32)
  with np.errstate(over='ignore'):
    found = x.astype(np.float32)
  if not np.isfinite(found).all():
    raise BadInput(
      f'{name} has values up to {np.abs(x).max():.3g}, but a network gets float32, which '
      f'ends at {np.finfo(np.float32).max:.3g}; scale the inputs.'
    )
  spread = np.ptp(x, 0) if x.dtype.kind == 'f' else np.zeros(1)
  # Rounding of a feature that is constant but for rounding is no loss.
  varies = spread > 1e-12 * np.abs(x).max(0)
  lost = np.abs(x - found).max(0) > LOST * spread if varies.any() else varies
  if count := int((lost & varies).sum()):
    logging.warning(
      '%s loses most of what %d of its features say when it becomes float32, as networks '
      'get it: they vary by less than their rounding; subtract their means.',
      *(name, count),
    )
  return found


def _check_lengths(split, x, y):
  if len(x) != len(y):
    raise BadInput(
      f'x_{split} has {len(x):,} examples and y_{split} {len(y):,} labels, but there must '
      'be as many.'
    )


def make_setups(noise_levels, x, random_labels='uniform'):
  """The Setups: labels from none to all random, inputs randomized, random signs."""
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


def changes_inputs(mode):
  """Whether a mode randomizes inputs rather than labels."""
  return mode in corruption.CORRUPTIONS and bool(corruption.CORRUPTIONS[mode].images)


def randomize(dataset, setup, seed):
  """The Dataset of a setup, from the bits that `corruption` gives each example.

  Inputs and labels keep their types, but Gaussian inputs are floating-point numbers.
  """
  if setup.mode == 'random_signs':
    # Two of the classes stand for the signs; the test labels have no meaning then.
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


def shuffled_labels(labels, label_noise, seed):
  """int32 (n,): the labels, each with probability `label_noise` that of another example.

  At a noise of 1 the labels are permuted, so every class stays as frequent as it was. The
  labels that are replaced are those that `corruption.noisy_labels` replaces, and as there
  each is replaced in the same way at every higher noise.
  """
  bits = corruption.random_bits(seed, corruption.LABELS, 0, len(labels), 2)
  replaced = bits[:, 0] * 2.0**-64 < label_noise
  return np.where(replaced, labels[np.argsort(bits[:, 1])], labels)


def has_channels_first(x):
  """Whether inputs look like images (n, c, h, w), or like volumes: few channels first."""
  return x.ndim >= 4 and x.shape[1] <= 4 < min(x.shape[2:])


def _move(dataset, source, destination):
  moved = (
    np.ascontiguousarray(np.moveaxis(x, source, destination))
    for x in (dataset.x_train, dataset.x_test)
  )
  return dataset._replace(**dict(zip(('x_train', 'x_test'), moved, strict=True)))


def layout(x, mode):
  """(positions, 1, channels): the inputs as images, as `corruption` takes them.

  Of images with their channels first, once these are last.
  """
  size = math.prod(x.shape[1:])
  if x.ndim == 2:
    own_dtype = corruption.CORRUPTIONS[mode].dtype
    return (1, 1, size) if own_dtype else (size, 1, 1)
  if x.ndim == 3 and x.dtype == np.uint8:
    return size, 1, 1
  channels = x.shape[1 if has_channels_first(x) else -1]
  return size // channels, 1, channels


def warn_of_layout(x):
  """Says what inputs are taken for, where their shape could mean two things."""
  shape = ' x '.join(map(str, x.shape[1:]))
  if has_channels_first(x):
    logging.warning(
      'Inputs of %s are taken for images of %d channels, which come first; with channels '
      'last they are (n, h, w, c).',
      *(shape, x.shape[1]),
    )
  elif x.ndim == 3 and x.shape[1] == x.shape[2] and x.dtype != np.uint8:
    logging.warning(
      'Inputs of %s that are not uint8 are taken for sequences of %d steps, each of %d '
      'numbers that are permuted together; as images give them as (n, %d, %d, 1).',
      *(shape, *x.shape[1:], *x.shape[1:]),
    )


def signs_of(dataset, seed):
  """int8 (n,): the random signs of a draw."""
  return complexity.random_signs(1, dataset.num_train, seed)[0]
