"""Multi-layer perceptrons (Zhang et al. 2017, Appendix A)."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers


class MLP(nn.Module):
  """`depth` hidden ReLU layers of `width` units: (n, ...) -> logits (n, num_classes).

  On 28x28x3 inputs and 10 classes: 1,209,866 parameters at 1x512, 1,735,178 at 3x512
  (Table 1). Kernels start He-normal, biases at zero. Dropout follows each hidden layer.
  """

  num_classes: int
  depth: int = 1
  width: int = 512
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    x = x.reshape(x.shape[0], -1)
    for _ in range(self.depth):
      x = nn.Dense(self.width, kernel_init=layers.kernel_init, dtype=self.dtype)(x)
      x = nn.relu(x)
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    x = nn.Dense(self.num_classes, kernel_init=layers.kernel_init, dtype=self.dtype)(x)
    return x.astype(jnp.float32)
