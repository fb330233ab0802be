import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen.models import layers
from rethink_gen.models.inception_v3 import InceptionV3

pytestmark = pytest.mark.slow

# The first three logits of `picture` for weights drawn by NumPy. They state the
# architecture exactly and may change only when it is meant to change.
LOGITS = (0.000488, -0.222938, -0.189767)


def shapes(side=299, num_classes=1_000, **fields):
  """The variables of a network, without any numbers."""
  model = InceptionV3(num_classes, **fields)
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  return jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), image
  )


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parameter_counts_are_the_published_ones():
  """Keras has 23,817,352 without scales; PyTorch one more a channel, and with the head
  27,161,264."""
  variables = shapes()
  assert count(variables['params']) == 23_817_352
  channels = count(variables['batch_stats']) // 2
  assert count(variables['params']) + channels == 23_834_568
  with_head = shapes(aux_head=True)
  channels = count(with_head['batch_stats']) // 2
  assert count(with_head['params']) + channels == 27_161_264


def test_the_grids_are_those_of_the_architecture():
  """Table 1 of arXiv:1512.00567: sides and channels of what each part hands on."""
  model = InceptionV3(1_000)
  image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
  apply = functools.partial(model.apply, train=False, capture_intermediates=True)
  _, seen = jax.eval_shape(apply, shapes(), image)
  outputs = [
    seen['intermediates'][f'ConvModule_{k}']['__call__'][0].shape[1:] for k in range(94)
  ]
  assert outputs[:3] == [(149, 149, 32), (147, 147, 32), (147, 147, 64)]
  assert outputs[3:5] == [(73, 73, 80), (71, 71, 192)]
  assert [sum(1 for o in outputs[5:] if o[0] == side) for side in (35, 17, 8)] == [
    *(7 * 3 + 2, 2 + 10 * 4 + 4, 2 + 9 * 2)
  ]


@functools.cache
def small():
  """(model, variables) for ten classes and 75 pixels, with weights that NumPy draws."""
  model = InceptionV3(10, aux_head=True)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'kernel':
      scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * scale)
    return jnp.full(leaf.shape, float(path[-1].key == 'var'))

  variables = shapes(75, 10, aux_head=True)
  kept = {name: variables[name] for name in ('params', 'batch_stats')}
  return model, jax.tree.map_with_path(draw, kept)


def picture(side=75):
  """Two smooth images that need no random numbers."""
  y, x, c, n = jnp.meshgrid(*map(jnp.arange, (side, side, 3, 2)), indexing='ij')
  return jnp.sin(0.3 * x + 0.2 * y + c + n).transpose(3, 0, 1, 2)


@functools.partial(jax.jit, static_argnums=(0, 2))
def outputs(model, variables, train):
  return model.apply(
    variables,
    picture(),
    train=train,
    mutable=['batch_stats', layers.AUXILIARY],
    rngs={'dropout': jax.random.key(0)},
  )


def test_golden_logits_and_no_second_head_in_evaluation():
  logits, updated = outputs(*small(), False)
  assert logits.shape == (2, 10)
  assert layers.AUXILIARY not in updated
  np.testing.assert_allclose(logits[0, :3], LOGITS, rtol=2e-4, atol=1e-4)


def test_training_gives_the_second_head_and_moves_every_statistic():
  model, variables = small()
  _, updated = outputs(model, variables, True)
  (head,) = jax.tree.leaves(updated[layers.AUXILIARY])
  assert head.shape == (2, 10)
  before, after = (jax.tree.leaves(v['batch_stats']) for v in (variables, updated))
  assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_bfloat16_keeps_weights_statistics_and_logits_in_float32():
  variables = shapes(75, 10, dtype=jnp.bfloat16)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  model = InceptionV3(10, dtype=jnp.bfloat16)
  apply = functools.partial(model.apply, train=False, capture_intermediates=True)
  logits, seen = jax.eval_shape(apply, variables, picture())
  assert logits.dtype == jnp.float32
  inside = jax.tree.leaves(seen['intermediates']['ConvModule_0'])
  assert {leaf.dtype for leaf in inside} == {jnp.dtype('bfloat16')}


def test_images_that_are_too_small_are_refused():
  with pytest.raises(ValueError, match='75 pixels'):
    shapes(74)
