"""Least squares, closed forms and networks of many widths, against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_gen.theory import descent

SIZES = st.integers(1, 12)


@pytest.fixture(autouse=True, scope='module')
def _one_thread():
  """Threads inside LAPACK wait for one another, for seconds on busy cores."""
  with threadpoolctl.threadpool_limits(1):
    yield


def problem(seed, n, p, k=2):
  random = np.random.default_rng(seed)
  return random.standard_normal((n, p)), random.standard_normal((n, k))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1_000), n=SIZES, p=SIZES, ridge=st.floats(1e-3, 1e3))
def test_a_ridge_path_is_the_solution_of_the_normal_equations(seed, n, p, ridge):
  x, y = problem(seed, n, p)
  least, with_ridge = descent.ridge_path(x, y, [0.0, ridge])
  np.testing.assert_allclose(
    with_ridge, np.linalg.solve(x.T @ x + ridge * np.eye(p), x.T @ y), rtol=1e-7, atol=1e-9
  )
  expected, *_ = np.linalg.lstsq(x, y, rcond=1e-12)
  np.testing.assert_allclose(least, expected, rtol=1e-5, atol=1e-8)
  assert np.linalg.norm(with_ridge) <= np.linalg.norm(least) * (1 + 1e-9)


def test_the_solution_of_minimum_norm_needs_no_full_rank():
  x, y = problem(0, 6, 9)
  x[3] = x[2]
  x[:, 4] = x[:, 5]
  expected, *_ = np.linalg.lstsq(x, y, rcond=1e-12)
  np.testing.assert_allclose(descent.ridge_path(x, y, [0.0])[0], expected, atol=1e-10)


def test_fourier_features_approximate_the_gaussian_kernel():
  random = np.random.default_rng(0)
  x = random.random((5, 3))
  features = descent.fourier_features(x, random.standard_normal((3, 100_000)) / 0.7)
  np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1)
  squares = ((x[:, None] - x) ** 2).sum(-1)
  np.testing.assert_allclose(
    features @ features.T, np.exp(-squares / (2 * 0.7**2)), atol=0.015
  )


def test_outputs_by_batch_are_those_of_all_features_at_once(monkeypatch):
  random = np.random.default_rng(0)
  x, frequencies, weights = (random.random(shape) for shape in [(7, 3), (3, 4), (5, 8, 2)])
  expected = descent.fourier_features(x, frequencies) @ weights
  monkeypatch.setattr(descent, 'BATCH_OF_IMAGES', 3)
  np.testing.assert_allclose(descent.fourier_outputs(x, frequencies, weights), expected)


@pytest.mark.parametrize('p', [5, 10, 15, 30, 40, 100])
def test_the_risk_of_isotropic_least_squares_by_monte_carlo(p):
  random = np.random.default_rng(p)
  risks = [descent.simulate_isotropic(random, 20, p, 0.5) for _ in range(1_500)]
  error = np.std(risks) / len(risks) ** 0.5
  assert abs(np.mean(risks) - descent.isotropic_risk(20, p, 0.5)) < 4 * error


def test_the_risk_is_infinite_at_the_threshold():
  assert all(np.isinf(descent.isotropic_risk(20, p, 0.5)) for p in (19, 20, 21))
  assert np.isinf(descent.random_relu_risk(3, 3, 0.5))


# An independent calculation and a simulation of 12 draws at d = 100.
PUBLISHED = {
  0.5: (0.860, 0.886),
  1.0: (0.797, 0.801),
  2.0: (1.185, 1.251),
  2.7: (3.882, 3.82),
  3.5: (2.478, 2.73),
  5.0: (0.701, 0.721),
  10.0: (0.278, 0.310),
  20.0: (0.178, 0.185),
}


@pytest.mark.parametrize('features', PUBLISHED)
def test_the_risk_of_random_relu_features(features):
  formula, _ = PUBLISHED[features]
  assert descent.random_relu_risk(features, 3.0, 0.5) == pytest.approx(formula, abs=6e-4)


@pytest.mark.parametrize('features', [0.5, 1.0, 2.0, 5.0])
def test_random_relu_features_by_simulation(features):
  random = np.random.default_rng(0)
  risks = [
    descent.simulate_random_relu(random, 40, 120, int(40 * features), 0.5, 300)
    for _ in range(20)
  ]
  assert np.mean(risks) == pytest.approx(
    descent.random_relu_risk(features, 3.0, 0.5), rel=0.15
  )


@given(st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0, 3), st.floats(0, 3))
def test_the_risk_is_quadratic_in_signal_and_noise(features, examples, noise, signal):
  parts = noise**2 * descent.random_relu_risk(
    features, examples, 1, 0
  ) + signal**2 * descent.random_relu_risk(features, examples, 0, 1)
  whole = descent.random_relu_risk(features, examples, noise, signal)
  if features != examples:
    assert whole == pytest.approx(parts, rel=1e-6, abs=1e-9)
    assert whole >= -1e-9


WIDTHS = (1, 3, 8)


def sample(seeds=2, n=12, d=5):
  keys = jax.random.split(jax.random.key(7))
  x = jax.random.normal(keys[0], (seeds, n, d))
  return x, jax.random.randint(keys[1], (seeds, n), 0, 4)


def begin(widths, seeds=2, d=5):
  return descent.start([(0, number) for number in range(seeds)], widths, d, 4)


def test_a_network_trains_among_others_as_it_does_alone():
  x, labels = sample()
  rates = 20, 0.01, 4  # epochs, learning rate, batch size
  together = descent.train(begin(WIDTHS), WIDTHS, x, labels, *rates).networks
  alone = descent.train(begin((3,)), (3,), x, labels, *rates).networks
  own = descent.Networks(  # the second of WIDTHS
    together.weights[:, :, 1:4],
    together.biases[:, 1:4],
    together.last[:, 1:4],
    together.last_biases[:, [1]],
  )
  for one, other in zip(alone, own, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
  errors, losses = descent.evaluate(together, WIDTHS, x, labels)
  for seed in range(2):
    network = jax.tree.map(lambda array, seed=seed: array[seed], alone)
    outputs = descent.logits(network, (3,), x[seed])[0]
    assert errors[seed, 1] == np.mean(outputs.argmax(1) != labels[seed])
    loss = descent.losses(network, (3,), x[seed], labels[seed])
    assert losses[seed, 1] == pytest.approx(float(loss[0]), rel=1e-5)


def test_training_is_that_of_a_network_written_by_hand():
  x, labels = sample(seeds=1)
  training = begin((3,), seeds=1)
  trained = descent.train(training, (3,), x, labels, 5, 0.01, 12).networks

  def loss(networks):
    hidden = jnp.maximum(x[0] @ networks.weights[0] + networks.biases[0], 0)
    outputs = hidden @ networks.last[0] + networks.last_biases[0, 0]
    chosen = jnp.take_along_axis(outputs, labels[0][:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(outputs, 1) - chosen)

  networks, tx = training.networks, optax.adam(0.01)
  state = tx.init(networks)
  update, slopes = jax.jit(tx.update), jax.jit(jax.grad(loss))
  for _ in range(5):  # one batch holds everything, so its order does not matter
    changes, state = update(slopes(networks), state)
    networks = optax.apply_updates(networks, changes)
  for one, other in zip(trained, networks, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_epochs_in_two_calls_are_those_of_one_call():
  x, labels = sample()
  at_once = descent.train(begin(WIDTHS), WIDTHS, x, labels, 6, 0.01, 5)
  first = descent.train(begin(WIDTHS), WIDTHS, x, labels, 2, 0.01, 5)
  both = descent.train(first, WIDTHS, x, labels, 4, 0.01, 5)
  for one, other in zip(at_once.networks, both.networks, strict=True):
    np.testing.assert_array_equal(one, other)
