import functools
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import environment

from rethink_gen import config as config_lib
from rethink_gen import models
from rethink_gen.data import preprocess
from rethink_gen.models import layers
from rethink_gen.train import evaluation, optimizers, sgd

KEY = jax.random.key(7)


def make(num_examples=70, **changes):
  """(config, model, state, images, labels) of a small problem."""
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'model.width': 16,
      'batch_size': 16,
      'optimizer.decay_every_steps': 3,
      'optimizer.learning_rate': 0.1,
    }
    | changes
  )
  rng = np.random.default_rng(0)
  images = jnp.array(rng.integers(0, 256, (num_examples, 8, 8, 1), np.uint8))
  labels = jnp.array(rng.integers(0, 5, num_examples, np.int32))
  model = models.create(config, 5)
  tx = optimizers.make_tx(config, optimizers.rates(config))
  steps = num_examples // config.batch_size
  state = sgd.make_initialize(model, tx, (7, 7, 1), steps)(KEY)
  return config, model, state, images, labels


def to_inputs(images):
  return preprocess.preprocess(images, (7, 7))


def make_epoch(config, model):
  """The compiled epoch(state, stop, images, labels, key) of a config."""

  def to_inputs(images, key):
    return preprocess.preprocess(images, (7, 7), config.regularization, key)

  optimizer = functools.partial(optimizers.make_tx, config)
  epoch = sgd.make_epoch(model, optimizer, to_inputs, config.batch_size)
  return functools.partial(epoch, rates=optimizers.rates(config))


def copy(state):
  return jax.tree.map(jnp.copy, state)


def test_an_epoch_is_momentum_sgd_written_out():
  """Against the formula, in NumPy but for the gradient of the loss."""
  weight_decay = 0.01
  config, model, state, images, labels = make(
    **{'regularization.weight_decay': weight_decay}
  )
  params = state.params
  velocity = jax.tree.map(jnp.zeros_like, params)
  losses = []
  order_key = jax.random.fold_in(jax.random.fold_in(KEY, sgd.ORDER), 0)
  order = jax.random.permutation(order_key, 70)
  inputs = to_inputs(images)

  def loss_of(params, chosen):
    logits = model.apply({'params': params}, inputs[chosen], train=False)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean()

  for step in range(4):
    chosen = order[step * 16 : (step + 1) * 16]
    loss, gradient = jax.value_and_grad(loss_of)(params, chosen)
    losses.append(loss)
    for layer in params:
      kernel = params[layer]['kernel']
      gradient[layer]['kernel'] = gradient[layer]['kernel'] + weight_decay * kernel
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
    rate = 0.1 * 0.95 ** (step // 3)
    params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)

  ours = make_epoch(config, model)(copy(state), 4, images, labels, KEY)
  np.testing.assert_allclose(ours.losses, losses, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'augmentation', [{}, {'random_crop': True, 'random_flip': True, 'dropout_rate': 0.3}]
)
def test_an_epoch_in_several_calls_is_bit_identical(augmentation):
  config, model, state, images, labels = make(
    **{f'regularization.{name}': value for name, value in augmentation.items()}
  )
  epoch = make_epoch(config, model)
  once = epoch(copy(state), 4, images, labels, KEY)
  for stop in (0, 1, 1, 3, 4):
    state = epoch(state, stop, images, labels, KEY)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(once), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('stops', [[4], [1, 3, 4], [0, 2, 2, 4]])
def test_steps_in_chunks_are_the_same_steps(monkeypatch, stops):
  """As on a GPU, where a chunk may reach beyond the step to stop at."""
  config, model, state, images, labels = make()
  expected = make_epoch(config, model)(copy(state), 4, images, labels, KEY)
  monkeypatch.setattr(sgd.sharding, 'platform', lambda: 'gpu')
  assert [sgd.chunk_of(steps) for steps in (4, 390, 21, 11)] == [4, 10, 7, 1]
  epoch = make_epoch(config, model)
  for stop in stops:
    state = epoch(state, stop, images, labels, KEY)
    assert state.step == stop
    assert np.count_nonzero(state.losses) == stop
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, expected
  )


