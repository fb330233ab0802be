"""The small AlexNet (Zhang et al. 2017, Appendix A)."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers


class AlexNet(nn.Module):
  """Two convolution modules and three linear layers: (n, h, w, c) -> (n, num_classes).

  A module is a 5x5 convolution with 64 channels, ReLU, 3x3 max-pooling with stride 2 and
  local response normalization; then linear layers of 384, 192 and `num_classes`. The paper
  does not state the 64 channels; only 64 gives its 1,387,786 parameters (28x28x3 inputs,
  10 classes). Kernels start He-normal, biases at zero. Dropout follows 384 and 192.
  """

  num_classes: int
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    for _ in range(2):
      x = nn.relu(layers.Conv(64, 5, dtype=self.dtype)(x))
      x = layers.local_response_normalization(layers.max_pool(x))
    x = x.reshape(x.shape[0], -1)
    for width in (384, 192):
      x = nn.Dense(width, kernel_init=layers.kernel_init, dtype=self.dtype)(x)
      x = nn.relu(x)
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    x = nn.Dense(self.num_classes, kernel_init=layers.kernel_init, dtype=self.dtype)(x)
    return x.astype(jnp.float32)
