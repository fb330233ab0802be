"""Multi-layer perceptrons (Zhang et al. 2017, Appendix A), in three parametrizations."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.initialization import initializers

PARAMETRIZATIONS = ('standard', 'ntk', 'mup')


class MLP(nn.Module):
  """`depth` hidden ReLU layers of `width` units: (n, ...) -> logits (n, num_classes).

  With 28x28x3 inputs and 10 classes it has 1,209,866 parameters at 1x512 and 1,735,178 at
  3x512 (Table 1). Dropout follows each hidden layer. `initialization` is a rule of
  `models.initialization`.

  `parametrization` says how the network changes with its width, so that one learning rate
  of SGD serves all layers at all widths. With m = width / base_width:

  - 'standard': the rule at the actual width, without multipliers. As m grows, a fixed
    learning rate becomes unstable.
  - 'ntk': parameters are drawn as at the base width, and every kernel after the first is
    multiplied by m^-1/2 in the forward pass. Features change less as m grows.
  - 'mup', the maximal-update parametrization: in addition, hidden layers are multiplied by
    m^1/2, biases included, and what a hidden layer or the output kernel draws is m^-1/2
    smaller. Features change alike at all widths.

  In the notation of Yang & Hu (arXiv:2011.14522), with kernels m^-a w, entries
  of w of standard deviation m^-b and the first, hidden and output layers in this order:
  'ntk' has a = 0, 1/2, 1/2 and b = 0, 0, 0; 'mup' has a = -1/2, 0, 1/2 and b = 1/2, 1/2,
  1/2; and both have c = 0, a learning rate that does not depend on m. A bias is the weight
  of a constant input. One of a hidden layer therefore scales like the first layer's kernel:
  factor 1 in 'ntk', m^1/2 in 'mup', where a rule's non-zero start is divided by the same
  factor. The output layer's bias has factor 1.

  At width = base_width all three are the same network, to the bit.
  """

  num_classes: int
  depth: int = 1
  width: int = 512
  parametrization: str = 'standard'  # or another of PARAMETRIZATIONS
  base_width: int = 512  # without effect in the standard parametrization
  initialization: str = 'glorot_uniform'
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    x = x.reshape(x.shape[0], -1)
    has_width = self.depth > 0 and self.width != self.base_width
    scaled = has_width and self.parametrization != 'standard'
    root = math.sqrt(self.width / self.base_width) if scaled else 1.0
    grown = root if self.parametrization == 'mup' else 1.0  # factor of a hidden layer
    base_width = self.base_width if scaled else self.width

    def dense(x, units, layer, is_first):
      start = initializers(self.initialization, layer)
      hidden = layer == 'linear'
      if scaled:
        base = x.shape[-1] if is_first else base_width, base_width if hidden else units
        start['kernel_init'] = at_base(start['kernel_init'], base, 1 / grown)
        if hidden:
          start['bias_init'] = at_base(start['bias_init'], (base_width,), 1 / grown)
      x = x if is_first or root == 1 else x / root
      x = nn.Dense(units, **start, dtype=self.dtype)(x)
      return x * grown if hidden and grown != 1 else x

    for number in range(1, self.depth + 1):
      x = dense(x, self.width, 'linear', is_first=number == 1)
      x = layers.relu(self, x, f'linear_{number}')
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    x = dense(x, self.num_classes, 'output', is_first=self.depth == 0)
    return x.astype(jnp.float32)


def at_base(initialize, base, factor):
  """An initializer that draws entries as `initialize` does for the shape `base`, scaled.

  An array of another shape is cut from blocks of the base shape, so that this holds for
  every rule, whatever it makes of fan-in and fan-out.
  """

  def start(key, shape, *dtype):
    counts = [-(-size // block) for size, block in zip(shape, base, strict=True)]
    keys = jax.random.split(key, math.prod(counts))
    blocks = jax.vmap(lambda key: initialize(key, base, *dtype))(keys)
    blocks = blocks.reshape(*counts, *base)
    if len(base) == 2:
      blocks = blocks.swapaxes(1, 2)
    whole = blocks.reshape([n * size for n, size in zip(counts, base, strict=True)])
    return factor * whole[tuple(slice(size) for size in shape)]

  return start
