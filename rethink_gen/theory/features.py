"""Image features for kernels: Gabor wavelets and random convolutional features."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 250  # images at once, limited by the size of the feature maps before pooling
PATCHES = 50_000  # whose mean and covariance are used for whitening
THRESHOLD = 0.25  # of the rectifier
SMALL_VARIANCE = 10.0  # on a scale of 0 to 255, added so as not to amplify flat patches
SMALL_EIGENVALUE = 0.1  # added to those of the patches' covariance, against amplified noise


def gabor_bank(wavelength: float, orientations: int) -> np.ndarray:
  """float32 (size, size, 1, 2 * orientations): even filters, then the odd ones.

  Plane waves under a Gaussian window of one octave, with directions spread over half a
  turn. The even filters have zero mean, so that they ignore uniform brightness, and each
  filter has unit norm.
  """
  spread = 0.56 * wavelength  # one octave: Daugman 1985
  reach = math.ceil(2 * spread)
  y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
  window = np.exp(-(x**2 + y**2) / (2 * spread**2))
  angles = np.pi * np.arange(orientations) / orientations
  along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
  waves = window * np.exp(2j * np.pi * along / wavelength)
  waves -= window * (waves.sum((1, 2), keepdims=True) / window.sum())
  bank = np.concatenate([waves.real, waves.imag])
  bank /= np.sqrt((bank**2).sum((1, 2), keepdims=True))
  return bank.transpose(1, 2, 0)[:, :, None].astype(np.float32)


def gabor(
  images: np.ndarray,
  wavelengths: Sequence[float],
  orientations: int,
  window: int,
  stride: int,
) -> np.ndarray:
  """Square roots of pooled Gabor magnitudes, scaled to unit norm per image.

  Args:
    images: uint8 (n, h, w, 1).
    wavelengths: in pixels.
    orientations: number of directions per wavelength.
    window, stride: of the means over squares of window * window pixels.

  Returns:
    float32 (n, d), d being len(wavelengths) * orientations * squares.
  """
  # On small images a dense matrix is ten times faster than XLA's convolution on CPU: its
  # rows are the filters' responses to a single pixel.
  shape = images.shape[1:]
  pixels = jnp.eye(math.prod(shape)).reshape(-1, *shape)
  banks = (gabor_bank(wavelength, orientations) for wavelength in wavelengths)
  maps = tuple(convolve(pixels, bank, 'SAME') for bank in banks)
  return by_batch(lambda part: _gabor(part, maps, window, stride), images)


@functools.partial(jax.jit, static_argnames=('window', 'stride'))
def _gabor(images, maps, window, stride):
  images = images.astype(jnp.float32) / 255
  parts = []
  for one in maps:
    flat = images.reshape(len(images), -1)
    answers = jnp.einsum('np,pyxf->nyxf', flat, one, precision='highest')
    even, odd = jnp.split(answers, 2, -1)
    pooled = jax.lax.reduce_window(
      jnp.sqrt(even**2 + odd**2),
      0.0,
      jax.lax.add,
      (1, window, window, 1),
      (1, stride, stride, 1),
      'VALID',
    )
    parts.append(jnp.sqrt(pooled / window**2).reshape(len(images), -1))
  features = jnp.concatenate(parts, 1)
  length = jnp.linalg.norm(features, axis=1, keepdims=True)
  return features / jnp.maximum(length, 1e-6)


def convolve(images: jax.Array, bank, padding: str = 'VALID') -> jax.Array:
  return jax.lax.conv_general_dilated(
    images,
    bank,
    (1, 1),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  )


def by_batch(function: Callable, images: np.ndarray) -> np.ndarray:
  """Applies `function` to BATCH images at a time, padding the last: it compiles once."""
  parts = []
  for begin in range(0, len(images), BATCH):
    part = images[begin : begin + BATCH]
    filled = np.pad(part, ((0, BATCH - len(part)), *3 * [(0, 0)]))
    parts.append(np.asarray(function(filled))[: len(part)])
  return np.concatenate(parts)


def draw_patches(
  images: np.ndarray, size: int, count: int, rng: np.random.Generator
) -> np.ndarray:
  """float32 (count, size * size * c): random squares of the images, each normalized.

  (p - mean) / sqrt(variance + SMALL_VARIANCE) on a scale of 0 to 255: Coates, Ng and Lee
  2011, "An analysis of single-layer networks", Section 3.2.1.
  """
  n, height, width, channels = images.shape
  which = rng.integers(n, size=count)
  tops = rng.integers(height - size + 1, size=count)
  lefts = rng.integers(width - size + 1, size=count)
  down, across = np.mgrid[:size, :size]
  rows, columns = tops[:, None, None] + down, lefts[:, None, None] + across
  patches = images[which[:, None, None], rows, columns].astype(np.float32)
  patches = patches.reshape(count, size * size * channels)
  variance = patches.var(1, keepdims=True)
  return (patches - patches.mean(1, keepdims=True)) / np.sqrt(variance + SMALL_VARIANCE)


def whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(mean (d,), matrix (d, d)) of ZCA whitening: (p - mean) @ matrix; Section 3.2.2."""
  mean = patches.mean(0)
  values, vectors = np.linalg.eigh(np.cov(patches.T.astype(np.float64)))
  matrix = vectors / np.sqrt(np.maximum(values, 0) + SMALL_EIGENVALUE) @ vectors.T
  return mean, matrix.astype(np.float32)


