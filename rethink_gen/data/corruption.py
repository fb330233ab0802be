"""True data and its five randomizations (Zhang et al. 2017, Section 2.1).

Applied once, before training, to the whole data set. What example i gets depends on the
seed and on i alone: its random bits lie at a place of a Philox stream that i determines,
so a subset, another model or another machine sees the same corrupted data.
"""

import functools

import numpy as np

# One stream a purpose. New ones go to the end: a stream's number is part of the results.
LABELS, SHUFFLED_PIXELS, TRAIN_PIXELS, TEST_PIXELS, ORDER, DISTORTION = range(6)

BLOCK = 1_000  # images corrupted at a time, to bound the memory their bits take


def corrupt(dataset, mode, seed=0, label_noise=0.0):
  """The data set with one mode of randomization applied.

  Args:
    dataset: a Dataset, uint8 images (n, h, w, c).
    mode: none; partial_labels or random_labels, which leave the test labels true;
      shuffled_pixels, random_pixels or gaussian, which change train and test images. Pixels
      are permuted over the whole image, before the crop; Gaussian noise has the mean and
      variance of each channel over all training images.
    seed: of the corruption, independent of the training seed.
    label_noise: probability that partial_labels draws a label anew, uniform over the
      classes (it may be the old one). Labels drawn anew at some noise are drawn anew, and
      to the same class, at every higher one.

  Returns:
    A Dataset of the same shapes. Gaussian images are float32, or of the wider type that the
    images have, on the scale of uint8, not clipped: clipping would change the variance they
    are to match.
  """
  if mode == 'none':
    return dataset
  if mode in ('partial_labels', 'random_labels'):
    noise = 1.0 if mode == 'random_labels' else label_noise
    labels = noisy_labels(dataset.y_train, dataset.num_classes, noise, seed)
    return dataset._replace(y_train=labels)
  statistics = None
  if mode == 'gaussian':
    pixels = dataset.x_train.reshape(-1, dataset.x_train.shape[-1])
    kind = np.result_type(pixels, np.float32)  # of float64, what float32 cannot hold
    statistics = tuple(
      moment(0, dtype=np.promote_types(kind, np.float64)).astype(kind)
      for moment in (pixels.mean, pixels.std)
    )

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


def corrupt_images(images, first, stream, mode, seed, statistics=None):
  """Neighbouring examples, corrupted by a mode that changes images.

  Args:
    images: uint8 (n, h, w, c).
    first: the index of the first of them in its split.
    stream: TRAIN_PIXELS or TEST_PIXELS, by the split.
    mode: shuffled_pixels, random_pixels or gaussian, as for `corrupt`.
    seed: of the corruption.
    statistics: (mean, standard deviation) of each channel, float32 (c,), for gaussian.

  Returns:
    uint8 of the same shape; float32 for gaussian.
  """
  size = images.shape[1] * images.shape[2]
  if mode == 'shuffled_pixels':
    return _permute(images, _shared_permutation(seed, size))
  if mode == 'random_pixels':
    return _permute(images, random_permutations(seed, stream, first, len(images), size))
  if mode == 'gaussian':
    mean, deviation = statistics
    return mean + deviation * _normals(seed, stream, first, images.shape)
  raise ValueError(f'unknown mode {mode!r}')


def noisy_labels(labels, num_classes, label_noise, seed):
  """int32 labels (n,), each with probability `label_noise` drawn anew from all classes."""
  bits = random_bits(seed, LABELS, 0, len(labels), 2)
  drawn_anew = bits[:, 0] * 2.0**-64 < label_noise
  drawn = (bits[:, 1] % np.uint64(num_classes)).astype(np.int32)
  return np.where(drawn_anew, drawn, labels)


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
