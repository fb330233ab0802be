"""Training on a data set streamed from disk.

The step is the same as for data on the device, fed one batch at a time. Its number
determines which examples a batch holds, so a run resumes at the very next example, on any
number of hosts. Images are scaled to [-1, 1] as in TensorFlow's Inception preprocessing.
"""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import config_dict

from rethink_gen import models, sharding
from rethink_gen.data import preprocess, streaming
from rethink_gen.train import evaluation, optimizers, sgd

# The fields of a config that the compiled functions depend on.
PROGRAM = ('model', 'optimizer', 'precision')
REGULARIZATION = ('dropout_rate', 'weight_decay_on')  # augmentation is done on the host


def build(
  config: config_dict.ConfigDict, source: streaming.Source
) -> tuple[sgd.TrainState, Callable, Callable, None]:
  """(state, train_to, evaluate, None) as from `compiled.build`, for a `streaming.Source`.

  evaluate(state) also gives the top-5 accuracies of both splits.
  """
  initialize, step, look, add = compile_step(
    program_fields(config),
    source.image_shape,
    source.num_classes,
    streaming.steps_per_epoch(source, config),
  )
  key = jax.random.key(config.seed)
  host = jax.process_index(), jax.process_count()
  batches, position = None, None

  def train_to(state, stop):
    nonlocal batches, position
    first = int(state.step)
    if position != first:
      batches = streaming.train_batches(source, config, first, *host)
    for _ in range(stop - first):
      state = step(state, *on_devices(next(batches)), key, optimizers.rates(config))
    position = stop
    return state

  def evaluate(state):
    measured = {}
    for name, split in (('train', source.train), ('test', source.test)):
      batches = streaming.evaluation_batches(source, config, split, *host)
      looks = (look(state, *on_devices(batch)) for batch in batches)
      sums, active = functools.reduce(add, looks)
      means = np.asarray(sums, np.float64) / len(split.redrawn)
      names = (f'{name}_loss', f'{name}_accuracy', f'{name}_top5_accuracy')
      measured |= dict(zip(names, means.tolist(), strict=True))
      if name == 'train':
        measured |= evaluation.dead_units(active)
    return measured

  return initialize(key), train_to, evaluate, None


def program_fields(config):
  """The fields that `compile_step` depends on, frozen."""
  fields = {field: config.to_dict()[field] for field in PROGRAM}
  del fields['optimizer']['learning_rate']  # passed to each call, like the weight decay
  fields['regularization'] = {name: config.regularization[name] for name in REGULARIZATION}
  return config_dict.FrozenConfigDict(fields)


@functools.lru_cache(maxsize=4)
def compile_step(
  config: config_dict.FrozenConfigDict,
  image_shape: tuple[int, int, int],
  num_classes: int,
  steps_per_epoch: int,
) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped, jax.stages.Wrapped, jax.stages.Wrapped]:
  """(initialize, step, look, add), compiled once for many runs.

  step(state, images (b, s, s, 3), labels (b,), key, rates) is one gradient step.
  look(state, images, labels, counts (b,)) evaluates the examples of a batch that count: the
  sum of their losses and the numbers of top-1 and top-5 hits, float32 (3,), exact up to
  2^24; and the active units as in `evaluation.Totals`. add(first, second) combines the
  results of two batches.

  Args:
    config: the fields in PROGRAM except the learning rate, and the regularization's fields
      in REGULARIZATION, frozen.
    image_shape: (s, s, 3).
    num_classes, steps_per_epoch: of the data set.
  """
  model = models.create(config, num_classes)

  def step(state, images, labels, key, rates):
    key = jax.random.fold_in(jax.random.fold_in(key, sgd.DROPOUT), state.step)
    inputs = preprocess.scale(images)
    tx = optimizers.make_tx(config, rates)
    return sgd.train_step(model, tx, state, inputs, labels, key)

  def look(state, images, labels, counts):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    # Padding must not activate a unit that no example activates.
    images = jnp.where(counts[:, None, None, None], images, images[:1])
    logits, active = evaluation.apply_and_watch(model, variables, preprocess.scale(images))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    own = jnp.take_along_axis(logits, labels[:, None], 1)
    # The number of classes ranked before the label: ties go to the lower class, as in
    # argmax, and NaN is never right.
    earlier = jnp.arange(num_classes) < labels[:, None]
    before = jnp.where((logits < own) | ((logits == own) & ~earlier), 0, 1).sum(1)
    each = jnp.stack([losses, before == 0, before < 5])
    return jnp.where(counts, each, 0).sum(1), active

  def add(first, second):
    return first[0] + second[0], jax.tree.map(jnp.logical_or, first[1], second[1])

  replicated = NamedSharding(sharding.mesh(), PartitionSpec())
  tx = optimizers.make_tx(config, optimizers.Rates(0, 0))
  return (
    sgd.make_initialize(model, tx, image_shape, steps_per_epoch),
    jax.jit(step, donate_argnums=0, out_shardings=replicated),
    jax.jit(look, out_shardings=replicated),
    jax.jit(add, out_shardings=replicated),
  )


def on_devices(arrays: Iterable[np.ndarray]) -> list[jax.Array]:
  """Turns this host's rows of a batch into the whole batch, split over all devices."""
  split = NamedSharding(sharding.mesh(), PartitionSpec('data'))
  return [jax.make_array_from_process_local_data(split, array) for array in arrays]
