"""The true data and five randomizations of it (Zhang et al. 2017, Section 2.1).

A randomization is applied once, before training, to the whole data set. What happens to
example i depends only on the seed and i, which sets the position of its random bits in a
Philox stream. So a subset, another model or another machine sees the same corrupted data.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rethink_gen.data.sources import Dataset

# One stream per purpose. The numbers determine published results: append, never reorder.
LABELS, SHUFFLED_PIXELS, TRAIN_PIXELS, TEST_PIXELS, ORDER, DISTORTION = range(6)

BLOCK = 1_000  # images corrupted at a time, to bound the memory of their random bits


class Corruption(NamedTuple):
  """One mode of randomization: what it changes, and the function that does it.

  A mode changes labels, images, or nothing. Everything that depends on the mode (config
  validation, streaming, runs trained at once, cost estimates, audits) consults this record,
  so a new mode is one new entry in CORRUPTIONS.

  Attributes:
    labels: labels(labels int (n,), num_classes, label_noise, seed) -> int32 (n,). When
      streaming, it is called with labels that are all -1; where it leaves -1, the stored
      label is used.
    images: images(images (n, h, w, c), first, stream, seed, statistics) -> same shape.
      `first` is the index of the first image in its split, `stream` is TRAIN_PIXELS or
      TEST_PIXELS, `statistics` is as for `corrupt_images`.
    label_noise: probability that a label is replaced; None: config.corruption.label_noise.
    dtype: dtype of the corrupted images; None: unchanged.
  """

  labels: Callable | None = None
  images: Callable | None = None
  label_noise: float | None = 0.0
  dtype: type | None = None


def corrupt(
  dataset: Dataset, mode: str, seed: int = 0, label_noise: float = 0.0
) -> Dataset:
  """Applies one mode of randomization to a data set.

  Args:
    dataset: a Dataset with uint8 images (n, h, w, c).
    mode: a key of CORRUPTIONS. Modes that change labels leave the test labels true; those
      that change images change training and test images. Pixels are permuted over the whole
      image, before the crop. Gaussian noise has the mean and variance of each channel over
      all training images.
    seed: seed of the corruption, independent of the training seed.
    label_noise: probability that partial_labels replaces a label by a class drawn uniformly
      (possibly the same one). A label that is replaced at some noise level is replaced by
      the same class at every higher level.

  Returns:
    A Dataset of the same shapes. Gaussian images are float32, or the images' own dtype if
    that is wider, on the uint8 scale and not clipped: clipping would change the variance
    that they must match.
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


def effective_label_noise(mode: str, label_noise: float) -> float:
  """The probability that a mode replaces a label, given the config's `label_noise`."""
  # Modes that only audits have are not in CORRUPTIONS.
  fixed = CORRUPTIONS[mode].label_noise if mode in CORRUPTIONS else None
  return label_noise if fixed is None else fixed


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(mean, standard deviation) per channel, each (c,), of images (n, h, w, c)."""
  pixels = images.reshape(-1, images.shape[-1])
  kind = np.result_type(pixels, np.float32)  # float64 stays float64
  return tuple(
    moment(0, dtype=np.promote_types(kind, np.float64)).astype(kind)
    for moment in (pixels.mean, pixels.std)
  )


def corrupt_images(
  images: np.ndarray,
  first: int,
  stream: int,
  mode: str,
  seed: int,
  statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
  """Corrupts consecutive images; modes that leave images alone return them unchanged.

  Args:
    images: uint8 (n, h, w, c).
    first: index of the first image in its split.
    stream: TRAIN_PIXELS or TEST_PIXELS, depending on the split.
    mode: a key of CORRUPTIONS.
    seed: seed of the corruption.
    statistics: from `channel_statistics`, for modes with their own dtype.

  Returns:
    Images of the same shape, uint8 unless the mode has its own dtype.
  """
  change = CORRUPTIONS[mode].images
  return change(images, first, stream, seed, statistics) if change else images


def shuffle_pixels(
  images: np.ndarray,
  first: int,
  stream: int,
  seed: int,
  statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
  """Permutes the pixels of all images alike; arguments as for `corrupt_images`."""
  del first, stream, statistics
  size = images.shape[1] * images.shape[2]
  return _permute(images, _shared_permutation(seed, size))


def permute_pixels(
  images: np.ndarray,
  first: int,
  stream: int,
  seed: int,
  statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
  """Permutes the pixels of each image independently; arguments as for `corrupt_images`."""
  del statistics
  size = images.shape[1] * images.shape[2]
  return _permute(images, random_permutations(seed, stream, first, len(images), size))


def draw_gaussian(
  images: np.ndarray,
  first: int,
  stream: int,
  seed: int,
  statistics: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
  """Gaussian noise with the given channel statistics; arguments as for `corrupt_images`."""
  mean, deviation = statistics
  return mean + deviation * _normals(seed, stream, first, images.shape)


def noisy_labels(
  labels: np.ndarray, num_classes: int, label_noise: float, seed: int
) -> np.ndarray:
  """int32 (n,): labels, each replaced with probability `label_noise` by a random class."""
  bits = random_bits(seed, LABELS, 0, len(labels), 2)
  replaced = bits[:, 0] * 2.0**-64 < label_noise
  drawn = (bits[:, 1] % np.uint64(num_classes)).astype(np.int32)
  return np.where(replaced, drawn, labels)


def random_bits(seed: int, stream: int, first: int, count: int, words: int) -> np.ndarray:
  """Random uint64 (count, words) for `count` examples, starting at `first`."""
  # Philox yields four words per step, and each example takes whole steps.
  steps = -(-words // 4)
  philox = np.random.Philox(key=np.array([seed, stream], np.uint64))
  philox.advance(first * steps)
  return philox.random_raw(count * steps * 4).reshape(count, -1)[:, :words]


def random_permutations(
  seed: int, stream: int, first: int, count: int, size: int
) -> np.ndarray:
  """int64 (count, size): a permutation of range(size) for each example."""
  # No two keys are equal, so the stable sort, which takes 2.4 times as long, is not needed.
  return np.argsort(random_bits(seed, stream, first, count, size), axis=1)


@functools.lru_cache(maxsize=1)
def _shared_permutation(seed, size):
  """int64 (1, size): the permutation that all images share."""
  return random_permutations(seed, SHUFFLED_PIXELS, 0, 1, size)


def _permute(images, permutations):
  """Permutes pixels, channels together: (n, h, w, c), (n or 1, h*w) -> (n, h, w, c)."""
  flat = images.reshape(len(images), -1, images.shape[-1])
  return np.take_along_axis(flat, permutations[:, :, None], 1).reshape(images.shape)


def _normals(seed, stream, first, shape):
  """Standard normals, float32, of the given shape (count, h, w, c)."""
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
