"""Boolean functions of random networks: how often each occurs, and how complex it is.

A fully connected network with one output computes a Boolean function of its n inputs: true
where the output is above 0. With random parameters it is a random function, and
Valle-Perez, Camargo & Louis (arXiv:1805.08522) found that simple functions are far more
probable than others. Functions are truth tables of 2^n bits, in the order of the inputs as
binary numbers, packed into 2^n / 8 bytes.
"""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen.errors import BadInput

ACTIVATIONS = {'relu': jax.nn.relu, 'tanh': jnp.tanh}
CPU_BLOCK = 20  # networks at once that fit into a core's cache, a third of the time of 500
CHUNK = 250  # networks trained at once
SAMPLED, TRAINED = 0, 1  # purposes of keys; they determine published results
MOST_INPUTS = 12  # a truth table of 4,096 bits


class Prior(NamedTuple):
  """A distribution of networks: independent Gaussian parameters with mean 0."""

  num_inputs: int
  depth: int  # hidden layers
  width: int
  activation: str  # one of ACTIVATIONS
  weight_std: float  # times 1 / sqrt(fan-in)
  bias_std: float


class Counts(NamedTuple):
  """Distinct functions in lexicographic order, and how often each occurred."""

  functions: np.ndarray  # uint8 (distinct, bytes)
  counts: np.ndarray  # int64 (distinct,)


def check_prior(prior: Prior) -> None:
  """Raises BadInput for a distribution of networks that cannot be sampled."""
  for name, least, most in (
    ('num_inputs', 3, MOST_INPUTS),
    ('depth', 0, 100),
    ('width', 1, 10_000),
  ):
    value = getattr(prior, name)
    if not isinstance(value, int) or not least <= value <= most:
      raise BadInput(
        f'{name} is {value!r}, but it must be an integer from {least} to {most:,}.'
      )
  if prior.activation not in ACTIVATIONS:
    raise BadInput(
      f'activation is {prior.activation!r}, but it must be one of {", ".join(ACTIVATIONS)}.'
    )
  if not 0 < prior.weight_std < math.inf:
    raise BadInput(f'weight_std is {prior.weight_std}, but it must be positive.')
  if not 0 <= prior.bias_std < math.inf:
    raise BadInput(f'bias_std is {prior.bias_std}, but it must be 0 or positive.')


def all_inputs(num_inputs: int) -> np.ndarray:
  """float32 (2^n, n): the binary digits of 0, 1, 2, ..., the highest digit first."""
  numbers = np.arange(2**num_inputs)[:, None]
  return (numbers >> np.arange(num_inputs - 1, -1, -1) & 1).astype(np.float32)


