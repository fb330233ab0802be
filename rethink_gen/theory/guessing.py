"""Guess and check: random networks, drawn until they fit a few labeled points.

Chiang et al. (ICLR 2023) call this "guess and check"; see also Peleg & Hein
(arXiv:2407.03848). Whether fitting networks generalize says which of the two kinds is more
common, because no training chooses between them.

A network is a list of weights (inputs, units), one array per layer, with ReLUs between the
layers, no biases, and one output, whose sign is the class. So the scale of a layer changes
no class. Network `index` depends on a key, its index and its shape only, and can be drawn
again from them.

On n points x (n, d), a network is determined by the components of its first-layer weights
in the span of the points. If weights are Gaussian, so are these components, independent of
the others. So only they are drawn to check whether a network fits: n numbers per unit
rather than d. The other components are drawn for the networks that fit.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen.errors import BadInput

Layers = list[jax.Array]
# Distributions of weights with mean 0 and variance 2 / inputs (arXiv:1502.01852).
INITIALIZATIONS = ('gaussian', 'uniform')
FLOATS = 2**19  # weights drawn at a time, so that they stay in a CPU's cache
NETWORKS = 8  # evaluated at a time on many points


class Sample(NamedTuple):
  """Labeled points, with the coordinates in which first-layer weights are drawn."""

  x: jax.Array  # float32 (n, d)
  signs: jax.Array  # float32 (n,), -1 or +1
  basis: jax.Array | None  # float32 (r, d), orthonormal; None: the coordinates are x
  coordinates: jax.Array  # float32 (n, r)


def make_sample(x: np.ndarray, signs: np.ndarray, initialization: str) -> Sample:
  """A Sample of points x (n, d) and their signs (n,)."""
  if initialization not in INITIALIZATIONS:
    raise BadInput(
      f'initialization is {initialization!r}, but it must be one of '
      f'{", ".join(INITIALIZATIONS)}.'
    )
  x, signs = np.asarray(x, np.float32), np.asarray(signs, np.float32)
  if not len(x) or len(x) != len(signs) or not np.all(np.abs(signs) == 1):
    raise BadInput(
      f'There are {len(x)} points and {len(signs)} signs; give at least one point, and a '
      'sign of -1 or +1 for each.'
    )
  if initialization != 'gaussian':
    return Sample(jnp.array(x), jnp.array(signs), None, jnp.array(x))
  basis, coordinates = _span(x)
  return Sample(jnp.array(x), jnp.array(signs), basis, coordinates)


def _span(x):
  """(basis (r, d), coordinates (n, r)) in float32, with x = coordinates @ basis."""
  basis, coordinates = np.linalg.qr(np.asarray(x, np.float64).T)
  return jnp.array(basis.T, jnp.float32), jnp.array(coordinates.T, jnp.float32)


def outputs(layers: Layers, x: jax.Array) -> jax.Array:
  """float32 (n,): the outputs of one network on x (n, d)."""
  for weights in layers[:-1]:
    x = jax.nn.relu(x @ weights)
  return (x @ layers[-1])[:, 0]


def draw(
  key: jax.Array, sizes: Sequence[int], initialization: str, rank: int | None = None
) -> Layers:
  """A random network.

  Args:
    key: all that determines the network, beside the other arguments.
    sizes: units per layer, from inputs to outputs.
    initialization: one of INITIALIZATIONS.
    rank: how many coordinates the first layer sees; None: all inputs.
  """
  layers = []
  for layer, (inputs, units) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
    shape = (inputs if layer or rank is None else rank, units)
    own = jax.random.fold_in(key, layer)
    if initialization == 'gaussian':
      weights = jax.random.normal(own, shape)
    else:
      weights = jax.random.uniform(own, shape, minval=-(3**0.5), maxval=3**0.5)
    layers.append(weights * (2 / inputs) ** 0.5)
  return layers


@functools.partial(jax.jit, static_argnames=('sizes', 'initialization'))
def _fits(key, indices, sample, sizes, initialization):
  """bool (k,): which of the networks with these indices have every sign right."""

  def fits(index):
    own = jax.random.fold_in(key, index)
    layers = draw(own, sizes, initialization, sample.coordinates.shape[1])
    return jnp.all(sample.signs * outputs(layers, sample.coordinates) > 0)

  return jax.vmap(fits)(indices)


def find(
  key: jax.Array,
  sample: Sample,
  sizes: Sequence[int],
  initialization: str,
  draws: int,
  first: int = 0,
  chunk: int | None = None,
) -> np.ndarray:
  """int64 (fits,): which of the networks first, ..., first + draws - 1 fit the sample.

  Args:
    key: with an index, determines a network.
    sample: what is to be fitted, made for the same initialization.
    sizes: units per layer, from inputs to outputs.
    initialization: one of INITIALIZATIONS.
    draws: number of networks.
    first: index of the first network.
    chunk: networks drawn at a time, which changes the result by rounding at most; None: as
      many as have about FLOATS weights.
  """
  if draws < 1 or first < 0 or first + draws > 2**32:
    raise BadInput(
      f'{draws} networks from index {first} cannot be drawn; their indices must be from 0 '
      f'to {2**32 - 1:,}.'
    )
  chunk = chunk or chunk_size(sizes, sample.coordinates.shape[1])
  found = []
  for start in range(first, first + draws, chunk):
    indices = np.arange(start, start + chunk)
    fits = _fits(key, indices.astype(np.uint32), sample, tuple(sizes), initialization)
    found.append(indices[np.asarray(fits) & (indices < first + draws)])
  return np.concatenate(found)


def chunk_size(sizes: Sequence[int], rank: int) -> int:
  """How many networks have about FLOATS weights, a power of two."""
  seen = (rank, *sizes[1:])
  weights = sum(a * b for a, b in zip(seen[:-1], seen[1:], strict=True))
  return 2 ** max(0, round(math.log2(FLOATS / weights)))


@functools.partial(jax.jit, static_argnames=('sizes', 'initialization'))
def networks(
  key: jax.Array,
  indices: jax.Array,
  sample: Sample,
  sizes: tuple[int, ...],
  initialization: str,
) -> Layers:
  """The networks with these indices (k,), completely: each array has a first axis of k."""

  def complete(index):
    own = jax.random.fold_in(key, index)
    layers = draw(own, sizes, initialization, sample.coordinates.shape[1])
    if sample.basis is None:
      return layers
    rest = draw(jax.random.fold_in(own, len(sizes)), sizes[:2], initialization)[0]
    return [rest + sample.basis.T @ (layers[0] - sample.basis @ rest), *layers[1:]]

  return jax.vmap(complete)(indices.astype(jnp.uint32))


@jax.jit
def accuracies(layers: Layers, x: jax.Array, signs: jax.Array) -> jax.Array:
  """float32 (k,): the fraction of x (m, d) that each of k networks classifies correctly."""

  def accuracy(network):
    return jnp.mean(signs * outputs(network, x) > 0)

  return jax.lax.map(accuracy, layers, batch_size=NETWORKS)


@jax.jit
def normalized_losses(layers: Layers, x: jax.Array, signs: jax.Array) -> jax.Array:
  """float32 (k,): the mean logistic loss of each of k networks, in nats.

  Outputs are divided by the product of the weights' Frobenius norms, as in Chiang et al.'s
  code, so that the loss does not depend on the scale of any layer.
  """
  return jax.vmap(lambda network: _normalized_loss(network, x, signs, 0.0))(layers)


def _normalized_loss(layers, x, signs, outside):
  """The loss of one network; `outside`: what to add to the first squared norm."""
  squares = [jnp.sum(weights**2) for weights in layers]
  norms = jnp.sqrt(jnp.stack([squares[0] + outside, *squares[1:]]))
  return _loss(outputs(layers, x) / jnp.prod(norms), signs)


def _loss(values, signs):
  return jnp.mean(jax.nn.softplus(-signs * values))


def train(
  key: jax.Array,
  layers: Layers,
  x: jax.Array,
  signs: jax.Array,
  targets: jax.Array,
  learning_rate: float,
  max_steps: int,
  batch_size: int = 2,
) -> tuple[Layers, jax.Array, jax.Array]:
  """SGD on the logistic loss, for k networks at once.

  A network stops at the first step after which it fits every point and its normalized loss
  is at or below its target. Gradients of the first layer lie in the span of the points, so
  only its components there are trained, which is the same.

  Args:
    key: determines the batches; each network has its own.
    layers: k networks, from `networks`.
    x, signs: float32 (n, d) and (n,).
    targets: float32 (k,), normalized losses.
    learning_rate: the step size.
    max_steps: when to give up.
    batch_size: points drawn per step without replacement, or all if there are fewer.

  Returns:
    (k networks, bool (k,): which of them reached their target, int32 (k,): their steps).
  """
  basis, coordinates = _span(x)
  weights, *rest = layers
  inside = basis @ weights
  outside = jnp.maximum(jnp.sum(weights**2, (1, 2)) - jnp.sum(inside**2, (1, 2)), 0)
  trained, reached, steps = _train(
    *(key, [inside, *rest], coordinates, signs, targets, outside),
    *(learning_rate, max_steps, min(batch_size, len(signs))),
  )
  after, *rest = trained
  return [weights + basis.T @ (after - inside), *rest], reached, steps


@functools.partial(jax.jit, static_argnames='batch_size')
def _train(key, layers, x, signs, targets, outside, learning_rate, max_steps, batch_size):
  def update(number, network, step):
    own = jax.random.fold_in(jax.random.fold_in(key, number), step)
    batch = jax.random.permutation(own, len(signs))[:batch_size]
    slopes = jax.grad(lambda it: _loss(outputs(it, x[batch]), signs[batch]))(network)
    return jax.tree.map(lambda value, slope: value - learning_rate * slope, network, slopes)

  def reaches(network, target, outside):
    fits = jnp.all(signs * outputs(network, x) > 0)
    return fits & (_normalized_loss(network, x, signs, outside) <= target)

  def body(state):
    step, layers, done, steps = state
    new = jax.vmap(update, (0, 0, None))(jnp.arange(len(targets)), layers, step)
    layers = jax.tree.map(
      lambda old, new: jnp.where(jnp.expand_dims(done, range(1, new.ndim)), old, new),
      *(layers, new),
    )
    steps = jnp.where(done, steps, step + 1)
    return step + 1, layers, done | jax.vmap(reaches)(layers, targets, outside), steps

  zeros = jnp.zeros(len(targets), jnp.int32)
  _, layers, done, steps = jax.lax.while_loop(
    lambda state: (state[0] < max_steps) & ~jnp.all(state[2]),
    body,
    (0, layers, zeros > 0, zeros),
  )
  return layers, done, steps


def clopper_pearson(
  successes: int, trials: int, confidence: float = 0.95
) -> tuple[float, float]:
  """The exact two-sided confidence interval of a binomial probability.

  Clopper & Pearson (1934), Biometrika 26, 404. If the trials have different probabilities,
  the tails of their sum, from one count beyond its mean on, are no heavier than those of
  the binomial with the mean probability (Hoeffding 1956).
  """
  from scipy import special  # slow to import

  if not 0 <= successes <= trials or trials < 1 or not 0 < confidence < 1:
    raise BadInput(
      f'{successes} successes in {trials} trials have no interval of confidence '
      f'{confidence}; give 0 to trials successes, at least one trial, and a confidence '
      'above 0 and below 1.'
    )
  tail, failures = (1 - confidence) / 2, trials - successes
  low = special.betaincinv(successes, failures + 1, tail) if successes else 0.0
  high = special.betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
  return float(low), float(high)
