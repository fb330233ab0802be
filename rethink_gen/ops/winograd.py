"""Winograd's convolution, with fewer products (arXiv:1509.09308), for `blocked_conv`.

A tile of 2 x 2 outputs of a convolution with 3 x 3 taps sees 4 x 4 inputs and is computed
from 16 products instead of 36; with 5 x 5 taps, from 36 instead of 100. Over all tiles and
channels, these are 16 or 36 matrix products. In float32 this is nearly as accurate as the
direct sum; in bfloat16 it would not be.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

OUTPUTS = 2  # per tile along each side
# {taps per side: points at which polynomials are evaluated, besides infinity}.
POINTS = {3: (0, 1, -1), 5: (0, 1, -1, 0.5, -2)}
BYTES = 14 << 20  # size of a block's transform, found by trial on two cores
FEWEST_CHANNELS = 16  # with fewer input or output channels, it does not pay off


class Transforms(NamedTuple):
  """Along a side, outputs = of_outputs @ ((of_taps @ taps) * (of_inputs @ inputs))."""

  of_inputs: np.ndarray  # (n, n), where n = taps + OUTPUTS - 1
  of_taps: np.ndarray  # (n, taps)
  of_outputs: np.ndarray  # (OUTPUTS, n)


def transforms(taps):
  """The Transforms for `taps` taps: the Toom-Cook product of polynomials, transposed.

  The factors are evaluated at the points and at infinity, and the product is interpolated.
  """
  points = POINTS[taps]
  others = [np.delete(points, i) for i in range(len(points))]
  scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]

  def evaluate(count):  # polynomials with `count` coefficients
    at_infinity = np.eye(count)[-1:]
    return np.concatenate([np.vander(points, count, increasing=True), at_infinity])

  vanishing = [[*np.poly(rest)[::-1], 0] for rest in others]  # at all points but one
  return Transforms(
    np.array([*vanishing, np.poly(points)[::-1]]),
    evaluate(taps) / np.array([*scales, 1])[:, None],
    evaluate(OUTPUTS).T,
  )


def suits(x, kernel_shape, stride):
  """Whether it is accurate enough for x (n, h, w, c), and pays off."""
  rows, columns, *channels = kernel_shape
  return (
    rows == columns
    and rows in POINTS
    and stride == 1
    and x.dtype == jnp.float32
    and min(channels) >= FEWEST_CHANNELS
  )


def bytes_of_image(image_shape, kernel_shape, stride):
  """The approximate size of the transform of one float32 image (h, w, c)."""
  del stride
  height, width, _ = image_shape
  points = kernel_shape[0] + OUTPUTS - 1
  return 4 * height * width * sum(kernel_shape[2:]) * points**2 // OUTPUTS**2


def transform(kernel):
  """(k, k, c, d) -> a grid (n lists of n arrays) of (c, d)."""
  return combine_grid(transforms(len(kernel)).of_taps, kernel)


def convolve(x, transformed, kernel_shape, stride, padding):
  """(n, h, w, c), transform(kernel) -> (n, h', w', d)."""
  del stride
  taps = kernel_shape[0]
  sizes = [n + sum(pads) - taps + 1 for n, pads in zip(x.shape[1:3], padding, strict=True)]
  counts = [-(-size // OUTPUTS) for size in sizes]
  tiles = input_tiles(x, counts, taps, padding)
  # Separate products take half as long as one batched product.
  products = jax.tree.map(
    lambda of_tiles, of_taps: (of_tiles @ of_taps).reshape(
      len(x), *counts, kernel_shape[-1]
    ),
    tiles,
    transformed,
  )
  outputs = combine_grid(transforms(taps).of_outputs, products)
  y = jnp.stack([jnp.stack(row, 3) for row in outputs], 2)
  y = y.reshape(len(x), *(OUTPUTS * n for n in counts), kernel_shape[-1])
  return y[:, : sizes[0], : sizes[1]]


def correlate(x, gradient, kernel_shape, stride, padding):
  """(n, h, w, c), (n, h', w', d) -> a grid of (c, d).

  `kernel_gradient` takes the sum of these over blocks.
  """
  del stride
  counts = [-(-size // OUTPUTS) for size in gradient.shape[1:3]]
  return jax.tree.map(
    lambda inputs, gradients: inputs.T @ gradients,
    input_tiles(x, counts, kernel_shape[0], padding),
    gradient_tiles(gradient, counts, kernel_shape[0]),
  )


def kernel_gradient(totals, kernel_shape):
  """The transpose of `transform`, which is linear in the kernel."""
  of_taps = transforms(kernel_shape[0]).of_taps
  return jnp.array(combine_grid(of_taps.T, totals)).reshape(kernel_shape)


def input_tiles(x, counts, taps, padding):
  """(n, h, w, c), number of tiles along each side -> a grid of (n * tiles, c)."""
  ends = [
    (low, OUTPUTS * count + taps - 1 - low - size, 0)
    for size, count, (low, _) in zip(x.shape[1:3], counts, padding, strict=True)
  ]
  x = lax.pad(x, 0.0, ((0, 0, 0), *ends, (0, 0, 0)))
  of_inputs = transforms(taps).of_inputs
  # One side after the other: a pass over whole rows per point, then one per pair of points.
  rows = combine(of_inputs, overlapping(x, 1, counts[0], len(of_inputs)))
  return [
    [
      part.reshape(-1, x.shape[-1])
      for part in combine(of_inputs, overlapping(row, 2, counts[1], len(of_inputs)))
    ]
    for row in rows
  ]


def overlapping(x, axis, count, length):
  """The first elements of all tiles along an axis, the second ones, and so on."""
  pairs = x.reshape(*x.shape[:axis], -1, OUTPUTS, *x.shape[axis + 1 :])

  def of_all(i):
    which = lax.slice_in_dim(pairs, i // OUTPUTS, i // OUTPUTS + count, axis=axis)
    return lax.index_in_dim(which, i % OUTPUTS, axis + 1, keepdims=False)

  return [of_all(i) for i in range(length)]


def gradient_tiles(gradient, counts, taps):
  """(n, h', w', d), number of tiles along each side -> a grid of (n * tiles, d)."""
  n, *sizes, d = gradient.shape
  ends = [(0, OUTPUTS * m - size, 0) for m, size in zip(counts, sizes, strict=True)]
  tiles = lax.pad(gradient, 0.0, ((0, 0, 0), *ends, (0, 0, 0)))
  tiles = tiles.reshape(n, counts[0], OUTPUTS, counts[1], OUTPUTS, d)
  sides = range(OUTPUTS)
  grid = [[tiles[:, :, i, :, j].reshape(-1, d) for j in sides] for i in sides]
  return combine_grid(transforms(taps).of_outputs.T, grid)


def combine_grid(matrix, grid):
  """matrix @ grid @ matrix.T, for a grid of arrays."""
  rows = [combine(matrix, row) for row in grid]
  columns = [combine(matrix, column) for column in zip(*rows, strict=True)]
  return [list(row) for row in zip(*columns, strict=True)]


def combine(matrix, parts):
  """matrix @ parts, for a list of arrays: one array per row of the matrix."""
  return [
    sum(float(factor) * part for factor, part in zip(row, parts, strict=True) if factor)
    for row in matrix
  ]