def convolutional(
  images: np.ndarray, others: np.ndarray, filters: int, size: int, seed: int, block: int
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields random convolutional features, `block` filters at a time.

  Coates and Ng 2012, "Learning feature representations with k-means", with filters that are
  random training patches, whitened and of unit norm. Every patch of an image is normalized
  and whitened, the filters' responses r become max(r - t, 0) and max(-r - t, 0), and these
  are averaged over the image's quadrants. Each feature is then standardized by its mean and
  deviation over the training images and divided by the square root of the number of
  features, so that the kernel of an image with itself is about 1 without the constant. The
  last feature of a block is constant; over all blocks these add 1 to the kernel, the
  intercept that centered features need.

  Args:
    images: uint8 (n, h, w, c), the training images; only these provide patches.
    others: uint8 (m, h, w, c).
    filters: total number of filters.
    size: side of the square patches, in pixels.
    seed: seed of the patches. The filters of a whole block are the same whatever their
      total number.
    block: filters at a time.

  Yields:
    (features of images, features of others): float32 (n, 8 block + 1), (m, 8 block + 1).
  """
  rng = np.random.default_rng(seed)
  mean, matrix = whitening(draw_patches(images, size, PATCHES, rng))
  for begin in range(0, filters, block):
    count = min(block, filters - begin)
    chosen = (draw_patches(images, size, count, rng) - mean) @ matrix
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    bank = jnp.asarray((chosen @ matrix.T).T)  # for patches that are only normalized
    offset = jnp.asarray(mean @ matrix @ chosen.T)
    encode = functools.partial(_encode, bank=bank, offset=offset, size=size)
    features, of_others = (by_batch(encode, each) for each in (images, others))
    center, scale = features.mean(0), np.sqrt((features.var(0) + 1e-8) * 8 * filters)
    constant = math.sqrt(count / filters)
    yield tuple(
      np.pad((each - center) / scale, ((0, 0), (0, 1)), constant_values=constant)
      for each in (features, of_others)
    )


@functools.partial(jax.jit, static_argnames='size')
def _encode(images, bank, offset, size):
  """(n, h, w, c) -> (n, 8 * filters); the bank is (size * size * c, filters)."""
  images = images.astype(jnp.float32)
  channels = images.shape[-1]
  images -= 127.5  # reduces cancellation in the variance
  inputs = size * size * channels
  box = jnp.full((size, size, channels, 1), 1 / inputs)
  average = convolve(images, box)
  variance = convolve(images**2, box) - average**2
  scale = jnp.sqrt(jnp.maximum(variance, 0) + SMALL_VARIANCE)
  answers = convolve(images, bank.reshape(size, size, channels, -1))
  answers = (answers - average * bank.sum(0)) / scale - offset
  halves = jnp.maximum(answers - THRESHOLD, 0), jnp.maximum(-answers - THRESHOLD, 0)
  return jnp.concatenate([quadrants(half) for half in halves], 1)


def quadrants(maps: jax.Array) -> jax.Array:
  """(n, h, w, f) -> (n, 4 f): means over quadrants; of odd sides, the first are larger."""
  down, across = (-(-side // 2) for side in maps.shape[1:3])
  parts = [
    maps[:, rows, columns].mean((1, 2))
    for rows in (slice(down), slice(down, None))
    for columns in (slice(across), slice(across, None))
  ]
  return jnp.concatenate(parts, 1)