def test_epochs_differ_in_order_and_augmentation_and_keys_in_both():
  config, model, state, images, labels = make(
    **{'optimizer.learning_rate': 1e-9, 'regularization.random_crop': True}
  )
  epoch = make_epoch(config, model)
  first = epoch(copy(state), 4, images, labels, KEY)
  other = epoch(copy(state), 4, images, labels, jax.random.key(8))
  second = epoch(copy(first), 8, images, labels, KEY)
  assert (first.losses != other.losses).all()
  assert (first.losses != second.losses).all()


def test_an_epoch_shows_each_example_once():
  """Ten examples with a wrong label count as wrong, once each, and all others as right."""
  config, model, state, images, _ = make(
    num_examples=64, **{'optimizer.learning_rate': 1e-9}
  )
  logits = model.apply({'params': state.params}, to_inputs(images), train=False)
  labels = logits.argmax(-1)
  labels = labels.at[:10].set((labels[:10] + 1) % 5)  # wrong for ten examples
  ours = make_epoch(config, model)(state, 4, images, labels, KEY)
  assert ours.correct.sum() == 54


def test_the_state_is_donated():
  config, model, state, images, labels = make()
  make_epoch(config, model)(state, 1, images, labels, KEY)
  assert state.params['Dense_0']['kernel'].is_deleted()


@pytest.mark.slow
@pytest.mark.parametrize('count', [1, 32, 33, 70])
def test_evaluation_counts_every_example_once(count):
  """With the last batch partial, whole, or larger than the data."""
  _, model, state, images, labels = make()
  images, labels = images[:count], labels[:count]
  loss, right, _ = evaluation.make_evaluate(model, to_inputs, 32)(state, images, labels)
  logits = model.apply({'params': state.params}, to_inputs(images), train=False)
  expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert right == (logits.argmax(-1) == labels).sum()


def test_the_tutorials_weight_decay_is_on_hidden_linear_kernels():
  model = models.MODELS['alexnet'](10)
  init = functools.partial(model.init, train=False)
  params = jax.eval_shape(init, KEY, jnp.zeros((1, 28, 28, 3)))['params']
  decays = optimizers.is_hidden_linear_kernel(params)
  found = {path[0].key for path, decay in jax.tree.leaves_with_path(decays) if decay}
  assert found == {'Dense_0', 'Dense_1'}
  kernels = jax.tree.leaves(optimizers.is_kernel(params))
  assert (sum(kernels), sum(jax.tree.leaves(decays))) == (5, 2)


def test_dead_units_are_those_that_no_example_activates():
  """Units whose incoming weights and biases make them negative on every input."""
  _, model, state, images, labels = make()
  evaluate = evaluation.make_evaluate(model, to_inputs, 32)
  params = jax.tree.map(jnp.copy, state.params)
  params['Dense_0']['bias'] = params['Dense_0']['bias'].at[:5].set(-1e6)
  totals = evaluate(state._replace(params=params), images, labels)
  hidden = to_inputs(images).reshape(70, -1) @ params['Dense_0']['kernel']
  alive = ((hidden + params['Dense_0']['bias']) > 0).any(0)
  assert totals.active.keys() == {'linear_1'}
  np.testing.assert_array_equal(totals.active['linear_1'], alive)
  share = 1 - float(alive.mean())
  assert 5 / 16 <= share < 1
  assert evaluation.dead_units(jax.device_get(totals.active)) == {
    'dead_units': pytest.approx(share),
    'dead_units/linear_1': pytest.approx(share),
  }
  assert evaluation.dead_units({}) == {}


@pytest.mark.slow
def test_a_channel_is_alive_if_it_is_active_at_one_position_of_one_image():
  model = models.MODELS['alexnet'](10)
  images = jnp.zeros((3, 8, 8, 1)).at[2, 4, 4, 0].set(1.0)
  variables = model.init(KEY, images, train=False)
  kernel = jnp.zeros((5, 5, 1, 64)).at[2, 2, 0, 7].set(1.0)
  variables['params']['Conv_0']['kernel'] = kernel
  _, active = evaluation.apply_and_watch(model, variables, images)
  assert list(active) == ['conv_1', 'conv_2', 'linear_1', 'linear_2']
  assert np.flatnonzero(active['conv_1']).tolist() == [7]


