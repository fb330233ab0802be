import json
import os
import subprocess
import sys

import hypothesis
import jax
import numpy as np
import pytest
from helpers import ROOT, environment
from hypothesis import strategies as st
from scipy.spatial import distance

from rethink_gen import memory
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.theory import gram_matrix, interpolation, preconditioning

N, CLASSES, BANDWIDTH = 37, 3, 0.5
SETTINGS = {'tolerance': 1e-5, 'max_iterations': 200}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  monkeypatch.setattr(gram_matrix, 'BLOCK', 8)


@pytest.fixture(scope='module')
def data():
  """(train (N, 5), test (11, 5), targets (CLASSES, N)), float32."""
  rng = np.random.default_rng(0)
  train, test = (rng.standard_normal((n, 5)).astype(np.float32) for n in (N, 11))
  targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=N)].T
  return train, test, targets


def make(data, landmarks=10, bandwidth=BANDWIDTH):
  """(Gram, low rank part)."""
  train, test, _ = data
  marks = preconditioning.spread_landmarks(gram_matrix.make_layout(N), landmarks)
  gram = gram_matrix.add(None, train, test, marks, bandwidth)
  return gram, preconditioning.low_rank(gram, marks)


def gaussian(one, other):
  """By a loop, in float64."""
  one, other = np.float64(one), np.float64(other)
  return np.array([[np.exp(-BANDWIDTH * np.sum((a - b) ** 2)) for b in other] for a in one])


def full(gram):
  """The matrix that `multiply` multiplies by."""
  identity = np.eye(gram.layout.padded, dtype=np.float32)
  return np.asarray(gram_matrix.multiply(gram.panels, identity, gram.layout))


# One block, an odd and an even number of blocks, and one example a block.
@pytest.mark.parametrize('block', [100, 13, 10, 1])
def test_blocks_hold_what_a_loop_over_pairs_gives(data, block, monkeypatch):
  monkeypatch.setattr(gram_matrix, 'BLOCK', block)
  train, test, _ = data
  gram = gram_matrix.add(None, train, test, np.array([3, 20]), BANDWIDTH)
  matrix = full(gram)
  np.testing.assert_allclose(matrix[:N, :N], gaussian(train, train), atol=1e-6)
  assert not matrix[N:].any()
  assert not matrix[:, N:].any()
  tests = np.concatenate(gram.tests)[: len(test), :N]
  np.testing.assert_allclose(tests, gaussian(test, train), atol=1e-6)
  landmarks = np.concatenate(gram.landmarks)[:N]
  np.testing.assert_allclose(landmarks, gaussian(train, train[[3, 20]]), atol=1e-6)


def test_rounding_hardly_moves_the_smallest_eigenvalue():
  """What the head of `gram_matrix` says of float32, on 300 digits."""
  images = sources.load('digits').x_train[:300].reshape(300, -1) / 255
  features = (images - images.mean(0)).astype(np.float32)
  rounded = np.asarray(gram_matrix.kernel(features, features, BANDWIDTH), np.float64)
  squares = distance.cdist(*2 * [features.astype(np.float64)]) ** 2
  exact = np.exp(-BANDWIDTH * squares)
  assert np.linalg.norm(rounded - exact, 2) < 1e-5
  least, of_exact = (np.linalg.eigvalsh(matrix)[0] for matrix in (rounded, exact))
  assert abs(least - of_exact) < 1e-6 < of_exact


def test_half_of_the_matrix_is_stored(data):
  gram, _ = make(data)
  stored = sum(panel.size for panel in gram.panels)
  assert stored == gram.layout.padded * gram.layout.width
  assert gram.layout.width == 3 * gram.layout.size  # of 5 blocks


def test_a_linear_kernel_adds_up_over_parts_of_the_features(data):
  train, test, _ = data
  gram, marks = None, np.array([0, 30])
  for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
    gram = gram_matrix.add(gram, train[:, part], test[:, part], marks)
  np.testing.assert_allclose(full(gram)[:N, :N], train @ train.T, atol=1e-5)
  tests = np.concatenate(gram.tests)[: len(test), :N]
  np.testing.assert_allclose(tests, test @ train.T, atol=1e-5)


@pytest.mark.parametrize('ridge', [0.0, 0.3])
def test_the_preconditioner_is_the_inverse_that_it_says(data, ridge):
  gram, low_rank = make(data)
  layout = gram.layout
  preconditioner = preconditioning.precondition(gram, low_rank, ridge)
  identity = np.eye(layout.padded, dtype=np.float32)
  inverse = np.asarray(preconditioning.apply(preconditioner, identity, layout))

  b = np.concatenate(low_rank).astype(np.float64)
  rest = np.float64(full(gram)) - b @ b.T
  p = b @ b.T
  for start in range(0, layout.padded, layout.size):
    place = np.ix_(*2 * [range(start, start + layout.size)])
    jitter = preconditioning.JITTER * np.trace(rest[place]) / layout.size + ridge
    p[place] += rest[place] + jitter * np.eye(layout.size)
  np.testing.assert_allclose(inverse @ p, identity, atol=1e-3)


