"""Over-parametrized least squares: which of its solutions SGD finds (Section 5).

The loss is |X w - y|^2 / 2n with n equations in d > n unknowns. Every step adds multiples
of rows of X, so w stays in the row space shifted by the initial w. Starting from zero, the
only solution there is the one of minimum norm, X^T (X X^T)^-1 y.
"""

import jax
import jax.numpy as jnp

from rethink_gen.errors import BadInput


def minimum_norm_solution(x: jax.Array, y: jax.Array) -> jax.Array:
  """X^T (X X^T)^-1 y: (n, d), (n,) -> (d,).

  Raises:
    BadInput: unless there are fewer equations than unknowns, and at least one.
  """
  if not 0 < x.shape[0] < x.shape[1]:
    raise BadInput(
      f'There are {x.shape[0]} equations in {x.shape[1]} unknowns, but least squares is '
      'over-parametrized only with fewer equations than unknowns, and at least one.'
    )
  return x.T @ jnp.linalg.solve(x @ x.T, y)


def project_on_rows(x: jax.Array, v: jax.Array) -> jax.Array:
  """The part of v (d,) that lies in the row space of x (n, d)."""
  return x.T @ jnp.linalg.solve(x @ x.T, x @ v)


def loss(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
  """|X w - y|^2 / 2n."""
  return jnp.mean((x @ w - y) ** 2) / 2


def descend(
  x: jax.Array,
  y: jax.Array,
  start: jax.Array,
  learning_rate: float | jax.Array,
  batch_size: int,
  num_records: int,
  steps_per_record: int,
  key: jax.Array,
) -> jax.Array:
  """SGD with batches drawn with replacement and gradients by autodiff.

  Args:
    x, y: float (n, d) and (n,).
    start: float (d,), the weights before the first step.
    learning_rate: constant, as in w - learning_rate * gradient.
    batch_size, num_records, steps_per_record: counts.
    key: PRNG key for the batches.

  Returns:
    float (num_records + 1, d): the weights at the start and after each record's steps.
  """

  def step(w, key):
    chosen = jax.random.randint(key, (batch_size,), 0, len(x))
    return w - learning_rate * jax.grad(loss)(w, x[chosen], y[chosen]), None

  def record(w, key):
    w, _ = jax.lax.scan(step, w, jax.random.split(key, steps_per_record))
    return w, w

  _, recorded = jax.lax.scan(record, start, jax.random.split(key, num_records))
  return jnp.concatenate([start[None], recorded])
