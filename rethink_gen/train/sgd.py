"""Stochastic gradient descent as pure functions: a state, a step, a whole epoch.

The epoch is one compiled function over a mesh of devices: parameters are replicated, the
data set is replicated or sharded by rows, and each batch is split over the devices. One
device is a mesh of one; the number of devices changes results only by rounding.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen import sharding
from rethink_gen.models import layers

# One PRNG stream per purpose. The numbers determine published results: append, never
# reorder.
INITIALIZATION, ORDER, AUGMENTATION, DROPOUT = range(4)
# On a GPU, a loop whose number of steps the compiler does not know asks the host before
# each whether to go on (XLA's WhileLoopBackendConfig); it is asked once per this many, at
# most.
GPU_CHUNK = 10
AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss, as in TF-Slim's Inception V3


class TrainState(NamedTuple):
  """Everything that training changes, and everything that a checkpoint holds."""

  step: jax.Array  # int32 (), gradient steps taken
  params: Any
  batch_stats: Any  # running statistics of batch normalization, or {}
  opt_state: Any
  losses: jax.Array  # float32 (steps per epoch,), of the current epoch
  correct: jax.Array  # int32 (steps per epoch,), correctly classified examples per step


def make_initialize(
  model,
  tx: optax.GradientTransformation,
  input_shape: tuple[int, ...],
  steps_per_epoch: int,
) -> jax.stages.Wrapped:
  """The compiled function initialize(key) -> initial TrainState.

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


def initialize_options() -> dict[str, int]:
  """Compiler options for initialization, which is mostly random numbers.

  On CPU, LLVM takes 15 s to compile those of Inception's kernels by default and 5 s at this
  level, with bit-identical results.
  """
  return {'xla_backend_optimization_level': 1} if sharding.platform() == 'cpu' else {}


def train_step(
  model,
  tx: optax.GradientTransformation,
  state: TrainState,
  inputs: jax.Array,
  labels: jax.Array,
  dropout_key: jax.Array,
) -> TrainState:
  """One gradient step on a batch, inputs (b, h, w, c) and labels int32 (b,).

  Returns the next TrainState. The loss it records is that of the model's own logits; the
  objective it minimizes also includes the losses of auxiliary heads.
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
  # Line searches and the like need the loss here and at other points; others ignore it.
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


def mean_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def on_each_device(differentiate: Callable) -> Callable:
  """Runs `differentiate` on each device's part of the batch, sharing only means.

  In training, batch normalization thus uses the statistics of each part, and the running
  statistics are their mean over devices.
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


def make_epoch(
  model, make_tx: Callable, to_inputs: Callable, batch_size: int
) -> jax.stages.Wrapped:
  """The compiled function epoch(state, stop, images, labels, key, rates) -> TrainState.

  It trains up to step `stop`, at most the end of the epoch that `state.step` is in; one
  call and several calls per epoch give the same result. The order of examples is a function
  of the key and the epoch's number; examples left over after the last full batch are
  skipped in that epoch. `state` is donated.

  Args:
    model: a linen module.
    make_tx: make_tx(rates) gives the optax transformation.
    to_inputs: to_inputs(images, key) gives the network's inputs in training.
    batch_size: examples.
  """
  replicated = NamedSharding(sharding.mesh(), PartitionSpec())
  epoch = epoch_function(model, make_tx, to_inputs, batch_size, sharding.split())
  return jax.jit(epoch, donate_argnums=0, out_shardings=replicated)


def epoch_function(
  model,
  make_tx: Callable,
  to_inputs: Callable,
  batch_size: int,
  split: NamedSharding | None,
) -> Callable:
  """The function `make_epoch` compiles; `split` is the sharding of a batch, or None."""

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

    return train_until(step, state, stop, chunk_of(steps))

  return epoch


def chunk_of(steps: int) -> int:
  """Steps per loop of known length in an epoch of `steps`: a divisor, so none is wasted."""
  if sharding.platform() != 'gpu':
    return 1
  return max(n for n in range(1, GPU_CHUNK + 1) if steps % n == 0)


def train_until(
  step: Callable, state: TrainState, stop: jax.Array, chunk: int
) -> TrainState:
  """Applies step(state) until `state.step` is `stop`, in loops of `chunk` steps.

  The result does not depend on `chunk`: steps beyond `stop` are computed and discarded.
  """

  def is_before(state):
    return state.step < stop

  def take(_, state):
    taken = functools.partial(jnp.where, is_before(state))
    return jax.tree.map(taken, step(state), state)

  def take_all(state):
    return jax.lax.fori_loop(0, chunk, take, state)

  return jax.lax.while_loop(is_before, step if chunk == 1 else take_all, state)