def initialize(prior: Prior, keys: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
  """Draws a network per key: layers of weights (k, in, out) and biases (k, 1, out).

  Args:
    prior: the distribution.
    keys: (k,) PRNG keys; a network depends on its own key only.
  """
  sizes = [prior.num_inputs, *[prior.width] * prior.depth, 1]
  shapes = list(zip(sizes[:-1], sizes[1:], strict=True))
  total = sum((fan_in + 1) * fan_out for fan_in, fan_out in shapes)
  normals = jax.vmap(lambda key: jax.random.normal(key, (total,)))(keys)
  params, first = [], 0
  for fan_in, fan_out in shapes:
    middle, end = first + fan_in * fan_out, first + (fan_in + 1) * fan_out
    weights = normals[:, first:middle].reshape(-1, fan_in, fan_out)
    biases = normals[:, None, middle:end]
    params.append((prior.weight_std / fan_in**0.5 * weights, prior.bias_std * biases))
    first = end
  return params


def outputs(params: list, inputs: jax.Array, activation: str) -> jax.Array:
  """float32 (k, m): outputs of k networks at inputs (m, n), or (k, m, n) of their own."""
  hidden = inputs
  for number, (weights, biases) in enumerate(params):
    hidden = jnp.matmul(hidden, weights, precision='highest') + biases
    if number < len(params) - 1:
      hidden = ACTIVATIONS[activation](hidden)
  return hidden[..., 0]


def _keys(seed, purpose, numbers):
  """(k,) PRNG keys of the networks with these numbers; purpose: SAMPLED or TRAINED."""
  base = jax.random.fold_in(jax.random.key(seed), purpose)
  return jax.vmap(lambda number: jax.random.fold_in(base, number))(numbers)


@functools.partial(jax.jit, static_argnames=('prior', 'count', 'block'))
def _sample(prior, seed, first, count, block):
  inputs = all_inputs(prior.num_inputs)

  def of_block(numbers):
    params = initialize(prior, _keys(seed, SAMPLED, numbers))
    return jnp.packbits(outputs(params, inputs, prior.activation) > 0, axis=1)

  numbers = first + jnp.arange(count).reshape(-1, block)
  return jax.lax.map(of_block, numbers).reshape(count, -1)


def sample(prior: Prior, seed: int, first: int, count: int) -> np.ndarray:
  """uint8 (count, 2^n / 8): the functions of the networks `first`, ... of a seed."""
  block = math.gcd(count, CPU_BLOCK) if jax.default_backend() == 'cpu' else count
  return np.asarray(_sample(prior, seed, first, count, block))


def tally(functions: np.ndarray, counts: np.ndarray | None = None) -> Counts:
  """The distinct rows of uint8 (m, bytes), each counted once or `counts` (m,) times."""
  columns = functions
  if functions.shape[1] % 8 == 0:  # compare eight bytes at a time
    columns = np.ascontiguousarray(functions).view('>u8').astype(np.uint64)
  order = np.lexsort(columns.T[::-1])
  ordered = columns[order]
  is_first = np.ones(len(order), bool)
  is_first[1:] = (ordered[1:] != ordered[:-1]).any(1)
  starts = np.flatnonzero(is_first)
  weights = np.ones(len(order), np.int64) if counts is None else counts[order]
  totals = np.add.reduceat(weights, starts) if len(starts) else weights
  return Counts(functions[order[starts]], totals)


def tally_all(chunks: Iterable[np.ndarray]) -> Counts:
  """As `tally` of all chunks together, in memory for the distinct functions only.

  Tables of similar size are merged, so that each function is sorted O(log) times.
  """
  tables: list[Counts] = []
  for chunk in chunks:
    tables.append(tally(chunk))
    while len(tables) > 1 and 2 * len(tables[-1].counts) >= len(tables[-2].counts):
      tables[-2:] = [_merge(tables[-2:])]
  return _merge(tables)


def _merge(tables):
  functions, counts = zip(*tables, strict=True)
  return tally(np.concatenate(functions), np.concatenate(counts))


def by_rank(counts: Counts) -> Counts:
  """The same, most frequent first; ties keep their order."""
  order = np.argsort(-counts.counts, kind='stable')
  return Counts(counts.functions[order], counts.counts[order])


def agree(functions: np.ndarray, target: np.ndarray, examples: np.ndarray) -> np.ndarray:
  """bool (m,): which functions equal the target on the examples.

  Args:
    functions: uint8 (m, bytes).
    target: uint8 (bytes,).
    examples: int (k,), positions in the truth table.
  """
  mask = np.zeros(8 * len(target), bool)
  mask[examples] = True
  return ~((functions ^ target) & np.packbits(mask)).any(1)


def zipf(ranks: np.ndarray, num_bits: int) -> np.ndarray:
  """P(rank) = 1 / (rank ln N) for N = 2^num_bits functions, from arXiv:1805.08522."""
  return 1 / (ranks * num_bits * math.log(2))


def as_text(function: np.ndarray) -> str:
  """The truth table of uint8 (bytes,) as '0' and '1'."""
  return (np.unpackbits(function) + ord('0')).tobytes().decode()


def as_function(text: str) -> np.ndarray:
  """uint8 (bytes,): the inverse of `as_text`."""
  return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord('0'))


def lz_words(text: str) -> int:
  """Number of words in the exhaustive history of a string (Lempel & Ziv 1976).

  Each word is the shortest next piece that does not occur in what comes before its last
  character; the last word may be incomplete.
  """
  words, start, end = 0, 0, 1
  while start < len(text):
    while end <= len(text) and text.find(text[start:end], 0, end - 1) >= 0:
      end += 1
    words, start, end = words + 1, end, end + 1
  return words


