"""Convolution on CPU as matrix products, a few images at a time.

XLA's matrix product keeps a CPU about three times as busy as its convolution. For it,
images are expanded to the patches of `im2col` or the tiles of `winograd`; for a whole batch
these would be written to memory and read back, but for a few images they stay in cache.
Forward-mode differentiation does not go through a custom_vjp.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from rethink_gen.ops import im2col, winograd


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x, kernel, stride, padding):
  """Convolution: (n, h, w, c), (k, l, c, d) -> (n, h', w', d).

  padding is ((top, bottom), (left, right)).
  """
  way = _way(x, kernel, stride)
  transformed = way.transform(kernel)
  blocks = lax.map(
    lambda images: way.convolve(images, transformed, kernel.shape, stride, padding),
    _blocks(x, way, kernel.shape, stride),
  )
  return blocks.reshape(len(x), *blocks.shape[2:])


def _forward(x, kernel, stride, padding):
  return convolve(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, gradient):
  x, kernel = saved
  return (
    _input_gradient(x, kernel, stride, padding, gradient),
    _kernel_gradient(x, kernel, stride, padding, gradient),
  )


convolve.defvjp(_forward, _backward)


def _input_gradient(x, kernel, stride, padding, gradient):
  """The gradient of the input, as stride**2 convolutions without zeros in between.

  Positions whose distance is a multiple of the stride are reached by the same taps, so the
  gradient of each such set is a convolution of its own.
  """
  padded = [n + low + high for n, (low, high) in zip(x.shape[1:3], padding, strict=True)]
  # With stride 1 there is one set, and its part in the padding is left out.
  lows = [low if stride == 1 else 0 for low, _ in padding]
  counts = x.shape[1:3] if stride == 1 else [-(-n // stride) for n in padded]

  def of_set(row, column):
    taps = jnp.flip(kernel[row::stride, column::stride], (0, 1)).swapaxes(2, 3)
    if not taps.size:
      return jnp.zeros((len(x), *counts, x.shape[-1]), gradient.dtype)
    around = tuple(
      (k - 1 - low, low + count - m)
      for k, low, count, m in zip(
        taps.shape[:2], lows, counts, gradient.shape[1:3], strict=True
      )
    )
    return convolve(gradient, taps, 1, around)

  if stride == 1:
    return of_set(0, 0)
  sets = range(stride)
  rows = [jnp.stack([of_set(row, column) for column in sets], 3) for row in sets]
  whole = jnp.stack(rows, 2).reshape(len(x), *(stride * n for n in counts), x.shape[-1])
  (top, _), (left, _) = padding
  return whole[:, top : top + x.shape[1], left : left + x.shape[2]]


def _kernel_gradient(x, kernel, stride, padding, gradient):
  """The gradient of the kernel: correlations of inputs and gradient, summed over blocks."""
  way = _way(x, kernel, stride)
  images = _blocks(x, way, kernel.shape, stride)
  gradients = gradient.reshape(*images.shape[:2], *gradient.shape[1:])

  def correlate(block):
    return way.correlate(*block, kernel.shape, stride, padding)

  def add_block(total, block):
    return jax.tree.map(jnp.add, total, correlate(block)), None

  block = jax.eval_shape(correlate, (images[0], gradients[0]))
  zero = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), block)
  total, _ = lax.scan(add_block, zero, (images, gradients))
  return way.kernel_gradient(total, kernel.shape).astype(kernel.dtype)


def _way(x, kernel, stride):
  return winograd if winograd.suits(x, kernel.shape, stride) else im2col


def _blocks(x, way, kernel_shape, stride):
  """(n, h, w, c) -> (n / b, b, h, w, c): blocks whose intermediates fit in way.BYTES."""
  size = way.bytes_of_image(x.shape[1:], kernel_shape, stride) * x.dtype.itemsize // 4
  most = max(1, min(len(x), way.BYTES // size))
  block = next(b for b in range(most, 0, -1) if len(x) % b == 0)
  return x.reshape(-1, block, *x.shape[1:])
