"""The grid of runs behind an artifact: planning, running and reading its runs.

Every run is stored in WORKDIR/runs/NAME-DIGEST, where the digest covers all its settings.
So a run that two artifacts need is run once, an interrupted grid resumes where it stopped,
and runs from another machine are found.
"""

import hashlib
import json
import os
import pathlib
import statistics
import time
from typing import Any, NamedTuple

from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen.reporting.artifacts import Artifact, Row, Run, Runs
from rethink_gen.reproduce import computing, training
from rethink_gen.text import format_duration
from rethink_gen.train import example_history, metrics


class Job(NamedTuple):
  """One run of a grid."""

  label: str  # for the terminal
  settings: Any  # ConfigDict of a training run, or dict of a computed row
  artifact: Any  # the module that the row belongs to
  kind: Any  # the module training or computing


def num_seeds(artifact: Artifact, scale: str) -> int:
  """How many seeds an artifact's claim needs at a scale; 1 unless it specifies more."""
  return getattr(artifact, 'SEEDS', {}).get(scale, 1)


def kind_of(artifact: Artifact) -> Any:
  return computing if hasattr(artifact, 'compute') else training


def make_grid(
  artifact: Artifact, rows: list[Row], num_seeds: int, workdir: str | os.PathLike
) -> dict[tuple[str, int], tuple[pathlib.Path, Any]]:
  """{(row name, seed): (folder, settings)}, in the order of execution."""
  kind = kind_of(artifact)
  return {
    (row.name, seed): (pathlib.Path(workdir, 'runs', folder_name(row, settings)), settings)
    for row in rows
    for seed in range(num_seeds)
    for settings in [kind.make_settings(row, seed)]
  }


def folder_name(row: Row, settings: config_dict.ConfigDict | dict) -> str:
  """NAME-DIGEST: the same for the same settings, wherever the data set is stored.

  The digest covers only fields that differ from their defaults, so that finished runs are
  still found after a new field has been added to the config.
  """
  text = json.dumps(config_lib.changes(settings), sort_keys=True)
  return f'{row.config}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}'


def make_jobs(
  artifact: Artifact, rows: list[Row], num_seeds: int, workdir: str | os.PathLike
) -> dict[pathlib.Path, Job]:
  """{folder: Job}: the distinct runs of a grid, in order."""
  jobs = {}
  for (name, seed), (folder, settings) in make_grid(
    artifact, rows, num_seeds, workdir
  ).items():
    label = f'{name}, seed {seed}' if num_seeds > 1 else name
    jobs.setdefault(folder, Job(label, settings, artifact, kind_of(artifact)))
  return jobs


def check(jobs: dict[pathlib.Path, Job]) -> None:
  """Raises BadInput before the grid starts for anything that would stop it later."""
  for folder, job in jobs.items():
    job.kind.check(job, folder)


def run_all(jobs: dict[pathlib.Path, Job], runs_at_once: int | None = None) -> None:
  """Runs what is missing, printing a line for each; a diverged run does not stop the rest.

  Args:
    jobs: {folder: Job}, from `make_jobs`.
    runs_at_once: the maximum number of runs to train together; None: as many as is faster.

  Raises:
    BadInput, train.Interrupted, OSError: as the runs do.
  """
  seconds = _finished_seconds(jobs)
  if seconds:
    print(f'{len(seconds)} of {len(jobs)} runs are already finished.', flush=True)
  width = len(str(len(jobs)))
  titles = {
    folder: f'{number:>{width}}/{len(jobs)}  {job.label}'
    for number, (folder, job) in enumerate(jobs.items(), 1)
  }
  left = {folder: job for folder, job in jobs.items() if folder not in seconds}
  for group in make_groups(left, runs_at_once):
    started = time.monotonic()
    first, job = next(iter(group.items()))
    if len(group) == 1:
      summaries = {first: job.kind.run(job, first, titles[first])}
    else:
      summaries = job.kind.run_together(group, f'{titles[first]} and {len(group) - 1} more')
    for folder, summary in summaries.items():
      seconds[folder] = _cost(summary)
      rest = seconds_left(jobs, seconds)
      print(
        f'{titles[folder]}  {job.kind.describe(summary)}',
        format_duration(time.monotonic() - started),
        f'about {format_duration(rest)} left' if rest else 'the last run',
        sep='  ',
        flush=True,
      )


