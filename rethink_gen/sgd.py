"""Stochastic gradient descent as pure functions: a state, a step, a whole epoch.

The epoch is one compiled function over a mesh of devices: the data set lies on every
device, each batch is split over them, parameters are replicated. One device is a mesh of
one, and the result does not depend on how many there are, beyond rounding.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen.models import layers

# One stream of keys a purpose. A stream's number is part of the results.
INITIALISATION, ORDER, AUGMENTATION, DROPOUT = range(4)
AUXILIARY_WEIGHT = 0.4  # of an auxiliary head's loss, as in TF-Slim's Inception V3


class State(NamedTuple):
  """All that training changes, and all that a checkpoint holds."""

  step: jax.Array  # int32 (), gradient steps taken
  params: Any
  batch_stats: Any  # running statistics of batch normalization, or {}
  opt_state: Any
  losses: jax.Array  # float32 (steps per epoch,), of the epoch under way
  correct: jax.Array  # int32 (steps per epoch,), examples classified right in it


class Rates(NamedTuple):
  """The numbers in which runs of one compiled program may differ."""

  learning_rate: float | jax.Array
  weight_decay: float | jax.Array


def mesh():
  """All devices in one row, along which batches are split."""
  return jax.sharding.Mesh(np.array(jax.devices()), ('data',))


def rates(config):
  """The Rates of a config."""
  return Rates(config.optimizer.learning_rate, config.regularization.weight_decay)


def optimizer(config, rates):
  """Momentum SGD; the learning rate falls by a factor every so many steps.

  Over the warm-up it first rises linearly, as large batches want (arXiv:1706.02677); the
  steps of the warm-up count towards the fall too.

  The penalty weight_decay/2 * |w|^2 acts through its gradient, before momentum, on kernels
  alone, all of them or some: biases and batch normalization's offsets are free of it.

  Args:
    config: what is compiled in: momentum, the fall, the warm-up, which kernels decay.
    rates: the learning rate and the weight decay, which may be traced.
  """
  decay = optax.exponential_decay(
    rates.learning_rate,
    config.optimizer.decay_every_steps,
    config.optimizer.decay_factor,
    staircase=True,
  )
  warmup = max(config.optimizer.warmup_steps, 1)

  everywhere = config.regularization.weight_decay_on == 'kernels'
  decays = is_kernel if everywhere else is_hidden_linear_kernel

  def schedule(count):
    return decay(count) * jnp.minimum((count + 1) / warmup, 1.0)

  return optax.chain(
    optax.add_decayed_weights(rates.weight_decay, mask=decays),
    optax.sgd(schedule, config.optimizer.momentum),
  )


def is_kernel(params):
  """A tree of bool: which parameters are kernels."""
  return jax.tree.map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def is_hidden_linear_kernel(params):
  """A tree of bool: which parameters are kernels of linear layers, without the output's."""
  linear = sorted(
    (name for name in params if name.startswith('Dense_')),
    key=lambda name: int(name.removeprefix('Dense_')),
  )
  hidden = linear[:-1]
  return jax.tree.map_with_path(
    lambda path, _: path[0].key in hidden and path[-1].key == 'kernel', params
  )


def make_initialise(model, transformation, input_shape, steps_per_epoch):
  """The compiled function initialise(key) -> the State before the first step.

  input_shape is (h, w, c).
  """

  def initialise(key):
    key = jax.random.fold_in(key, INITIALISATION)
    variables = model.init(key, jnp.zeros((1, *input_shape)), train=False)
    return State(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables.get('batch_stats', {}),
      opt_state=transformation.init(variables['params']),
      losses=jnp.zeros(steps_per_epoch),
      correct=jnp.zeros(steps_per_epoch, jnp.int32),
    )

  replicated = NamedSharding(mesh(), PartitionSpec())
  options = initialise_options()
  return jax.jit(initialise, out_shardings=replicated, compiler_options=options)


def initialise_options():
  """Compiler options for the random numbers of an initialisation.

  On CPU those of Inception's kernels take LLVM 15 s to compile, and 5 s at this level, to
  the same bits.
  """
  return {'xla_backend_optimization_level': 1} if jax.default_backend() == 'cpu' else {}


