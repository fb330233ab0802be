"""The grid of runs behind an artefact: what would run, running it, reading what has run.

Every run lies in WORKDIR/runs/CONFIG-DIGEST, where the digest is of all fields of its
config. So a run that two artefacts ask for is run once, a grid that was interrupted goes on
where it stopped, and what another machine has run is found.
"""

import functools
import hashlib
import importlib
import json
import pathlib
import statistics
import time
from typing import Any, NamedTuple

from rethink_gen import config as config_lib
from rethink_gen import metrics, train
from rethink_gen.data import sources

# Training examples in the data sets of the paper, so that a dry run reads none of them.
TRAINING_EXAMPLES = {'cifar10': 50_000, 'digits': 1_437}
# Seconds a training example, all in, on two CPU cores: (data set, model). Only until the
# folder has a finished run of the same kind, whose own pace then counts.
PACES = {
  ('cifar10', 'mlp'): 1 / 12_000,
  ('cifar10', 'alexnet'): 1 / 200,
  ('cifar10', 'inception'): 1 / 40,
  ('digits', 'mlp'): 1 / 200,
  ('digits', 'alexnet'): 1 / 100,
  ('digits', 'inception'): 1 / 50,
}


class Row(NamedTuple):
  """One line of an artefact."""

  name: str  # what --rows picks
  config: str  # configs/NAME.py
  changes: dict  # {field: value} on top of it
  paper: dict = {}  # {column: the paper's number}
  note: str = ''  # what the paper says in words, or what is different here


class Run(NamedTuple):
  """What a finished run has left."""

  config: dict
  summary: dict
  records: list  # its evaluations, as in metrics.jsonl
  losses: Any  # float32 (steps,)


def make_config(row, seed):
  """The ConfigDict of a row; the seed is that of the run and of the corruption."""
  config = importlib.import_module(f'configs.{row.config}').get_config()
  config.update_from_flattened_dict(row.changes)
  config.seed = config.corruption.seed = seed
  return config


def make_grid(rows, num_seeds):
  """{(row name, seed): ConfigDict}, in the order in which it runs."""
  return {
    (row.name, seed): make_config(row, seed) for row in rows for seed in range(num_seeds)
  }


def folder_name(row, config):
  """CONFIG-DIGEST: the same for the same config, wherever the data set lies."""
  fields = config_lib.flatten(config)
  del fields['dataset.data_dir']
  text = json.dumps(fields, sort_keys=True)
  return f'{row.config}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}'


def make_jobs(rows, num_seeds, workdir):
  """{folder: (label, ConfigDict)}: the distinct runs of a grid, in their order."""
  by_name = {row.name: row for row in rows}
  jobs = {}
  for (name, seed), config in make_grid(rows, num_seeds).items():
    folder = pathlib.Path(workdir, 'runs', folder_name(by_name[name], config))
    jobs.setdefault(folder, (f'{name}, seed {seed}' if num_seeds > 1 else name, config))
  return jobs


def check(jobs):
  """Raises BadInput for anything that would stop the grid later, before it starts."""
  data_sets = {}
  for folder, (_, config) in jobs.items():
    config_lib.validate(config)
    train.check_workdir(config, folder.absolute())
    data_sets[config.dataset.name] = config
  for config in data_sets.values():
    sources.load(config.dataset.name, config.dataset.data_dir, config.dataset.path)


def run_all(jobs):
  """Runs what is missing, a line for each; a run that diverges does not stop the rest.

  Raises:
    BadInput, train.Interrupted, OSError: as `train.run` does.
  """
  seconds = _finished_seconds(jobs)
  kept = len(seconds)
  if kept:
    print(f'{kept} of {len(jobs)} runs are finished already.', flush=True)
  width = len(str(len(jobs)))
  for number, (folder, (label, config)) in enumerate(jobs.items(), 1):
    if folder in seconds:
      continue
    title = f'{number:>{width}}/{len(jobs)}  {label}'
    started = time.monotonic()
    progress = functools.partial(metrics.progress, title=title)
    summary = train.run(config, folder, progress)
    seconds[folder] = summary['seconds']
    left = seconds_left(jobs, seconds)
    print(
      f'{title}  {describe(summary)}  {metrics.duration(time.monotonic() - started)}',
      f'about {metrics.duration(left)} left' if left else 'the last run',
      sep='  ',
      flush=True,
    )


def describe(summary):
  if summary['status'] == 'diverged':
    return f'diverged at step {summary["steps"]:,}'
  train_accuracy = metrics.percent(summary['train_accuracy'])
  return f'train {train_accuracy}  test {metrics.percent(summary["test_accuracy"])}'


