"""Multi-layer perceptrons (Zhang et al. 2017, Appendix A)."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.initialization import initializers


class MLP(nn.Module):
  """`depth` hidden ReLU layers of `width` units: (n, ...) -> logits (n, num_classes).

  With 28x28x3 inputs and 10 classes it has 1,209,866 parameters at 1x512 and 1,735,178 at
  3x512 (Table 1). Dropout follows each hidden layer. `initialization` is a rule of
  `models.initialization`.
  """

  num_classes: int
  depth: int = 1
  width: int = 512
  initialization: str = 'glorot_uniform'
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    x = x.reshape(x.shape[0], -1)
    hidden, output = (initializers(self.initialization, n) for n in ('linear', 'output'))
    for number in range(1, self.depth + 1):
      x = nn.Dense(self.width, **hidden, dtype=self.dtype)(x)
      x = layers.relu(self, x, f'linear_{number}')
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    x = nn.Dense(self.num_classes, **output, dtype=self.dtype)(x)
    return x.astype(jnp.float32)
