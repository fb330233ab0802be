"""A ReLU network whose 2n + d free weights fit any labels of n points in d dimensions.

Theorem 1 and its corollary (Section 4, Appendix C), constructed rather than trained: a
direction a maps the inputs to numbers z_i = <a, x_i>, and on a line a piecewise linear
function with a knot at every point can take any values there.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen.errors import BadInput

DIRECTIONS = 10  # tried before giving up
EVALUATION_BATCH = 16  # inputs, few enough that activations fit in a processor's cache


class Interpolator(nn.Module):
  """The network of Theorem 1, (batch, d) -> (batch,), of depth 2 or more.

  The first hidden layer sees z = <a, x>, and every hidden unit is max(z - threshold, 0).
  At depth 2, n weights sum them. At depth k, each of the k - 1 hidden layers has
  n / (k - 1) of the units, rounded up, and three that carry what later layers need: z above
  the lowest threshold, and the positive and negative parts of the sum so far. So the width
  is n / (k - 1) + 3, and there are 2n + d free weights at every depth. Depths above two
  have further weights that depend on neither points nor labels, all 1 or -1: those of the
  carrying units and those that pass z to each unit. With them there are O(n + d) weights,
  as the corollary states.
  """

  num_points: int
  depth: int = 2

  @nn.compact
  def __call__(self, x):
    a = self.param('direction', nn.initializers.zeros, x.shape[1:])
    total = jnp.zeros(len(x), x.dtype)
    z, lowest = x @ a, 0
    for layer, size in enumerate(layer_sizes(self.num_points, self.depth)):
      thresholds = self.param(f'thresholds_{layer}', nn.initializers.zeros, (size,))
      weights = self.param(f'weights_{layer}', nn.initializers.zeros, (size,))
      hidden = nn.relu(z[:, None] - (thresholds - lowest))
      total = nn.relu(total) - nn.relu(-total) + hidden @ weights
      if layer == 0:
        lowest = thresholds[0]
        z = z - lowest
      z = nn.relu(z)
    return total


def layer_sizes(num_points: int, depth: int) -> list[int]:
  """Units in each of the depth - 1 hidden layers, without the carrying units."""
  return [len(part) for part in np.array_split(np.arange(num_points), depth - 1)]


def construct(
  inputs: np.typing.ArrayLike, targets: np.typing.ArrayLike, depth: int = 2, seed: int = 0
) -> tuple[Interpolator, dict]:
  """Parameters with which `Interpolator` maps inputs to targets.

  Thresholds lie at the points themselves, shifted by one: b_1 < z_1 = b_2 < z_2 = b_3 < ...
  The matrix max(z_i - b_j, 0) is lower triangular with a positive diagonal, as the proof
  requires, and solving for the weights takes 2n divisions and differences: the sum of the
  first i weights is the slope of the function between z_(i-1) and z_i. (With thresholds
  halfway between points, each slope would be twice the required one minus the slope before,
  so rounding errors and magnitudes would accumulate over n steps instead of staying local.)

  Args:
    inputs: (n, d), of any real type; converted to float64.
    targets: (n,) real numbers, such as class numbers.
    depth: depth of the network, from 2 to n + 1.
    seed: seed of the direction, which is Gaussian, scaled so that all z_i lie within one
      unit.

  Returns:
    (model, params): an Interpolator over the distinct inputs, and its float64 parameters.

  Raises:
    BadInput: there are no inputs, some are not finite, two equal inputs have different
      targets, which no function fits, some inputs differ by less than rounding, or the
      depth is out of range.
  """
  inputs = np.asarray(inputs, np.float64)
  targets = np.asarray(targets, np.float64)
  _check(inputs, targets, depth)
  random = np.random.default_rng(seed)
  for _ in range(DIRECTIONS):
    direction = random.normal(size=inputs.shape[1])
    z = inputs @ direction
    scale = np.ptp(z) or 1.0
    direction, z = direction / scale, z / scale
    order = np.argsort(z, kind='stable')
    kept = distinct(inputs, targets, z, order)
    if kept is not None:
      break
  else:
    raise BadInput(
      f'In each of {DIRECTIONS} random directions, different inputs fall on one point: '
      'they differ by less than rounding errors.'
    )
  z, targets = z[kept], targets[kept]
  # The first is one unit below its point, so that its slope is as small as the target.
  thresholds = np.concatenate([z[:1] - 1, z[:-1]])
  slopes = np.diff(targets, prepend=0) / (z - thresholds)
  weights = np.diff(slopes, prepend=0)
  model = Interpolator(len(z), depth)
  cuts = np.cumsum(layer_sizes(len(z), depth))[:-1]
  params: dict = {'direction': direction}
  for name, values in (('thresholds', thresholds), ('weights', weights)):
    for layer, part in enumerate(np.split(values, cuts)):
      params[f'{name}_{layer}'] = part
  return model, params


def _check(inputs, targets, depth):
  if inputs.ndim != 2 or len(inputs) == 0 or targets.shape != inputs.shape[:1]:
    raise BadInput(
      f'The inputs have the shape {inputs.shape} and the targets {targets.shape}, but '
      'they must be (n, d) and (n,) with at least one point.'
    )
  if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
    raise BadInput('Some inputs or targets are not finite; leave those points out.')
  if not 2 <= depth <= len(inputs) + 1:
    raise BadInput(
      f'The depth is {depth}, but it must be from 2 to n + 1 = {len(inputs) + 1}, so that '
      'every hidden layer has a unit.'
    )


def distinct(
  inputs: np.ndarray, targets: np.ndarray, z: np.ndarray, order: np.ndarray
) -> np.ndarray | None:
  """Indices of the points in the order of z, with equal points only once.

  None if different inputs are closer on the line than rounding can resolve.
  """
  # Rounding error of a sum of d products, relative to the largest of them.
  rounding = 4 * np.finfo(np.float64).eps * inputs.shape[1] ** 0.5 * np.abs(z).max()
  kept = [order[0]]
  close = np.diff(z[order]) <= rounding
  for i, j, is_close in zip(order[:-1], order[1:], close, strict=True):
    if not is_close:
      kept.append(j)
    elif not np.array_equal(inputs[i], inputs[j]):
      return None
    elif targets[i] != targets[j]:
      raise BadInput(
        f'Inputs {min(i, j)} and {max(i, j)} are equal, but their targets are '
        f'{targets[min(i, j)]:g} and {targets[max(i, j)]:g}: no function fits both; leave '
        'one of them out.'
      )
  return np.array(kept)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(model, params, inputs):
  def one_batch(x):
    return model.apply({'params': params}, x)

  return jax.lax.map(one_batch, inputs)


def evaluate(
  model: Interpolator,
  params: Any,
  inputs: np.ndarray,
  dtype: type = np.float64,
) -> np.ndarray:
  """The network's output, computed in `dtype` throughout: (n, d) -> (n,)."""
  count = len(inputs)
  batches = -(-count // EVALUATION_BATCH)
  padded = np.zeros((batches * EVALUATION_BATCH, inputs.shape[1]), dtype)
  padded[:count] = inputs
  with jax.enable_x64(True), jax.default_matmul_precision('highest'):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    batched = padded.reshape(batches, EVALUATION_BATCH, -1)
    outputs = _evaluate(model, params, batched)
  return np.asarray(outputs).reshape(-1)[:count]


def count_weights(params: Any) -> int:
  """2n + d: the number of free weights, without the fixed weights of 1 and -1."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def width(model: Interpolator) -> int:
  """Units in the widest hidden layer, including the carrying units."""
  return max(layer_sizes(model.num_points, model.depth)) + (3 if model.depth > 2 else 0)