@pytest.mark.parametrize('ridge', [0.0, 0.1])
def test_conjugate_gradients_agree_with_cholesky(data, ridge):
  train, test, targets = data
  gram, low_rank = make(data)
  alpha, history = interpolation.solve(gram, low_rank, targets, ridge, SETTINGS)
  expected = interpolation.direct(gaussian(train, train), targets, ridge)
  np.testing.assert_allclose(alpha[:, :N], expected, atol=1e-3)
  assert not alpha[:, N:].any()
  assert history[-1]['residual'] <= SETTINGS['tolerance']
  assert len(history) < 30

  fitted = np.asarray(interpolation.predict(gram.tests, alpha))[:, : len(test)]
  np.testing.assert_allclose(fitted, expected @ gaussian(train, test), atol=1e-4)
  per_class, in_all = interpolation.norms(alpha[:, :N], targets, ridge)
  squares = np.einsum('ci,ij,cj->c', expected, gaussian(train, train), expected)
  np.testing.assert_allclose(per_class**2, squares, rtol=1e-3)
  assert in_all == pytest.approx(squares.sum() ** 0.5, rel=1e-3)


def test_a_system_without_a_solution_is_refused(data, tmp_path):
  """Five linear features cannot fit 37 examples."""
  gram, low_rank = make(data, bandwidth=None)
  file = tmp_path / 'state.npz'
  for _ in range(2):  # what is saved does not pass for a solution
    with pytest.raises(BadInput, match='a ridge above 0'):
      interpolation.solve(gram, low_rank, data[2], 0.0, SETTINGS, path=file)


def test_condition_numbers_are_bounded_from_below(data):
  train, _, targets = data
  gram, low_rank = make(data)
  alpha, history = interpolation.solve(gram, low_rank, targets, 0.0, SETTINGS)
  exact = np.linalg.cond(gaussian(train, train))
  found = interpolation.condition_at_least(gram, alpha[:, :N], targets)
  assert 0.02 * exact < found <= 1.01 * exact

  layout = gram.layout
  preconditioner = preconditioning.precondition(gram, low_rank, 0.0)
  product = preconditioning.apply(preconditioner, full(gram)[:N], layout)
  values = np.linalg.eigvals(np.asarray(product)[:, :N]).real
  assert interpolation.condition(history) == pytest.approx(max(values) / min(values), 0.1)


def test_after_a_kill_it_goes_on_bit_for_bit(data, tmp_path):
  _, _, targets = data
  gram, low_rank = make(data, landmarks=2)
  whole, history = interpolation.solve(gram, low_rank, targets, 0.0, SETTINGS)
  assert len(history) > 10

  path, common, calls = tmp_path / 'state.npz', (gram, low_rank, targets, 0.0), []

  def kill(alpha, history):
    calls.append(len(history))
    if len(calls) == 2:
      raise KeyboardInterrupt  # after iteration 10; what is saved is that after 5
    return {}

  with pytest.raises(KeyboardInterrupt):
    interpolation.solve(*common, SETTINGS, path=path, watch=kill)
  assert len(interpolation.load(path)[1]) == 5
  resumed, _ = interpolation.solve(*common, SETTINGS, path=path)
  np.testing.assert_array_equal(resumed, whole)
  again, _ = interpolation.solve(*common, SETTINGS, path=path)
  np.testing.assert_array_equal(again, whole)


def test_a_residual_that_no_longer_falls_ends_it():
  def record(residual, restarted=False):
    return {'residual': residual} | ({'restarted': True} if restarted else {})

  few = {'tolerance': 1e-3, 'max_iterations': 100}
  history = [record(0.1), record(3e-3, True)]
  assert not interpolation.finished(history, few)
  assert interpolation.finished([*history, record(1e-4)], few)
  assert interpolation.finished([*history, record(2e-3, True)], few)
  assert not interpolation.finished([*history, record(1.4e-3, True)], few)
  assert interpolation.finished(history, few | {'max_iterations': 2})


