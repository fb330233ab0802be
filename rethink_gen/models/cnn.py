"""The five-layer convolutional network of the double-descent literature."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.initialization import initializers


class CNN(nn.Module):
  """Four convolution blocks and a linear layer: (n, h, w, c) -> (n, num_classes).

  A block is a 3x3 convolution, batch normalization, ReLU and max-pooling. The blocks have
  k, 2k, 4k and 8k channels for k = `width`, and pool by 1, 2, 2 and over all that is left,
  so that the linear layer has 8k inputs (Nakkiran et al., arXiv:1912.02292). With k = 64, 3
  input channels and 10 classes there are 1,558,026 parameters. Dropout precedes the linear
  layer. The running statistics adapt as quickly as those of `models.inception`.
  """

  num_classes: int
  width: int = 64
  initialization: str = 'glorot_uniform'
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    for number, pooled in enumerate((1, 2, 2, None)):
      layer = 'convolution' if number else 'first'
      x = layers.Conv(
        self.width * 2**number,
        3,
        initialization=self.initialization,
        layer=layer,
        dtype=self.dtype,
      )(x)
      x = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype
      )(x)
      x = layers.relu(self, x, f'conv_{number + 1}')
      window = (pooled, pooled) if pooled else x.shape[1:3]
      x = nn.max_pool(x, window, window)
    x = x.reshape(len(x), -1)
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    start = initializers(self.initialization, 'output')
    x = nn.Dense(self.num_classes, **start, dtype=self.dtype)(x)
    return x.astype(jnp.float32)
