"""Rows that are training runs: a modified named config, trained by `rethink_gen.train`."""

import functools
import pathlib

import jax
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.data import sources
from rethink_gen.progress import progress_bar
from rethink_gen.reporting.artifacts import Row
from rethink_gen.text import format_percent
from rethink_gen.train import loading, vmapped, workdirs
from rethink_gen.train import summaries as summaries_lib

RUNS_AT_ONCE = 16

# {(data set, model): total seconds per training example on two CPU cores}. Used until the
# folder has a finished run of the same kind to estimate from.
PACES = {
  ('cifar10', 'mlp'): 1 / 12_000,
  ('cifar10', 'alexnet'): 1 / 600,
  ('cifar10', 'inception'): 1 / 80,
  ('cifar10', 'cnn'): 1 / 2_500,
  ('digits', 'mlp'): 1 / 400,
  ('digits', 'alexnet'): 1 / 200,
  ('digits', 'inception'): 1 / 50,
  ('generated_images', 'inception_v3'): 1 / 5,
  ('imagenet2012', 'inception_v3'): 1.0,
}
UNKNOWN_PACE = 1 / 500  # of any other pair, such as a user's own model


def make_settings(row: Row, seed: int) -> config_dict.ConfigDict:
  """The ConfigDict of a row; the seed is used for the run and for the corruption."""
  config = config_lib.named(row.config)
  config.update_from_flattened_dict(row.changes)
  config.seed = config.corruption.seed = seed
  return config


def check(job, folder: pathlib.Path) -> None:
  """Raises BadInput where `run` would."""
  config = job.settings
  config_lib.validate(config)
  workdirs.check_workdir(config, folder.absolute())
  if config.dataset.streaming:
    loading.load(config)  # opens it without decoding anything
  else:
    _load_once(config.dataset.name, config.dataset.data_dir, config.dataset.path)


_load_once = functools.cache(lambda *data_set: bool(sources.load(*data_set)))


def run(job, folder: pathlib.Path, title: str) -> dict:
  """Trains and returns the summary; raises what `train.run` raises."""
  return train.run(job.settings, folder, functools.partial(progress_bar, title=title))


def run_together(jobs: dict, title: str) -> dict[pathlib.Path, dict]:
  """{folder: summary} of a group of jobs; raises what `vmapped.run` raises."""
  configs = {folder.absolute(): job.settings for folder, job in jobs.items()}
  progress = functools.partial(progress_bar, title=title)
  summaries = vmapped.run(configs, progress)
  return {folder: summaries[folder.absolute()] for folder in jobs}


def group(job, runs_at_once: int | None) -> tuple[tuple | None, int]:
  """(key, most): runs with the same key can train together, at most `most` at a time.

  Args:
    job: a Job of the grid.
    runs_at_once: the user's choice, or None: MLPs then train together on an accelerator,
      which one MLP leaves idle; one run keeps two CPU cores busy (`benchmarks.growth`).
  """
  config = job.settings
  if vmapped.obstacle(config):
    return None, 1
  pays = config.model.name == 'mlp' and jax.default_backend() != 'cpu'
  most = runs_at_once or (RUNS_AT_ONCE if pays else 1)
  return tuple(vmapped.shared(config).items()), most


def describe(summary: dict) -> str:
  """A finished run in a few words."""
  if summary['status'] == 'diverged':
    return f'diverged at step {summary["steps"]:,}'
  train_accuracy = format_percent(summary['train_accuracy'])
  said = f'train {train_accuracy}  test {format_percent(summary["test_accuracy"])}'
  dead = summary.get('dead_layers')
  return f'{said}  dead: {summaries_lib.list_layers(dead)}' if dead else said


def plan(job) -> str:
  config = job.settings
  return f'at most {config.num_epochs} epochs of {num_train(config):,} examples'


def expected_seconds(job, jobs: dict, seconds: dict[pathlib.Path, float]) -> float:
  """Estimated seconds: the most examples the run may see, times seconds per example.

  Seconds per example come from finished runs (those in `seconds`) of the same model on the
  same number of examples, else of the same model, else from PACES. Runs that ended early
  because they fitted therefore lower the estimate.
  """
  config = job.settings
  same_model = [
    (seconds[folder], other.settings)
    for folder, other in jobs.items()
    if folder in seconds and other.kind is job.kind and _kind(other) == _kind(job)
  ]
  same_size = [found for found in same_model if num_train(found[1]) == num_train(config)]
  finished = same_size or same_model
  if not finished:
    return work(config) * PACES.get((config.dataset.name, config.model.name), UNKNOWN_PACE)
  took, saw = sum(s for s, _ in finished), sum(work(other) for _, other in finished)
  return work(config) * took / saw


def _kind(job):
  return job.settings.dataset.name, *job.settings.model.values()


def num_train(config: config_dict.ConfigDict) -> int:
  return config.dataset.num_train or sources.SIZES[config.dataset.name][0]


def work(config: config_dict.ConfigDict) -> int:
  """The maximum number of training examples that a run may see."""
  return num_train(config) * config.num_epochs
