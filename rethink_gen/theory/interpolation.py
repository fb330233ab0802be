"""Minimum-norm interpolation: K alpha = Y for tens of thousands of examples (Section 5).

Among all functions in a kernel's space that fit the training set, the one of minimum norm
is f(x) = sum_i alpha_i k(x, x_i) with K alpha = Y, and its norm is sqrt(alpha^T K alpha).
With a ridge, the system is (K + ridge I) alpha = Y. It is solved by conjugate gradients,
with the matrix of `gram_matrix` and the preconditioner of `preconditioning`.

The residual recursion of conjugate gradients drifts, so at the end the residual is computed
again from alpha; if it is too large, the iteration continues from there, until that no
longer halves it.

The effect of float32 on the solution is known in part; `gram_matrix` says what it does to
K. For small n, the tests compare the solution with Cholesky in float64. For all of MNIST,
it is not shown how far the solution is from the one in exact arithmetic. What a run does
show is the residual, for K as it is stored, and which examples are classified correctly. On
MNIST (results/laptop/mnist_kernel) the residual reached 8.7e-4 at a condition number of at
least 9.7e5, and only 1.09e-3 at one of at least 4.4e6.
"""

import functools
import io
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # imports its parts lazily

from rethink_gen import files, memory
from rethink_gen.errors import BadInput
from rethink_gen.theory.gram_matrix import Gram, Layout, einsum, make_layout, multiply
from rethink_gen.theory.preconditioning import Preconditioner, apply, precondition

SAVE_EVERY = 5  # iterations


class State(NamedTuple):
  """Everything that an iteration changes: float32 arrays with one row per class."""

  alpha: jax.Array  # (classes, padded)
  residual: jax.Array  # (classes, padded)
  direction: jax.Array  # (classes, padded)
  energy: jax.Array  # (classes,), residual times preconditioned residual


def start(
  gram: Gram,
  preconditioner: Preconditioner,
  targets: jax.Array,
  alpha: jax.Array,
  ridge: float,
  layout: Layout,
) -> State:
  """The State of conjugate gradients at alpha, with the residual computed from scratch."""
  image = multiply(gram.panels, alpha, layout) + ridge * alpha
  residual = targets - image
  direction = apply(preconditioner, residual, layout)
  return State(alpha, residual, direction, jnp.sum(residual * direction, 1))


def iterate(
  gram: Gram,
  preconditioner: Preconditioner,
  targets: jax.Array,
  state: State,
  ridge: float,
  layout: Layout,
) -> tuple[State, dict[str, jax.Array]]:
  """One step of preconditioned conjugate gradients on all classes at once.

  Returns:
    (state, record): the record has the largest relative residual of a class, the largest
    absolute residual of an example, the fraction of training examples misclassified, and
    `length` and `ratio` of every class, for `condition`.
  """
  image = multiply(gram.panels, state.direction, layout)
  alpha, residual, length = advance(state, image, ridge)
  improved = apply(preconditioner, residual, layout)
  direction, energy, ratio = turn(state, residual, improved)
  new = State(alpha, residual, direction, energy)
  return new, describe(new, targets, ridge, layout) | {'length': length, 'ratio': ratio}


