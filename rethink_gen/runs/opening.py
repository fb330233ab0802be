"""Opens a run: its config, curves, parameters, data and predictions."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import flax
import jax
import numpy as np
import pandas as pd
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import models, paths
from rethink_gen.data import preprocess, sources
from rethink_gen.data.sources import Dataset
from rethink_gen.data.streaming import Source
from rethink_gen.errors import BadInput
from rethink_gen.train import (
  checkpoint,
  compiled,
  example_history,
  loading,
  metrics,
  networks,
  optimizers,
  sgd,
  workdirs,
)


class Run(NamedTuple):
  """A snapshot of the run stored in a folder.

  Attributes:
    folder: pathlib.Path.
    config: ConfigDict; set its dataset.data_dir or dataset.path if the data are elsewhere
      on this machine.
    metrics: DataFrame with one row per evaluation; empty before the first.
    losses: float32 (steps,), the mean loss of every batch; NaN where it was lost.
    summary: dict, from `train.summaries.summarize`, or None if the run is not finished.
    step: step of the checkpoint with these parameters; 0 if there is none.
    params: nested dicts of float32 arrays, or None before the first checkpoint.
    batch_stats: the same for running statistics of batch normalization; {} without it.
  """

  folder: pathlib.Path
  config: config_dict.ConfigDict
  metrics: pd.DataFrame
  losses: np.ndarray
  summary: dict | None
  step: int
  params: Any
  batch_stats: Any

  def __repr__(self):
    status = self.summary['status'] if self.summary else 'unfinished'
    return f'Run({str(self.folder)!r}, step {self.step:,}, {status})'

  @property
  def num_classes(self) -> int:
    check_has_params(self)
    return len(self.params[models.linear_layers(self.params)[-1]]['bias'])

  def dataset(self) -> Dataset | Source:
    """The data that the run trained on, corrupted: a Dataset, or a streaming.Source.

    Raises:
      BadInput: the data are not where `config.dataset` says, or have changed.
    """
    workdirs.check_data(self.config, self.folder)
    return loading.load(self.config)[0]

  @property
  def examples(self) -> pd.DataFrame | None:
    """The history of every training example: a DataFrame, or None if not recorded.

    Its columns are those of `train.example_history.summarize`, plus `label`, the label that
    was trained on, if the data are on this machine. Read from disk on every access.

    Raises:
      BadInput: examples.npz is damaged, or belongs to other data.
    """
    found = example_history.read(self.folder)
    if found is None:
      return None
    frame = pd.DataFrame(found)
    try:
      labels = self.dataset().y_train  # type: ignore[union-attr]  # not streamed
    except BadInput:
      return frame
    if len(labels) != len(frame):
      reason = f'it has {len(frame):,} examples, but the data have {len(labels):,}'
      raise _damaged(self.folder / example_history.EXAMPLES, reason)
    return frame.assign(label=labels)

  def initial_params(self) -> Any:
    """The parameters before the first step, recomputed from the seed as in training.

    Raises:
      BadInput: there is no checkpoint yet, or the size of the images is only known from
        data that are not on this machine.
    """
    model = models.create(self.config, self.num_classes)
    height, width, channels = self._image_shape()
    crop_shape = preprocess.crop_shape(height, width, self.config.dataset.crop_size)
    tx = optimizers.make_tx(self.config, optimizers.rates(self.config))
    initialize = sgd.make_initialize(model, tx, (*crop_shape, channels), steps_per_epoch=1)
    with compiled.matmul_precision(self.config):
      return jax.device_get(initialize(jax.random.key(self.config.seed)).params)

  def _image_shape(self):
    """(h, w, c) of the images as stored, or as streamed."""
    data = self.config.dataset
    if data.streaming:
      return data.crop_size, data.crop_size, 3
    if data.name in sources.SIZES:
      return sources.SIZES[data.name][2]
    return self.dataset().x_train.shape[1:]

  def predict(self, images: np.typing.ArrayLike) -> np.ndarray:
    """Logits of images, float32 (n, classes), computed as in evaluation during training.

    Args:
      images: uint8 (n, h, w, c), or float32 on the same scale, of the same size as those of
        the data set; if it is streamed, of the size of the network's input.

    Raises:
      BadInput: there is no checkpoint yet, or the images are of another kind or size.
    """
    num_classes, images = self.num_classes, np.asarray(images)
    fits = images.ndim == 4 and len(images) and images.dtype in (np.uint8, np.float32)
    sentence = (
      f'The images have the shape {images.shape} and are {images.dtype}, but they must be '
      f'uint8 (n, h, w, c), of the size that the run in {self.folder} was trained on.'
    )
    if not fits:
      raise BadInput(sentence)
    try:
      return networks.predict(
        self.config, num_classes, self.params, self.batch_stats, images
      )
    except (TypeError, ValueError, flax.errors.FlaxError) as error:  # wrong shapes
      raise BadInput(sentence) from error


def open(folder: str | os.PathLike) -> Run:
  """Opens the `Run` in a folder, without changing anything there.

  If the newest checkpoint is damaged, it is left in place, with a warning, and the one
  before it is read.

  Raises:
    BadInput: there is no run in the folder, or a part of it is damaged.
  """
  folder = pathlib.Path(paths.local(folder))
  config = read_config(folder)
  records, losses, summary = (
    read_records(folder),
    _read_losses(folder),
    read_summary(folder),
  )

  def complete(fields):
    tx = optimizers.make_tx(config, optimizers.rates(config))
    optimizer_state = jax.eval_shape(tx.init, fields['params'])
    return sgd.TrainState(**fields | {'opt_state': optimizer_state})

  state = checkpoint.read_newest(folder, complete)
  step, params, batch_stats = 0, None, None
  if state is not None:
    step, params, batch_stats = int(state.step), state.params, state.batch_stats
  return Run(
    folder, config, pd.DataFrame(records), losses, summary, step, params, batch_stats
  )


def read_config(folder: pathlib.Path) -> config_dict.ConfigDict:
  """The ConfigDict of the run in a folder, with fields that were added later filled in."""
  if not (folder / 'config.json').is_file():
    raise BadInput(
      f'{folder} is not the folder of a run: it has no config.json; give one made '
      'by rethink_gen.main or rethink_gen.reproduce.'
    )
  stored = read_json(folder / 'config.json')
  if not is_training(stored):
    raise BadInput(
      f'{folder}/config.json is not that of a training run; give a folder made by '
      'rethink_gen.main.'
    )
  config = config_lib.default()
  unknown = config_lib.flatten(stored).keys() - config_lib.flatten(config).keys()
  if unknown:
    raise BadInput(
      f'{folder}/config.json has fields that this version of rethink_gen does not know '
      f'({", ".join(sorted(unknown))}); use the version that made the run.'
    )
  try:
    config.update_from_flattened_dict(config_lib.BEFORE | config_lib.flatten(stored))
  except (TypeError, ValueError) as error:
    raise _damaged(folder / 'config.json', error) from None
  return config


def read_json(path: pathlib.Path) -> dict:
  """The object in a JSON file; raises BadInput if there is none."""
  try:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
      raise ValueError('it is not an object')
  except ValueError as error:  # from JSON or Unicode
    raise _damaged(path, error) from None
  return content


def is_training(stored: dict) -> bool:
  """Whether a config.json is that of a training run, not of an artifact's own results."""
  return all(isinstance(stored.get(part), dict) for part in ('model', 'optimizer'))


def _damaged(path, error):
  reason = ' '.join(str(error).split())[:100]
  return BadInput(f'{path} is damaged ({reason}); copy the run again from where it ran.')


def read_records(folder: pathlib.Path) -> list[dict]:
  path = folder / 'metrics.jsonl'
  try:
    records = metrics.read_records(folder)
  except ValueError as error:  # not text
    raise _damaged(path, error) from None
  if not all(isinstance(record, dict) and 'step' in record for record in records):
    raise _damaged(path, 'a line is not an evaluation')
  return records


def _read_losses(folder):
  path = folder / 'losses.npy'
  if not path.exists():
    return np.zeros(0, np.float32)
  try:
    return np.load(path, allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise _damaged(path, error) from None


def read_summary(folder: pathlib.Path) -> dict | None:
  path = folder / 'summary.json'
  if not path.exists():
    return None
  summary = read_json(path)
  if 'status' not in summary:
    raise _damaged(path, 'it has no status')
  return summary


def check_has_params(run: Run) -> None:
  if run.params is None:
    raise BadInput(
      f'The run in {run.folder} has no checkpoint, so its parameters are unknown; it '
      'stopped before the first one, or was copied without it.'
    )
