"""Double descent: least squares on random features, closed forms, networks of many widths.

The least-squares part is NumPy in float64. Where there are as many features as examples,
the smallest singular value is far below the others, and both float32 and a larger cut-off
would act as a ridge and flatten the peak. The networks are JAX in float32.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

CUTOFF = 1e-12  # singular values below this fraction of the largest count as zero
BATCH_OF_IMAGES = 200  # whose features are in memory at once


def ridge_path(
  features: np.ndarray, targets: np.ndarray, ridges: Sequence[float]
) -> np.ndarray:
  """Least squares for many ridges and targets, from one singular value decomposition.

  Args:
    features: float64 (n, p).
    targets: float64 (n, k).
    ridges: r numbers of 0 or more, each a factor of |w|^2 in |features w - target|^2 +
      ridge |w|^2. For 0, the solution of minimum norm.

  Returns:
    float64 (r, p, k).
  """
  left, values, right = np.linalg.svd(features, full_matrices=False)
  kept = values > CUTOFF * values[0]
  left, values, right = left[:, kept], values[kept], right[kept]
  gains = values / (values**2 + np.asarray(ridges, float)[:, None])
  # One product of two matrices, which is far faster than a stack of them.
  coordinates = gains.T[:, :, None] * (left.T @ targets)[:, None]
  weights = right.T @ coordinates.reshape(len(values), -1)
  return weights.reshape(-1, *coordinates.shape[1:]).swapaxes(0, 1)


def fourier_features(x: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
  """(n, d), (d, f) -> (n, 2f): cosines and sines, scaled so that every row has norm 1.

  For frequencies from a normal distribution with standard deviation 1/s, inner products
  approximate the kernel exp(-|x - x'|^2 / 2s^2) (Rahimi & Recht 2007). Two real features
  stand for one complex feature of Belkin et al. (arXiv:1812.11118, Section 3.1).
  """
  phases, count = x @ frequencies, frequencies.shape[1]
  features = np.empty((len(x), 2 * count))
  np.cos(phases, out=features[:, :count])
  np.sin(phases, out=features[:, count:])
  features /= count**0.5
  return features


def fourier_outputs(
  x: np.ndarray, frequencies: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """(n, d), (d, f), (r, 2f, k) -> (r, n, k): outputs of r linear models on the features."""
  models, size, k = weights.shape
  flat = weights.swapaxes(0, 1).reshape(size, -1)
  parts = [
    fourier_features(x[first : first + BATCH_OF_IMAGES], frequencies) @ flat
    for first in range(0, len(x), BATCH_OF_IMAGES)
  ]
  return np.concatenate(parts).reshape(len(x), models, k).swapaxes(0, 1)


def isotropic_risk(n: int, p: float, noise: float, signal: float = 1.0) -> float:
  """The expected excess risk of minimum-norm least squares on Gaussian inputs; exact.

  Inputs are standard normal in p dimensions, y = <x, b> + noise * normal, |b| = signal.
  From the mean of an inverse Wishart matrix; the limit of large n and p is in Hastie et al.
  (arXiv:1903.08560, Theorem 1). Infinite for |n - p| <= 1; between whole p, interpolated.
  """
  if p < n - 1:
    return noise**2 * p / (n - p - 1)
  if p > n + 1:
    return signal**2 * (1 - n / p) + noise**2 * n / (p - n - 1)
  return np.inf


def random_relu_risk(
  features: float, examples: float, noise: float, signal: float = 1.0
) -> float:
  """The excess risk of minimum-norm least squares on random ReLU features, in the limit.

  Mei & Montanari (arXiv:1908.05355, Definition 1 and Theorem 2, without ridge): inputs x
  and weights w uniform on the sphere of radius sqrt(d), features max(<w, x> / sqrt(d), 0),
  y = <x, b> + noise * normal, |b| = signal, for d to infinity.

  Args:
    features, examples: their numbers divided by d. Infinite risk where they are equal.
    noise, signal: as above.
  """
  if features == examples:
    return np.inf
  # Moments of ReLU under a normal distribution: mean, linear part, and the rest.
  mean, linear = (2 * np.pi) ** -0.5, 0.5
  z2 = linear**2 / (0.5 - mean**2 - linear**2)
  smaller = min(features, examples)
  a = smaller * z2 - z2 - 1
  c = -(np.sqrt(a**2 + 4 * z2 * smaller) + a) / (2 * z2)
  p1, p2, both = features, examples, features * examples
  e0 = (
    -(c**5) * z2**3
    + 3 * c**4 * z2**2
    + (both - p1 - p2 + 1) * c**3 * z2**3
    - 2 * c**3 * z2**2
    - 3 * c**3 * z2
    + (p1 + p2 - 3 * both + 1) * c**2 * z2**2
    + 2 * c**2 * z2
    + c**2
    + 3 * both * c * z2
    - both
  )
  e1 = p2 * c**3 * z2**2 - p2 * c**2 * z2 + both * c * z2 - both
  e2 = (
    c**5 * z2**3
    - 3 * c**4 * z2**2
    + (p1 - 1) * c**3 * z2**3
    + 2 * c**3 * z2**2
    + 3 * c**3 * z2
    - (p1 + 1) * c**2 * z2**2
    - 2 * c**2 * z2
    - c**2
  )
  return float((signal**2 * e1 + noise**2 * e2) / e0)


def simulate_isotropic(random: np.random.Generator, n: int, p: int, noise: float) -> float:
  """The excess risk on one sample of the setting of `isotropic_risk`, signal 1."""
  x, target = random.standard_normal((n, p)), on_sphere(random, 1, p)[0] / p**0.5
  y = x @ target + noise * random.standard_normal(n)
  return float(np.sum((ridge_path(x, y[:, None], [0.0])[0, :, 0] - target) ** 2))


def simulate_random_relu(
  random: np.random.Generator, d: int, n: int, p: int, noise: float, tests: int = 2_000
) -> float:
  """The excess risk in d dimensions of the setting of `random_relu_risk`, signal 1.

  One draw of p features, n examples and `tests` test inputs.
  """
  x, weights, x_test = (on_sphere(random, count, d) for count in (n, p, tests))
  target = on_sphere(random, 1, d)[0] / d**0.5
  y = x @ target + noise * random.standard_normal(n)
  features, of_test = (np.maximum(each @ weights.T / d**0.5, 0) for each in (x, x_test))
  outputs = of_test @ ridge_path(features, y[:, None], [0.0])[0, :, 0]
  return float(np.mean((outputs - x_test @ target) ** 2))


def on_sphere(random: np.random.Generator, count: int, d: int) -> np.ndarray:
  """float64 (count, d): uniform on the sphere of radius sqrt(d)."""
  points = random.standard_normal((count, d))
  return points * d**0.5 / np.linalg.norm(points, axis=1, keepdims=True)


class Networks(NamedTuple):
  """Two-layer ReLU networks of m widths, with their hidden units side by side.

  The first layer is one matrix product for all networks, and no unit is wasted on padding.
  No network depends on another: they share neither weights nor a term of the loss, and Adam
  treats every weight on its own.
  """

  weights: jax.Array  # float32 (d, sum of widths)
  biases: jax.Array  # float32 (sum of widths,)
  last: jax.Array  # float32 (sum of widths, k)
  last_biases: jax.Array  # float32 (m, k)


def init(seed: Sequence[int], widths: Sequence[int], d: int, k: int) -> Networks:
  """Random Networks: He-normal hidden weights, LeCun-normal last ones, biases 0.

  A network depends on the seed, a tuple of numbers of 0 or more, and its own width only.
  """
  first, last = [], []
  for width in widths:  # NumPy, because XLA takes minutes to compile these draws
    random = np.random.default_rng((*seed, width))
    first.append(random.standard_normal((d, width), np.float32) * (2 / d) ** 0.5)
    last.append(random.standard_normal((width, k), np.float32) / width**0.5)
  return Networks(
    jnp.asarray(np.concatenate(first, 1), jnp.float32),
    jnp.zeros(sum(widths)),
    jnp.asarray(np.concatenate(last), jnp.float32),
    jnp.zeros((len(widths), k)),
  )


def logits(networks: Networks, widths: Sequence[int], x: jax.Array) -> jax.Array:
  """(m, n, k) for inputs x (n, d)."""
  hidden = jax.nn.relu(x @ networks.weights + networks.biases)
  ends = np.cumsum(widths)
  outputs = [
    hidden[:, end - width : end] @ networks.last[end - width : end]
    for width, end in zip(widths, ends, strict=True)
  ]
  return jnp.stack(outputs) + networks.last_biases[:, None]


def losses(
  networks: Networks, widths: Sequence[int], x: jax.Array, labels: jax.Array
) -> jax.Array:
  """(m,): the mean cross-entropy of each network, in nats."""
  outputs = logits(networks, widths, x)
  labels = jnp.broadcast_to(labels, outputs.shape[:2])
  return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean(1)


class Training(NamedTuple):
  """Networks in training; every array has a first axis for s seeds."""

  networks: Networks
  moments: Any  # the state of Adam
  keys: jax.Array  # of the order of examples


def start(
  seeds: Sequence[Sequence[int]], widths: Sequence[int], d: int, k: int
) -> Training:
  """A Training of s seeds, as for `init`, before its first step."""
  each = [init(seed, widths, d, k) for seed in seeds]
  networks = jax.tree.map(lambda *arrays: jnp.stack(arrays), *each)
  words = [np.random.SeedSequence(seed).generate_state(1)[0] for seed in seeds]
  keys = jnp.stack([jax.random.key(word) for word in words])
  return Training(networks, jax.vmap(optax.adam(0.0).init)(networks), keys)


@functools.partial(jax.jit, static_argnames=('widths', 'batch_size'))
def train(
  training: Training,
  widths: tuple[int, ...],
  x: jax.Array,
  labels: jax.Array,
  epochs: int,
  learning_rate: float,
  batch_size: int,
) -> Training:
  """More epochs of Adam, for s seeds at once.

  Every epoch is in a new random order, the same for all widths of a seed; examples that do
  not fill the last batch are left out of it.

  Args:
    training: of s seeds.
    widths: of the networks.
    x, labels: float32 (s, n, d) and int32 (s, n), each seed's own.
    epochs: how many more.
    learning_rate, batch_size: of Adam; at most n examples.
  """
  tx = optax.adam(learning_rate)
  count = x.shape[1] // batch_size * batch_size

  def step(x, labels, state, batch):
    networks, moments = state
    slopes = jax.grad(lambda it: losses(it, widths, x[batch], labels[batch]).sum())(
      networks
    )
    changes, moments = tx.update(slopes, moments)
    return (optax.apply_updates(networks, changes), moments), None

  def epoch(_, training, x, labels):
    key, own = jax.random.split(training.keys)
    order = jax.random.permutation(own, len(x))[:count].reshape(-1, batch_size)
    body = functools.partial(step, x, labels)
    state, _ = jax.lax.scan(body, training[:2], order)
    return Training(*state, key)

  def of_seed(training, x, labels):
    body = functools.partial(epoch, x=x, labels=labels)
    return jax.lax.fori_loop(0, epochs, body, training)

  return jax.vmap(of_seed)(training, x, labels)


@functools.partial(jax.jit, static_argnames='widths')
def evaluate(
  networks: Networks, widths: tuple[int, ...], x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(errors, losses), each (s, m), for s seeds and m widths.

  Args:
    networks: of s seeds, stacked.
    widths: of the networks.
    x, labels: float32 (s, n, d) and int32 (s, n).
  """

  def of_seed(arguments):
    networks, x, labels = arguments
    wrong = logits(networks, widths, x).argmax(-1) != labels
    return wrong.mean(1), losses(networks, widths, x, labels)

  return jax.lax.map(of_seed, (networks, x, labels))
