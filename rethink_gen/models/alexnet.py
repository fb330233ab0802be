"""The small AlexNet (Zhang et al. 2017, Appendix A)."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.initialization import initializers
from rethink_gen.ops import normalization, pool


class AlexNet(nn.Module):
  """Two convolution modules and three linear layers: (n, h, w, c) -> (n, num_classes).

  A convolution module is a 5x5 convolution with 64 channels, ReLU, 3x3 max-pooling with
  stride 2 and local response normalization; the linear layers have 384, 192 and
  `num_classes` units. The paper does not state the 64 channels; only 64 gives its 1,387,786
  parameters (28x28x3 inputs, 10 classes). Dropout follows the layers of 384 and 192 units.
  `initialization` is a rule of `models.initialization`; with He-normal kernels most of the
  second convolution dies.
  """

  num_classes: int
  initialization: str = 'glorot_uniform'
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    for number, layer in enumerate(('first', 'convolution'), 1):
      x = layers.Conv(
        64, 5, initialization=self.initialization, layer=layer, dtype=self.dtype
      )(x)
      x = layers.relu(self, x, f'conv_{number}')
      x = normalization.local_response_normalization(pool.max_pool(x))
    x = x.reshape(x.shape[0], -1)
    linear, output = (initializers(self.initialization, n) for n in ('linear', 'output'))
    for number, width in enumerate((384, 192), 1):
      x = nn.Dense(width, **linear, dtype=self.dtype)(x)
      x = layers.relu(self, x, f'linear_{number}')
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    x = nn.Dense(self.num_classes, **output, dtype=self.dtype)(x)
    return x.astype(jnp.float32)
