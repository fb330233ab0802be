"""The parametrizations of the MLP: equal at the base width, and stable beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from rethink_gen import config as config_lib
from rethink_gen import models
from rethink_gen.errors import BadInput
from rethink_gen.models import mlp

each = pytest.mark.parametrize('parametrization', ['ntk', 'mup'])
X = np.random.default_rng(0).normal(size=(16, 6, 6, 1)).astype(np.float32)
LABELS = jnp.arange(16) % 3


def make(width, parametrization='standard', depth=2, base_width=64, **fields):
  return mlp.MLP(
    3,
    depth,
    width,
    parametrization=parametrization,
    base_width=base_width,
    **fields,
  )


@functools.partial(jax.jit, static_argnums=(0, 2))
def train(model, seed, steps=3, learning_rate=0.1):
  """(start, end) of full-batch descent on the cross-entropy, with momentum."""
  tx = optax.sgd(learning_rate, momentum=0.9)

  def loss(params):
    logits = model.apply({'params': params}, X, train=False)
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

  def step(state, _):
    updates, own = tx.update(jax.grad(loss)(state[0]), state[1])
    return (optax.apply_updates(state[0], updates), own), None

  start = model.init(jax.random.key(seed), X[:1], train=False)['params']
  (end, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, steps)
  return start, end


def same(one, other):
  return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@each
@pytest.mark.parametrize('rule', ['glorot_uniform', 'tensorflow_tutorial'])
def test_at_the_base_width_all_are_the_same_to_the_bit(parametrization, rule):
  """Initial parameters, and those after three steps."""
  of = train(make(64, initialization=rule), 0)
  other = train(make(64, parametrization, initialization=rule), 0)
  assert same(of, other)
  assert not same(of[0], of[1])
  assert not same(
    of, train(make(64, parametrization, base_width=32, initialization=rule), 0)
  )


def test_standard_ignores_the_base_width_and_no_hidden_layer_has_no_width():
  assert same(train(make(48), 0), train(make(48, base_width=16), 0))
  linear = make(48, depth=0), make(48, 'mup', depth=0)
  assert same(*(train(model, 0) for model in linear))


@each
@pytest.mark.parametrize('rule', ['glorot_uniform', 'tensorflow_tutorial'])
def test_entries_are_drawn_as_at_the_base_width_times_their_factor(parametrization, rule):
  """For m = 4, NTK: b = 0 in all layers; muP: b = 1/2; biases of hidden layers alike."""
  models_of = (make(width, parametrization, initialization=rule) for width in (256, 64))
  wide, base = (
    jax.jit(model.init, static_argnames='train')(jax.random.key(0), X[:1], train=False)[
      'params'
    ]
    for model in models_of
  )
  factor = {'ntk': 1, 'mup': 1 / 2}[parametrization]
  for layer, own in wide.items():
    expected = factor * float(base[layer]['kernel'].std())
    # Both deviations are estimates, the base layer's from 192 entries or more.
    assert float(own['kernel'].std()) == pytest.approx(expected, rel=0.2)
    factor_of_bias = 1 if layer == 'Dense_2' else factor
    bias = factor_of_bias * base[layer]['bias'].max()
    np.testing.assert_allclose(own['bias'], jnp.full_like(own['bias'], bias))


def test_an_array_of_another_shape_is_cut_from_independent_blocks():
  initialize = nn.initializers.lecun_normal()
  start = mlp.at_base(initialize, (4, 3), 0.5)
  drawn = start(jax.random.key(0), (6, 7), jnp.float32)
  assert drawn.shape == (6, 7)
  assert len(np.unique(drawn)) == 42
  keys = jax.random.split(jax.random.key(0), 2 * 3)
  np.testing.assert_array_equal(drawn[4:, 3:6], 0.5 * initialize(keys[4], (4, 3))[:2])


@functools.partial(jax.jit, static_argnums=0)
def hidden(model, params):
  """float32 (depth, 16, width): the hidden layers' outputs."""
  _, kept = model.apply(
    {'params': params},
    X,
    train=False,
    capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
  )
  layers = kept['intermediates']
  return jnp.stack([layers[name]['__call__'][0] for name in sorted(layers)])


def moves(width, parametrization):
  """Root mean square of each hidden layer, and of its change in three steps; of 4 seeds."""
  model = make(width, parametrization)
  sizes = []
  for seed in range(4):
    start, end = (hidden(model, params) for params in train(model, seed))
    arrays = jnp.stack([start, end - start])
    sizes.append(jnp.sqrt((arrays**2).mean((2, 3))))
  return np.mean(sizes, 0)


def test_features_move_alike_at_all_widths_in_mup_and_less_in_wider_ntk():
  """From width 64 to 1,024: 16 times, so NTK's changes should fall by 4, muP's by none.

  Activations at the start keep their size in both.
  """
  base, ntk, mup = (
    moves(*arguments) for arguments in ((64, 'mup'), (1_024, 'ntk'), (1_024, 'mup'))
  )
  for own in (ntk, mup):
    np.testing.assert_allclose(own[0], base[0], rtol=0.15)
  np.testing.assert_allclose(base[1] / ntk[1], 4, rtol=0.25)
  np.testing.assert_allclose(base[1] / mup[1], 1, rtol=0.25)


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    ('parametrization', 'lazy', 'must be one of standard, ntk, mup'),
    ('base_width', 0, 'must be a number of units'),
  ],
)
def test_other_values_are_refused(field, value, words):
  config = config_lib.default()
  config.model[field] = value
  with pytest.raises(BadInput, match=f'config.model.{field} is {value!r}, but it {words}'):
    config_lib.validate(config)


def test_the_fields_are_the_models():
  config = config_lib.default()
  assert models.create(config, 10).parametrization == 'standard'
  config.model.parametrization, config.model.base_width = 'mup', 128
  config_lib.validate(config)
  model = models.create(config, 10)
  assert (model.parametrization, model.base_width, model.width) == ('mup', 128, 512)
