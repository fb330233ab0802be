"""Convolution, with a backward pass of its own on CPUs.

There the backward pass is written out because XLA's CPU backend falls back to naive loops,
25 to 50 times slower, for autodiff's convolution gradients inside compiled loops (jax issue
12868). The values are the same. Forward-mode differentiation does not go through a
custom_vjp. Elsewhere it is `lax.conv_general_dilated` and its autodiff.
"""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from rethink_gen import sharding
from rethink_gen.ops import blocked_conv

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# Minimum multiplications per batch for the blocked convolution: with fewer, it saves some
# milliseconds per step but takes seconds longer to compile.
FEWEST_MULTIPLICATIONS = 100_000_000


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
  )


def _convolve_forward(x, kernel, stride, padding):
  return _convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride, padding, saved, gradient):
  """Both gradients as forward convolutions, in the only dimension order that is fast."""
  x, kernel = saved
  # Inputs that stride and padding leave unused at the far end get no gradient.
  unused = [
    n + low + high - (stride * (m - 1) + k)
    for n, k, m, (low, high) in zip(
      x.shape[1:3], kernel.shape[:2], gradient.shape[1:3], padding, strict=True
    )
  ]
  sides = list(zip(kernel.shape[:2], padding, unused, strict=True))
  # Input gradient: the dilated gradient with the flipped kernel, channels swapped.
  x_gradient = lax.conv_general_dilated(
    gradient,
    jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
    (1, 1),
    [(k - 1 - low, k - 1 - high + rest) for k, (low, high), rest in sides],
    lhs_dilation=(stride, stride),
    dimension_numbers=DIMENSIONS,
  )
  # Kernel gradient: the input with the dilated gradient, channels and batch swapped.
  kernel_gradient = lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    gradient.transpose(1, 2, 0, 3),
    (1, 1),
    [(low, high - rest) for _, (low, high), rest in sides],
    rhs_dilation=(stride, stride),
    dimension_numbers=DIMENSIONS,
  ).transpose(1, 2, 0, 3)
  return x_gradient, kernel_gradient


_convolve.defvjp(_convolve_forward, _convolve_backward)


def convolve(x, kernel, stride=1, padding='SAME'):
  """Convolution, padding SAME or VALID: (n, h, w, c), (k, l, c, d) -> (n, h', w', d)."""
  if sharding.platform() != 'cpu':
    return lax.conv_general_dilated(
      x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
    )
  if kernel.shape[:2] == (1, 1) and stride == 1:
    # As matrices: XLA transposes autodiff's contraction of several dimensions, slowly.
    y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return y.reshape(*x.shape[:-1], -1)
  pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
  how = blocked_conv.convolve if in_blocks(x, kernel, stride) else _convolve
  return how(x, kernel, stride, tuple(pads))


def in_blocks(x, kernel, stride):
  """Whether to convolve in blocks: on one CPU device, where XLA's convolution is slow.

  With several devices, blocks would be gathered.
  """
  multiplications = x.size * kernel.size // (x.shape[-1] * stride**2)
  return (
    len(sharding.devices()) == 1
    and multiplications >= FEWEST_MULTIPLICATIONS
    and not _WHOLE
  )


_WHOLE = []


@contextlib.contextmanager
def whole():
  """Disables the blocked convolution, so that FLOP counts match XLA on other backends."""
  _WHOLE.append(True)
  try:
    yield
  finally:
    _WHOLE.pop()
