"""What all tests share: a cache of their own, small data, a way to run the program."""

import json
import os
import pathlib

import forked
import jax
import numpy as np
import pytest
from helpers import ROOT, environment

os.environ.update(environment())  # before JAX starts its backend

# Fixtures that start programs, each of which imports JAX and compiles.
PROGRAMS = {'main', 'reproduce', 'start', 'hosts', 'slurm', 'shell', 'follow', 'pages'}
SLOW = PROGRAMS | {'cifar10'}


# The files that take a minute or more, the longest first.
LONG = (
  *('reproduce/test_command', 'train/test_multihost', 'audit/test_testing'),
  *('test_notebooks', 'test_slurm', 'test_ahead', 'train/test_loop'),
)


def pytest_collection_modifyitems(items):
  """Marks the tests that start programs, or decode CIFAR-10, as slow; long files go first.

  Started last, a long file would keep one process busy while the others have nothing to do.
  """
  for item in items:
    if SLOW & set(item.fixturenames):
      item.add_marker(pytest.mark.slow)
  names = [f'{name}.py' for name in LONG]
  ranks = {ROOT / 'tests' / name: rank for rank, name in enumerate(names)}
  items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope='session', autouse=True)
def cache(tmp_path_factory):
  """A cache folder for the whole session, so that tests leave the user's alone.

  Those that run at the same time share it, and what a test or a program has compiled no
  other compiles again.
  """
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    folder = folder.parent
  os.environ['RETHINK_GEN_CACHE'] = str(folder / 'cache')
  jax.config.update('jax_compilation_cache_dir', str(folder / 'cache/xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


@pytest.fixture(scope='session')
def cifar10():
  """Real CIFAR-10, or a skip that says why."""
  folder = os.environ.get('TFDS_DATA_DIR')
  if not folder or not list(pathlib.Path(folder).glob('cifar10/*/dataset_info.json')):
    pytest.skip('needs CIFAR-10: set TFDS_DATA_DIR to a folder that holds it')
  from rethink_gen.data import sources

  return sources.load('cifar10')


@pytest.fixture(scope='session')
def images():
  """uint8 (16, 32, 32, 3) of noise."""
  return np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)


def complete(module):
  def run(*arguments, devices=1, timeout=300):
    return forked.complete((module, *arguments), environment(devices), ROOT, timeout)

  return run


@pytest.fixture(scope='session')
def main():
  """main(*arguments, devices=1): one run in a process of its own, completed."""
  return complete('rethink_gen.main')


@pytest.fixture(scope='session')
def reproduce():
  """reproduce(*arguments, devices=1): the same for an artifact."""
  return complete('rethink_gen.reproduce')


@pytest.fixture
def start():
  """start(module, *arguments, devices=1): a program in a process of its own, running."""
  processes = []

  def run(module, *arguments, devices=1, **variables):
    words = (module, *arguments)
    process = forked.Program(words, environment(devices) | variables, ROOT)
    processes.append(process)
    return process

  yield run
  for process in processes:
    process.kill()
    process.communicate()


@pytest.fixture(scope='session')
def figures():
  """figures(workdir): (summary, records, state and losses), less what the clock decides.

  The last are a digest of the last checkpoint's bits and the losses of all steps.
  """

  def read(workdir):
    summary = json.loads((workdir / 'summary.json').read_text())
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for line in (summary, *records):
      for name in ('seconds', 'examples_per_second'):
        del line[name]
    digest = workdir / 'checkpoints' / str(summary['steps']) / 'digest/metadata'
    losses = np.load(workdir / 'losses.npy').tolist()
    return summary, records, (json.loads(digest.read_text()), losses)

  return read