@jax.jit
def advance(
  state: State, image: jax.Array, ridge: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  image += ridge * state.direction
  length = state.energy / jnp.maximum(jnp.sum(state.direction * image, 1), 1e-30)
  alpha = state.alpha + length[:, None] * state.direction
  return alpha, state.residual - length[:, None] * image, length


@jax.jit
def turn(
  state: State, residual: jax.Array, improved: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  energy = jnp.sum(residual * improved, 1)
  ratio = energy / jnp.maximum(state.energy, 1e-30)
  return improved + ratio[:, None] * state.direction, energy, ratio


@functools.partial(jax.jit, static_argnames='layout')
def describe(
  state: State, targets: jax.Array, ridge: float, layout: Layout
) -> dict[str, jax.Array]:
  fitted = targets - state.residual - ridge * state.alpha
  wrong = jnp.argmax(fitted, 0) != jnp.argmax(targets, 0)
  lengths = jnp.maximum(jnp.linalg.norm(targets, axis=1), 1e-30)  # 0: no example
  return {
    'residual': jnp.max(jnp.linalg.norm(state.residual, axis=1) / lengths),
    'largest': jnp.max(jnp.abs(state.residual)),
    'train_error': jnp.mean(wrong[: layout.examples]),
  }


def solve(
  gram: Gram,
  rank_part: tuple[jax.Array, ...],
  targets: jax.Array | np.ndarray,
  ridge: float,
  settings: dict,
  begin: jax.Array | np.ndarray | None = None,
  path: str | os.PathLike | None = None,
  watch: Callable | None = None,
) -> tuple[np.ndarray, list[dict]]:
  """Conjugate gradients until the residual is small, resuming from a file if there is one.

  Args:
    gram: a Gram.
    rank_part: its B, from `preconditioning.low_rank`.
    targets: float32 (classes, n).
    ridge: at least 0.
    settings: {'tolerance': for the relative residual of every class, 'max_iterations'}.
    begin: float32 (classes, padded), the alpha to start from, or None for zeros.
    path: a file that stores the state every few iterations. If it exists, the iteration
      resumes from it, bit for bit as if uninterrupted; on another number of devices it
      restarts from the stored alpha.
    watch: called as watch(alpha, history) after every iteration that is saved; the dict it
      returns is merged into the last record.

  Returns:
    (alpha, history): float32 (classes, padded) and one record per iteration, the last with
    the residual computed from scratch, which tells whether the tolerance was reached.

  Raises:
    BadInput: there is no finite solution, as for a singular system.
  """
  layout, started = gram.layout, time.monotonic()
  state, history = load(path)
  if state and state.alpha.shape[1] != layout.padded:  # saved on other devices
    begin, state = pad(np.asarray(state.alpha)[:, : layout.examples], layout), None
  if finished(history, settings):
    return np.asarray(state.alpha if state else begin), history
  if history and not state:  # other blocks, so another preconditioner
    history[-1]['moved'] = True
  targets = jnp.asarray(pad(targets, layout))
  common = gram, precondition(gram, rank_part, ridge), targets
  if state is None:
    begin = jnp.zeros_like(targets) if begin is None else jnp.asarray(begin)
    state = start(*common, begin, ridge, layout)
  before = history[-1]['seconds'] if history else 0
  while not finished(history, settings):
    state, arrays = iterate(*common, state, ridge, layout)
    record = {name: np.asarray(value).tolist() for name, value in arrays.items()}
    if not math.isfinite(record['residual']):
      raise BadInput(
        f'Conjugate gradients broke down at ridge {ridge:g}: an example occurs twice with '
        'different labels, or there are fewer features than examples; drop duplicates or '
        'give a ridge above 0.'
      )
    history.append(record)
    if finished(history, settings):  # by the true residual too? If not, continue from here
      state = start(*common, state.alpha, ridge, layout)
      record |= jax.tree.map(float, describe(state, targets, ridge, layout))
      record['restarted'] = True
    record['seconds'] = before + time.monotonic() - started
    if len(history) % SAVE_EVERY == 0 or finished(history, settings):
      record |= watch(state.alpha, history) if watch else {}
      save(path, state, history)
  return np.asarray(state.alpha), history


def finished(history: list[dict], settings: dict) -> bool:
  """Whether the last residual is small, or no longer falls, or iterations are used up."""
  if not history:
    return False
  anew = [record['residual'] for record in history if record.get('restarted')]
  stalled = history[-1].get('restarted') and len(anew) > 1 and anew[-1] > anew[-2] / 2
  small = history[-1]['residual'] <= settings['tolerance']
  return small or stalled or len(history) >= settings['max_iterations']


def pad(targets: jax.Array | np.ndarray, layout: Layout) -> np.ndarray:
  return np.pad(targets, ((0, 0), (0, layout.padded - layout.examples)))


def save(path: str | os.PathLike | None, state: State, history: list[dict]) -> None:
  if path is None:
    return
  content = io.BytesIO()
  np.savez(content, history=json.dumps(history), **state._asdict())
  files.write_bytes(path, content.getvalue())


def load(path: str | os.PathLike | None) -> tuple[State | None, list[dict]]:
  """(State, history) as saved, or (None, []) if there is no such file."""
  if path is None or not pathlib.Path(path).exists():
    return None, []
  with np.load(path) as file:
    state = State(*(jnp.asarray(file[name]) for name in State._fields))
    return state, json.loads(str(file['history']))


@jax.jit
def predict(tests: tuple[jax.Array, ...], alpha: jax.Array | np.ndarray) -> jax.Array:
  """float32 (classes, test examples): the function's values; extra columns are padding."""
  return jnp.concatenate([einsum('tn,cn->ct', part, alpha) for part in tests], 1)


def iterations_left(history: list[dict], tolerance: float) -> int | None:
  """How many more if the residual keeps falling at this rate; None if it does not fall."""
  rate = math.log(history[0]['residual'] / history[-1]['residual']) / len(history)
  ahead = math.log(max(1, history[-1]['residual'] / tolerance))
  return math.ceil(ahead / rate) if rate > 0 else None


def norms(
  alpha: np.ndarray, targets: np.ndarray, ridge: float = 0.0
) -> tuple[np.ndarray, float]:
  """(per class, total): sqrt(alpha^T K alpha), if K alpha = Y - ridge alpha.

  Sums are in float64; alpha is float32 (classes, n), targets (classes, n).
  """
  alpha = np.asarray(alpha, np.float64)
  squares = np.sum(alpha * (targets - ridge * alpha), 1)
  return np.sqrt(squares), math.sqrt(squares.sum())


def condition(history: list[dict]) -> float:
  """Condition number of P^-1 K, from the Lanczos process inside conjugate gradients.

  The largest ratio of extreme Ritz values over the classes; a lower bound.
  """
  restarts = [k for k, r in enumerate(history) if r.get('restarted') or r.get('moved')]
  part = history[: restarts[0] + 1] if restarts else history
  lengths = np.array([record['length'] for record in part])  # (iterations, classes)
  ratios = np.array([record['ratio'] for record in part])
  moved = (lengths > 0).all(0)  # a class without examples stays at zero
  lengths, ratios = lengths[:, moved], ratios[:, moved]
  diagonal = 1 / lengths
  diagonal[1:] += ratios[:-1] / lengths[:-1]
  beside = np.sqrt(ratios[:-1]) / lengths[:-1]
  found = []
  for d, e in zip(diagonal.T, beside.T, strict=True):
    values = scipy.linalg.eigvalsh_tridiagonal(d, e)
    found.append(values[-1] / values[0])
  return float(max(found, default=1.0))


def condition_at_least(gram: Gram, alpha: np.ndarray, targets: np.ndarray) -> float:
  """A lower bound on the condition number of K, from two Rayleigh quotients.

  The large one comes from three products starting at a constant vector; the small one is
  the minimum over the span of the classes' alpha, which solve K alpha = y and so lean
  toward small eigenvalues.
  """
  layout = gram.layout
  vector = pad(np.ones((1, layout.examples), np.float32), layout)
  for _ in range(3):
    vector = vector / np.linalg.norm(vector)
    image = np.asarray(multiply(gram.panels, jnp.asarray(vector), layout))
    largest, vector = float(np.vdot(vector, image)), image
  alpha = np.asarray(alpha, np.float64)[:, : layout.examples]
  moved = alpha.any(1)  # a class without examples stays at zero
  alpha, targets = alpha[moved], targets[moved]
  energies = alpha @ targets.T
  smallest = scipy.linalg.eigvalsh((energies + energies.T) / 2, alpha @ alpha.T)[0]
  return float(largest / smallest)


def direct(
  matrix: jax.Array | np.ndarray, targets: np.ndarray, ridge: float = 0.0
) -> np.ndarray:
  """The solution by Cholesky in float64, for small n.

  Args:
    matrix: (n, n), symmetric and, with the ridge, positive definite.
    targets: (classes, n).

  Returns:
    alpha, float64 (classes, n).

  Raises:
    BadInput: it is not positive definite, for example because an example occurs twice.
  """
  matrix = np.asarray(matrix, np.float64) + ridge * np.eye(len(matrix))
  try:
    factor = scipy.linalg.cho_factor(matrix)
  except np.linalg.LinAlgError:
    raise BadInput(
      'The kernel matrix is not positive definite: an example occurs twice, or there are '
      'fewer features than examples; drop duplicates or give a ridge above 0.'
    ) from None
  return scipy.linalg.cho_solve(factor, np.asarray(targets, np.float64).T).T


def bytes_needed(examples: int, tests: int, features: int, landmarks: int) -> int:
  """Peak memory of `gram_matrix.add` and `solve`, over all devices."""
  layout = make_layout(examples)
  panel = layout.devices * layout.size * layout.width
  numbers = (
    (layout.panels + 2) * panel  # two more while one is built
    + layout.padded * (tests + 3 * landmarks + layout.size)
    + 5 * layout.padded * features
    + 4 * landmarks**2
  )
  return 4 * numbers + 2**30  # the program itself


def check_memory(examples: int, tests: int, features: int, landmarks: int) -> None:
  """Raises BadInput if this many examples do not fit, saying how many would."""
  needed, free = bytes_needed(examples, tests, features, landmarks), memory.bytes_free()
  if needed <= free:
    return
  low, high = 0, examples  # low fits, high does not
  while high - low > max(1, high // 100):
    middle = (low + high) // 2
    fits = bytes_needed(middle, tests, features, landmarks) <= free
    low, high = (middle, high) if fits else (low, middle)
  raise BadInput(
    f'{examples:,} training examples need about {needed / 2**30:.1f} GiB of memory, but '
    f'{free / 2**30:.1f} GiB are free; about {low:,} would fit.'
  )
