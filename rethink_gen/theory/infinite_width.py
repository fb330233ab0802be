"""Kernels of infinitely wide ReLU networks, and what they predict of training.

A fully connected network whose weights are independent Gaussians, with variances
weight_variance / fan-in and bias_variance, computes a Gaussian process in the limit of
infinite width. Its covariance is the NNGP kernel (Lee et al., arXiv:1711.00165, Section 2).
Gradient descent on all weights, each written as its standard deviation times a standard
normal parameter, then follows the neural tangent kernel (Jacot, Gabriel & Hongler,
arXiv:1806.07572). Both follow from a recursion over layers, with the arc-cosine kernels of
degree 0 and 1 (Cho & Saul, NeurIPS 2009) as expectations over a ReLU layer.

Where only the first of two layers is trained, Arora et al. (arXiv:1901.08584) predict the
training curve and bound the test loss from the kernel and the labels.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen.theory import gram_matrix

POINTS = 2**17  # of a table of kernels; its error is below 1e-9 of a kernel's diagonal
BLOCK = 1_000  # inputs at once


class Architecture(NamedTuple):
  """A fully connected ReLU network of infinite width."""

  depth: int  # hidden layers
  weight_variance: float  # times 1 / fan-in
  bias_variance: float


def kernels(
  x: np.ndarray, z: np.ndarray, architecture: Architecture
) -> tuple[np.ndarray, np.ndarray]:
  """(NNGP, NTK) of inputs (a, d) with inputs (b, d): float64 (a, b) each."""
  x, z = np.asarray(x, np.float64), np.asarray(z, np.float64)
  products, squares, others = x @ z.T, (x**2).sum(1)[:, None], (z**2).sum(1)
  size = x.shape[1]
  return recursion(products / size, squares / size, others / size, architecture)


def recursion(
  covariance: np.typing.ArrayLike,
  variance: np.typing.ArrayLike,
  other: np.typing.ArrayLike,
  architecture: Architecture,
) -> tuple[np.ndarray, np.ndarray]:
  """(NNGP, NTK) of pairs of inputs x and z, from their products.

  Args:
    covariance, variance, other: x.z / d, x.x / d and z.z / d, of shapes that broadcast.
    architecture: an Architecture.

  Returns:
    Two float64 arrays of the broadcast shape.
  """
  depth, weight, bias = architecture
  covariance, variance, other = (
    bias + weight * np.asarray(part, np.float64) for part in (covariance, variance, other)
  )
  tangent = covariance
  for _ in range(depth):
    norm = np.sqrt(variance * other)
    # Rounding may take a correlation beyond 1; an input of zeros has none.
    correlation = np.clip(covariance / np.maximum(norm, 1e-300), -1, 1)
    angle = np.pi - np.arccos(correlation)
    positive = np.sqrt(1 - correlation**2) + correlation * angle
    covariance = bias + weight / 2 * norm * positive / np.pi
    tangent = covariance + tangent * (weight / 2 * angle / np.pi)
    variance, other = (bias + weight / 2 * part for part in (variance, other))
  return covariance, tangent


def correlation_table(architecture: Architecture) -> np.ndarray:
  """float64 (2, POINTS): NNGP and NTK of inputs with x.x = d, at evenly spaced distances.

  For inputs of equal norms the kernels are functions of the correlation c alone. They are
  smooth in s = sqrt(1 - c), except at the end c = -1, so point i is at
  s = i sqrt(2) / (POINTS - 1).
  """
  correlation = 1 - np.linspace(0, math.sqrt(2), POINTS) ** 2
  return np.stack(recursion(correlation, 1.0, 1.0, architecture))


@jax.jit
def look_up(tables: jax.Array | np.ndarray, correlation: jax.Array) -> jax.Array:
  """(k, ...): rows of a `correlation_table` (k, POINTS) at correlations (...), linearly."""
  last = tables.shape[1] - 1
  place = jnp.sqrt(jnp.clip(1 - correlation, 0, 2) / 2) * last
  below = jnp.minimum(place.astype(jnp.int32), last - 1)
  share = place - below
  return jnp.stack([(1 - share) * row[below] + share * row[below + 1] for row in tables])


def kernels_by_table(x: np.ndarray, z: np.ndarray, tables: np.ndarray) -> np.ndarray:
  """float64 (k, a, b): the kernels in the rows of a `correlation_table`.

  Twenty layers take as long as one this way.

  Args:
    x, z: float64 (a, d) and (b, d) with x.x = d.
    tables: float64 (k, POINTS).
  """
  found = np.empty((len(tables), len(x), len(z)))
  with jax.enable_x64(True):
    for start in range(0, len(x), BLOCK):  # to save memory
      part = slice(start, start + BLOCK)
      found[:, part] = look_up(tables, x[part] @ z.T / x.shape[1])
  return found


def wide_gram(
  x: np.ndarray, z: np.ndarray, table: np.ndarray, landmarks: np.ndarray
) -> gram_matrix.Gram:
  """The Gram of `gram_matrix` for the kernel in a row of a `correlation_table`.

  Args:
    x, z: float64 (n, d) and (m, d), training and test inputs with x.x = d.
    table: float64 (POINTS,).
    landmarks: int (k,) into the training inputs, sorted.
  """
  train, test = (np.asarray(part / x.shape[1] ** 0.5, np.float32) for part in (x, z))
  gram = gram_matrix.add(None, train, test, landmarks)
  layout, single = gram.layout, np.float32(table[None])

  @functools.partial(jax.jit, donate_argnums=0)
  def lift(correlations, valid):
    return jnp.where(valid, look_up(single, correlations)[0], 0)

  panels, sides, column = [], [], np.arange(layout.padded) < layout.examples
  for j, (panel, side) in enumerate(zip(gram.panels, gram.landmarks, strict=True)):
    first = (j * layout.devices + np.arange(layout.devices)) * layout.size
    row = column[first[:, None] + np.arange(layout.size)]  # (devices, size)
    beside = column[(first[:, None] + np.arange(layout.width)) % layout.padded]
    valid = (row[:, :, None] & beside[:, None]).reshape(panel.shape)
    panels.append(lift(panel, valid).block_until_ready())
    sides.append(lift(side, row.reshape(-1, 1)))
  tests = tuple(lift(part, column) for part in gram.tests)
  return gram_matrix.Gram(layout, tuple(panels), tests, tuple(sides))


def empirical_ntk(function: Callable, params: Any, x: jax.Array) -> jax.Array:
  """(n, n): gradients' inner products, averaged over the outputs.

  Args:
    function: function(params, x) -> outputs (n, k), each example's from its row of x alone.
    params: a tree of arrays.
    x: inputs (n, ...).
  """
  gradients = jax.jacrev(function)(params, x)

  def product(leaf):
    flat = leaf.reshape(*leaf.shape[:2], -1)
    return jnp.einsum('akp,bkp->ab', flat, flat, precision='highest') / flat.shape[1]

  return sum(product(leaf) for leaf in jax.tree.leaves(gradients))


def first_layer_kernel(x: np.ndarray) -> np.ndarray:
  """float64 (n, n): the tangent kernel of two ReLU layers of which the first is trained.

  H_ij = x_i.x_j (pi - arccos x_i.x_j) / (2 pi) (arXiv:1901.08584, Section 3).

  Args:
    x: float64 (n, d) with |x| = 1.
  """
  products = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
  return products * (np.pi - np.arccos(np.clip(products, -1, 1))) / (2 * np.pi)


class Spectrum(NamedTuple):
  """A kernel's eigenvalues, ascending, and the projections of labels on eigenvectors."""

  values: np.ndarray  # float64 (n,)
  projections: np.ndarray  # float64 (n,), v_i.y


