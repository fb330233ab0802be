"""Training networks from Python; one that has been trained before is read from disk."""

import functools
import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import files, models
from rethink_gen.data import preprocess
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress
from rethink_gen.train import checkpoint, compiled, loading, loop, sgd, signals, workdirs

BATCH = 1_000  # images per forward pass
TOLERANCE = 0.01  # how far below the target a training loss may end, relative to it


class Network(NamedTuple):
  """A trained network, with its config and data."""

  config: config_dict.ConfigDict  # the one it was trained with
  dataset: Dataset  # the data as given, with the labels it was trained on
  initial: Any  # parameters before the first step
  params: Any  # parameters after the last step
  batch_stats: Any  # running statistics of batch normalization, or {}
  step: int  # number of steps taken


def train_network(
  config: config_dict.ConfigDict,
  dataset: Dataset,
  folder: str | os.PathLike,
  loss: float | None = None,
) -> Network:
  """Trains a network on a Dataset, or reads it from `folder` if it is there already.

  Args:
    config: a ConfigDict with the fields of `config.default`. Its data set and corruption
      are ignored, except for crop_size and shard_rows: the training data are `dataset`.
    dataset: uint8 images and int32 labels, in memory.
    folder: stores the networks, each in a folder named after a digest of its config, data
      and loss, so that nothing is trained twice and interrupted training resumes.
    loss: the mean cross-entropy over the training set, in nats, at which to stop (see
      `learn_to_loss`); None: stop as the config says.

  Returns:
    A Network.

  Raises:
    BadInput: for an unusable config or data, if training diverges, or if it does not reach
      the loss.
    train.Interrupted: after SIGTERM or SIGINT, with the state saved.
  """
  config_lib.validate(config)
  loading.check_data(config, dataset)
  name = digest(config, dataset) + ('' if loss is None else f'-{loss:g}')
  workdir = pathlib.Path(folder).absolute() / name
  workdir.mkdir(parents=True, exist_ok=True)
  with workdirs.only_writer(workdir):
    files.write_json(workdir / 'config.json', config.to_dict())
    initial = jax.device_get(compiled.build(config, dataset)[0].params)
    if loss is None:
      started = time.monotonic()
      state, _, status = loop.learn(config, dataset, workdir, started, no_progress)
    else:
      state, status = learn_to_loss(config, dataset, workdir, loss)
  if status == 'diverged':
    raise BadInput(
      f'Training diverged at step {int(state.step):,}; use a smaller '
      'optimizer.learning_rate.'
    )
  params, batch_stats = jax.device_get((state.params, state.batch_stats))
  return Network(config, dataset, initial, params, batch_stats, int(state.step))


