import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rethink_gen.errors import BadInput
from rethink_gen.theory import guessing

KEY = jax.random.key(0)
SIZES = (12, 5, 1)
each_initialization = pytest.mark.parametrize('initialization', guessing.INITIALIZATIONS)


def make_sample(initialization, count=4, inputs=12):
  x = np.random.default_rng(0).normal(size=(count, inputs)).astype(np.float32)
  return guessing.make_sample(x, np.resize([1.0, -1.0], count), initialization)


def forward(layers, x):
  """The outputs in float64, unit by unit."""
  for number, weights in enumerate(layers):
    x = np.stack([x @ np.asarray(column, float) for column in np.asarray(weights).T], 1)
    x = np.maximum(x, 0) if number < len(layers) - 1 else x
  return x[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('initialization', 'sizes'), [('gaussian', SIZES), ('uniform', (12, 5, 3, 1))]
)
def test_exactly_the_networks_that_fit_are_found(initialization, sizes):
  sample = make_sample(initialization, count=3)
  found = guessing.find(KEY, sample, sizes, initialization, 200)
  layers = guessing.networks(KEY, jnp.arange(200), sample, sizes, initialization)
  fits = [
    np.all(forward([w[i] for w in layers], sample.x) * sample.signs > 0) for i in range(200)
  ]
  assert found.tolist() == np.flatnonzero(fits).tolist()
  assert 0 < len(found) < 100


def test_the_chunk_and_the_start_change_nothing():
  args = KEY, make_sample('gaussian'), SIZES, 'gaussian'
  found = guessing.find(*args, 300)
  assert guessing.find(*args, 300, chunk=70).tolist() == found.tolist()
  parts = guessing.find(*args, 100), guessing.find(*args, 200, first=100)
  assert np.concatenate(parts).tolist() == found.tolist()
  other = guessing.find(jax.random.key(1), *args[1:], 300)
  assert other.tolist() != found.tolist()


def test_a_network_is_drawn_again_from_its_index():
  sample = make_sample('gaussian')
  one, several = (
    guessing.networks(KEY, jnp.array(indices), sample, SIZES, 'gaussian')
    for indices in ([17], [3, 17])
  )
  for alone, together in zip(one, several, strict=True):
    np.testing.assert_allclose(alone[0], together[1], atol=1e-6)


@pytest.mark.slow
@each_initialization
def test_weights_have_the_variance_of_the_initialization_and_no_correlations(
  initialization,
):
  sample = make_sample(initialization)
  first, last = guessing.networks(KEY, jnp.arange(4_000), sample, SIZES, initialization)
  for weights, inputs in ((first, 12), (last, 5)):
    flat = np.asarray(weights).reshape(4_000, -1)
    covariance = np.cov(flat.T) * inputs / 2
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=0.12)
    assert abs(flat.mean()) < 0.01
  kurtosis = {'gaussian': 0, 'uniform': -1.2}[initialization]
  assert stats.kurtosis(np.ravel(first)) == pytest.approx(kurtosis, abs=0.05)


def test_drawing_in_the_span_changes_no_probability():
  """A linear layer gets two points right with probability (pi - angle) / 2 pi."""
  x = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], np.float32)
  sample = guessing.make_sample(x, np.array([1, 1]), 'gaussian')
  fits = len(guessing.find(KEY, sample, (4, 1), 'gaussian', 20_000))
  low, high = guessing.clopper_pearson(fits, 20_000, 0.999)
  assert low < (math.pi - math.pi / 4) / (2 * math.pi) < high


