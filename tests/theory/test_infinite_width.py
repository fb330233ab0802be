import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_gen.models.mlp import MLP
from rethink_gen.theory import gram_matrix, interpolation, preconditioning
from rethink_gen.theory import infinite_width as theory
from rethink_gen.theory.infinite_width import Architecture

architectures = st.builds(
  Architecture, st.integers(0, 20), st.floats(0.1, 4.0), st.floats(0.0, 2.0)
)


def inputs(count, dimensions=12, seed=0):
  return np.random.default_rng(seed).normal(size=(count, dimensions))


def of_equal_norm(count, dimensions=12, seed=0):
  x = inputs(count, dimensions, seed)
  return x * (dimensions / (x**2).sum(1, keepdims=True)) ** 0.5


def test_one_layer_is_a_monte_carlo_mean_over_units():
  """The mean of relu(u) relu(v), and P(u > 0, v > 0), within 5 standard errors."""
  x = inputs(2)
  weight, bias, units = 1.7, 0.3, 400_000
  rng = np.random.default_rng(1)
  hidden = rng.normal(0, (weight / 12) ** 0.5, (units, 12)) @ x.T
  hidden += rng.normal(0, bias**0.5, (units, 1))
  active = np.maximum(hidden, 0)
  nngp, ntk = theory.kernels(x, x, Architecture(1, weight, bias))
  first = bias + weight * x[0] @ x[1] / 12
  products = bias + weight * active[:, 0] * active[:, 1]
  both = weight * (hidden > 0).all(1) * first
  for kernel, each in ((nngp, products), (ntk, products + both)):
    error = each.std() / units**0.5
    assert abs(kernel[0, 1] - each.mean()) < 5 * error < 0.03


def network(depth, params, x):
  """The MLP, each weight its standard deviation times its parameter; sizes from params."""
  weight, bias = 1.7, 0.3
  scaled = {
    name: {
      'kernel': layer['kernel'] * (weight / len(layer['kernel'])) ** 0.5,
      'bias': layer['bias'] * bias**0.5,
    }
    for name, layer in params.items()
  }
  width = params['Dense_0']['bias'].size
  return MLP(1, depth, width).apply({'params': scaled}, x, train=False)


def draw(key, depth, width, inputs):
  sizes = [inputs, *[width] * depth, 1]
  return {
    f'Dense_{number}': {
      'kernel': jax.random.normal(jax.random.fold_in(key, 2 * number), shape),
      'bias': jax.random.normal(jax.random.fold_in(key, 2 * number + 1), shape[1:]),
    }
    for number, shape in enumerate(zip(sizes, sizes[1:], strict=False))
  }


def test_wide_networks_have_these_kernels():
  """Outputs of 2,000 networks of 2 x 128 units; gradients of 4 networks of 2 x 1,024."""
  x, depth = inputs(3), 2
  nngp, ntk = theory.kernels(x, x, Architecture(depth, 1.7, 0.3))
  function = functools.partial(network, depth)

  @jax.jit
  def output(key):
    return function(draw(key, depth, 128, 12), jnp.float32(x))[:, 0]

  outputs = np.asarray(
    jax.lax.map(output, jax.random.split(jax.random.key(0), 2_000), batch_size=100)
  )
  found = outputs.T @ outputs / len(outputs)
  error = np.sqrt((np.outer(nngp.diagonal(), nngp.diagonal()) + nngp**2) / len(outputs))
  assert (abs(found - nngp) < 5 * error).all()

  @jax.jit
  def gradients(key):
    params = draw(key, depth, 1_024, 12)
    return theory.empirical_ntk(function, params, jnp.float32(x))

  empirical = np.mean([gradients(jax.random.key(seed)) for seed in range(4)], 0)
  np.testing.assert_allclose(empirical, ntk, atol=0.07 * ntk.max())


@given(architectures, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_kernels_are_symmetric_positive_and_the_ntk_is_larger(architecture, seed):
  x = inputs(6, 4, seed)
  nngp, ntk = theory.kernels(x, x, architecture)
  for kernel in (nngp, ntk, ntk - nngp):
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-9, atol=1e-12)
    smallest = np.linalg.eigvalsh((kernel + kernel.T) / 2)[0]
    assert smallest > -1e-7 * max(1e-12, np.trace(kernel))


def test_no_hidden_layer_is_linear_regression_and_zeros_are_allowed():
  x, z = inputs(3), inputs(2, seed=1)
  for kernel in theory.kernels(x, z, Architecture(0, 2.0, 0.5)):
    np.testing.assert_allclose(kernel, 0.5 + 2 * x @ z.T / 12)
  for kernel in theory.kernels(np.zeros((1, 3)), inputs(2, 3), Architecture(3, 2.0, 0.0)):
    assert (kernel == 0).all()


