"""Convolution with fewer products, Winograd's (arXiv:1509.09308). For `blocks`.

2 x 2 outputs of a convolution with 3 x 3 taps see 4 x 4 inputs, and are found from 16
products instead of 36. Over all such tiles and channels these are 16 products of matrices.
In float32 that is about as exact as the direct sum; in bfloat16 it would not be.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TAPS, OUTPUTS, POINTS = 3, 2, 4  # of a tile along each side
# Along a side outputs = OF_OUTPUTS @ ((OF_TAPS @ taps) * (OF_INPUTS @ inputs)).
OF_INPUTS = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])
OF_TAPS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
OF_OUTPUTS = np.array([[1, 1, 1, 0], [0, 1, -1, 1]])
BYTES = 14 << 20  # of what a block is transformed to, by trial on two cores
FEWEST_CHANNELS = 16  # below so many, of inputs or outputs, it does not pay
FEWEST_PIXELS = 2_000  # of a batch: below, it is fast but its long compilation does not pay


def suits(x, kernel_shape, stride):
  """Whether it is exact enough for x (n, h, w, c), and worth it."""
  return (
    kernel_shape[:2] == (TAPS, TAPS)
    and stride == 1
    and x.dtype == jnp.float32
    and min(kernel_shape[2:]) >= FEWEST_CHANNELS
    and x.size // x.shape[-1] >= FEWEST_PIXELS
  )


def bytes_of_image(image_shape, kernel_shape, stride):
  """How much is made of an image (h, w, c) of float32, about."""
  del stride
  height, width, _ = image_shape
  return 4 * height * width * sum(kernel_shape[2:]) * (POINTS // OUTPUTS) ** 2


def transform(kernel):
  """(3, 3, c, d) -> a grid, 4 lists of 4 arrays, of (c, d)."""
  return combine_grid(OF_TAPS, kernel)


def convolve(x, transformed, kernel_shape, stride, padding):
  """(n, h, w, c), transform(kernel) -> (n, h', w', d)."""
  del stride
  sizes = [n + sum(pads) - TAPS + 1 for n, pads in zip(x.shape[1:3], padding, strict=True)]
  counts = [-(-size // OUTPUTS) for size in sizes]
  tiles = input_tiles(x, counts, padding)
  # Sixteen products take half as long as one that is batched.
  products = jax.tree.map(
    lambda of_tiles, taps: (of_tiles @ taps).reshape(len(x), *counts, kernel_shape[-1]),
    tiles,
    transformed,
  )
  rows = [jnp.stack(row, 3) for row in combine_grid(OF_OUTPUTS, products)]
  y = jnp.stack(rows, 2).reshape(len(x), *(OUTPUTS * n for n in counts), kernel_shape[-1])
  return y[:, : sizes[0], : sizes[1]]


def correlate(x, gradient, kernel_shape, stride, padding):
  """(n, h, w, c), (n, h', w', d) -> what, summed, `kernel_gradient` takes."""
  del kernel_shape, stride
  counts = [-(-size // OUTPUTS) for size in gradient.shape[1:3]]
  return jax.tree.map(
    lambda inputs, gradients: inputs.T @ gradients,
    input_tiles(x, counts, padding),
    gradient_tiles(gradient, counts),
  )


def kernel_gradient(totals, kernel_shape):
  """What `transform` makes of a kernel is linear in it; this is its transpose."""
  return jnp.array(combine_grid(OF_TAPS.T, totals)).reshape(kernel_shape)


def input_tiles(x, counts, padding):
  """(n, h, w, c), how many tiles along each side -> a grid of (n * tiles, c)."""
  ends = [
    (low, OUTPUTS * count + TAPS - 1 - low - size, 0)
    for size, count, (low, _) in zip(x.shape[1:3], counts, padding, strict=True)
  ]
  x = lax.pad(x, 0.0, ((0, 0, 0), *ends, (0, 0, 0)))
  # A side after the other: four passes along whole rows, then sixteen.
  rows = combine(OF_INPUTS, overlapping(x, 1, counts[0]))
  return [
    [
      part.reshape(-1, x.shape[-1])
      for part in combine(OF_INPUTS, overlapping(row, 2, counts[1]))
    ]
    for row in rows
  ]


def overlapping(x, axis, count):
  """The first of every tile along an axis, the second, third and fourth."""
  pairs = x.reshape(*x.shape[:axis], -1, OUTPUTS, *x.shape[axis + 1 :])

  def of_all(i):
    which = lax.slice_in_dim(pairs, i // OUTPUTS, i // OUTPUTS + count, axis=axis)
    return lax.index_in_dim(which, i % OUTPUTS, axis + 1, keepdims=False)

  return [of_all(i) for i in range(POINTS)]


def gradient_tiles(gradient, counts):
  """(n, h', w', d), how many tiles along each side -> a grid of (n * tiles, d)."""
  n, *sizes, d = gradient.shape
  ends = [(0, OUTPUTS * m - size, 0) for m, size in zip(counts, sizes, strict=True)]
  tiles = lax.pad(gradient, 0.0, ((0, 0, 0), *ends, (0, 0, 0)))
  tiles = tiles.reshape(n, counts[0], OUTPUTS, counts[1], OUTPUTS, d)
  sides = range(OUTPUTS)
  grid = [[tiles[:, :, i, :, j].reshape(-1, d) for j in sides] for i in sides]
  return combine_grid(OF_OUTPUTS.T, grid)


def combine_grid(matrix, grid):
  """matrix @ grid @ matrix.T, of a grid of arrays."""
  rows = [combine(matrix, row) for row in grid]
  columns = [combine(matrix, column) for column in zip(*rows, strict=True)]
  return [list(row) for row in zip(*columns, strict=True)]


def combine(matrix, parts):
  """matrix @ parts, of arrays: a list of as many as the matrix has rows."""
  return [
    sum(float(factor) * part for factor, part in zip(row, parts, strict=True) if factor)
    for row in matrix
  ]
