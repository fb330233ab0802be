"""Layers the models share: convolution, max-pooling, local response normalization.

Backward passes are written out because XLA's CPU backend falls back to naive loops, 25 to
50 times slower, for what autodiff makes of a convolution inside a compiled loop (jax issue
12868), and takes four times as long over the gradient of a maximum. The values are the
same. Other backends have not been timed. Forward-mode differentiation does not go through
a custom_vjp.
"""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models.initialization import initializers
from rethink_gen.ops import conv

# A collection of logits, beside a model's own, whose loss helps to train it.
AUXILIARY = 'auxiliary'

# A collection: which units of each ReLU layer are active for some example of a batch.
ACTIVITY = 'activity'


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
    x = conv.convolve(x, kernel.astype(self.dtype), self.stride, self.padding)
    if self.use_bias:
      bias = self.param('bias', start['bias_init'], (self.features,))
      x = x + bias.astype(self.dtype)
    return x
