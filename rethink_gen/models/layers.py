"""Layers the models share: convolution, max-pooling, local response normalization.

The convolution's backward pass and the pooling are written out because XLA's CPU backend
falls back to naive loops, 25 to 50 times slower, for what autodiff makes of them inside a
compiled loop (jax issue 12868). The values are the same. Other backends have
not been timed. Forward-mode differentiation does not go through a custom_vjp.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# A collection of logits, beside a model's own, whose loss helps to train it.
AUXILIARY = 'auxiliary'

# ReLU layers keep the variance of their input with it (arXiv:1502.01852).
kernel_init = nn.initializers.he_normal()


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
  )


def _convolve_forward(x, kernel, stride, padding):
  return _convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride, padding, saved, gradient):
  """Both gradients as forward convolutions in the one order of dimensions that is fast."""
  x, kernel = saved
  # What stride and padding leave unused at the far end of the input gets no gradient.
  unused = [
    n + low + high - (stride * (m - 1) + k)
    for n, k, m, (low, high) in zip(
      x.shape[1:3], kernel.shape[:2], gradient.shape[1:3], padding, strict=True
    )
  ]
  sides = list(zip(kernel.shape[:2], padding, unused, strict=True))
  # Input: the dilated gradient against the flipped kernel with its channels swapped.
  x_gradient = lax.conv_general_dilated(
    gradient,
    jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
    (1, 1),
    [(k - 1 - low, k - 1 - high + rest) for k, (low, high), rest in sides],
    lhs_dilation=(stride, stride),
    dimension_numbers=DIMENSIONS,
  )
  # Kernel: the input against the dilated gradient, channels and batch exchanged.
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
  if kernel.shape[:2] == (1, 1) and stride == 1:
    return x @ kernel[0, 0]
  pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
  return _convolve(x, kernel, stride, tuple(pads))


class Conv(nn.Module):
  """A convolution: (n, h, w, c) -> (n, h', w', d). `kernel_size` is k, or (k, l)."""

  features: int
  kernel_size: int | tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    size = self.kernel_size
    size = size if isinstance(size, tuple) else (size, size)
    kernel = self.param('kernel', kernel_init, (*size, x.shape[-1], self.features))
    x = x.astype(self.dtype)
    x = convolve(x, kernel.astype(self.dtype), self.stride, self.padding)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)
    return x


def max_pool(x, padding='SAME'):
  """3x3 max-pooling with stride 2, padding SAME or VALID: (n, h, w, c) -> (n, h', w', c).

  As a maximum of nine shifted slices, for its gradient's sake. Where values tie, the
  gradient is shared among them; after a ReLU nearly all ties are zeros, whose
  gradient is stopped there.
  """
  pads = lax.padtype_to_pads(x.shape[1:3], (3, 3), (2, 2), padding)
  padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
  height, width = ((n - 3) // 2 + 1 for n in padded.shape[1:3])
  slices = [
    padded[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
    for i in range(3)
    for j in range(3)
  ]
  return jax.tree.reduce(jnp.maximum, slices)


def local_response_normalization(x, depth_radius=4, bias=1.0, alpha=0.001 / 9):
  """x / (bias + alpha * sum of squares over nearby channels)^0.75 (AlexNet, section 3.3).

  The sum runs over the 2 * depth_radius + 1 channels around each; the defaults are those
  of TensorFlow's CIFAR-10 tutorial. As a product with a band matrix: (n, h, w, c) -> same.
  """
  channel = jnp.arange(x.shape[-1])
  band = jnp.abs(channel[:, None] - channel) <= depth_radius
  scale = bias + alpha * (jnp.square(x) @ band.astype(x.dtype))
  inverse_root = lax.rsqrt(scale)
  return x * inverse_root * jnp.sqrt(inverse_root)
