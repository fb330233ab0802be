import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen.errors import BadInput
from rethink_gen.theory import linear


@pytest.fixture
def system():
  """(x, y) of 5 equations in 12 unknowns, float64."""
  with jax.enable_x64(True):
    random = np.random.default_rng(0)
    yield jnp.asarray(random.normal(size=(5, 12))), jnp.asarray(random.normal(size=5))


def test_the_solution_is_that_of_the_pseudoinverse(system):
  x, y = system
  expected = np.linalg.pinv(np.asarray(x)) @ np.asarray(y)
  np.testing.assert_allclose(linear.minimum_norm_solution(x, y), expected, atol=1e-13)


def test_the_projection_keeps_rows_and_drops_what_is_orthogonal_to_them(system):
  x, _ = system
  np.testing.assert_allclose(linear.project_on_rows(x, x[2]), x[2], atol=1e-13)
  null = np.linalg.svd(np.asarray(x))[2][-1]
  np.testing.assert_allclose(linear.project_on_rows(x, jnp.asarray(null)), 0, atol=1e-13)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_sgd_from_zero_finds_the_least_norm_and_from_elsewhere_keeps_its_offset(
  system, batch_size
):
  x, y = system
  least = linear.minimum_norm_solution(x, y)
  start = jnp.asarray(np.random.default_rng(1).normal(size=12))
  rate = 1 / jnp.max(jnp.sum(x**2, 1))

  def end(start):
    key = jax.random.key(0)
    return linear.descend(x, y, start, rate, batch_size, 4, 500, key)[-1]

  np.testing.assert_allclose(end(0 * start), least, atol=1e-9)
  offset = start - linear.project_on_rows(x, start)
  np.testing.assert_allclose(end(start), least + offset, atol=1e-9)


def test_a_step_is_that_of_the_formula(system):
  x, y = system
  start = jnp.ones(12)
  key = jax.random.key(3)
  weights = linear.descend(x, y, start, 0.1, 2, 1, 1, key)
  (inner,) = jax.random.split(jax.random.split(key, 1)[0], 1)
  chosen = np.asarray(jax.random.randint(inner, (2,), 0, 5))
  gradient = x[chosen].T @ (x[chosen] @ start - y[chosen]) / 2
  np.testing.assert_allclose(weights, [start, start - 0.1 * gradient], atol=1e-13)


def test_the_hessian_is_the_same_everywhere(system):
  x, y = system
  for w in (jnp.zeros(12), jnp.ones(12)):
    hessian = jax.hessian(linear.loss)(w, x, y)
    np.testing.assert_allclose(hessian, x.T @ x / 5, atol=1e-13)


@pytest.mark.parametrize('shape', [(5, 5), (6, 5), (0, 5)])
def test_what_is_not_over_parametrized_is_refused(shape):
  with pytest.raises(BadInput, match='fewer equations'):
    linear.minimum_norm_solution(jnp.zeros(shape), jnp.zeros(shape[0]))