def learn_to_loss(
  config: config_dict.ConfigDict, dataset: Dataset, workdir: pathlib.Path, target: float
) -> tuple[sgd.TrainState, str]:
  """Trains until the loss over the training set is at most `target`, and only just.

  Trains whole epochs. The first one to end at or below the target is repeated from its
  start, one step at a time, up to the first step at or below the target. If that step
  overshoots by more than TOLERANCE, it is shortened.

  Args:
    config, dataset: as for `train_network`.
    workdir: an existing folder, for checkpoints; one at or below the target is final.
    target: the loss, above 0.

  Returns:
    (state, status): the final TrainState, and 'complete' or 'diverged'.

  Raises:
    BadInput: if config.num_epochs are not enough, or the loss is at most `target` already.
    train.Interrupted: after SIGTERM or SIGINT, with the state saved.
  """
  with (
    signals.stop_signals() as received,
    compiled.matmul_precision(config),
    checkpoint.open_manager(workdir) as manager,
  ):
    state, train_to, _, examine = compiled.build(config, dataset)

    def measure():
      return float(np.mean(examine(state).loss, dtype=float))

    state, saved = checkpoint.restore(manager, state), time.monotonic()
    epoch = len(state.losses)  # in steps
    last_step = epoch * config.num_epochs
    loss, before = measure(), None
    if loss <= target and not int(state.step):
      raise BadInput(
        f'The training loss is {loss:.4g} before the first step, at or below {target:g} '
        'already; use a smaller loss.'
      )
    while loss > target and int(state.step) < last_step:
      stopping, age = received[:1], time.monotonic() - saved  # signals arrive at any time
      if stopping or loop.is_checkpoint_due(config, int(state.step) // epoch, age):
        checkpoint.save(manager, state)
        saved = time.monotonic()
      if stopping:
        raise signals.Interrupted(*stopping)
      before = jax.tree.map(jnp.copy, state)  # training donates the state it is given
      state = train_to(state, int(state.step) + epoch)
      loss = measure()
    if not math.isfinite(loss):
      return state, 'diverged'
    if loss > target:
      raise BadInput(
        f'The training loss is {loss:.4g} after {config.num_epochs:,} epochs, still above '
        f'{target:g}; use more epochs or a larger loss.'
      )
    if before is not None:
      state, loss = before, math.inf
      while loss > target:
        start = jax.tree.map(jnp.copy, state.params)
        state = train_to(state, int(state.step) + 1)
        loss = measure()
      end, shares = state.params, [0.0, 1.0]  # of the last step: too short, long enough
      while not (1 - TOLERANCE) * target <= loss <= target:
        share = sum(shares) / 2
        params = jax.tree.map(lambda a, b, share=share: a + share * (b - a), start, end)
        state = state._replace(params=params)
        loss = measure()
        shares[loss <= target] = share
      checkpoint.save(manager, state)
    return state, 'complete'


def digest(config: config_dict.ConfigDict, dataset: Dataset) -> str:
  """Identifies the result of training on this data with this config."""
  fields = config_lib.flatten(config)
  del fields['dataset.data_dir']
  found = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8)
  for array in dataset:
    found.update(str(np.shape(array)).encode())
    found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()


def outputs(network: Network, images: np.ndarray) -> np.ndarray:
  """float32 (n, classes): the network's logits for uint8 images (n, h, w, c)."""
  config, dataset, _, params, batch_stats, _ = network
  return predict(config, dataset.num_classes, params, batch_stats, images)


def predict(
  config: config_dict.ConfigDict,
  num_classes: int,
  params: Any,
  batch_stats: Any,
  images: np.ndarray,
) -> np.ndarray:
  """float32 (n, classes): logits, computed as in evaluation during training.

  Args:
    config: the ConfigDict that the network was trained with.
    num_classes: of the data set.
    params, batch_stats: of the network.
    images: uint8 (n, h, w, c), or float32 on the same scale, as stored in the data set or,
      if it is streamed, as decoded from it.
  """
  model = models.create(config, num_classes)
  crop_shape = None
  if not config.dataset.streaming:
    height, width = images.shape[1:3]
    crop_shape = preprocess.crop_shape(height, width, config.dataset.crop_size)
  variables = {'params': params, 'batch_stats': batch_stats}
  with compiled.matmul_precision(config):
    return in_batches(functools.partial(_forward, model, crop_shape, variables), images)


def in_batches(function: Callable, inputs: np.ndarray) -> np.ndarray:
  """function(inputs), computed for BATCH of the n inputs at a time: (n, ...)."""
  starts = range(0, len(inputs), BATCH)
  return np.concatenate([np.asarray(function(inputs[i : i + BATCH])) for i in starts])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(model, crop_shape, variables, images):
  """Logits of images, cropped and standardized, or only scaled if crop_shape is None."""
  if crop_shape is None:
    inputs = preprocess.scale(images)
  else:
    inputs = preprocess.preprocess(images, crop_shape)
  return model.apply(variables, inputs, train=False)


def sign_fit(
  config: config_dict.ConfigDict, images: np.ndarray, folder: str | os.PathLike
) -> Callable:
  """fit(signs) for `theory.complexity.rademacher`: trains a two-class network on signs.

  The function class is x -> sign(f_1(x) - f_0(x)) over the config's model.

  Args:
    config, folder: as for `train_network`.
    images: uint8 (n, h, w, c), the sample.
  """

  def fit(signs):
    labels = (signs > 0).astype(np.int32)
    # A Rademacher complexity holds nothing out: the sample serves as the test set too.
    network = train_network(config, Dataset(images, labels, images, labels, 2), folder)
    return 2 * outputs(network, images).argmax(-1) - 1

  return fit