@given(architectures, st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_the_table_gives_what_the_recursion_gives(architecture, seed):
  x, z = of_equal_norm(5, 12, seed), of_equal_norm(4, 12, seed + 1)
  x[0] = z[0] + 1e-4 * x[0]  # a pair that almost agrees
  x[0] *= (12 / (x[0] ** 2).sum()) ** 0.5
  tables = theory.correlation_table(architecture)
  found = theory.kernels_by_table(x, z, tables)
  for kernel, table, by_table in zip(
    theory.kernels(x, z, architecture), tables, found, strict=True
  ):
    np.testing.assert_allclose(by_table, kernel, atol=1e-9 * table[0])


def test_conjugate_gradients_on_a_wide_gram_solve_the_same_system(monkeypatch):
  """101 examples in four blocks of 26, so that the last is padded."""
  monkeypatch.setattr(gram_matrix, 'BLOCK', 32)
  x, z = of_equal_norm(101), of_equal_norm(7, seed=1)
  table = theory.correlation_table(Architecture(2, 2.0, 0.1))[0]
  table = table / table[0]
  marks = preconditioning.spread_landmarks(gram_matrix.make_layout(len(x)), 20)
  gram = theory.wide_gram(x, z, table, marks)
  assert (gram.layout.panels, gram.layout.padded) == (4, 104)
  targets = np.stack([np.sign(x[:, 0]), x[:, 1]]).astype(np.float32)
  rank_part = preconditioning.low_rank(gram, marks)
  options = {'tolerance': 1e-5, 'max_iterations': 200}
  alpha, _ = interpolation.solve(gram, rank_part, targets, 1e-2, options)
  found = interpolation.predict(gram.tests, alpha)[:, :7]
  matrix = theory.kernels_by_table(x, x, table[None])[0]
  exact = interpolation.direct(matrix, targets, 1e-2)
  expected = exact @ theory.kernels_by_table(x, z, table[None])[0]
  np.testing.assert_allclose(found, expected, atol=1e-4)


def spectrum(x, labels):
  values, vectors = np.linalg.eigh(theory.first_layer_kernel(x))
  return theory.Spectrum(values, vectors.T @ labels)


def on_sphere(count, dimensions, seed=0):
  return of_equal_norm(count, dimensions, seed) / dimensions**0.5


def test_the_measure_is_that_of_the_inverse_and_its_kernel_that_of_a_network():
  x = on_sphere(8, 5)
  labels = np.resize([1.0, -1.0], 8)
  matrix = theory.first_layer_kernel(x)
  by_hand = math.sqrt(2 * labels @ np.linalg.inv(matrix) @ labels / 8)
  assert theory.label_measure(spectrum(x, labels)) == pytest.approx(by_hand)
  # With weights in the first layer alone, without biases, weight variances 1.
  covariance, tangent = theory.kernels(x * 5**0.5, x * 5**0.5, Architecture(1, 1.0, 0.0))
  np.testing.assert_allclose(tangent - covariance, matrix, atol=1e-12)


@given(st.floats(0.05, 0.95), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_predicted_losses_are_those_of_kernel_descent(share, seed):
  x = on_sphere(6, 4, seed)
  labels = np.random.default_rng(seed).choice([-1.0, 1.0], 6)
  own = spectrum(x, labels)
  rate = share / own.values[-1]
  predicted = theory.predicted_losses(own, rate, np.arange(30))
  outputs, matrix = np.zeros(6), theory.first_layer_kernel(x)
  for loss in predicted:
    assert loss == pytest.approx(((labels - outputs) ** 2).sum(), rel=1e-9, abs=1e-12)
    outputs += rate * matrix @ (labels - outputs)
  assert (np.diff(predicted) <= 1e-9).all()


def test_a_wide_network_follows_the_prediction_and_a_wider_one_more_closely():
  """The largest gap is below 0.04 |y|^2 at 4,096 units."""
  x = on_sphere(10, 30)
  labels = np.resize([1.0, -1.0], 10)
  own = spectrum(x, labels)
  rate = float(1 / own.values[-1])
  predicted = theory.predicted_losses(own, rate, np.arange(31))
  gaps = []
  for width in (128, 4_096):
    arrays = jnp.float32(x), jnp.float32(labels)
    measured = theory.measured_losses(jax.random.key(0), *arrays, width, rate, 30)
    assert measured[0] == pytest.approx(10, rel=1e-5)  # u(0) = 0
    gaps.append(abs(measured - predicted).max() / 10)
  assert gaps[1] < min(0.04, gaps[0] / 2)