def _finished_seconds(jobs):
  """{folder: seconds} of the jobs that have run to their end."""
  return {
    folder: json.loads((folder / 'summary.json').read_text())['seconds']
    for folder in jobs
    if (folder / 'summary.json').exists()
  }


def expected_seconds(config, jobs, seconds):
  """What a run will take: the examples it may see at most, times seconds an example.

  These are of the finished runs (those in `seconds`) of the same model on the same number
  of examples, else of the same model, else PACES. Runs that ended early, once they fitted,
  so make the estimate fall.
  """
  same_model = [
    (seconds[folder], other)
    for folder, (_, other) in jobs.items()
    if folder in seconds and kind(other) == kind(config)
  ]
  same_size = [found for found in same_model if num_train(found[1]) == num_train(config)]
  finished = same_size or same_model
  if not finished:
    return work(config) * PACES[config.dataset.name, config.model.name]
  took, saw = sum(s for s, _ in finished), sum(work(other) for _, other in finished)
  return work(config) * took / saw


def seconds_left(jobs, seconds):
  return sum(
    expected_seconds(config, jobs, seconds)
    for folder, (_, config) in jobs.items()
    if folder not in seconds
  )


def kind(config):
  return config.dataset.name, *config.model.values()


def num_train(config):
  return config.dataset.num_train or TRAINING_EXAMPLES[config.dataset.name]


def work(config):
  """The most training examples that a run may see."""
  return num_train(config) * config.num_epochs


def print_plan(jobs):
  """What would run, and about how long it would take."""
  finished = _finished_seconds(jobs)
  width = max(len(label) for label, _ in jobs.values())
  for folder, (label, config) in jobs.items():
    if folder in finished:
      cost = f'finished in {metrics.duration(finished[folder])}'
    else:
      cost = f'about {metrics.duration(expected_seconds(config, jobs, finished))}'
    epochs = f'{config.num_epochs} epochs of {num_train(config):,} examples'
    print(f'{label:<{width}}  at most {epochs}, {cost}, {folder.name}')
  total = metrics.duration(seconds_left(jobs, finished))
  basis = 'at the pace of the finished runs' if finished else 'on two CPU cores'
  print(
    f'{len(jobs)} runs, {len(finished)} finished; the rest takes about {total} {basis}.'
  )


def read(folder):
  """The Run in a folder, or None where none has finished."""
  folder = pathlib.Path(folder)
  if not (folder / 'summary.json').exists():
    return None
  return Run(
    config=json.loads((folder / 'config.json').read_text()),
    summary=json.loads((folder / 'summary.json').read_text()),
    records=metrics.read_records(folder),
    losses=metrics.read_losses(folder),
  )


def collect(rows, num_seeds, workdir):
  """{(row name, seed): Run} of all that has finished."""
  by_name = {row.name: row for row in rows}
  found = {}
  for (name, seed), config in make_grid(rows, num_seeds).items():
    run = read(pathlib.Path(workdir, 'runs', folder_name(by_name[name], config)))
    if run is not None:
      found[name, seed] = run
  return found


def make_entries(artifact, rows, runs):
  """One dict a row, as in results.json: the paper's numbers, ours, the difference.

  `ours` is the mean over the seeds that ran to their end, `std` their standard deviation
  (None with one seed). A row without any has no numbers, and its status says why.
  """
  entries = []
  for row in rows:
    mine = {seed: run for (name, seed), run in runs.items() if name == row.name}
    complete = [s for s, run in mine.items() if run.summary['status'] == 'complete']
    measured = [artifact.measure(runs, row.name, seed) for seed in complete]
    ours, deviation = {}, {}
    for column in artifact.COLUMNS:
      values = [v for m in measured if (v := m.get(column)) is not None]
      # A mean over some of the seeds alone would be of those that did well.
      whole = values and len(values) == len(mine)
      ours[column] = statistics.mean(values) if whole else None
      deviation[column] = statistics.stdev(values) if whole and len(values) > 1 else None
    diverged = len(mine) - len(complete)
    status = 'not run' if not mine else 'complete'
    if diverged:
      status = f'{diverged} of {len(mine)} diverged' if len(mine) > 1 else 'diverged'
    entries.append(
      {
        'name': row.name,
        'status': status,
        'paper': row.paper,
        'ours': ours,
        'difference': {
          column: ours[column] - value
          for column, value in row.paper.items()
          if ours[column] is not None
        },
        'std': deviation,
        'note': row.note,
        'seeds': sorted(mine),
        'seconds': sum(run.summary['seconds'] for run in mine.values()),
        'device': ', '.join(sorted({run.summary['device'] for run in mine.values()})),
        'config': row.config,
        'changes': row.changes,
      }
    )
  return entries
