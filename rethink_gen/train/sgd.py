"""Stochastic gradient descent as pure functions: a state, a step, a whole epoch.

The epoch is one compiled function over a mesh of devices: the data set lies on every
device, each batch is split over them, parameters are replicated. One device is a mesh of
one, and the result does not depend on how many there are, beyond rounding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen import sharding
from rethink_gen.models import layers

# One stream of keys a purpose. A stream's number is part of the results.
INITIALIZATION, ORDER, AUGMENTATION, DROPOUT = range(4)
AUXILIARY_WEIGHT = 0.4  # of an auxiliary head's loss, as in TF-Slim's Inception V3


class TrainState(NamedTuple):
  """All that training changes, and all that a checkpoint holds."""

  step: jax.Array  # int32 (), gradient steps taken
  params: Any
  batch_stats: Any  # running statistics of batch normalization, or {}
  opt_state: Any
  losses: jax.Array  # float32 (steps per epoch,), of the epoch under way
  correct: jax.Array  # int32 (steps per epoch,), examples classified right in it


def make_initialize(model, tx, input_shape, steps_per_epoch):
  """The compiled function initialize(key) -> the State before the first step.

  input_shape is (h, w, c).
  """

  def initialize(key):
    key = jax.random.fold_in(key, INITIALIZATION)
    variables = model.init(key, jnp.zeros((1, *input_shape)), train=False)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables.get('batch_stats', {}),
      opt_state=tx.init(variables['params']),
      losses=jnp.zeros(steps_per_epoch),
      correct=jnp.zeros(steps_per_epoch, jnp.int32),
    )

  replicated = NamedSharding(sharding.mesh(), PartitionSpec())
  options = initialize_options()
  return jax.jit(initialize, out_shardings=replicated, compiler_options=options)


def initialize_options():
  """Compiler options for the random numbers of an initialization.

  On CPU those of Inception's kernels take LLVM 15 s to compile, and 5 s at this level, to
  the same bits.
  """
  return {'xla_backend_optimization_level': 1} if jax.default_backend() == 'cpu' else {}


def train_step(model, tx, state, inputs, labels, dropout_key):
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
  updates, opt_state = optax.with_extra_args_support(tx).update(
    gradient,
    state.opt_state,
    state.params,
    value=objective,
    grad=gradient,
    value_fn=lambda params: evaluate(params, *batch)[0],
  )
  position = state.step % len(state.losses)
  correct = (logits.argmax(-1) == labels).sum(dtype=jnp.int32)
  return TrainState(
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
    mesh=sharding.mesh(),
    in_specs=(whole, whole, part, part, whole),
    out_specs=(whole, part),
    check_vma=False,
  )


def make_epoch(model, make_tx, to_inputs, batch_size):
  """The compiled function epoch(state, stop, images, labels, key, rates) -> State.

  It trains up to step `stop`, which must not lie beyond the end of the epoch that
  `state.step` is in: the whole of it in one call, or in several with the same result. The
  epoch's order of examples follows from the key and the epoch's number; the examples left
  over after the last whole batch sit this epoch out. The state's memory is reused.

  Args:
    model: a linen module.
    make_tx: a function of the Rates that gives the optax transformation.
    to_inputs: to_inputs(images, key) gives the network's inputs in training.
    batch_size: examples.
  """
  replicated = NamedSharding(sharding.mesh(), PartitionSpec())
  epoch = epoch_function(model, make_tx, to_inputs, batch_size, sharding.split())
  return jax.jit(epoch, donate_argnums=0, out_shardings=replicated)


def epoch_function(model, make_tx, to_inputs, batch_size, split):
  """What `make_epoch` compiles; `split` is how a batch lies on the devices, or None."""

  def epoch(state, stop, images, labels, key, rates):
    steps = len(state.losses)
    tx = make_tx(rates)
    order_key, augmentation_key, dropout_key = (
      jax.random.fold_in(key, stream) for stream in (ORDER, AUGMENTATION, DROPOUT)
    )
    number = state.step // steps
    order = jax.random.permutation(jax.random.fold_in(order_key, number), len(labels))

    def step(state):
      first = state.step % steps * batch_size
      chosen = jax.lax.dynamic_slice_in_dim(order, first, batch_size)
      chosen = sharding.constrain(chosen, split)
      inputs = to_inputs(images[chosen], jax.random.fold_in(augmentation_key, state.step))
      key = jax.random.fold_in(dropout_key, state.step)
      return train_step(model, tx, state, inputs, labels[chosen], key)

    return jax.lax.while_loop(lambda state: state.step < stop, step, state)

  return epoch
