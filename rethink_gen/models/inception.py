"""The small Inception (Zhang et al. 2017, Appendix A, Figure 3)."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.initialization import initializers
from rethink_gen.ops import pool

# In order: a pair is an Inception module (channels of its 1x1 and 3x3 convolutions), a
# single number is a downsample module (channels of its 3x3 convolution).
MODULES = '32+32 32+48 80 112+48 96+64 80+80 48+96 96 176+160 176+160'


def parse_modules(text):
  """Parses a string like MODULES: [(1x1 channels, 3x3 channels) or (channels,), ...]."""
  return [tuple(map(int, module.split('+'))) for module in text.split()]


class ConvModule(nn.Module):
  """Convolution, batch normalization, ReLU: (n, h, w, c) -> (n, h', w', features).

  Batch normalization has an offset but no scale, and its convolution has no bias; without
  batch normalization the convolution has one. Both give the paper's parameter count.
  """

  features: int
  kernel_size: int | tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'
  batch_norm: bool = True
  initialization: str = 'glorot_uniform'
  layer: str = 'convolution'  # or 'first': the kind of layer, for the initialization
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    x = layers.Conv(
      self.features,
      self.kernel_size,
      self.stride,
      self.padding,
      use_bias=not self.batch_norm,
      initialization=self.initialization,
      layer=self.layer,
      dtype=self.dtype,
    )(x)
    if self.batch_norm:
      # The running statistics adapt within ten steps, because short runs on subsets are
      # evaluated with them too.
      x = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-3,
        use_scale=False,
        dtype=self.dtype,
      )(x)
    return layers.relu(self, x, 'relu')


class Inception(nn.Module):
  """The small Inception: (n, h, w, c) -> logits (n, num_classes).

  The paper's modules, with 3 input channels and 10 classes, have 1,649,402 parameters, with
  or without batch normalization (Table 1); `modules` sets others. Dropout precedes the last
  linear layer. `initialization` is a rule of `models.initialization`; offsets start at
  zero. Batch statistics are those of the whole batch over all devices or, with
  `batch_norm_per_device`, which `sgd.train_step` reads, of each device's part.
  """

  num_classes: int
  modules: str = MODULES
  batch_norm: bool = True
  batch_norm_per_device: bool = False
  initialization: str = 'glorot_uniform'
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    def conv(features, kernel_size, stride, x, layer='convolution'):
      return ConvModule(
        features,
        kernel_size,
        stride,
        batch_norm=self.batch_norm,
        initialization=self.initialization,
        layer=layer,
        dtype=self.dtype,
      )(x, train)

    x = conv(96, 3, 1, x, 'first')
    for channels in parse_modules(self.modules):
      if len(channels) == 2:
        branches = conv(channels[0], 1, 1, x), conv(channels[1], 3, 1, x)
      else:
        branches = conv(channels[0], 3, 2, x), pool.max_pool(x)
      x = jnp.concatenate(branches, axis=-1)
    x = x.mean((1, 2))
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    start = initializers(self.initialization, 'output')
    x = nn.Dense(self.num_classes, **start, dtype=self.dtype)(x)
    return x.astype(jnp.float32)
