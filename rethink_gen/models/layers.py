"""Layers shared by the models: convolution, and a ReLU that reports its active units.

Array operations without parameters, which these build on, are in `ops`.
"""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models.initialization import initializers
from rethink_gen.ops import conv

# Flax collection of the logits of auxiliary heads, whose loss is added in training.
AUXILIARY = 'auxiliary'

# Flax collection of which units of each ReLU layer are active for some example of a batch.
ACTIVITY = 'activity'


def relu(module, x, layer):
  """max(x, 0): (..., units) -> same; also sows which units are active, if requested.

  If the collection ACTIVITY of the calling linen module is mutable, sows bool (units,) into
  it under the layer's name: true if the output of a unit is above zero for any example, and
  in a convolution at any position.
  """
  x = nn.relu(x)
  if module.is_mutable_collection(ACTIVITY) and not module.is_initializing():
    active = (x > 0).any(range(x.ndim - 1))
    module.sow(ACTIVITY, layer, active, reduce_fn=lambda _, new: new)
  return x


class Conv(nn.Module):
  """A convolution with `kernel_size` k or (k, l): (n, h, w, c) -> (n, h', w', d)."""

  features: int
  kernel_size: int | tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'
  use_bias: bool = True
  initialization: str = 'glorot_uniform'
  layer: str = 'convolution'  # or 'first': the kind of layer, for the initialization
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