def label_measure(spectrum: Spectrum) -> float:
  """sqrt(2 y' H^-1 y / n), the main term of a bound on the test loss.

  For labels of -1 and 1 and a loss in [0, 1] that is 1-Lipschitz (arXiv:1901.08584,
  Theorem 5.1).
  """
  values, projections = spectrum
  return math.sqrt(2 * (projections**2 / values).sum() / len(values))


def predicted_losses(
  spectrum: Spectrum, learning_rate: float, steps: np.ndarray
) -> np.ndarray:
  """float64 (k,): |y - u|^2 after `steps` (k,) of gradient descent from u = 0.

  The sum of (1 - eta lambda_i)^(2 k) (v_i.y)^2 (arXiv:1901.08584, Theorem 4.1).
  """
  values, projections = spectrum
  rates = np.abs(1 - learning_rate * values)
  return (rates ** (2 * np.asarray(steps)[:, None]) * projections**2).sum(1)


@functools.partial(jax.jit, static_argnames=('width', 'steps'))
def measured_losses(
  key: jax.Array,
  x: jax.Array,
  labels: jax.Array,
  width: int,
  learning_rate: float,
  steps: int,
) -> jax.Array:
  """float32 (steps + 1,): |y - u(k)|^2 of a two-layer network, for k = 0, ..., steps.

  u(x) = sum_r a_r relu(w_r.x) / sqrt(width), with Gaussian w and fixed signs a. Gradient
  descent on |y - u|^2 / 2 moves w alone, in full batches (arXiv:1901.08584, Section 3).
  Units come in pairs of the same w and opposite signs, so that u(0) = 0. The paper has
  u(0) near 0 instead, from small w.

  Args:
    key: PRNG key of w.
    x: float32 (n, d) with |x| = 1. They are turned into the basis of their span if n < d,
      which changes nothing, because the distribution of w has no direction.
    labels: float32 (n,), of -1 and 1.
    width: an even number of units.
    learning_rate: eta, for the gradient of the sum over examples.
    steps: how many.
  """
  if len(x) < x.shape[1]:
    x = jnp.linalg.qr(x.T)[1].T
  half = jax.random.normal(key, (x.shape[1], width // 2))
  signs = jnp.repeat(jnp.array([1.0, -1.0]), width // 2) / math.sqrt(width)

  def loss(weights):
    residual = labels - jax.nn.relu(x @ weights) @ signs
    return residual @ residual / 2

  def step(weights, _):
    value, gradient = jax.value_and_grad(loss)(weights)
    return weights - learning_rate * gradient, 2 * value

  start = jnp.concatenate([half, half], 1)
  return jax.lax.scan(step, start, None, steps + 1)[1]
