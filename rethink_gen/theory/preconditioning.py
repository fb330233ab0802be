"""A preconditioner for the matrix of `gram_matrix`, from landmarks and diagonal blocks.

It is Nystrom's with m landmarks, for the smooth part, plus a Cholesky factor of every
diagonal block of what the landmarks leave over, with the examples ordered so that neighbors
are similar. This is the idea of adaptive factorized Nystrom (arXiv:2304.05460, Section 3),
with blocks instead of a sparse factor.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # imports its parts lazily

from rethink_gen.theory.gram_matrix import (
  REPLICATED,
  ROWS,
  Gram,
  Layout,
  add_at,
  einsum,
  first_row,
  on_devices,
)

LEAF = 64  # examples that are not ordered any further
JITTER = 0.01  # fraction of the diagonal that the landmarks leave; for float32 Cholesky


class Preconditioner(NamedTuple):
  """P = D + B B^T, whose inverse is W^T (I - H (I + H^T H)^-1 H^T) W with W^T W = D^-1."""

  roots: tuple[jax.Array, ...]  # W, lower triangular, float32 (devices * size, size) each
  sides: tuple[jax.Array, ...]  # H = W B, float32 (devices * size, landmarks) each
  inner: jax.Array  # lower Cholesky factor of I + H^T H, (landmarks, landmarks)


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
