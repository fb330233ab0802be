"""Minimum-norm interpolation: K alpha = Y for tens of thousands of examples (Section 5).

Among all functions in a kernel's space that fit the training set, the one of minimum norm
is f(x) = sum_i alpha_i k(x, x_i) with K alpha = Y, and its norm is sqrt(alpha^T K alpha).
With a ridge, the system is (K + ridge I) alpha = Y.

The Gram matrix K is symmetric, and half of it is stored. Its rows and columns are cut into
B blocks; row i keeps the blocks i, i+1, ..., i + B//2 (modulo B), side by side in one
panel, so that all rows have the same length. Panels are distributed over the devices. If B
is even, the last block of each panel is stored twice, and each copy counts half. So 60,000
examples take 7.7 GB in float32, not 14.4. Each panel is a separate array and never copied.

The effect of float32 on the solution is known in part. For small n, the tests compare it
with Cholesky in float64. On MNIST's pixels in [0, 1] with a bandwidth of 0.02, compared
with float64 from the same float32 features:

| n | norm of the error in K | smallest eigenvalue of K | its change by rounding |
|---|---|---|---|
| 500 | 3.4e-6 | 5.2e-2 | less than 2e-7 |
| 1,000 | 8.5e-6 | 2.1e-2 | less than 2e-7 |
| 2,000 | 1.7e-5 | 1.1e-2 | less than 2e-7 |

On Gabor wavelets with a bandwidth of 8, the last row is 1.5e-5, 4.1e-3 and 7e-7. The root
mean square error of an entry is 2e-8 to 4e-8, the largest 2e-6; but the errors are not
independent, and their norm grows about like n. The smallest eigenvalue falls about like
1 / n. Extrapolated by a factor of 30, to n = 60,000, norm and eigenvalue would meet near
4e-4. So it is not shown that rounding leaves the K of all of MNIST positive definite, nor
how far the solution is from the one in exact arithmetic. What a run does show is the
residual, for K as it is stored, and which examples are classified correctly. On MNIST
(results/laptop/mnist_kernel) the residual reached 8.7e-4 at a condition number of at least
9.7e5, and only 1.09e-3 at one of at least 4.4e6.

The residual recursion of conjugate gradients drifts, so at the end the residual is computed
again from alpha; if it is too large, the iteration continues from there, until that no
longer halves it.

The preconditioner is Nystrom's with m landmarks, for the smooth part, plus a Cholesky
factor of every diagonal block of what the landmarks leave over, with the examples ordered
so that neighbors are similar (the idea of adaptive factorized Nystrom, arXiv:2304.05460,
Section 3, with blocks instead of a sparse factor).
"""

import functools
import io
import json
import math
import os
import pathlib
import resource
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # imports its parts lazily
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen import files, sharding
from rethink_gen.errors import BadInput
from rethink_gen.text import format_duration

BLOCK = 2_048  # most examples in a block; gives panels a good size for matrix products
LEAF = 64  # examples that are not ordered any further
JITTER = 0.01  # fraction of the diagonal that the landmarks leave; for float32 Cholesky
SAVE_EVERY = 5  # iterations
REPLICATED, ROWS = PartitionSpec(), PartitionSpec('data')
# By default, a GPU rounds the inputs of float32 products to ten bits.
einsum = functools.partial(jnp.einsum, precision='highest')


