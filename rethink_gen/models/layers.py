"""Layers the models share: convolution, max-pooling, local response normalization.

Backward passes are written out because XLA's CPU backend falls back to naive loops, 25 to
50 times slower, for what autodiff makes of a convolution inside a compiled loop (jax issue
12868), and takes four times as long over the gradient of a maximum. The values are the
same. Other backends have not been timed. Forward-mode differentiation does not go through
a custom_vjp.
"""

import contextlib
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rethink_gen.models import blocks
from rethink_gen.models.initialization import initializers

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# Of a convolution of a batch: below, blocks gain some milliseconds a step, and take seconds
# longer to compile.
FEWEST_MULTIPLICATIONS = 100_000_000

# A collection of logits, beside a model's own, whose loss helps to train it.
AUXILIARY = 'auxiliary'

# A collection: which units of each ReLU layer are active for some example of a batch.
ACTIVITY = 'activity'


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
    # As matrices: autodiff's product over several dimensions XLA transposes first, slowly.
    y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return y.reshape(*x.shape[:-1], -1)
  pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
  how = blocks.convolve if in_blocks(x, kernel, stride) else _convolve
  return how(x, kernel, stride, tuple(pads))


def in_blocks(x, kernel, stride):
  """Where XLA's own convolution is slow; over several devices blocks would be gathered."""
  multiplications = x.size * kernel.size // (x.shape[-1] * stride**2)
  on_one_cpu = jax.default_backend() == 'cpu' and jax.device_count() == 1
  return on_one_cpu and multiplications >= FEWEST_MULTIPLICATIONS and not _WHOLE


_WHOLE = []


@contextlib.contextmanager
def whole():
  """In it convolutions are left whole, for those who count what XLA would do elsewhere."""
  _WHOLE.append(True)
  try:
    yield
  finally:
    _WHOLE.pop()


def relu(module, x, layer):
  """max(x, 0): (..., units) -> same. Sows which units are active, where that is asked for.

  Into the collection ACTIVITY of the linen module that calls it, under the layer's name, if
  that collection is mutable: bool (units,), true where the output of a unit is above zero
  for any example, in a convolution at any position.
  """
  x = nn.relu(x)
  if module.is_mutable_collection(ACTIVITY) and not module.is_initializing():
    active = (x > 0).any(range(x.ndim - 1))
    module.sow(ACTIVITY, layer, active, reduce_fn=lambda _, new: new)
  return x


class Conv(nn.Module):
  """A convolution: (n, h, w, c) -> (n, h', w', d). `kernel_size` is k, or (k, l)."""

  features: int
  kernel_size: int | tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'
  use_bias: bool = True
  initialization: str = 'glorot_uniform'
  layer: str = 'convolution'  # or 'first': which layer it is to the initialization
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    size = self.kernel_size
    size = size if isinstance(size, tuple) else (size, size)
    start = initializers(self.initialization, self.layer)
    kernel = self.param('kernel', start['kernel_init'], (*size, x.shape[-1], self.features))
    x = x.astype(self.dtype)
    x = convolve(x, kernel.astype(self.dtype), self.stride, self.padding)
    if self.use_bias:
      bias = self.param('bias', start['bias_init'], (self.features,))
      x = x + bias.astype(self.dtype)
    return x


def max_pool(x, padding='SAME'):
  """3x3 max-pooling with stride 2, padding SAME or VALID: (n, h, w, c) -> (n, h', w', c).

  Along one side after the other, which is the same maximum. Where values tie along a side,
  the gradient is shared among them; after a ReLU nearly all ties are zeros, whose gradient
  is stopped there.
  """
  return _pool_along(1, padding, _pool_along(2, padding, x))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pool_along(axis, padding, x):
  """The maximum of every three neighbours along an axis, with stride 2."""
  first, second, third, _ = _threes(axis, padding, x)
  return jnp.maximum(jnp.maximum(first, second), third)


def _pool_along_forward(axis, padding, x):
  pooled = _pool_along(axis, padding, x)
  return pooled, (x, pooled)


def _pool_along_backward(axis, padding, saved, gradient):
  """Positions at even places are the first of one three and the third of another.

  So the gradient of the even places and that of the odd ones are sums of whole arrays, of
  which the places are then taken in turn.
  """
  x, pooled = saved
  *threes, low = _threes(axis, padding, x)
  largest = [three == pooled for three in threes]
  share = gradient / sum(each.astype(gradient.dtype) for each in largest)
  first, second, third = (jnp.where(each, share, 0) for each in largest)
  even = _pad_along(axis, first, 0, 1) + _pad_along(axis, third, 1, 0)
  both = jnp.stack([even, _pad_along(axis, second, 0, 1)], axis + 1)
  whole = both.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
  return (lax.slice_in_dim(whole, low, low + x.shape[axis], axis=axis),)


_pool_along.defvjp(_pool_along_forward, _pool_along_backward)


def _threes(axis, padding, x):
  """(first, second and third of every three along the axis, the padding before them)."""
  ((low, high),) = lax.padtype_to_pads((x.shape[axis],), (3,), (2,), padding)
  count = (x.shape[axis] + low + high - 3) // 2 + 1
  padded = _pad_along(axis, x, low, 2 * count + 2 - x.shape[axis] - low, -jnp.inf)
  first, second, third = (
    lax.slice_in_dim(padded, start, start + 2 * count - 1, 2, axis) for start in range(3)
  )
  return first, second, third, low


def _pad_along(axis, x, before, after, value=0):
  sides = [(0, 0)] * x.ndim
  sides[axis] = (before, after)
  return jnp.pad(x, sides, constant_values=value)


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
