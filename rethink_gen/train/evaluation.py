"""Compiled evaluation of a whole split: loss, accuracy, margins and dead ReLU units.

`make_examine` gives results per example, `make_evaluate` only totals.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen import sharding
from rethink_gen.models import layers


class Examples(NamedTuple):
  """Results per example, in the order of the data."""

  loss: jax.Array  # float32 (n,)
  right: jax.Array  # bool (n,), classified correctly
  margin: jax.Array  # float32 (n,), the label's logit minus the largest other logit


class Totals(NamedTuple):
  """Results over a whole split."""

  loss: jax.Array  # float32 (), the mean
  right: jax.Array  # int32 (), number of examples classified correctly
  active: dict[str, jax.Array]  # {layer: bool (units,)}: ReLU units that are ever active


def make_evaluate(model, to_inputs: Callable, batch_size: int) -> jax.stages.Wrapped:
  """The compiled function evaluate(state, images, labels) -> Totals.

  Its arguments are those of `make_examine`.
  """
  examine = examine_function(model, to_inputs, batch_size, sharding.split())
  return jax.jit(lambda *arguments: totals(*examine(*arguments)))


def totals(examples: Examples, active: dict[str, jax.Array]) -> Totals:
  """Reduces the results of an `examine_function` to Totals."""
  return Totals(examples.loss.mean(), examples.right.sum(), active)


def make_examine(model, to_inputs: Callable, batch_size: int) -> jax.stages.Wrapped:
  """The compiled function examine(state, images, labels) -> Examples.

  It visits every example once, without augmentation or dropout and with batch
  normalization's running statistics, in equal batches of at most about `batch_size`
  examples; padding in the last one is ignored. to_inputs(images) gives the network's
  inputs.
  """
  replicated = NamedSharding(sharding.mesh(), PartitionSpec())
  examine = examine_function(model, to_inputs, batch_size, sharding.split())
  return jax.jit(lambda *arguments: examine(*arguments)[0], out_shardings=replicated)


def examine_function(
  model, to_inputs: Callable, batch_size: int, split: NamedSharding | None
) -> Callable:
  """A function examine(state, images, labels) -> (Examples, active units as in Totals).

  `make_examine` and `make_evaluate` compile it; `split` is the sharding of a batch, or
  None.
  """

  def examine(state, images, labels):
    count = len(labels)
    variables = {'params': state.params, 'batch_stats': state.batch_stats}

    batches = -(-count // batch_size)
    unit = 16 * (split.mesh.size if split else 1)  # so that batches divide into blocks
    size = -(-count // (batches * unit)) * unit

    def examine_batch(number):
      indices = number * size + jnp.arange(size)
      chosen = jnp.minimum(sharding.constrain(indices, split), count - 1)
      logits, active = apply_and_watch(model, variables, to_inputs(images[chosen]))
      own = jax.nn.one_hot(labels[chosen], logits.shape[-1], dtype=bool)
      others = jnp.where(own, -jnp.inf, logits).max(-1)
      examples = Examples(
        loss=optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]),
        right=logits.argmax(-1) == labels[chosen],
        margin=jnp.where(own, logits, 0).sum(-1) - others,
      )
      return examples, active

    examples, active = jax.lax.map(examine_batch, jnp.arange(batches))
    examples = jax.tree.map(lambda x: x.reshape(-1)[:count], examples)
    return examples, jax.tree.map(lambda x: x.any(0), active)

  return examine


def apply_and_watch(
  model, variables: dict[str, Any], inputs: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(logits, {layer: bool (units,)}) in evaluation mode: which ReLU units are ever active.

  Only the package's own models report this; for others the dict is empty.
  """
  if not isinstance(model, nn.Module):
    return model.apply(variables, inputs, train=False), {}
  logits, sown = model.apply(variables, inputs, train=False, mutable=[layers.ACTIVITY])
  leaves = jax.tree.leaves_with_path(sown.get(layers.ACTIVITY, {}))
  return logits, {'/'.join(key.key for key in path): leaf for path, leaf in leaves}


def dead_units(active: dict[str, jax.Array]) -> dict[str, float]:
  """The fractions of dead ReLU units: {'dead_units': overall, 'dead_units/LAYER': ...}.

  A unit is dead if no training example activates it; a unit of a convolution is a channel
  over all positions. {} for a model that does not report its active units.

  Args:
    active: {layer: bool (units,)}.
  """
  dead = {layer: ~np.asarray(units) for layer, units in active.items()}
  if not dead:
    return {}
  shares = {f'dead_units/{layer}': float(units.mean()) for layer, units in dead.items()}
  return {'dead_units': float(np.concatenate([*dead.values()]).mean())} | shares
