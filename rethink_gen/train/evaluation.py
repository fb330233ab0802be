"""Evaluation over whole splits, compiled."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen import sharding
from rethink_gen.models import layers


class Examples(NamedTuple):
  """What a network makes of each example, in the data's order."""

  loss: jax.Array  # float32 (n,)
  right: jax.Array  # bool (n,)
  margin: jax.Array  # float32 (n,), the label's logit less the largest other


class Totals(NamedTuple):
  """What a network makes of a split."""

  loss: jax.Array  # float32 (), the mean
  right: jax.Array  # int32 (), examples classified right
  active: dict  # {layer: bool (units,)}: ReLU units that are active for some example


def make_evaluate(model, to_inputs, batch_size):
  """The compiled function evaluate(state, images, labels) -> Totals.

  The arguments are those of `make_examine`.
  """
  examine = examine_function(model, to_inputs, batch_size, sharding.split())
  return jax.jit(lambda *arguments: totals(*examine(*arguments)))


def totals(examples, active):
  """The Totals of what an `examine_function` gives."""
  return Totals(examples.loss.mean(), examples.right.sum(), active)


def make_examine(model, to_inputs, batch_size):
  """The compiled function examine(state, images, labels) -> Examples.

  Over every example once, without augmentation or dropout and with batch normalization's
  running statistics, in equal batches of about `batch_size` examples at most; the last is
  filled up with examples that do not count. to_inputs(images) gives the network's inputs.
  """
  replicated = NamedSharding(sharding.mesh(), PartitionSpec())
  examine = examine_function(model, to_inputs, batch_size, sharding.split())
  return jax.jit(lambda *arguments: examine(*arguments)[0], out_shardings=replicated)


def examine_function(model, to_inputs, batch_size, split):
  """A function examine(state, images, labels) -> (Examples, active units as in Totals).

  `make_examine` and `make_evaluate` compile it; `split` is how a batch lies on the devices,
  or None.
  """

  def examine(state, images, labels):
    count = len(labels)
    variables = {'params': state.params, 'batch_stats': state.batch_stats}

    batches = -(-count // batch_size)
    unit = 16 * (split.mesh.size if split else 1)  # a size that can be cut into blocks
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


def apply_and_watch(model, variables, inputs):
  """(logits, {layer: bool (units,)}) in evaluation: which ReLU units are active at all.

  Only the package's own models say so; for others the dict is empty.
  """
  if not isinstance(model, nn.Module):
    return model.apply(variables, inputs, train=False), {}
  logits, sown = model.apply(variables, inputs, train=False, mutable=[layers.ACTIVITY])
  leaves = jax.tree.leaves_with_path(sown.get(layers.ACTIVITY, {}))
  return logits, {'/'.join(key.key for key in path): leaf for path, leaf in leaves}


def dead_units(active):
  """{'dead_units': share of all ReLU units, 'dead_units/LAYER': share of a layer's, ...}.

  A unit is dead if it is active for none of the training examples; a convolution's unit is
  a channel, at all of its positions. {} for a model that does not say which are active.

  Args:
    active: {layer: bool (units,)}.
  """
  dead = {layer: ~np.asarray(units) for layer, units in active.items()}
  if not dead:
    return {}
  shares = {f'dead_units/{layer}': float(units.mean()) for layer, units in dead.items()}
  return {'dead_units': float(np.concatenate([*dead.values()]).mean())} | shares