def test_accuracies_and_losses_are_those_of_single_networks():
  sample = make_sample('uniform')
  layers = guessing.networks(KEY, jnp.arange(20), sample, SIZES, 'uniform')
  x = np.random.default_rng(1).normal(size=(50, 12)).astype(np.float32)
  signs = np.resize([1.0, 1.0, -1.0], 50)
  accuracies = guessing.accuracies(layers, x, signs)
  losses = guessing.normalized_losses(layers, x, signs)
  scaled = guessing.normalized_losses([3 * layers[0], 0.2 * layers[1]], x, signs)
  np.testing.assert_allclose(scaled, losses, rtol=1e-5)
  for number in range(20):
    own = [weights[number] for weights in layers]
    values = forward(own, x)
    assert accuracies[number] == pytest.approx(np.mean(values * signs > 0))
    norms = math.prod(np.linalg.norm(weights) for weights in own)
    loss = np.log1p(np.exp(-signs * values / norms)).mean()
    assert losses[number] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_training_is_that_of_each_network_alone_on_all_weights():
  sample = make_sample('gaussian')
  layers = guessing.networks(KEY, jnp.arange(6), sample, (12, 16, 1), 'gaussian')
  targets = jnp.full(6, 0.6)
  trained, reached, steps = guessing.train(
    KEY, layers, sample.x, sample.signs, targets, 0.1, 60, batch_size=4
  )
  assert reached.any()
  assert len(set(steps.tolist())) > 1

  def loss(network):
    return jnp.mean(jax.nn.softplus(-sample.signs * guessing.outputs(network, sample.x)))

  gradient = jax.jit(jax.grad(loss))
  for number in range(6):
    own, step, done = [weights[number] for weights in layers], 0, False
    while not done and step < 60:
      slopes = gradient(own)
      own = [w - 0.1 * slope for w, slope in zip(own, slopes, strict=True)]
      together = [weights[None] for weights in own]
      now = guessing.normalized_losses(together, sample.x, sample.signs)[0]
      fits = np.all(forward(own, sample.x) * sample.signs > 0)
      step, done = step + 1, fits and now <= targets[number]
    assert (step, done) == (steps[number], reached[number])
    for alone, together in zip(own, trained, strict=True):
      np.testing.assert_allclose(alone, together[number], atol=1e-4)


def test_batches_are_random_and_of_their_size():
  sample = make_sample('gaussian')
  layers = guessing.networks(KEY, jnp.zeros(2, int), sample, SIZES, 'gaussian')
  first, _ = guessing.train(
    KEY, layers, sample.x, sample.signs, jnp.zeros(2), 0.1, 1, batch_size=1
  )[0]
  changes = np.asarray(first - layers[0])
  assert not np.allclose(changes[0], changes[1])  # the same network, other batches
  assert np.linalg.matrix_rank(changes[0], tol=1e-5) == 1


@pytest.mark.parametrize(
  ('successes', 'trials'),
  [(0, 1), (0, 10), (3, 10), (10, 10), (1, 10**6), (400, 3 * 10**6)],
)
@pytest.mark.parametrize('confidence', [0.5, 0.95, 0.999])
def test_clopper_pearson_is_scipys(successes, trials, confidence):
  expected = stats.binomtest(successes, trials).proportion_ci(confidence, 'exact')
  found = guessing.clopper_pearson(successes, trials, confidence)
  assert found == pytest.approx((expected.low, expected.high), rel=1e-8)


@pytest.mark.parametrize('probability', [0.01, 0.3, 0.5, 0.97])
def test_clopper_pearson_covers_the_truth_often_enough(probability):
  covered = 0.0
  for successes in range(21):
    low, high = guessing.clopper_pearson(successes, 20, 0.9)
    if low <= probability <= high:
      covered += (
        math.comb(20, successes)
        * probability**successes
        * ((1 - probability) ** (20 - successes))
      )
  assert covered >= 0.9


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: guessing.clopper_pearson(3, 2), '3 successes in 2 trials'),
    (lambda: guessing.clopper_pearson(0, 0), '0 successes in 0 trials'),
    (lambda: guessing.clopper_pearson(1, 2, 1.0), 'confidence 1.0'),
    (lambda: make_sample('zeros'), "initialization is 'zeros'"),
    (
      lambda: guessing.make_sample(np.ones((2, 3)), np.array([0, 1]), 'uniform'),
      'a sign of',
    ),
    (lambda: make_sample('uniform', count=0), 'at least one point'),
    (lambda: guessing.find(KEY, make_sample('uniform'), SIZES, 'uniform', 0), '0 networks'),
    (
      lambda: guessing.find(KEY, make_sample('uniform'), SIZES, 'uniform', 9, 2**32 - 8),
      'from index 4294967288',
    ),
  ],
)
def test_bad_input_is_refused_in_a_sentence(call, words):
  with pytest.raises(BadInput, match=words):
    call()