def make_groups(
  jobs: dict[pathlib.Path, Job], runs_at_once: int | None
) -> list[dict[pathlib.Path, Job]]:
  """[{folder: Job}, ...]: jobs that train together, ordered by the first of each group."""
  groups = {}
  for folder, job in jobs.items():
    key, most = job.kind.group(job, runs_at_once)
    group = groups.setdefault(key if most > 1 else folder, [{}])
    if len(group[-1]) == most:
      group.append({})
    group[-1][folder] = job
  return [part for group in groups.values() for part in group]


def _cost(summary):
  """Machine seconds of a run; runs trained together split the total evenly."""
  return summary['seconds'] / summary.get('runs_at_once', 1)


def _finished_seconds(jobs):
  """{folder: seconds} of the finished jobs."""
  return {
    folder: _cost(json.loads((folder / 'summary.json').read_text()))
    for folder in jobs
    if (folder / 'summary.json').exists()
  }


def seconds_left(
  jobs: dict[pathlib.Path, Job], seconds: dict[pathlib.Path, float]
) -> float:
  """Estimated seconds for the jobs that are not in `seconds`."""
  return sum(
    job.kind.expected_seconds(job, jobs, seconds)
    for folder, job in jobs.items()
    if folder not in seconds
  )


def print_plan(jobs: dict[pathlib.Path, Job]) -> None:
  """Prints what would run, and about how long it would take."""
  finished = _finished_seconds(jobs)
  width = max((len(job.label) for job in jobs.values()), default=0)
  for folder, job in jobs.items():
    if folder in finished:
      cost = f'finished in {format_duration(finished[folder])}'
    else:
      expected = job.kind.expected_seconds(job, jobs, finished)
      cost = f'about {format_duration(expected)}'
    print(f'{job.label:<{width}}  {cost}  {folder.name}  {job.kind.plan(job)}')
  total = format_duration(seconds_left(jobs, finished))
  basis = 'at the pace of the finished runs' if finished else 'on two CPU cores'
  print(
    f'{len(jobs)} runs, {len(finished)} finished; the rest takes about {total} {basis}.'
  )


def read(folder: str | os.PathLike) -> Run | None:
  """The Run in a folder, or None if it has not finished."""
  folder = pathlib.Path(folder)
  if not (folder / 'summary.json').exists():
    return None
  return Run(
    config=json.loads((folder / 'config.json').read_text()),
    summary=json.loads((folder / 'summary.json').read_text()),
    records=metrics.read_records(folder),
    losses=metrics.read_steps(folder, 'losses'),
    accuracies=metrics.read_steps(folder, 'accuracies'),
    examples=example_history.read(folder),
  )


def collect(
  artifact: Artifact, rows: list[Row], num_seeds: int, workdir: str | os.PathLike
) -> Runs:
  """{(row name, seed): Run} of all finished runs."""
  folders = make_grid(artifact, rows, num_seeds, workdir)
  runs = {key: read(folder) for key, (folder, _) in folders.items()}
  return {key: run for key, run in runs.items() if run is not None}


def make_entries(artifact: Artifact, rows: list[Row], runs: Runs) -> list[dict]:
  """One dict per row, as in results.json: the paper's numbers, ours, the difference.

  `ours` is the mean over seeds, or None unless every seed that was run has a number. `std`
  is their standard deviation (None with one seed), `values` the number of each seed that
  did not diverge. The status says why numbers are missing; `dead_layers` is that of
  `metrics.dead_layers`, over all seeds.
  """
  entries = []
  for row in rows:
    mine = {seed: run for (name, seed), run in runs.items() if name == row.name}
    complete = [s for s, run in mine.items() if run.summary['status'] == 'complete']
    measured = [artifact.measure(runs, row.name, seed) for seed in complete]
    ours, deviation, each = {}, {}, {}
    for column in artifact.COLUMNS:
      each[column] = dict(zip(complete, (m.get(column) for m in measured), strict=True))
      values = [v for v in each[column].values() if v is not None]
      # A mean over only some of the seeds would favor those that did well.
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
        'values': each,
        'note': row.note,
        'dead_layers': {
          layer: share
          for run in mine.values()
          for layer, share in run.summary.get('dead_layers', {}).items()
        },
        'seeds': sorted(mine),
        'seconds': sum(_cost(run.summary) for run in mine.values()),
        'device': _all_of('device', mine),
        'precision': _all_of('precision', mine),
        'config': row.config,
        'changes': row.changes,
      }
    )
  return entries


def _all_of(field, runs):
  """The distinct values of a summary field in {seed: Run}, such as 'float32'."""
  found = {run.summary[field] for run in runs.values() if field in run.summary}
  return ', '.join(sorted(found))