class Layout(NamedTuple):
  """How the Gram matrix is cut into blocks and panels."""

  examples: int
  size: int  # examples per block; the last block is padded with zeros
  panels: int  # per device
  devices: int

  @property
  def padded(self) -> int:
    return self.size * self.panels * self.devices

  @property
  def width(self) -> int:
    """Columns of a panel."""
    return self.size * (self.panels * self.devices // 2 + 1)


class Gram(NamedTuple):
  """The kernel of the training examples with themselves, the test examples and landmarks.

  Panel j of device d is block row j * devices + d; a global array stacks the panels j of
  all devices, sharded by rows.
  """

  layout: Layout
  panels: tuple[jax.Array, ...]  # float32 (devices * size, width) each
  tests: tuple[jax.Array, ...]  # float32 (some test examples, padded) each, in order
  landmarks: tuple[jax.Array, ...]  # float32 (devices * size, landmarks) each


class Preconditioner(NamedTuple):
  """P = D + B B^T, whose inverse is W^T (I - H (I + H^T H)^-1 H^T) W with W^T W = D^-1."""

  roots: tuple[jax.Array, ...]  # W, lower triangular, float32 (devices * size, size) each
  sides: tuple[jax.Array, ...]  # H = W B, float32 (devices * size, landmarks) each
  inner: jax.Array  # lower Cholesky factor of I + H^T H, (landmarks, landmarks)


class State(NamedTuple):
  """Everything that an iteration changes: float32 arrays with one row per class."""

  alpha: jax.Array  # (classes, padded)
  residual: jax.Array  # (classes, padded)
  direction: jax.Array  # (classes, padded)
  energy: jax.Array  # (classes,), residual times preconditioned residual


def make_layout(examples: int) -> Layout:
  """The Layout for all devices, in blocks of BLOCK examples or somewhat fewer."""
  devices = jax.device_count()
  panels = math.ceil(examples / (devices * BLOCK))
  return Layout(examples, math.ceil(examples / (devices * panels)), panels, devices)


def coherent_order(features: np.ndarray, seed: int = 0) -> np.ndarray:
  """int (n,): an order of examples in which neighbors are similar.

  Splits recursively at the median along the first principal component of the (n, d)
  features, projected on 64 random directions, which is enough to identify neighbors.
  """
  rng = np.random.default_rng(seed)
  shape = features.shape[1], min(64, features.shape[1])
  projected = features @ rng.standard_normal(shape, np.float32)

  def split(part):
    if len(part) <= LEAF:
      return [part]
    centered = projected[part] - projected[part].mean(0)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    part = part[np.argsort(centered @ vectors[:, -1], kind='stable')]
    return split(part[: len(part) // 2]) + split(part[len(part) // 2 :])

  return np.concatenate(split(np.arange(len(features))))


def spread_landmarks(layout: Layout, count: int) -> np.ndarray:
  """int (count,), sorted: evenly spaced examples, so some of every neighborhood."""
  count = min(count, layout.examples)
  return np.arange(count) * layout.examples // count


def kernel(
  rows: jax.Array | np.ndarray,
  columns: jax.Array | np.ndarray,
  bandwidth: float | None = None,
) -> jax.Array:
  """(a, d), (b, d) -> (a, b): exp(-bandwidth |x - x'|^2), or <x, x'> if it is None."""
  products = einsum('ad,bd->ab', rows, columns)
  if bandwidth is None:
    return products
  squares = jnp.sum(rows**2, 1)[:, None] + jnp.sum(columns**2, 1) - 2 * products
  return jnp.exp(-bandwidth * jnp.maximum(squares, 0))


def add(
  gram: Gram | None,
  features: np.ndarray,
  test_features: np.ndarray,
  landmarks: np.ndarray,
  bandwidth: float | None = None,
  say: Callable | None = None,
) -> Gram:
  """Adds the kernel of these features to a Gram, which is donated.

  For a linear kernel, the features may be added in parts, one per call, so that memory does
  not grow with their number.

  Args:
    gram: the Gram accumulated so far, or None.
    features: float32 (n, d) of the training examples.
    test_features: float32 (m, d).
    landmarks: int (k,) into the training examples, sorted.
    bandwidth: bandwidth of a Gaussian kernel; None: the linear kernel.
    say: called with a line of progress every few seconds, or None.
  """
  layout = gram.layout if gram else make_layout(len(features))
  mesh = sharding.mesh()
  # Duplicated, so that a row of blocks that wraps around the end is one slice.
  padded = np.zeros((layout.padded, features.shape[1]), np.float32)
  padded[: layout.examples] = features
  twice = jax.device_put(np.concatenate([padded, padded]), NamedSharding(mesh, REPLICATED))
  chosen = padded[landmarks]
  panels, sides, tests = [], [], []
  show = progress(say, 'Gram matrix', layout.panels)
  for j in range(layout.panels):
    old = (gram.panels[j], gram.landmarks[j]) if gram else None
    panel, side = add_panel(old, twice, chosen, j, bandwidth, layout)
    panels.append(panel.block_until_ready())  # one at a time, to save memory
    sides.append(side)
    show(j + 1)
  for j, rows in enumerate(cut_tests(test_features, layout.devices)):
    before = gram.tests[j] if gram else None
    rows = jax.device_put(rows, NamedSharding(mesh, ROWS))
    tests.append(add_tests(before, rows, twice, bandwidth, layout).block_until_ready())
  return Gram(layout, tuple(panels), tuple(tests), tuple(sides))


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def add_panel(
  old: tuple[jax.Array, jax.Array] | None,
  twice: jax.Array,
  chosen: jax.Array | np.ndarray,
  j: int,
  bandwidth: float | None,
  layout: Layout,
) -> tuple[jax.Array, jax.Array]:
  """Panel j and its columns for the landmarks, added to the old ones unless None."""

  def local(old, twice, chosen, j):
    start = (j * layout.devices + jax.lax.axis_index('data')) * layout.size
    rows = jax.lax.dynamic_slice_in_dim(twice, start, layout.size)
    columns = jax.lax.dynamic_slice_in_dim(twice, start, layout.width)
    row = start + jnp.arange(layout.size) < layout.examples
    column = (start + jnp.arange(layout.width)) % layout.padded < layout.examples
    panel = kernel(rows, columns, bandwidth) * (row[:, None] & column)
    side = kernel(rows, chosen, bandwidth) * row[:, None]
    new = panel, side
    return new if old is None else jax.tree.map(jnp.add, old, new)

  specs = (ROWS, REPLICATED, REPLICATED, REPLICATED)
  return on_devices(local, specs, (ROWS, ROWS))(old, twice, chosen, j)


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def add_tests(
  old: jax.Array | None,
  rows: jax.Array,
  twice: jax.Array,
  bandwidth: float | None,
  layout: Layout,
) -> jax.Array:
  """float32 (len(rows), padded): the kernel with all training examples, added to old."""
  columns = jnp.arange(layout.padded) < layout.examples
  new = kernel(rows, twice[: layout.padded], bandwidth) * columns
  return new if old is None else old + new


def cut_tests(features: np.ndarray, devices: int) -> np.ndarray:
  """Parts of at most BLOCK examples; the last is padded so that devices share equally."""
  parts = math.ceil(len(features) / BLOCK)
  size = math.ceil(len(features) / parts / devices) * devices
  filled = np.pad(features, ((0, parts * size - len(features)), (0, 0)))
  return filled.reshape(parts, size, -1)


def on_devices(function: Callable, in_specs, out_specs) -> Callable:
  return jax.shard_map(
    function, mesh=sharding.mesh(), in_specs=in_specs, out_specs=out_specs, check_vma=False
  )


def multiply(
  panels: tuple[jax.Array, ...], vectors: jax.Array, layout: Layout
) -> jax.Array:
  """K times every row of vectors: (classes, padded) -> (classes, padded).

  Every panel is used twice: for its own rows and, transposed, for its columns.
  """
  twice = jnp.concatenate([vectors, vectors], 1)
  images = jnp.zeros((layout.devices, *twice.shape))
  for j, panel in enumerate(panels):  # compiled once, not once per panel
    images = multiply_panel(images, panel, twice, j, layout)
  return fold(images)


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def multiply_panel(
  images: jax.Array, panel: jax.Array, twice: jax.Array, j: int, layout: Layout
) -> jax.Array:
  """Adds panel j's contribution to each device's image, (devices, classes, 2 padded)."""
  blocks = layout.panels * layout.devices
  weights = np.ones(layout.width, np.float32)
  if blocks % 2 == 0:
    weights[-layout.size :] = 0.5
  below = weights.copy()
  below[: layout.size] = 0  # the diagonal block is used once

  def local(images, panel, twice, j):
    begin = first_row(j, layout)
    around = jax.lax.dynamic_slice_in_dim(twice, begin, layout.width, 1) * weights
    own = jax.lax.dynamic_slice_in_dim(twice, begin, layout.size, 1)
    image = add_at(images[0], begin, einsum('bw,cw->cb', panel, around))
    return add_at(image, begin, einsum('bw,cb->cw', panel, own) * below)[None]

  specs = (ROWS, ROWS, REPLICATED, REPLICATED)
  return on_devices(local, specs, ROWS)(images, panel, twice, j)


@jax.jit
def fold(images: jax.Array) -> jax.Array:
  """(devices, classes, 2 padded) -> (classes, padded): sums devices and both halves."""
  first, second = jnp.split(jnp.sum(images, 0), 2, 1)
  return first + second


def first_row(j: int, layout: Layout) -> jax.Array:
  """The first row of panel j on this device."""
  return (j * layout.devices + jax.lax.axis_index('data')) * layout.size


def add_at(array: jax.Array, begin: jax.Array, values: jax.Array) -> jax.Array:
  old = jax.lax.dynamic_slice_in_dim(array, begin, values.shape[1], 1)
  return jax.lax.dynamic_update_slice_in_dim(array, old + values, begin, 1)


@jax.jit
def predict(tests: tuple[jax.Array, ...], alpha: jax.Array | np.ndarray) -> jax.Array:
  """float32 (classes, test examples): the function's values; extra columns are padding."""
  return jnp.concatenate([einsum('tn,cn->ct', part, alpha) for part in tests], 1)


def low_rank(gram: Gram, landmarks: np.ndarray) -> tuple[jax.Array, ...]:
  """B of the Nystrom approximation B B^T = K_nm K_mm^-1 K_mn; the columns K_nm are donated.

  The (m, m) system, the only ill-conditioned one here, is solved in float64 on the host.
  """
  layout = gram.layout
  panel, row = np.divmod(landmarks, layout.devices * layout.size)
  square = np.concatenate(
    [np.asarray(side[row[panel == j]]) for j, side in enumerate(gram.landmarks)]
  ).astype(np.float64)
  jitter = 1e-6 * np.trace(square)
  factor = scipy.linalg.cholesky((square + square.T) / 2 + jitter * np.eye(len(square)))
  inverse = scipy.linalg.solve_triangular(factor, np.eye(len(square))).astype(np.float32)
  return tuple(times(side, inverse) for side in gram.landmarks)


@functools.partial(jax.jit, donate_argnums=0)
def times(side: jax.Array, inverse: jax.Array | np.ndarray) -> jax.Array:
  return einsum('nm,mk->nk', side, inverse)


def precondition(
  gram: Gram, rank_part: tuple[jax.Array, ...], ridge: float
) -> Preconditioner:
  """The Preconditioner of K + ridge I.

  Args:
    gram: a Gram.
    rank_part: its B, from `low_rank`.
    ridge: at least 0.
  """
  inner, roots, sides = jnp.eye(rank_part[0].shape[1]), [], []
  for panel, side in zip(gram.panels, rank_part, strict=True):
    root, side, part = take_root(panel, side, ridge)
    roots.append(root)
    sides.append(side)
    inner += part
  return Preconditioner(tuple(roots), tuple(sides), jnp.linalg.cholesky(inner))


@jax.jit
def take_root(
  panel: jax.Array, side: jax.Array, ridge: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(W, H, H^T H summed over devices) for the diagonal blocks of a panel.

  W^T W = D^-1 for the block D that the landmarks leave over, and H = W B. W is kept instead
  of D^-1, so that rounding cannot make the preconditioner indefinite.
  """

  def local(panel, side, ridge):
    rest = panel[:, : len(panel)] - einsum('am,bm->ab', side, side)
    jitter = JITTER * jnp.maximum(jnp.trace(rest) / len(rest), 1e-6) + ridge
    identity = jnp.eye(len(rest))
    factor = jnp.linalg.cholesky(rest + jitter * identity)
    root = jax.lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)
    side = einsum('nk,km->nm', root, side)
    return root, side, jax.lax.psum(einsum('nm,nk->mk', side, side), 'data')

  specs = (ROWS, ROWS, REPLICATED), (ROWS, ROWS, REPLICATED)
  return on_devices(local, *specs)(panel, side, ridge)


def apply(preconditioner: Preconditioner, vectors: jax.Array, layout: Layout) -> jax.Array:
  """P^-1 = W^T (I - H inner^-1 H^T) W times every row: (classes, padded) -> the same."""
  roots, sides, inner = preconditioner
  pairs = list(enumerate(zip(roots, sides, strict=True)))
  seen = sum(look(root, side, vectors, j, layout) for j, (root, side) in pairs)
  seen = solve_inner(inner, seen)
  images = jnp.zeros((layout.devices, *vectors.shape))
  for j, (root, side) in pairs:
    images = correct(images, root, side, vectors, seen, j, layout)
  return jnp.sum(images, 0)


@functools.partial(jax.jit, static_argnames='layout')
def look(
  root: jax.Array, side: jax.Array, vectors: jax.Array, j: int, layout: Layout
) -> jax.Array:
  """H^T W v for panel j, summed over devices: (classes, landmarks)."""

  def local(root, side, vectors, j):
    own = jax.lax.dynamic_slice_in_dim(vectors, first_row(j, layout), layout.size, 1)
    own = einsum('ab,cb->ca', root, own)
    return jax.lax.psum(einsum('am,ca->cm', side, own), 'data')

  specs = (ROWS, ROWS, REPLICATED, REPLICATED)
  return on_devices(local, specs, REPLICATED)(root, side, vectors, j)


@jax.jit
def solve_inner(factor: jax.Array, seen: jax.Array) -> jax.Array:
  return jax.scipy.linalg.cho_solve((factor, True), seen.T).T


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def correct(
  images: jax.Array,
  root: jax.Array,
  side: jax.Array,
  vectors: jax.Array,
  seen: jax.Array,
  j: int,
  layout: Layout,
) -> jax.Array:
  """Writes P^-1 v for panel j into each device's image, (devices, classes, padded)."""

  def local(images, root, side, vectors, seen, j):
    begin = first_row(j, layout)
    own = jax.lax.dynamic_slice_in_dim(vectors, begin, layout.size, 1)
    own = einsum('ab,cb->ca', root, own) - einsum('am,cm->ca', side, seen)
    return add_at(images[0], begin, einsum('ab,ca->cb', root, own))[None]

  specs = (ROWS, ROWS, ROWS, REPLICATED, REPLICATED, REPLICATED)
  return on_devices(local, specs, ROWS)(images, root, side, vectors, seen, j)


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
    rank_part: its B, from `low_rank`.
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
  """Peak memory of `add` and `solve`, over all devices."""
  layout = make_layout(examples)
  panel = layout.devices * layout.size * layout.width
  numbers = (
    (layout.panels + 2) * panel  # two more while one is built
    + layout.padded * (tests + 3 * landmarks + layout.size)
    + 5 * layout.padded * features
    + 4 * landmarks**2
  )
  return 4 * numbers + 2**30  # the program itself


def bytes_free() -> int:
  """Free memory of all devices, or of the host on CPU."""
  devices = jax.local_devices()
  if devices[0].platform != 'cpu':
    stats = [device.memory_stats() for device in devices]
    return sum(s['bytes_limit'] - s['bytes_in_use'] for s in stats)
  meminfo = pathlib.Path('/proc/meminfo')
  for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
    if line.startswith('MemAvailable:'):
      return int(line.split()[1]) * 1024
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def check_memory(examples: int, tests: int, features: int, landmarks: int) -> None:
  """Raises BadInput if this many examples do not fit, saying how many would."""
  needed, free = bytes_needed(examples, tests, features, landmarks), bytes_free()
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


def peak_gib() -> float:
  """Peak memory of this process, on the accelerator if there is one."""
  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    return device.memory_stats()['peak_bytes_in_use'] / 2**30
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # in KiB on Linux


def progress(say: Callable | None, title: str, total: int) -> Callable:
  """A function show(done) that prints a line with the time left every few seconds."""
  started = shown = time.monotonic()

  def show(done):
    nonlocal shown
    now = time.monotonic()
    if say and (now - shown > 5 or done == total):
      left = (now - started) / done * (total - done)
      say(f'{title}: {done}/{total}, about {format_duration(left)} left')
      shown = now

  return show