@pytest.mark.slow
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
  points=st.lists(
    st.tuples(*2 * [st.integers(-5, 5)]), min_size=12, max_size=12, unique=True
  ),
  labels=st.lists(st.integers(0, 2), min_size=12, max_size=12),
)
def test_any_labels_on_distinct_inputs_are_interpolated(points, labels):
  points, labels = np.array(points, np.float32), np.array(labels)
  targets = np.eye(3, dtype=np.float32)[labels].T
  marks = np.array([1, 5, 9])
  gram = gram_matrix.add(None, points, points, marks, 1.0)
  low_rank = preconditioning.low_rank(gram, marks)
  alpha, history = interpolation.solve(
    gram, low_rank, targets, 0.0, {'tolerance': 1e-3, 'max_iterations': 100}
  )
  assert history[-1]['residual'] <= 1e-3
  assert history[-1]['train_error'] == 0
  fitted = np.asarray(interpolation.predict(gram.tests, alpha))[:, :12]
  np.testing.assert_allclose(fitted, targets, atol=5e-3)
  assert interpolation.condition(history) >= 1
  assert interpolation.condition_at_least(gram, alpha[:, :12], targets) >= 1


def test_an_order_keeps_neighbors_together():
  rng = np.random.default_rng(0)
  centers = 20 * rng.standard_normal((8, 4))
  cluster = rng.permutation(np.repeat(np.arange(8), 64))
  points = centers[cluster] + rng.standard_normal((512, 4))
  order = preconditioning.coherent_order(points.astype(np.float32))
  assert sorted(order) == list(range(512))
  assert np.count_nonzero(np.diff(cluster[order])) < 16


SCRIPT = """
import json, pathlib, sys
import numpy as np
sys.path[:0] = {folders!r}
import test_interpolation as t
t.gram_matrix.BLOCK = 8
data = t.data.__wrapped__()
gram, low_rank = t.make(data)
path = pathlib.Path(sys.argv[1]) if sys.argv[1:] else None
alpha, history = t.interpolation.solve(
  gram, low_rank, data[2], 0.0, t.SETTINGS, path=path
)
guesses = np.asarray(t.interpolation.predict(gram.tests, alpha))[:, :11]
print(json.dumps([t.jax.device_count(), alpha[:, :t.N].tolist(), guesses.tolist()]))
"""


def solve_on(devices, *arguments):
  """What SCRIPT prints on a given number of devices."""
  script = SCRIPT.format(folders=[os.path.dirname(__file__), f'{ROOT}/tests'])
  output = subprocess.run(
    [sys.executable, '-c', script, *arguments],
    env=environment(devices),
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  return json.loads(output)


@pytest.mark.slow
@pytest.mark.parametrize('most', [10, 200])
def test_what_is_saved_is_continued_on_another_number_of_devices(data, tmp_path, most):
  """Saved on one, half way or at the end; five blocks of eight, on three six of seven."""
  gram, low_rank = make(data, landmarks=10)
  expected, whole = interpolation.solve(gram, low_rank, data[2], 0.0, SETTINGS)
  path, few = tmp_path / 'state.npz', SETTINGS | {'max_iterations': most}
  interpolation.solve(gram, low_rank, data[2], 0.0, few, path=path)
  saved = len(interpolation.load(path)[1])
  assert (saved < len(whole)) == (most == 10)
  devices, alpha, _ = solve_on(3, path)
  assert (devices, jax.device_count()) == (3, 1)
  np.testing.assert_allclose(alpha, expected[:, :N], atol=1e-3)
  _, history = interpolation.load(path)
  assert len(history) - saved < len(whole)
  assert interpolation.condition(history) > 1


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_devices(data):
  train, test, targets = data
  devices, alpha, guesses = solve_on(8)
  assert (devices, jax.device_count()) == (8, 1)
  gram, low_rank = make(data)
  expected, _ = interpolation.solve(gram, low_rank, targets, 0.0, SETTINGS)
  np.testing.assert_allclose(alpha, expected[:, :N], atol=1e-3)
  ours = np.asarray(interpolation.predict(gram.tests, expected))[:, : len(test)]
  np.testing.assert_allclose(guesses, ours, atol=1e-4)


def test_an_example_that_is_there_twice_is_refused(data):
  train, _, targets = data
  train = np.concatenate([train[:-1], train[:1]])
  with pytest.raises(BadInput, match='not positive definite'):
    interpolation.direct(gaussian(train, train), targets)


def test_too_little_memory_is_said_with_what_would_fit(monkeypatch):
  monkeypatch.setattr(gram_matrix, 'BLOCK', 2_048)
  monkeypatch.setattr(memory, 'bytes_free', lambda: 8 * 2**30)
  interpolation.check_memory(30_000, 10_000, 784, 1_000)
  with pytest.raises(BadInput, match=r'need about \d+\.\d GiB .* about [\d,]+ would fit'):
    interpolation.check_memory(100_000, 10_000, 784, 1_000)
