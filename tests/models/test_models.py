import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen import models, sgd
from rethink_gen.models import layers

# Table 1 of the paper, second column.
PARAMETERS = {
  'inception': 1_649_402,
  'inception_no_bn': 1_649_402,
  'alexnet': 1_387_786,
  'mlp_3x512': 1_735_178,
  'mlp_1x512': 1_209_866,
}

# The first three logits at initialisation with key 0, for `picture` below. They state the
# initialisation and the architecture exactly: they may change only when one of these is
# meant to change, and then every number in RESULTS.md has to be measured again.
LOGITS = {
  'inception': (0.706454, 0.652145, 1.437338),
  'inception_no_bn': (0.709889, 0.655384, 1.444078),
  'alexnet': (-0.341523, -0.752908, -1.264062),
  'mlp_3x512': (-0.887712, -2.168376, -1.287525),
  'mlp_1x512': (0.454959, 1.022893, 1.477333),
}


@pytest.fixture(scope='module')
def initialised():
  """initialised(name) -> (model, variables) of a config, each made once."""
  made = {}

  def make(name):
    if name not in made:
      config = importlib.import_module(f'configs.{name}').get_config()
      model = models.create(config, num_classes=10)
      init = jax.jit(
        lambda key: model.init(key, jnp.zeros((1, 28, 28, 3)), train=False),
        compiler_options=sgd.initialise_options(),
      )
      made[name] = model, init(jax.random.key(0))
    return made[name]

  return make


def picture():
  """Two smooth images (2, 28, 28, 3) that need no random numbers."""
  y, x, c, n = jnp.meshgrid(*map(jnp.arange, (28, 28, 3, 2)), indexing='ij')
  return jnp.sin(0.3 * x + 0.2 * y + c + n).transpose(3, 0, 1, 2)


@functools.partial(jax.jit, static_argnums=0)
def predict(model, variables):
  return model.apply(variables, picture(), train=False)


@functools.partial(jax.jit, static_argnums=0)
def train_outputs(model, variables, key):
  """(logits, updated batch statistics) in training."""
  return model.apply(
    variables, picture(), train=True, mutable=['batch_stats'], rngs={'dropout': key}
  )


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_counts_are_the_papers(name, initialised):
  _, variables = initialised(name)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == PARAMETERS[name]


@pytest.mark.parametrize('name', PARAMETERS)
def test_golden_logits(name, initialised):
  model, variables = initialised(name)
  logits = predict(model, variables)
  assert logits.shape == (2, 10)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits[0, :3], LOGITS[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('name', ['inception', 'alexnet'])
def test_golden_logits_in_blocks(name, initialised, monkeypatch):
  """As convolutions of larger batches are computed on a CPU."""
  monkeypatch.setattr(layers, 'FEWEST_MULTIPLICATIONS', 0)
  model, variables = initialised(name)
  logits = jax.jit(lambda: model.apply(variables, picture(), train=False))()
  np.testing.assert_allclose(logits[0, :3], LOGITS[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('name', PARAMETERS)
def test_kernels_start_he_normal_and_the_rest_at_zero(name, initialised):
  _, variables = initialised(name)
  for path, leaf in jax.tree.leaves_with_path(variables['params']):
    if path[-1].key == 'kernel':
      fan_in = np.prod(leaf.shape[:-1])
      assert abs(leaf.std() / np.sqrt(2 / fan_in) - 1) < 4 / np.sqrt(leaf.size)
    else:
      assert (leaf == 0).all()


@pytest.mark.parametrize(('name', 'has'), [('inception', True), ('inception_no_bn', False)])
def test_batch_statistics_are_there_with_batch_norm_alone(name, has, initialised):
  model, variables = initialised(name)
  assert ('batch_stats' in variables) is has
  _, updated = train_outputs(model, variables, jax.random.key(0))
  before = jax.tree.leaves(variables.get('batch_stats', {}))
  after = jax.tree.leaves(updated.get('batch_stats', {}))
  assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize('name', ['inception', 'alexnet', 'mlp_3x512'])
def test_dropout_acts_in_training_alone(name, initialised):
  model, variables = initialised(name)
  dropped = model.clone(dropout_rate=0.5)

  np.testing.assert_array_equal(predict(dropped, variables), predict(model, variables))
  first, second = (train_outputs(dropped, variables, jax.random.key(n))[0] for n in (0, 1))
  assert (first != second).any()


@pytest.mark.parametrize('name', ['inception', 'alexnet', 'mlp_1x512'])
def test_bfloat16_keeps_the_weights_in_float32(name, initialised):
  model, variables = initialised(name)
  half = model.clone(dtype=jnp.bfloat16)
  logits = predict(half, variables)
  assert logits.dtype == jnp.float32
  expected = predict(model, variables)
  np.testing.assert_allclose(logits, expected, atol=0.1 * float(jnp.abs(expected).max()))
  made = jax.eval_shape(lambda: half.init(jax.random.key(0), picture(), train=False))
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype('float32')}


def test_own_fields():
  assert models.own_fields('mlp') == ['depth', 'width']
  assert models.own_fields('inception') == ['batch_norm', 'batch_norm_per_device']
  assert models.own_fields('inception_v3') == ['aux_head', 'batch_norm_per_device']
  assert models.own_fields('alexnet') == []
