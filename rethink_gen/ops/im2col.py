"""Convolution as one matrix product, of patches and kernel, for `blocked_conv`."""

import jax.numpy as jnp
from jax import lax

BYTES = 6 << 20  # size of a block's patches; the fastest of 2 to 12 MiB on two cores


def bytes_of_image(image_shape, kernel_shape, stride):
  """The approximate size of the patches of one float32 image (h, w, c)."""
  height, width, channels = image_shape
  rows, columns, *_ = kernel_shape
  return 4 * height * width * channels * rows * columns // stride**2


def transform(kernel):
  """(k, l, c, d) -> (k * l * c, d)."""
  return kernel.reshape(-1, kernel.shape[-1])


def convolve(x, transformed, kernel_shape, stride, padding):
  """(n, h, w, c), transform(kernel) -> (n, h', w', d)."""
  return extract(x, kernel_shape, stride, padding) @ transformed


def correlate(x, gradient, kernel_shape, stride, padding):
  """(n, h, w, c), (n, h', w', d) -> (d, k * l * c).

  `kernel_gradient` takes the sum of these over blocks.
  """
  seen = extract(x, kernel_shape, stride, padding)
  # As matrices: XLA transposes contractions of several dimensions first, slowly.
  return jnp.matmul(
    gradient.reshape(-1, gradient.shape[-1]).T,
    seen.reshape(-1, seen.shape[-1]),
    preferred_element_type=jnp.float32,
  )


def kernel_gradient(total, kernel_shape):
  """(d, k * l * c) -> (k, l, c, d)."""
  return total.T.reshape(kernel_shape)


def extract(x, kernel_shape, stride, padding):
  """The patch that each output sees: (n, h, w, c) -> (n, h', w', k * l * c)."""
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
