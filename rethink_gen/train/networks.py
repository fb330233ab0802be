"""Networks trained by a program, and read instead of trained again."""

import functools
import hashlib
import json
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen import config as config_lib
from rethink_gen import files, models
from rethink_gen.data import preprocess
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress
from rethink_gen.train import checkpoint, compiled, loading, loop, signals, workdirs

BATCH = 1_000  # images whose outputs are computed at a time
TOLERANCE = 0.01  # how far below the training loss that was asked for, relative to it


class Network(NamedTuple):
  """A trained network of the package."""

  config: Any  # the ConfigDict it was trained with
  dataset: Dataset  # and the data, as they were given: with the labels it was to fit
  initial: Any  # parameters before the first step
  params: Any  # and after the last
  batch_stats: Any  # running statistics of batch normalization, or {}
  step: int  # of the last step


def train_network(config, dataset, folder, loss=None):
  """Trains a network on a Dataset; one that `folder` already holds is read instead.

  Args:
    config: a ConfigDict of the shape of `config.default`. What it says of the data set and
      its corruption is not looked at, but for the crop: `dataset` is what is learned.
    dataset: uint8 images and int32 labels, in memory.
    folder: where networks are kept, each in a folder named by a digest of its config, data
      and loss, so that nothing is trained twice and an interrupted training is resumed.
    loss: the mean cross-entropy over the training set, in nats, at which to stop, as
      `learn_to_loss` does; None: train config.num_epochs.

  Returns:
    A Network.

  Raises:
    BadInput: for a config or data that cannot be used, when training diverges, and when it
      does not come to the loss.
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
      f'Training diverged at step {int(state.step):,}; take a smaller '
      'optimizer.learning_rate.'
    )
  params, batch_stats = jax.device_get((state.params, state.batch_stats))
  return Network(config, dataset, initial, params, batch_stats, int(state.step))


def learn_to_loss(config, dataset, workdir, target):
  """Trains until the loss over the training set is at most `target`, and barely below it.

  Epochs are trained whole. The first that ends at or below the target is trained once more
  from its start, a step at a time, up to the first step that is at or below it. If that
  leads further below than TOLERANCE, the step is shortened.

  Args:
    config, dataset: as for `train_network`.
    workdir: an existing folder, for checkpoints. One at or below the target is the last.
    target: the loss, above 0.

  Returns:
    (state, status): the last State, and 'complete' or 'diverged'.

  Raises:
    BadInput: when config.num_epochs do not suffice, or nothing is to be trained.
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
        'already; take a smaller loss.'
      )
    while loss > target and int(state.step) < last_step:
      stopping, age = received[:1], time.monotonic() - saved  # a signal can come anywhere
      if stopping or loop.is_checkpoint_due(config, int(state.step) // epoch, age):
        checkpoint.save(manager, state)
        saved = time.monotonic()
      if stopping:
        raise signals.Interrupted(*stopping)
      before = jax.tree.map(jnp.copy, state)  # training uses up the state it is given
      state = train_to(state, int(state.step) + epoch)
      loss = measure()
    if not math.isfinite(loss):
      return state, 'diverged'
    if loss > target:
      raise BadInput(
        f'The training loss is {loss:.4g} after {config.num_epochs:,} epochs, not yet '
        f'{target:g}; take more epochs or a larger loss.'
      )
    if before is not None:
      state, loss = before, math.inf
      while loss > target:
        start = jax.tree.map(jnp.copy, state.params)
        state = train_to(state, int(state.step) + 1)
        loss = measure()
      end, shares = state.params, [0.0, 1.0]  # of the last step: too little, and enough
      while not (1 - TOLERANCE) * target <= loss <= target:
        share = sum(shares) / 2
        params = jax.tree.map(lambda a, b, share=share: a + share * (b - a), start, end)
        state = state._replace(params=params)
        loss = measure()
        shares[loss <= target] = share
      checkpoint.save(manager, state)
    return state, 'complete'


def digest(config, dataset):
  """A name for what training on this data with this config gives."""
  fields = config_lib.flatten(config)
  del fields['dataset.data_dir']
  found = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8)
  for array in dataset:
    found.update(str(np.shape(array)).encode())
    found.update(np.ascontiguousarray(array))
  return found.hexdigest()


def outputs(network, images):
  """float32 (n, classes): the network's outputs on uint8 images (n, h, w, c)."""
  config, dataset, _, params, batch_stats, _ = network
  return predict(config, dataset.num_classes, params, batch_stats, images)


def predict(config, num_classes, params, batch_stats, images):
  """float32 (n, classes): logits, as evaluation while training computes them.

  Args:
    config: the ConfigDict that the network was trained with.
    num_classes: of the data set.
    params, batch_stats: of the network.
    images: uint8 (n, h, w, c), or float32 on the same scale, as the data set has them; of
      a data set that is streamed, as they come out of it.
  """
  model = models.create(config, num_classes)
  crop_shape = None
  if not config.dataset.streaming:
    crop_shape = preprocess.crop_shape(*images.shape[1:3], config.dataset.crop_size)
  variables = {'params': params, 'batch_stats': batch_stats}
  with compiled.matmul_precision(config):
    return in_batches(functools.partial(_forward, model, crop_shape, variables), images)


def in_batches(function, inputs):
  """What function(inputs) gives, computed for BATCH of the n inputs at a time: (n, ...)."""
  starts = range(0, len(inputs), BATCH)
  return np.concatenate([np.asarray(function(inputs[i : i + BATCH])) for i in starts])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(model, crop_shape, variables, images):
  """Logits of images that are cropped and standardized, or without crop only scaled."""
  if crop_shape is None:
    inputs = preprocess.scale(images)
  else:
    inputs = preprocess.preprocess(images, crop_shape)
  return model.apply(variables, inputs, train=False)


def sign_fit(config, images, folder):
  """fit(signs) as `rademacher` wants it: a two-class network trained on the signs.

  The class is that of the functions x -> sign(f_1(x) - f_0(x)) of the config's model.

  Args:
    config, folder: as for `train_network`.
    images: uint8 (n, h, w, c), the sample.
  """

  def fit(signs):
    labels = (signs > 0).astype(np.int32)
    # Nothing is held out of a Rademacher complexity: the sample is the test set too.
    network = train_network(config, Dataset(images, labels, images, labels, 2), folder)
    return 2 * outputs(network, images).argmax(-1) - 1

  return fit
