import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen import models
from rethink_gen.ops import conv
from rethink_gen.train import sgd

# Table 1 of the paper, second column; the last from arXiv:1912.02292.
PARAMETERS = {
  'inception': 1_649_402,
  'inception_no_bn': 1_649_402,
  'alexnet': 1_387_786,
  'mlp_3x512': 1_735_178,
  'mlp_1x512': 1_209_866,
  'cnn': 1_558_026,
}

# The first three logits at initialization with key 0, for `picture` below. They state the
# initialization and the architecture exactly: they may change only when one of these is
# meant to change, and then every number in RESULTS.md has to be measured again.
LOGITS = {
  'inception': (0.013722, 0.004765, 0.029625),
  'inception_no_bn': (0.013785, 0.004793, 0.029758),
  'alexnet': (0.040999, -0.083364, -0.153539),
  'mlp_3x512': (-0.269339, -0.755376, -0.24265),
  'mlp_1x512': (0.439732, 0.435397, 1.53663),
  'cnn': (-0.115618, -0.06387, -0.049556),
}
# The same from He-normal kernels, where every network started before there was a choice.
HE_NORMAL = {
  'alexnet': (-0.341523, -0.752908, -1.264062),
  'mlp_1x512': (0.454959, 1.022893, 1.477333),
}


@pytest.fixture(scope='module')
def initialized():
  """initialized(name) -> (model, variables) of a config, each made once."""
  made = {}

  def make(name):
    if name not in made:
      config = importlib.import_module(f'configs.{name}').get_config()
      model = models.create(config, num_classes=10)
      init = jax.jit(
        lambda key: model.init(key, jnp.zeros((1, 28, 28, 3)), train=False),
        compiler_options=sgd.initialize_options(),
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
def test_parameter_counts_are_the_published_ones(name, initialized):
  _, variables = initialized(name)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == PARAMETERS[name]


@pytest.mark.parametrize('name', PARAMETERS)
def test_golden_logits(name, initialized):
  model, variables = initialized(name)
  logits = predict(model, variables)
  assert logits.shape == (2, 10)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits[0, :3], LOGITS[name], rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['inception', 'alexnet'])
def test_golden_logits_in_blocks(name, initialized, monkeypatch):
  """As convolutions of larger batches are computed on a CPU."""
  monkeypatch.setattr(conv, 'FEWEST_MULTIPLICATIONS', 0)
  model, variables = initialized(name)
  logits = jax.jit(lambda: model.apply(variables, picture(), train=False))()
  np.testing.assert_allclose(logits[0, :3], LOGITS[name], rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', HE_NORMAL)
def test_the_start_of_older_runs_is_still_there(name, initialized):
  model, _ = initialized(name)
  old = model.clone(initialization='he_normal')
  variables = jax.jit(functools.partial(old.init, train=False))(
    jax.random.key(0), picture()
  )
  logits = predict(old, variables)
  np.testing.assert_allclose(logits[0, :3], HE_NORMAL[name], rtol=2e-4, atol=2e-5)


VARIANCES = {
  'glorot_uniform': lambda fan_in, fan_out: 2 / (fan_in + fan_out),
  'lecun_normal': lambda fan_in, fan_out: 1 / fan_in,
  'he_normal': lambda fan_in, fan_out: 2 / fan_in,
}


@pytest.mark.slow
@pytest.mark.parametrize('rule', VARIANCES)
def test_kernels_have_the_variance_of_their_rule_and_the_rest_starts_at_zero(rule):
  model = models.MODELS['alexnet'](10, initialization=rule)
  init = jax.jit(functools.partial(model.init, train=False))
  params = init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))['params']
  for path, leaf in jax.tree.leaves_with_path(params):
    if path[-1].key == 'kernel':
      patch = np.prod(leaf.shape[:-2])
      fans = patch * leaf.shape[-2], patch * leaf.shape[-1]
      expected = np.sqrt(VARIANCES[rule](*fans))
      assert abs(leaf.std() / expected - 1) < 4 / np.sqrt(leaf.size)
      if rule == 'glorot_uniform':
        assert jnp.abs(leaf).max() <= np.sqrt(3) * expected
    else:
      assert (leaf == 0).all()


@pytest.mark.slow
def test_the_tutorials_start_is_that_of_its_code():
  """models/tutorials/image/cifar10/cifar10.py: deviations, and biases of 0.1 from conv2 on.

  A normal distribution cut off at two standard deviations has 0.8796 of the deviation.
  """
  model = models.MODELS['alexnet'](10, initialization='tensorflow_tutorial')
  init = jax.jit(functools.partial(model.init, train=False))
  params = init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))['params']
  expected = {
    'Conv_0': (0.05, 0.0),
    'Conv_1': (0.05, 0.1),
    'Dense_0': (0.04, 0.1),
    'Dense_1': (0.04, 0.1),
    'Dense_2': (1 / 192, 0.0),
  }
  assert params.keys() == expected.keys()
  for layer, (deviation, bias) in expected.items():
    kernel = params[layer]['kernel']
    assert abs(kernel.std() / (0.8796 * deviation) - 1) < 4 / np.sqrt(kernel.size)
    assert jnp.abs(kernel).max() <= 2 * deviation
    np.testing.assert_allclose(params[layer]['bias'], bias)


@pytest.mark.parametrize(('name', 'has'), [('inception', True), ('inception_no_bn', False)])
def test_batch_statistics_are_there_with_batch_norm_alone(name, has, initialized):
  model, variables = initialized(name)
  assert ('batch_stats' in variables) is has
  _, updated = train_outputs(model, variables, jax.random.key(0))
  before = jax.tree.leaves(variables.get('batch_stats', {}))
  after = jax.tree.leaves(updated.get('batch_stats', {}))
  assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['inception', 'alexnet', 'mlp_3x512', 'cnn'])
def test_dropout_acts_in_training_alone(name, initialized):
  model, variables = initialized(name)
  dropped = model.clone(dropout_rate=0.5)

  np.testing.assert_array_equal(predict(dropped, variables), predict(model, variables))
  first, second = (train_outputs(dropped, variables, jax.random.key(n))[0] for n in (0, 1))
  assert (first != second).any()


@pytest.mark.parametrize('name', ['inception', 'alexnet', 'mlp_1x512'])
def test_bfloat16_keeps_the_weights_in_float32(name, initialized):
  model, variables = initialized(name)
  half = model.clone(dtype=jnp.bfloat16)
  logits = predict(half, variables)
  assert logits.dtype == jnp.float32
  expected = predict(model, variables)
  np.testing.assert_allclose(logits, expected, atol=0.1 * float(jnp.abs(expected).max()))
  made = jax.eval_shape(lambda: half.init(jax.random.key(0), picture(), train=False))
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype('float32')}


def test_own_fields():
  start = 'initialization'
  per_device = 'batch_norm_per_device'
  assert models.own_fields('mlp') == [
    *('depth', 'width', 'parametrization', 'base_width'),
    start,
  ]
  assert models.own_fields('inception') == ['modules', 'batch_norm', per_device, start]
  assert models.own_fields('inception_v3') == ['repeats', 'aux_head', per_device, start]
  assert models.own_fields('alexnet') == [start]
  assert models.own_fields('cnn') == ['width', start]
