"""What is compiled for TPUs that are not there: collectives, memory, what is refused.

Needs the TPU compiler: RETHINK_GEN_LIBTPU names a libtpu.so. It is not installed beside
JAX, which would then look for a TPU in every test. Programs are compiled in processes of
their own.
"""

import json
import os
import subprocess
import sys
import types

import pytest
from helpers import ROOT

from rethink_gen.estimate import ahead

COMPILER = os.environ.get('RETHINK_GEN_LIBTPU')
# Without the suite's own XLA_FLAGS: what is tested is what users compile.
ENVIRONMENT = os.environ | {'XLA_FLAGS': ''}
ENVIRONMENT |= {'TPU_LIBRARY_PATH': COMPILER} if COMPILER else {}
REASON = 'needs the TPU compiler: set RETHINK_GEN_LIBTPU to a libtpu.so'
needs_compiler = pytest.mark.skipif(not COMPILER, reason=REASON)
SCRIPT = """
import json, sys
import numpy as np
from rethink_gen import config as config_lib, sharding
from rethink_gen.data import sources
from rethink_gen.estimate import ahead, targets
target = targets.find_target('v5e:2x2')
for changes in json.loads(sys.argv[1]):
  config = config_lib.default()
  config.update_from_flattened_dict({'dataset.name': 'cifar10', 'batch_size': 64} | changes)
  def zeros(*shape, dtype=np.uint8):
    return np.broadcast_to(dtype(0), shape)
  shape = (config.dataset.crop_size,) * 2 if config.dataset.streaming else (32, 32)
  dataset = sources.Dataset(
    zeros(32_768, *shape, 3), zeros(32_768, dtype=np.int32),
    zeros(64, *shape, 3), zeros(64, dtype=np.int32), 10,
  )
  found = ahead.compile_training(config, dataset, target)
  print(json.dumps(found._asdict()), flush=True)
"""
SPREAD = """
import json
from benchmarks import spread
from rethink_gen import config as config_lib
from rethink_gen.estimate import counting, targets
target = targets.find_target('v5e:2x2')
config = config_lib.named('quickstart')
runs = spread.compile_runs(config, counting.describe_data(config), 8, target)
layout, kernel = spread.compile_kernel(5_000, 64, target)
found = {'runs': runs} | kernel
print(json.dumps({name: each.collectives for name, each in found.items()}))
"""
IMAGES = 32_768 * 32 * 32 * 3  # bytes
INCEPTION = {
  'model.name': 'inception',
  'model.modules': '16+16 16',
  'dataset.streaming': True,
  'dataset.crop_size': 32,
  'regularization.random_crop': True,
}


def compile_for_tpus(*changes):
  """The Compiled of each config, as a dict."""
  return run_script(SCRIPT, json.dumps(changes))


def run_script(*arguments):
  """The lines of JSON that a script prints."""
  done = subprocess.run(
    [sys.executable, '-c', *arguments],
    cwd=ROOT,
    env=ENVIRONMENT | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope='module')
def programs():
  """The epoch of an MLP at two batch sizes, and the streamed step of a narrow Inception."""
  if not COMPILER:
    pytest.skip(REASON)
  return dict(
    zip(
      ('mlp', 'large batch', 'inception'),
      compile_for_tpus({}, {'batch_size': 32_768}, INCEPTION),
      strict=True,
    )
  )


def kinds(program):
  return {kind for kind, _ in program['collectives']}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mlp', 'inception'])
def test_only_sums_travel_between_devices(programs, name):
  """Gradients and statistics are summed; neither images nor parameters are gathered."""
  assert kinds(programs[name]) == {'all-reduce'}


@pytest.mark.slow
def test_the_gradients_are_summed_once(programs):
  parameters = 28 * 28 * 3 * 512 + 512 + 512 * 10 + 10
  sizes = sorted(size for _, size in programs['mlp']['collectives'])
  # Besides them, the loss and the number of right answers.
  assert 4 * parameters <= sum(sizes) <= 4 * parameters + 64