def test_weight_decay_is_on_kernels_alone():
  config = config_lib.default()
  config.regularization.weight_decay = 0.5
  config.optimizer.learning_rate = 1.0
  params = {'a': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}, 'bn': {'bias': jnp.ones(2)}}
  tx = optimizers.make_tx(config, optimizers.rates(config))
  no_gradient = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(no_gradient, tx.init(params), params)
  np.testing.assert_array_equal(updates['a']['kernel'], -0.5)
  np.testing.assert_array_equal(updates['a']['bias'], 0)
  np.testing.assert_array_equal(updates['bn']['bias'], 0)


def test_the_learning_rate_rises_over_the_warmup_then_falls():
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'optimizer.learning_rate': 0.8,
      'optimizer.momentum': 0.0,
      'optimizer.warmup_steps': 4,
      'optimizer.decay_every_steps': 6,
      'optimizer.decay_factor': 0.5,
    }
  )
  tx = optimizers.make_tx(config, optimizers.rates(config))
  params = {'kernel': jnp.zeros(())}
  opt_state, rates = tx.init(params), []
  for _ in range(8):
    updates, opt_state = tx.update({'kernel': 1.0}, opt_state, params)
    rates.append(-float(updates['kernel']))
  np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4], rtol=1e-6)


class TwoHeads(nn.Module):
  """Logits, and others of an auxiliary head that has parameters of its own."""

  @nn.compact
  def __call__(self, x, train):
    x = x.reshape(len(x), -1)
    if train or self.is_initializing():
      self.sow(layers.AUXILIARY, 'logits', nn.Dense(5, name='second')(x))
    return nn.Dense(5, name='first')(x)


@pytest.mark.slow
def test_an_auxiliary_head_is_minimized_with_its_weight_and_not_reported():
  model = TwoHeads()
  config, _, _, images, labels = make(**{'optimizer.learning_rate': 1.0})
  tx = optimizers.make_tx(config, optimizers.rates(config))
  state = sgd.make_initialize(model, tx, (8, 8, 1), 1)(KEY)
  inputs = preprocess.preprocess(images, (8, 8))

  def loss_of(layer):
    logits = inputs.reshape(len(inputs), -1) @ layer['kernel'] + layer['bias']
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  after = sgd.train_step(model, tx, state, inputs, labels, KEY)
  for name, weight in (('first', 1.0), ('second', 0.4)):
    gradient = jax.grad(loss_of)(state.params[name])
    moved = jax.tree.map(lambda new, old: old - new, after.params[name], state.params[name])
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(gradient), strict=True):
      np.testing.assert_allclose(a, weight * b, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(after.losses[0], loss_of(state.params['first']), rtol=1e-5)


class Normalized(nn.Module):
  """A layer, batch normalization and logits, on each device by itself."""

  batch_norm_per_device: bool = True

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(7)(x.reshape(len(x), -1))
    return nn.Dense(5)(nn.BatchNorm(use_running_average=not train)(x))


def check_batch_norm_per_device():
  """A step on all devices is the mean of the steps on each one's part of the batch."""
  config, _, _, images, labels = make(64)
  model, tx = Normalized(), optimizers.make_tx(config, optimizers.rates(config))
  inputs = preprocess.preprocess(images, (8, 8))
  state = sgd.make_initialize(model, tx, (8, 8, 1), 1)(KEY)
  step = jax.jit(sgd.train_step, static_argnums=(0, 1))
  whole = step(model, tx, state, inputs, labels, KEY)
  parts = [
    step(Normalized(False), tx, state, *part, KEY)
    for part in zip(jnp.split(inputs, 4), jnp.split(labels, 4), strict=True)
  ]
  for name in ('params', 'batch_stats', 'losses'):
    trees = [getattr(part, name) for part in parts]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *trees)
    for a, b in zip(*map(jax.tree.leaves, (getattr(whole, name), mean)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert whole.correct[0] == sum(part.correct[0] for part in parts)
  together = step(Normalized(False), tx, state, inputs, labels, KEY)
  assert abs(together.losses[0] - whole.losses[0]) > 1e-4  # it is another network


@pytest.mark.slow
def test_batch_normalization_of_each_devices_part():
  code = 'import test_sgd; test_sgd.check_batch_norm_per_device()'
  folder = pathlib.Path(__file__).parent
  command = [sys.executable, '-c', code]
  path = {'PYTHONPATH': os.pathsep.join([str(folder.parent), str(folder)])}
  done = subprocess.run(command, env=environment(4) | path, cwd=folder, text=True)
  assert done.returncode == 0
