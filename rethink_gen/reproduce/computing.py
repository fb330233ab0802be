"""Rows that are computed: an artifact's own `compute(settings, folder, say)`.

What it returns goes into summary.json, in a folder like that of a training run. It may keep
what it has so far in that folder, and find it there after a kill.
"""

import time

import jax

from rethink_gen import files
from rethink_gen.train import summaries, workdirs


def make_settings(row, seed):
  """All that decides the result, as plain JSON."""
  return row.changes | {'seed': seed}


def check(job, folder):
  """Raises BadInput where the computation would."""
  workdirs.check_folder(folder.absolute())
  job.artifact.check(job.settings)


def run(job, folder, title):
  """The summary of the computation.

  Raises:
    BadInput: as the artifact's `compute` does, or when another process is at work here.
    OSError: when the folder cannot be written.
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


def group(job, runs_at_once):
  """(key, most) as of `training.group`: each by itself."""
  del job, runs_at_once
  return None, 1


def describe(summary):
  del summary  # says little in a few words; the table will say it
  return 'computed'


def plan(job):
  return ', '.join(f'{name} {value}' for name, value in job.settings.items())


def expected_seconds(job, jobs, seconds):
  """What the artifact expects of it, times what the finished ones took of their own.

  These are the jobs of the same artifact in `seconds`; before the first, the artifact's
  own word for two CPU cores counts.
  """
  finished = [
    (seconds[folder], job.artifact.expected_seconds(other.settings))
    for folder, other in jobs.items()
    if folder in seconds and other.artifact is job.artifact
  ]
  took, expected = (sum(column) for column in zip(*finished or [(1, 1)], strict=True))
  return job.artifact.expected_seconds(job.settings) * took / expected
