"""Inception V3 (Szegedy et al. 2015, arXiv:1512.00567), the paper's network on ImageNet."""

import flax.linen as nn
import jax.numpy as jnp

from rethink_gen.models import layers
from rethink_gen.models.inception import ConvModule
from rethink_gen.models.initialization import initializers
from rethink_gen.ops import pool

SMALLEST = 75  # pixels per side; with fewer, nothing is left for the last modules
# A branch is a sequence of convolutions, each (channels, kernel size, then stride and
# padding unless they are 1 and SAME); DOWN halves the sides.
DOWN = (2, 'VALID')
STEM = ((32, 3, *DOWN), (32, 3, 1, 'VALID'), (64, 3))
REPEATS = '3 4 2'  # number of modules at 35, 17 and 8 pixels per side, for inputs of 299
STEM_2 = ((80, 1), (192, 3, 1, 'VALID'))


class InceptionV3(nn.Module):
  """Inception V3: (n, h, w, 3) -> logits (n, num_classes), for 299 pixels per side.

  It has 23,817,352 parameters with 1,000 classes, without the auxiliary head. As in
  TF-Slim, whose code the paper extends, batch normalization has an offset but no scale,
  since the convolution after the ReLU can scale as well. A scale for each of the 17,216
  channels would give the 23,834,568 parameters of PyTorch's model. Average pooling excludes
  padding.

  `repeats` is the number of modules at each size, for shallower networks. `initialization`
  is a rule of `models.initialization`; offsets start at zero. Dropout precedes the last
  linear layer. With `aux_head`, training also sows the logits of a small classifier on the
  last 17x17 layer into the collection layers.AUXILIARY, whose loss `sgd.train_step` adds.

  Raises:
    ValueError: if called on images of fewer than 75 pixels per side.
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
      raise ValueError(
        f'Inception V3 takes at least {SMALLEST} pixels per side, not {x.shape[1:3]}.'
      )

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
    if self.aux_head and (train or self.is_initializing()):  # last: names depend on order
      side = nn.avg_pool(side, (5, 5), (3, 3)) if min(side.shape[1:3]) >= 5 else side
      side = convs(side, (128, 1), (768, side.shape[1:3], 1, 'VALID'))
      self.sow(layers.AUXILIARY, 'logits', linear(side.mean((1, 2))))
    return logits


def join(*branches):
  return jnp.concatenate(branches, axis=-1)


def average_pool(x):
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)
