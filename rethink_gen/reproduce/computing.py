"""Rows that are computed by the artifact's own `compute(settings, folder, say)`.

The result goes into summary.json, in a folder like that of a training run. The computation
may store its progress in that folder and resume from it after a kill.
"""

import pathlib
import time

import jax

from rethink_gen import files
from rethink_gen.reporting.artifacts import Row
from rethink_gen.train import summaries, workdirs


def make_settings(row: Row, seed: int) -> dict:
  """Everything that determines the result, as plain JSON."""
  return row.changes | {'seed': seed}


def check(job, folder: pathlib.Path) -> None:
  """Raises BadInput for settings that `run` would reject."""
  workdirs.check_folder(folder.absolute())
  job.artifact.check(job.settings)


def run(job, folder: pathlib.Path, title: str) -> dict:
  """Runs the computation and returns its summary.

  Raises:
    BadInput: as the artifact's `compute` does, or if another process is using the folder.
    OSError: if the folder cannot be written.
  """
  started = time.monotonic()
  folder.mkdir(parents=True, exist_ok=True)
  with workdirs.only_writer(folder):
    files.write_json(folder / 'config.json', job.settings)
    result = job.artifact.compute(
      job.settings, folder, lambda line: print(f'{title}  {line}', flush=True)
    )
    summary = {
      'status': 'complete',
      'seconds': time.monotonic() - started,
      'device': summaries.describe_device(),
      'jax_version': jax.__version__,
    } | result
    files.write_json(folder / 'summary.json', summary)
  return summary


def group(job, runs_at_once: int | None) -> tuple[None, int]:
  """(key, most) as in `training.group`: computed rows run one at a time."""
  del job, runs_at_once
  return None, 1


def describe(summary: dict) -> str:
  del summary  # the table has the numbers
  return 'computed'


def plan(job) -> str:
  return ', '.join(f'{name} {value}' for name, value in job.settings.items())


def expected_seconds(job, jobs: dict, seconds: dict[pathlib.Path, float]) -> float:
  """The artifact's estimate, scaled by actual over estimated time of its finished jobs.

  Finished jobs are those of the same artifact in `seconds`; before the first, the estimate
  for two CPU cores is used as it is.
  """
  finished = [
    (seconds[folder], job.artifact.expected_seconds(other.settings))
    for folder, other in jobs.items()
    if folder in seconds and other.artifact is job.artifact
  ]
  took, expected = (sum(column) for column in zip(*finished or [(1, 1)], strict=True))
  return job.artifact.expected_seconds(job.settings) * took / expected