def lz_complexity(text: str) -> float:
  """K_LZ of a string of m bits, defined by Dingle, Camargo & Louis (Nat. Commun. 9:761).

  log2(m) for a constant string, otherwise log2(m) times the mean number of `lz_words` of
  the string and its reverse.
  """
  if not text or set(text) - {'0', '1'}:
    raise BadInput('A truth table must have at least one digit, and only 0 and 1.')
  if len(set(text)) == 1:
    return math.log2(len(text))
  return math.log2(len(text)) * (lz_words(text) + lz_words(text[::-1])) / 2


def complexities(functions: np.ndarray) -> np.ndarray:
  """float64 (m,): `lz_complexity` of uint8 (m, bytes)."""
  return np.array([lz_complexity(as_text(function)) for function in functions], float)


class Fitted(NamedTuple):
  """What SGD found, network by network."""

  functions: np.ndarray  # uint8 (k, bytes)
  epochs: np.ndarray  # int32 (k,), until the training examples were fitted; -1 if never


@functools.partial(
  jax.jit, static_argnames=('prior', 'batch_size', 'learning_rate', 'max_epochs')
)
def _fit(prior, seed, numbers, targets, examples, batch_size, learning_rate, max_epochs):
  inputs = jnp.asarray(all_inputs(prior.num_inputs))
  steps = examples.shape[1] // batch_size
  keys = _keys(seed, TRAINED, numbers)
  labels = jnp.take_along_axis(targets, examples, 1)

  def loss(params, places):
    logits = outputs(params, inputs[places], prior.activation)
    signs = 2.0 * jnp.take_along_axis(targets, places, 1) - 1
    return jax.nn.softplus(-signs * logits).mean(1).sum()

  def step(params, places):
    slopes = jax.grad(loss)(params, places)
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, slopes), None

  def fits(table):
    return (jnp.take_along_axis(table, examples, 1) == labels).all(1)

  def shuffle(key, row, epoch):
    order = jax.random.permutation(jax.random.fold_in(key, epoch), row)
    return order[: steps * batch_size].reshape(steps, batch_size)

  def epoch(state):
    params, _, epochs, number = state
    places = jax.vmap(shuffle, (0, 0, None))(keys, examples, number)
    changed, _ = jax.lax.scan(step, params, places.swapaxes(0, 1))
    is_running = epochs < 0
    params = jax.tree.map(
      lambda new, old: jnp.where(is_running[:, None, None], new, old), changed, params
    )
    table = outputs(params, inputs, prior.activation) > 0
    epochs = jnp.where(is_running & fits(table), number, epochs)
    return params, table, epochs, number + 1

  def is_unfinished(state):
    _, _, epochs, number = state
    return (epochs < 0).any() & (number <= max_epochs)

  params = initialize(prior, keys)
  table = outputs(params, inputs, prior.activation) > 0
  epochs = jnp.where(fits(table), 0, -1)
  _, table, epochs, _ = jax.lax.while_loop(is_unfinished, epoch, (params, table, epochs, 1))
  return jnp.packbits(table, axis=1), epochs


def fit(
  prior: Prior,
  seed: int,
  targets: np.ndarray,
  examples: np.ndarray,
  batch_size: int,
  learning_rate: float,
  max_epochs: int,
) -> Fitted:
  """Trains k networks at once by SGD, each until it fits its examples of its target.

  The loss is the logistic loss; every epoch goes through the examples in a new order. Each
  network stops at the end of the first epoch after which all its examples are right.

  Args:
    prior: the distribution of the initial parameters.
    seed: of initial parameters and orders; network i depends on the seed and i only.
    targets: bool (k, 2^n), a truth table per network.
    examples: int (k, m), the inputs to train on, as positions in the truth table.
    batch_size: a divisor of m.
    learning_rate: constant.
    max_epochs: after which a network that does not fit is given up.
  """
  if not 1 <= batch_size <= examples.shape[1] or examples.shape[1] % batch_size:
    raise BadInput(
      f'batch_size is {batch_size}, but it must divide {examples.shape[1]}, the number of '
      'training examples.'
    )
  found, epochs = [], []
  for first in range(0, len(targets), CHUNK):
    numbers = np.arange(first, min(first + CHUNK, len(targets)))
    functions, ended = _fit(
      prior,
      seed,
      numbers,
      targets[numbers],
      examples[numbers],
      batch_size,
      learning_rate,
      max_epochs,
    )
    found.append(np.asarray(functions))
    epochs.append(np.asarray(ended))
  return Fitted(np.concatenate(found), np.concatenate(epochs))
