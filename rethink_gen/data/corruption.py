"""True data and its five randomizations (Zhang et al. 2017, Section 2.1).

Applied once, before training, to the whole data set. What example i gets depends on the
seed and on i alone: its random bits lie at a place of a Philox stream that i determines,
so a subset, another model or another machine sees the same corrupted data.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# One stream per purpose. The numbers determine published results: append, never reorder.
LABELS, SHUFFLED_PIXELS, TRAIN_PIXELS, TEST_PIXELS, ORDER, DISTORTION = range(6)

BLOCK = 1_000  # images corrupted at a time, to bound the memory their bits take


class Corruption(NamedTuple):
  """One mode of randomization: what it changes, and the function that does it.

  A mode changes labels, images, or nothing. Everything that depends on the mode (the
  config's checks, streaming, runs trained together, cost estimates, audits) asks this
  record, so a new mode is one new entry of CORRUPTIONS.

  Attributes:
    labels: labels(labels int (n,), num_classes, label_noise, seed) -> int32 (n,). For data
      that are streamed the labels it is given are all -1, and those it leaves at -1 are
      kept as they are stored.
    images: images(images (n, h, w, c), first, stream, seed, statistics) -> same shape.
      `first` is the index of the first of them in its split, `stream` TRAIN_PIXELS or
      TEST_PIXELS, `statistics` as for `corrupt_images`.
    label_noise: the probability that a label is replaced; None: config.corruption has it.
    dtype: of the images it makes; None: as they were.
  """

  labels: Callable | None = None
  images: Callable | None = None
  label_noise: float | None = 0.0
  dtype: type | None = None


def corrupt(dataset, mode, seed=0, label_noise=0.0):
  """The data set with one mode of randomization applied.

  Args:
    dataset: a Dataset, uint8 images (n, h, w, c).
    mode: a key of CORRUPTIONS. Modes that change labels leave the test labels true; those
      that change images change training and test images. Pixels are permuted over the whole
      image, before the crop; Gaussian noise has the mean and variance of each channel over
      all training images.
    seed: of the corruption, independent of the training seed.
    label_noise: probability that partial_labels replaces a label, uniformly over the
      classes (possibly by itself). A label that is replaced at some noise level is
      replaced by the same class at every higher one.

  Returns:
    A Dataset of the same shapes. Gaussian images are float32, or of the wider type that the
    images have, on the scale of uint8, not clipped: clipping would change the variance they
    are to match.
  """
  kind = CORRUPTIONS[mode]
  if kind.labels:
    noise = effective_label_noise(mode, label_noise)
    labels = kind.labels(dataset.y_train, dataset.num_classes, noise, seed)
    dataset = dataset._replace(y_train=labels)
  if not kind.images:
    return dataset
  statistics = channel_statistics(dataset.x_train) if kind.dtype else None

  def replace(images, stream):
    blocks = [
      corrupt_images(images[i : i + BLOCK], i, stream, mode, seed, statistics)
      for i in range(0, len(images), BLOCK)
    ]
    return np.concatenate(blocks)

  return dataset._replace(
    x_train=replace(dataset.x_train, TRAIN_PIXELS),
    x_test=replace(dataset.x_test, TEST_PIXELS),
  )


def effective_label_noise(mode, label_noise):
  """The probability that a mode replaces a label, where the config says `label_noise`."""
  fixed = CORRUPTIONS[mode].label_noise if mode in CORRUPTIONS else None  # an audit's own
  return label_noise if fixed is None else fixed


def channel_statistics(images):
  """(mean, standard deviation) of each channel, (c,) each, of images (n, h, w, c)."""
  pixels = images.reshape(-1, images.shape[-1])
  kind = np.result_type(pixels, np.float32)  # of float64, what float32 cannot hold
  return tuple(
    moment(0, dtype=np.promote_types(kind, np.float64)).astype(kind)
    for moment in (pixels.mean, pixels.std)
  )


def corrupt_images(images, first, stream, mode, seed, statistics=None):
  """Consecutive examples, corrupted by a mode; unchanged by modes that leave images alone.

  Args:
    images: uint8 (n, h, w, c).
    first: the index of the first of them in its split.
    stream: TRAIN_PIXELS or TEST_PIXELS, by the split.
    mode: a key of CORRUPTIONS.
    seed: of the corruption.
    statistics: of `channel_statistics`, for modes with a dtype of their own.

  Returns:
    The same shape, and uint8 unless the mode has a dtype of its own.
  """
  change = CORRUPTIONS[mode].images
  return change(images, first, stream, seed, statistics) if change else images


def shuffle_pixels(images, first, stream, seed, statistics=None):
  """One permutation of the pixels for all images; arguments as for `corrupt_images`."""
  del first, stream, statistics
  size = images.shape[1] * images.shape[2]
  return _permute(images, _shared_permutation(seed, size))


def permute_pixels(images, first, stream, seed, statistics=None):
  """A permutation of its own for every image; arguments as for `corrupt_images`."""
  del statistics
  size = images.shape[1] * images.shape[2]
  return _permute(images, random_permutations(seed, stream, first, len(images), size))


def draw_gaussian(images, first, stream, seed, statistics):
  """Gaussian noise with the channels' statistics; arguments as for `corrupt_images`."""
  mean, deviation = statistics
  return mean + deviation * _normals(seed, stream, first, images.shape)


def noisy_labels(labels, num_classes, label_noise, seed):
  """int32 (n,): labels, each replaced with probability `label_noise` by a random class."""
  bits = random_bits(seed, LABELS, 0, len(labels), 2)
  replaced = bits[:, 0] * 2.0**-64 < label_noise
  drawn = (bits[:, 1] % np.uint64(num_classes)).astype(np.int32)
  return np.where(replaced, drawn, labels)


def random_bits(seed, stream, first, count, words):
  """Random uint64 (count, words) for the examples from `first` on."""
  # Philox makes four words a step, so each example takes whole steps.
  steps = -(-words // 4)
  philox = np.random.Philox(key=np.array([seed, stream], np.uint64))
  philox.advance(first * steps)
  return philox.random_raw(count * steps * 4).reshape(count, -1)[:, :words]


def random_permutations(seed, stream, first, count, size):
  """int64 (count, size): a permutation of range(size) for each example."""
  # Not the stable kind, which takes 2.4 times as long: no two of the keys are the same.
  return np.argsort(random_bits(seed, stream, first, count, size), axis=1)


@functools.lru_cache(maxsize=1)
def _shared_permutation(seed, size):
  """int64 (1, size): the permutation that all images share."""
  return random_permutations(seed, SHUFFLED_PIXELS, 0, 1, size)


def _permute(images, permutations):
  """Pixel positions permuted, channels together: (n, h, w, c), (n or 1, h*w) -> same."""
  flat = images.reshape(len(images), -1, images.shape[-1])
  return np.take_along_axis(flat, permutations[:, :, None], 1).reshape(images.shape)


def _normals(seed, stream, first, shape):
  """Standard normals, float32, of this shape (count, h, w, c)."""
  from scipy import special  # slow to import

  size = int(np.prod(shape[1:]))
  halves = random_bits(seed, stream, first, shape[0], -(-size // 2)).view(np.uint32)
  uniform = (halves[:, :size].astype(np.float32) + 0.5) * np.float32(2.0**-32)
  # Rounding to float32 can reach 1, where the inverse would be infinite.
  uniform = np.minimum(uniform, np.float32(1 - 2**-24))
  return special.ndtri(uniform).astype(np.float32).reshape(shape)


CORRUPTIONS = {
  'none': Corruption(),
  'partial_labels': Corruption(labels=noisy_labels, label_noise=None),
  'random_labels': Corruption(labels=noisy_labels, label_noise=1.0),
  'shuffled_pixels': Corruption(images=shuffle_pixels),
  'random_pixels': Corruption(images=permute_pixels),
  'gaussian': Corruption(images=draw_gaussian, dtype=np.float32),
}
