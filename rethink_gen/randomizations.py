"""Arrays of any shape as a Dataset, and all that is done to it before training.

The bits are those that `corruption` gives each example, so images come out as they do for
the package's own runs.
"""

import math
from typing import NamedTuple

import numpy as np

from rethink_gen.data import corruption, sources
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity

HELD_OUT = 0.2  # of the training examples, where there is no test set
# How random labels are drawn: the mode of a Setup that replaces labels.
LABELS = {'uniform': 'partial_labels', 'shuffled': 'shuffled_labels'}


class Setup(NamedTuple):
  """What is done to the data before training."""

  name: str  # of its folder
  mode: str  # one of config.MODES, or shuffled_labels, or random_signs
  label_noise: float  # the probability that a label is replaced by a random one


def make_dataset(x_train, y_train, x_test, y_test):
  """(Dataset of inputs of any shape, whether its test set was held out)."""
  held_out = x_test is None and y_test is None
  if not held_out and (x_test is None or y_test is None):
    raise BadInput('Of x_test and y_test one is missing; give both, or neither.')
  x, y = _inputs('x_train', x_train), _labels('y_train', y_train)
  _check_lengths('train', x, y)
  if held_out:
    if len(y) < 10:
      raise BadInput(f'There are {len(y)} examples and no test set; give 10 or more.')
    from sklearn import model_selection  # slow to import

    x, x_test, y, y_test = model_selection.train_test_split(
      x, y, test_size=HELD_OUT, random_state=0
    )
  x_test, y_test = _inputs('x_test', x_test), _labels('y_test', y_test)
  _check_lengths('test', x_test, y_test)
  if x.shape[1:] != x_test.shape[1:] or x.dtype != x_test.dtype:
    raise BadInput(
      f'x_train is {x.dtype} of shape {x.shape} and x_test {x_test.dtype} of shape '
      f'{x_test.shape}, but they may differ in their lengths alone.'
    )
  classes = np.unique(y)
  if len(classes) < 2:
    raise BadInput(
      f'All labels of y_train are {classes[0]}, but there must be at least two classes.'
    )
  least, most = min(y.min(), y_test.min()), max(y.max(), y_test.max())
  if least < 0 or most >= len(classes):
    raise BadInput(
      f'The labels are from {least} to {most} and y_train has {len(classes)} classes, but '
      'the classes must be 0, 1, ..., each with a training example; '
      'numpy.unique(labels, return_inverse=True) numbers them so.'
    )
  return sources.Dataset(x, y, x_test, y_test, len(classes)), held_out


def _inputs(name, array):
  array = np.asarray(array)
  if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
    array = array.astype(np.float32)
  elif np.issubdtype(array.dtype, np.integer) and array.dtype != np.uint8:
    array = array.astype(np.int32)
  if array.dtype not in (np.float32, np.int32, np.uint8) or array.ndim < 2:
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


def _labels(name, array):
  array = np.asarray(array)
  if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
    raise BadInput(
      f'{name} is {array.dtype} of shape {array.shape}, but labels must be integers of '
      'shape (n,).'
    )
  return array.astype(np.int64).clip(-1, sources.MAX_CLASSES).astype(np.int32)


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
  modes = ['shuffled_pixels', 'random_pixels']
  if x.dtype != np.int32:
    modes.append('gaussian')
  if x[0].size < 2:
    modes = modes[2:]
  return [
    *(Setup(f'label_noise_{level:g}', LABELS[random_labels], level) for level in levels),
    *(Setup(mode, mode, 0.0) for mode in modes),
    Setup('random_signs', 'random_signs', 1.0),
  ]


def randomize(dataset, setup, seed):
  """The Dataset of a setup, from the bits that `corruption` gives each example."""
  if setup.mode == 'random_signs':
    # Two of the classes stand for the signs; the test labels have no meaning then.
    return dataset._replace(y_train=(signs_of(dataset, seed) > 0).astype(np.int32))
  if setup.mode == 'partial_labels':
    return corruption.corrupt(dataset, setup.mode, seed, setup.label_noise)
  if setup.mode == 'shuffled_labels':
    return dataset._replace(
      y_train=shuffled_labels(dataset.y_train, setup.label_noise, seed)
    )
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


def layout(x, mode):
  """(positions, 1, channels): the inputs as images, as `corruption` takes them."""
  size = math.prod(x.shape[1:])
  if x.ndim == 2:
    return (1, 1, size) if mode == 'gaussian' else (size, 1, 1)
  if x.ndim == 3 and x.dtype == np.uint8:
    return size, 1, 1
  return size // x.shape[-1], 1, x.shape[-1]


def signs_of(dataset, seed):
  """int8 (n,): the random signs of a draw."""
  return complexity.random_signs(1, dataset.num_train, seed)[0]