def train_step(model, transformation, state, inputs, labels, dropout_key):
  """One gradient step on one batch: (State, inputs (b, h, w, c), int32 (b,)) -> State.

  The loss it records is that of the model's own logits; what it minimizes has the losses of
  auxiliary heads in it too.
  """

  def evaluate(params, batch_stats, inputs, labels, key):
    logits, updated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      inputs,
      train=True,
      mutable=['batch_stats', layers.AUXILIARY],
      rngs={'dropout': key},
    )
    loss = mean_cross_entropy(logits, labels)
    heads = jax.tree.leaves(updated.get(layers.AUXILIARY, {}))
    helping = sum(mean_cross_entropy(head, labels) for head in heads)
    stats = updated.get('batch_stats', {})
    return loss + AUXILIARY_WEIGHT * helping, (loss, logits, stats)

  def differentiate(params, *batch):
    found = jax.value_and_grad(evaluate, has_aux=True)(params, *batch)
    (objective, (loss, logits, stats)), gradient = found
    return (objective, loss, stats, gradient), logits

  if getattr(model, 'batch_norm_per_device', False):
    differentiate = on_each_device(differentiate)
  batch = state.batch_stats, inputs, labels, dropout_key
  (objective, loss, batch_stats, gradient), logits = differentiate(state.params, *batch)
  # Line searches and the like want to know the loss, here and elsewhere; others ignore it.
  updates, opt_state = optax.with_extra_args_support(transformation).update(
    gradient,
    state.opt_state,
    state.params,
    value=objective,
    grad=gradient,
    value_fn=lambda params: evaluate(params, *batch)[0],
  )
  position = state.step % len(state.losses)
  correct = (logits.argmax(-1) == labels).sum(dtype=jnp.int32)
  return State(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
    losses=state.losses.at[position].set(loss),
    correct=state.correct.at[position].set(correct),
  )


def mean_cross_entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def on_each_device(differentiate):
  """The same where each device sees its part of the batch alone; only means are shared.

  So batch normalization's statistics in training are those of the part, and the running
  statistics the mean of them over devices.
  """

  def local(params, batch_stats, inputs, labels, key):
    key = jax.random.fold_in(key, jax.lax.axis_index('data'))
    shared, logits = differentiate(params, batch_stats, inputs, labels, key)
    return jax.lax.pmean(shared, 'data'), logits

  whole, part = PartitionSpec(), PartitionSpec('data')
  return jax.shard_map(
    local,
    mesh=mesh(),
    in_specs=(whole, whole, part, part, whole),
    out_specs=(whole, part),
    check_vma=False,
  )


def make_epoch(model, optimizer, prepare, batch_size):
  """The compiled function epoch(state, stop, images, labels, key, rates) -> State.

  It trains up to step `stop`, which must not lie beyond the end of the epoch that
  `state.step` is in: the whole of it in one call, or in several with the same result. The
  epoch's order of examples follows from the key and the epoch's number; the examples left
  over after the last whole batch sit this epoch out. The state's memory is reused.

  Args:
    model: a linen module.
    optimizer: a function of the Rates that gives the optax transformation.
    prepare: prepare(images, key) gives the network's inputs in training.
    batch_size: examples.
  """
  replicated = NamedSharding(mesh(), PartitionSpec())
  epoch = epoch_function(model, optimizer, prepare, batch_size, _split())
  return jax.jit(epoch, donate_argnums=0, out_shardings=replicated)


def epoch_function(model, optimizer, prepare, batch_size, split):
  """What `make_epoch` compiles; `split` is how a batch lies on the devices, or None."""

  def epoch(state, stop, images, labels, key, rates):
    steps = len(state.losses)
    transformation = optimizer(rates)
    order_key, augmentation_key, dropout_key = (
      jax.random.fold_in(key, stream) for stream in (ORDER, AUGMENTATION, DROPOUT)
    )
    number = state.step // steps
    order = jax.random.permutation(jax.random.fold_in(order_key, number), len(labels))

    def step(state):
      first = state.step % steps * batch_size
      chosen = jax.lax.dynamic_slice_in_dim(order, first, batch_size)
      chosen = _constrain(chosen, split)
      inputs = prepare(images[chosen], jax.random.fold_in(augmentation_key, state.step))
      key = jax.random.fold_in(dropout_key, state.step)
      return train_step(model, transformation, state, inputs, labels[chosen], key)

    return jax.lax.while_loop(lambda state: state.step < stop, step, state)

  return epoch


def _constrain(indices, split):
  return indices if split is None else jax.lax.with_sharding_constraint(indices, split)


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


def make_evaluate(model, prepare, batch_size):
  """The compiled function evaluate(state, images, labels) -> Totals.

  The arguments are those of `make_examine`.
  """
  examine = examine_function(model, prepare, batch_size, _split())
  return jax.jit(lambda *arguments: totals(*examine(*arguments)))


def totals(examples, active):
  """The Totals of what an `examine_function` gives."""
  return Totals(examples.loss.mean(), examples.right.sum(), active)


def make_examine(model, prepare, batch_size):
  """The compiled function examine(state, images, labels) -> Examples.

  Over every example once, without augmentation or dropout and with batch normalization's
  running statistics, in equal batches of about `batch_size` examples at most; the last is
  filled up with examples that do not count. prepare(images) gives the network's inputs.
  """
  replicated = NamedSharding(mesh(), PartitionSpec())
  examine = examine_function(model, prepare, batch_size, _split())
  return jax.jit(lambda *arguments: examine(*arguments)[0], out_shardings=replicated)


def examine_function(model, prepare, batch_size, split):
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
      chosen = jnp.minimum(_constrain(indices, split), count - 1)
      logits, active = apply_and_watch(model, variables, prepare(images[chosen]))
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


def _split():
  return NamedSharding(mesh(), PartitionSpec('data'))
