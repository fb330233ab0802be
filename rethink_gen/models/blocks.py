"""Convolution on a CPU: a few images at a time, as a product of patches and kernel.

XLA's matrix product keeps a CPU about three times as busy as its convolution. The patches
of all images would have to be written to memory and read again, k * l times the input;
those of a few images stay in the caches. Forward-mode differentiation does not go through
a custom_vjp.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

PATCHES = 6 << 20  # bytes: of 2 to 12 MiB the fastest on two cores, by a little


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x, kernel, stride, padding):
  """Convolution: (n, h, w, c), (k, l, c, d) -> (n, h', w', d).

  padding is ((top, bottom), (left, right)).
  """
  matrix = kernel.reshape(-1, kernel.shape[-1])

  def convolve_block(images):
    return _patches(images, kernel.shape, stride, padding) @ matrix

  blocks = lax.map(convolve_block, _blocks(x, kernel.shape, stride))
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
  """Places whose distance is a multiple of the stride are reached by the same taps.

  So the gradient of each such set is a convolution of its own, without zeros between.
  """
  padded = [n + low + high for n, (low, high) in zip(x.shape[1:3], padding, strict=True)]
  # With stride 1 there is one set, of which what lies in the padding is left out.
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
  """The sum over blocks of the products of patches and gradient."""
  images = _blocks(x, kernel.shape, stride)
  gradients = gradient.reshape(*images.shape[:2], *gradient.shape[1:])

  def add_block(total, block):
    patches = _patches(block[0], kernel.shape, stride, padding)
    # In this order it is up to twice as fast as with patches first.
    product = jnp.einsum(
      'nhwd,nhwp->dp', block[1], patches, preferred_element_type=jnp.float32
    )
    return total + product, None

  zero = jnp.zeros((kernel.shape[-1], kernel[..., 0].size))
  total, _ = lax.scan(add_block, zero, (images, gradients))
  return total.T.reshape(kernel.shape).astype(kernel.dtype)


def _patches(x, kernel_shape, stride, padding):
  """What each output sees: (n, h, w, c) -> (n, h', w', k * l * c)."""
  x = lax.pad(
    x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0))
  )
  ends = [
    (n - k) // stride * stride + 1
    for n, k in zip(x.shape[1:3], kernel_shape[:2], strict=True)
  ]
  slices = [
    x[:, i : i + ends[0] : stride, j : j + ends[1] : stride]
    for i in range(kernel_shape[0])
    for j in range(kernel_shape[1])
  ]
  return jnp.concatenate(slices, -1)


def _blocks(x, kernel_shape, stride):
  """(n, h, w, c) -> (n / b, b, h, w, c) with so many images that PATCHES holds theirs."""
  size = x[0].size * kernel_shape[0] * kernel_shape[1] // stride**2 * x.dtype.itemsize
  most = max(1, min(len(x), PATCHES // size))
  block = next(b for b in range(most, 0, -1) if len(x) % b == 0)
  return x.reshape(-1, block, *x.shape[1:])
