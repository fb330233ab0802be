"""Runs the trainings of an audit, each in its own folder."""

import contextlib
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rethink_gen import files
from rethink_gen.audit import adapters, estimators, randomizations
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.text import format_duration, format_percent
from rethink_gen.train import compiled, loop, metrics, networks, summaries
from rethink_gen.train.sgd import TrainState


class Training(NamedTuple):
  """One training, as stored in its folder."""

  summary: dict  # from `summaries.summarize`; only status and reason if it failed
  records: list[dict]  # the evaluations; empty for an estimator
  predictions: np.ndarray | None  # int64 (m,), test set; for random signs, training set


def run_all(
  learner: adapters.Learner,
  dataset: Dataset,
  setups: list[randomizations.Setup],
  seeds: int,
  workdir: pathlib.Path,
  progress: Callable,
) -> dict[str, list[Training]]:
  """{setup name: [Training of each seed]}; finished trainings are not repeated.

  A failed fit gives a Training with the status failed, which is not stored in the folder;
  if it is the first of all, BadInput is raised.
  """
  program = learner.program
  steps = program.steps_per_epoch * learner.config.num_epochs if program else 1
  jobs = [(setup, seed) for seed in range(seeds) for setup in setups]
  folders = [workdir / 'runs' / setup.name / f'seed_{seed}' for setup, seed in jobs]
  runs = {setup.name: [] for setup in setups}
  first = sum((folder / 'summary.json').exists() for folder in folders)
  with progress(len(jobs) * steps, first * steps) as (update, say):
    done = first
    for (setup, seed), folder in zip(jobs, folders, strict=True):
      new = not (folder / 'summary.json').exists()
      if new:
        folder.mkdir(parents=True, exist_ok=True)
        shown = _part(update, done * steps, f'{setup.name}, seed {seed}')
        done += 1
        try:
          train(learner, dataset, setup, seed, folder, shown)
        except BadInput as error:
          if not any(folder.iterdir()):
            folder.rmdir()
          if not any(runs.values()):
            raise
          found = Training({'status': 'failed', 'reason': str(error)}, [], None)
      if not new or folder.exists():
        found = read_run(folder)
      runs[setup.name].append(found)
      if new:
        say(f'{done}/{len(jobs)}  {_line(setup, seed, found)}', done * steps)
  return runs


def _line(setup, seed, run):
  summary = run.summary
  if summary['status'] == 'failed':
    return f'{setup.name:<16}  seed {seed}  failed: {summary["reason"]}'
  line = f'{setup.name:<16}  seed {seed}  {format_duration(summary["seconds"]):>6}'
  if summary['status'] == 'diverged':
    return f'{line}  diverged'
  accuracy = format_percent(summary['train_accuracy'])
  return f'{line}  train {accuracy}  test {format_percent(summary["test_accuracy"])}'


def _part(update, done, description):
  """The progress of one training within that of all; its own lines are not shown."""

  @contextlib.contextmanager
  def progress(*_):
    def show(step, _, loss, accuracy):
      update(done + step, description, loss, accuracy)

    yield show, lambda *_: None

  return progress


def read_run(folder: pathlib.Path) -> Training:
  """The Training stored in a folder."""
  try:
    summary = json.loads((folder / 'summary.json').read_text())
    predictions = None
    if summary['status'] != 'diverged':
      predictions = np.load(folder / 'predictions.npy')
  except (OSError, ValueError, EOFError) as error:
    raise BadInput(
      f'The run in {folder} is damaged; delete this folder to run it again.'
    ) from error
  return Training(summary, metrics.read_records(folder), predictions)


def train(
  learner: adapters.Learner,
  dataset: Dataset,
  setup: randomizations.Setup,
  seed: int,
  folder: pathlib.Path,
  progress: Callable,
) -> None:
  """Trains once, and stores summary.json and predictions.npy, but no parameters."""
  started = time.monotonic()
  data = randomizations.randomize(dataset, setup, seed)
  changed = float((data.y_train != dataset.y_train).mean())
  config = learner.config.copy_and_resolve_references()
  is_signs = setup.mode == 'random_signs'
  config.update({'seed': seed})
  config.corruption.update({'mode': setup.mode, 'seed': seed})
  config.corruption.label_noise = setup.label_noise
  config.dataset.name, config.model.name = 'audit', learner.name
  looked_at = data.x_train if is_signs else data.x_test
  if is_signs:
    config.stop_at_train_accuracy = 1.0  # the goal is the supremum, not a threshold
  if learner.program:
    outcome = loop.learn(config, data, folder, started, progress, learner.program)
    summary = summaries.summarize(config, data, changed, *outcome)
    if summary['status'] == 'complete':
      logits = compute_logits(learner, outcome[0], looked_at)
      predictions = (logits[:, :2] if is_signs else logits).argmax(-1)
  else:
    classes = 2 if is_signs else data.num_classes
    fitted = estimators.fit(learner.estimator, data.x_train, data.y_train, seed)
    found = [estimators.predict(fitted, x, classes) for x in (data.x_train, data.x_test)]
    predictions = found[0] if is_signs else found[1]
    summary = summarize_estimator(data, setup, changed, found, seed, started)
  if summary['status'] == 'complete':
    np.save(folder / 'predictions.npy', predictions)
  files.write_json(folder / 'summary.json', summary)  # last: marks completion
  shutil.rmtree(folder / 'checkpoints', ignore_errors=True)


def compute_logits(
  learner: adapters.Learner, state: TrainState, inputs: np.ndarray
) -> np.ndarray:
  """float32 (n, classes): logits of a TrainState."""
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  forward = functools.partial(adapters.forward, learner.program, variables)
  with compiled.matmul_precision(learner.config):
    return networks.in_batches(forward, inputs)


def summarize_estimator(
  data: Dataset,
  setup: randomizations.Setup,
  changed: float,
  predictions: list[np.ndarray],
  seed: int,
  started: float,
) -> dict:
  """The fields of `summaries.summarize` that apply to an estimator.

  predictions are those for the training and the test examples.
  """
  train_accuracy, test_accuracy = (
    float((own == labels).mean())
    for own, labels in zip(predictions, (data.y_train, data.y_test), strict=True)
  )
  return {
    'status': 'complete',
    'corruption': setup.mode,
    'label_noise': setup.label_noise,
    'labels_changed': changed,
    'train_accuracy': train_accuracy,
    'test_accuracy': test_accuracy,
    'steps_to_fit': None,
    'num_params': None,
    'seconds': time.monotonic() - started,
    'device': summaries.describe_device(),
    'seed': seed,
  }
