"""Inception V3 (Szegedy et al. 2015, arXiv:1512.00567), the paper's network on ImageNet."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.inception import ConvModule
from rethink_gen.models.initialization import initializers
from rethink_gen.ops import pool

SMALLEST = 75  # pixels of a side: less leaves the last modules nothing
# A branch is a sequence of convolutions, each (channels, kernel, stride and padding if not
# 1 and SAME); DOWN is what halves the sides.
DOWN = (2, 'VALID')
STEM = ((32, 3, *DOWN), (32, 3, 1, 'VALID'), (64, 3))
REPEATS = '3 4 2'  # modules at 35, 17 and 8 pixels a side, of 299
STEM_2 = ((80, 1), (192, 3, 1, 'VALID'))


class InceptionV3(nn.Module):
  """Inception V3: (n, h, w, 3) -> logits (n, num_classes); 299 pixels a side, 75 or more.

  23,817,352 parameters with 1,000 classes, without the auxiliary head. As in TF-Slim, whose
  code the paper extends, batch normalization has an offset and no scale: the convolution
  after the ReLU can scale as well. A scale for each of its 17,216 channels would make it
  the 23,834,568 of PyTorch's model. Average pooling leaves its padding out.

  `repeats` says how many modules there are at each size, for networks of less depth.
  Parameters start by `initialization`, a rule of `models.initialization`, offsets at zero.
  Dropout comes before the last linear layer. With `aux_head`, training also gives the
  logits of a small classifier on the last 17x17 layer, in the collection layers.AUXILIARY,
  for `sgd.train_step` to minimize too.

  Raises:
    ValueError: when called on images of fewer than 75 pixels a side.
  """

  num_classes: int
  repeats: str = REPEATS
  aux_head: bool = False
  batch_norm_per_device: bool = False
  initialization: str = 'glorot_uniform'
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool):
    if min(x.shape[1:3]) < SMALLEST:
      raise ValueError(f'Inception V3 takes {SMALLEST} pixels a side, not {x.shape[1:3]}.')

    def convs(x, *branch):
      for features, kernel_size, *stride_and_padding in branch:
        x = ConvModule(
          features,
          kernel_size,
          *stride_and_padding,
          initialization=self.initialization,
          dtype=self.dtype,
        )(x, train)
      return x

    def linear(x):
      start = initializers(self.initialization, 'output')
      x = nn.Dense(self.num_classes, **start, dtype=self.dtype)(x)
      return x.astype(jnp.float32)

    x = pool.max_pool(convs(x, *STEM), 'VALID')
    x = pool.max_pool(convs(x, *STEM_2), 'VALID')
    at_35, at_17, at_8 = map(int, self.repeats.split())
    for pooled in (32, *(at_35 - 1) * (64,)):
      x = join(
        convs(x, (64, 1)),
        convs(x, (48, 1), (64, 5)),
        convs(x, (64, 1), (96, 3), (96, 3)),
        convs(average_pool(x), (pooled, 1)),
      )
    x = join(
      convs(x, (384, 3, *DOWN)),
      convs(x, (64, 1), (96, 3), (96, 3, *DOWN)),
      pool.max_pool(x, 'VALID'),
    )
    for c in (128, *(at_17 - 2) * (160,), 192)[:at_17]:
      wide, high = (1, 7), (7, 1)
      x = join(
        convs(x, (192, 1)),
        convs(x, (c, 1), (c, wide), (192, high)),
        convs(x, (c, 1), (c, high), (c, wide), (c, high), (192, wide)),
        convs(average_pool(x), (192, 1)),
      )
    side = x
    x = join(
      convs(x, (192, 1), (320, 3, *DOWN)),
      convs(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, *DOWN)),
      pool.max_pool(x, 'VALID'),
    )
    for _ in range(at_8):
      middle, deep = convs(x, (384, 1)), convs(x, (448, 1), (384, 3))
      x = join(
        convs(x, (320, 1)),
        *(convs(middle, (384, size)) for size in ((1, 3), (3, 1))),
        *(convs(deep, (384, size)) for size in ((1, 3), (3, 1))),
        convs(average_pool(x), (192, 1)),
      )
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x.mean((1, 2)))
    logits = linear(x)
    if self.aux_head and (train or self.is_initializing()):  # last: names go by order
      side = nn.avg_pool(side, (5, 5), (3, 3)) if min(side.shape[1:3]) >= 5 else side
      side = convs(side, (128, 1), (768, side.shape[1:3], 1, 'VALID'))
      self.sow(layers.AUXILIARY, 'logits', linear(side.mean((1, 2))))
    return logits


def join(*branches):
  return jnp.concatenate(branches, axis=-1)


def average_pool(x):
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)