@pytest.mark.slow
def test_batch_normalization_adds_two_sums_per_layer_at_most(programs):
  """Its mean and mean square forward, and their gradients backward, for 96+32+48 units."""
  units = 96 + 16 + 16 + 16
  weights = 9 * 3 * 96 + (96 * 16 + 9 * 96 * 16) + 9 * 32 * 16 + 48 * 10 + 10
  total = sum(size for _, size in programs['inception']['collectives'])
  gradients = 4 * (weights + units)
  assert gradients <= total <= gradients + 4 * 4 * units + 64


@pytest.mark.slow
def test_images_lie_on_the_devices_once(programs):
  program = programs['mlp']
  parameters = 4 * (28 * 28 * 3 * 512 + 512 + 512 * 10 + 10)
  held = IMAGES + 2 * parameters  # parameters and momentum
  assert held <= program['memory'] <= 1.2 * held + 16e6  # and the program


@pytest.mark.slow
def test_memory_grows_with_the_batch(programs):
  """By no more than the activations and inputs of the additional examples, in float32."""
  more = programs['large batch']['temporary'] - programs['mlp']['temporary']
  examples = (32_768 - 64) / 4
  assert 0 < more <= examples * 4 * (4 * 32 * 32 * 3 + 4 * 512)


@pytest.mark.slow
@needs_compiler
def test_what_is_spread_needs_no_exchange():
  """Runs at once and panels of a Gram matrix stay on their device; only a sum travels."""
  (found,) = run_script(SPREAD)
  total = found.pop('the sum over devices')
  assert set(found) == {'runs', 'a panel', 'its product'}
  assert not any(found.values())
  assert {kind for kind, _ in total} == {'all-reduce'}


@pytest.mark.slow
def test_the_compiler_estimates_cycles(programs):
  assert all(program['cycles'] > 10_000 for program in programs.values())
  assert programs['large batch']['cycles'] > programs['mlp']['cycles']


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('v9:2x2', 'must be a TPU slice (v4:'),
    ('v5e', 'must be a TPU slice'),
    ('h100:0', 'such as h100:8'),
    ('2*h100:8', 'such as h100:8'),
    ('v5e:3x5', 'v5e:3x5 is no topology of v5e' if COMPILER else 'needs the TPU compiler'),
  ],
)
def test_unknown_devices_are_refused_in_a_sentence(name, words):
  command = '-m rethink_gen.estimate --config=configs/quickstart.py'.split()
  done = subprocess.run(
    [sys.executable, *command, f'--compile_for={name}'],
    cwd=ROOT,
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stdout) == (2, '')
  error = done.stderr.splitlines()[-1]
  assert error.startswith('error: ')
  assert words in error


@pytest.mark.slow
@needs_compiler
def test_what_is_compiled_is_described():
  command = '-m rethink_gen.estimate --config=configs/quickstart.py'.split()
  done = subprocess.run(
    [sys.executable, *command, '--compile_for=v5e:2x2'],
    cwd=ROOT,
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'Compiled for v5e:2x2 (4 devices)' in done.stdout
  assert 'each step: ' in done.stdout


def test_operations_without_an_estimate_add_no_cycles():
  """The TPU compiler prints -1 as an unsigned number for some operations."""

  class Program:
    def as_text(self):
      config = 'backend_config={{"estimated_cycles":"{}"}}'
      lines = (
        f'  %f.{i} = f32[8]{{0}} fusion(%x), {config.format(cycles)}'
        for i, cycles in enumerate((100, 2**64 - 1, 20))
      )
      return '\n'.join(['ENTRY %main (x: f32[8]) -> f32[8] {', *lines, '}'])

    def memory_analysis(self):
      names = 'argument output temp generated_code alias'.split()
      return types.SimpleNamespace(**{f'{name}_size_in_bytes': 0 for name in names})

  found = ahead.read(Program(), has_loop=False)
  assert (found.cycles, found.kernels) == (120, {'fusion': 3})
