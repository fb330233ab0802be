"""The compiled functions of a run, built from its config and its data."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec
from ml_collections import config_dict

from rethink_gen import models, sharding
from rethink_gen.data import preprocess
from rethink_gen.data.sources import Dataset
from rethink_gen.train import evaluation, optimizers, sgd, streaming

# The fields of a config that the compiled functions depend on.
FIELDS = ('model', 'regularization', 'optimizer', 'batch_size', 'precision')
EVALUATION_BATCH = 1_000  # examples


def matmul_precision(config: config_dict.ConfigDict) -> AbstractContextManager:
  """The context that sets the precision of matrix products for a config.

  With precision float32, matmuls also use full float32 (accelerators default to TF32 or
  bfloat16 inputs).
  """
  precise = config.precision == 'float32'
  return jax.default_matmul_precision('float32' if precise else 'default')


def build(
  config: config_dict.ConfigDict, dataset, program: 'Program | None' = None
) -> tuple[sgd.TrainState, Callable, Callable, Callable | None]:
  """Places the data on the devices and builds the functions that `loop` calls.

  Args:
    config: a ConfigDict.
    dataset: a Dataset, already corrupted and truncated, or a streaming.Source.
    program: a Program; by default the one for this config and dataset.

  Returns:
    (state, train_to, evaluate, examine): the initial TrainState; train_to(state, step),
    which trains up to a step of the same epoch; evaluate(state), a dict of loss and
    accuracy on both splits; examine(state), the `evaluation.Examples` of the training
    split, or None when streaming.
  """
  if config.dataset.streaming:
    return streaming.build(config, dataset)
  train_split = put(config, dataset.x_train, dataset.y_train)
  test_split = put(config, dataset.x_test, dataset.y_test)
  initialize, epoch, evaluate_split, examine_split = compile_program(
    program or make_program(config, dataset)
  )
  key = jax.random.key(config.seed)

  def train_to(state, step):
    return epoch(state, step, *train_split, key, optimizers.rates(config))

  def evaluate(state):
    totals = evaluate_split(state, *train_split), evaluate_split(state, *test_split)
    return measures(*totals, dataset.num_train, dataset.num_test)

  def examine(state):
    return jax.device_get(examine_split(state, *train_split))

  return initialize(key), train_to, evaluate, examine


def measures(
  train: evaluation.Totals, test: evaluation.Totals, num_train: int, num_test: int
) -> dict[str, float]:
  """The metrics of a record, computed from the `evaluation.Totals` of both splits."""
  return {
    'train_loss': float(train.loss),
    'train_accuracy': int(train.right) / num_train,
    'test_loss': float(test.loss),
    'test_accuracy': int(test.right) / num_test,
    **evaluation.dead_units(train.active),
  }


def put(
  config: config_dict.ConfigDict, images: np.ndarray, labels: np.ndarray
) -> tuple[jax.Array, jax.Array]:
  """Places a split on the devices, replicated or with the images sharded.

  Every image is a row, as `from_rows` expects. Sharded images are padded to equal parts;
  labels are always replicated, and their number tells how many images are real.
  """
  mesh = sharding.mesh()
  spec = PartitionSpec()
  images = images.reshape(len(images), -1)
  if config.dataset.shard_rows:
    spec = PartitionSpec('data')
    images = np.pad(images, ((0, -len(images) % mesh.size), (0, 0)))
  return sharding.put(images, mesh, spec), sharding.put(labels, mesh, PartitionSpec())


class Program(NamedTuple):
  """Everything the compiled functions depend on; equal Programs are compiled once."""

  model: Any  # a linen module, or any object with the same init and apply
  make_tx: Callable  # make_tx(rates) -> optax transformation
  to_inputs: Callable  # to_inputs(images, key=None) -> inputs; key only in training
  image_shape: tuple[int, ...]  # of one example as stored
  input_shape: tuple[int, ...]  # of one input
  batch_size: int
  steps_per_epoch: int


def make_program(config: config_dict.ConfigDict, dataset: Dataset) -> Program:
  """The Program for a config and its data."""
  fields = {field: config.to_dict()[field] for field in FIELDS}
  # Passed to each call, so that runs differing only in these share a program.
  del fields['optimizer']['learning_rate'], fields['regularization']['weight_decay']
  return _make_program(
    config_dict.FrozenConfigDict(fields),
    dataset.x_train.shape[1:],
    dataset.num_classes,
    dataset.num_train // config.batch_size,
    config.dataset.crop_size,
  )


def from_rows(program: Program) -> Callable:
  """The `to_inputs` of a Program for images that `put` placed as rows: (n, h * w * c).

  TPUs pad the last two dimensions of an array. Images stored as (n, h, w, c) would take
  several times their size, and be copied to another layout in every call.
  """

  def to_inputs(rows, *key):
    return program.to_inputs(rows.reshape(-1, *program.image_shape), *key)

  return to_inputs


@functools.lru_cache(maxsize=8)
def _make_program(config, image_shape, num_classes, steps_per_epoch, crop_size):
  """Builds a Program; cached, so that equal arguments give the same function objects.

  Args:
    config: the fields in FIELDS except the Rates, frozen.
    image_shape: (h, w, c) as stored, before cropping.
    num_classes, steps_per_epoch, crop_size: those of the data set and its config.
  """
  *height_width, channels = image_shape
  crop_shape = preprocess.crop_shape(*height_width, crop_size)

  def to_inputs(images, key=None):
    random = None if key is None else config.regularization
    return preprocess.preprocess(images, crop_shape, random, key)

  return Program(
    models.create(config, num_classes),
    functools.partial(optimizers.make_tx, config),
    to_inputs,
    image_shape,
    (*crop_shape, channels),
    config.batch_size,
    steps_per_epoch,
  )


@functools.lru_cache(maxsize=4)
def compile_program(
  program: Program,
) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped, jax.stages.Wrapped, jax.stages.Wrapped]:
  """The compiled (initialize, epoch, evaluate, examine) of a Program."""
  model, make_tx, _, _, input_shape, batch_size, steps_per_epoch = program
  to_inputs = from_rows(program)
  return (
    sgd.make_initialize(
      model, make_tx(optimizers.Rates(0, 0)), input_shape, steps_per_epoch
    ),
    sgd.make_epoch(model, make_tx, to_inputs, batch_size),
    evaluation.make_evaluate(model, to_inputs, EVALUATION_BATCH),
    evaluation.make_examine(model, to_inputs, EVALUATION_BATCH),
  )
