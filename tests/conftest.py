"""What all tests share: a cache of their own, small data, a way to run the program."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='session', autouse=True)
def cache(tmp_path_factory):
  """A cache folder for the whole session, so that tests leave the user's alone."""
  os.environ['RETHINK_GEN_CACHE'] = str(tmp_path_factory.mktemp('cache'))


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


@pytest.fixture(scope='session')
def main():
  """main(*arguments, devices=1): the program in a process of its own, completed."""

  def run(*arguments, devices=1, **options):
    command = [sys.executable, '-m', 'rethink_gen.main', *arguments]
    flags = f'--xla_force_host_platform_device_count={devices}'
    return subprocess.run(
      command,
      cwd=ROOT,
      env=os.environ | {'XLA_FLAGS': flags},
      capture_output=True,
      text=True,
      timeout=300,
      **options,
    )

  return run
