import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rethink_gen.errors import BadInput
from rethink_gen.theory import expressivity


def fit(inputs, targets, depth=2, dtype=np.float64):
  """What the network constructed for these points says of them."""
  model, params = expressivity.construct(inputs, targets, depth)
  return expressivity.evaluate(model, params, np.asarray(inputs), dtype)


def test_three_points_by_hand():
  """On a line, z = x up to the direction's sign and scale: slopes 5/1, -3/1, 4/2."""
  inputs = np.array([[0.0], [1.0], [3.0]])
  model, params = expressivity.construct(inputs, [5.0, 2.0, 6.0])
  direction = params['direction'][0]
  assert abs(direction) == pytest.approx(1 / 3)
  if direction > 0:
    thresholds, slopes = [-1, 0, 1 / 3], [5, -3 * 3, 2 * 3]
  else:
    thresholds, slopes = [-2, -1, -1 / 3], [6, -2 * 3, 3 * 3]
  np.testing.assert_allclose(params['thresholds_0'], thresholds, atol=1e-15)
  np.testing.assert_allclose(np.cumsum(params['weights_0']), slopes, atol=1e-12)
  np.testing.assert_allclose(fit(inputs, [5.0, 2.0, 6.0]), [5, 2, 6], atol=1e-12)


def test_the_weights_solve_the_triangular_system_of_the_proof():
  random = np.random.default_rng(0)
  inputs, targets = random.normal(size=(40, 7)), random.integers(10, size=40)
  _, params = expressivity.construct(inputs, targets)
  z = np.sort(inputs @ params['direction'])
  matrix = np.maximum(z[:, None] - params['thresholds_0'], 0)
  np.testing.assert_allclose(matrix, np.tril(matrix), atol=1e-15)
  assert (np.diag(matrix) > 0).all()
  order = np.argsort(inputs @ params['direction'])
  expected = np.linalg.solve(matrix, targets[order])
  scale = np.abs(expected).max()
  np.testing.assert_allclose(params['weights_0'], expected, atol=1e-9 * scale)


@pytest.mark.slow
@given(
  arrays.arrays(
    np.int64,
    st.tuples(st.integers(1, 25), st.integers(1, 4)),
    elements=st.integers(-99, 99),
  ),
  st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_labels_of_any_distinct_inputs_are_fitted_at_every_depth(inputs, data):
  inputs = np.unique(inputs, axis=0)
  count = len(inputs)
  targets = data.draw(arrays.arrays(np.int64, count, elements=st.integers(0, 9)))
  depth = data.draw(st.integers(2, min(6, count + 1)))
  outputs = fit(inputs, targets, depth)
  np.testing.assert_allclose(outputs, targets, atol=1e-3)


@pytest.mark.parametrize('depth', [2, 3, 4, 11])
def test_the_count_of_weights_and_the_width_are_those_of_the_theorem(depth):
  random = np.random.default_rng(0)
  inputs, targets = random.normal(size=(100, 8)), random.integers(10, size=100)
  model, params = expressivity.construct(inputs, targets, depth)
  assert expressivity.count_weights(params) == 2 * 100 + 8
  carried = 3 if depth > 2 else 0
  assert expressivity.width(model) == -(-100 // (depth - 1)) + carried
  outputs = expressivity.evaluate(model, params, inputs)
  np.testing.assert_allclose(outputs, targets, atol=1e-6)


def test_the_parameters_are_those_the_module_would_have():
  model, params = expressivity.construct(np.eye(6), np.arange(6), depth=3)
  shapes = jax.tree.map(np.shape, params)
  initial = model.init(jax.random.key(0), np.zeros((1, 6), np.float32))['params']
  assert shapes == jax.tree.map(np.shape, initial)


def test_all_depths_compute_one_function():
  random = np.random.default_rng(1)
  inputs, targets = random.normal(size=(60, 5)), random.integers(10, size=60)
  elsewhere = 3 * random.normal(size=(500, 5))
  outputs = [
    expressivity.evaluate(*expressivity.construct(inputs, targets, depth), elsewhere)
    for depth in (2, 3, 7)
  ]
  scale = np.abs(outputs[0]).max()
  for other in outputs[1:]:
    np.testing.assert_allclose(other, outputs[0], atol=1e-9 * scale)


def test_float32_fits_few_points_only_roughly():
  random = np.random.default_rng(0)
  inputs, targets = random.normal(size=(20, 5)), random.integers(10, size=20)
  errors = [np.abs(fit(inputs, targets, 2, t) - targets).max() for t in 'fd']
  assert errors[1] < 1e-11 < errors[0] < 0.1


def test_equal_inputs_with_equal_labels_count_once():
  inputs = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
  model, params = expressivity.construct(inputs, [1, 2, 1])
  assert expressivity.count_weights(params) == 2 * 2 + 2
  outputs = expressivity.evaluate(model, params, inputs)
  np.testing.assert_allclose(outputs, [1, 2, 1], atol=1e-12)


def test_equal_inputs_with_different_labels_are_refused_by_name():
  inputs = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
  with pytest.raises(BadInput, match='Inputs 0 and 2 are equal.* 1 and 5'):
    expressivity.construct(inputs, [1, 2, 5])


def test_different_inputs_at_one_point_draw_another_direction(monkeypatch):
  """The first direction sees the first coordinate alone, in which the inputs agree."""
  drawn = []

  class Random:
    def normal(self, size):
      drawn.append(size)
      return np.eye(size)[min(len(drawn), 2) - 1]

  monkeypatch.setattr(np.random, 'default_rng', lambda seed: Random())
  outputs = fit(np.array([[1.0, 2.0], [1.0, 3.0]]), [4.0, 7.0])
  assert len(drawn) == 2
  np.testing.assert_allclose(outputs, [4, 7])


@pytest.mark.parametrize(
  ('inputs', 'targets', 'depth', 'words'),
  [
    (np.zeros((0, 3)), np.zeros(0), 2, 'at least one point'),
    (np.zeros((2, 3)), np.zeros(3), 2, 'must be'),
    ([[np.nan]], [1.0], 2, 'not finite'),
    ([[1.0]], [np.inf], 2, 'not finite'),
    (np.eye(3), np.arange(3), 1, 'from 2 to n'),
    (np.eye(3), np.arange(3), 5, 'from 2 to n'),
    ([[0.0], [1.0], [1.0 + 1e-16], [np.nextafter(1.0, 2)]], [0, 1, 1, 2], 2, 'rounding'),
  ],
)
def test_what_cannot_be_fitted_is_refused(inputs, targets, depth, words):
  with pytest.raises(BadInput, match=words):
    expressivity.construct(inputs, targets, depth)
