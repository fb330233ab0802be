"""What the programs print, where nobody reads it, and what they are given as paths."""

import os
import subprocess
import sys

import helpers
import numpy as np
import pytest
from helpers import ROOT, contents, environment, one_sentence

from rethink_gen import paths, runs, train
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress

pytestmark = pytest.mark.slow

QUICKSTART = '--config=configs/quickstart.py'
MAIN = f'rethink_gen.main {QUICKSTART} --config.num_epochs=2 --workdir=run'
COMMANDS = {
  'main': MAIN,
  'runs': 'rethink_gen.runs made',
  'estimate': f'rethink_gen.estimate {QUICKSTART}',
  'reproduce': 'rethink_gen.reproduce --artifact=table1 --dry_run --workdir=run',
  'audit': 'rethink_gen.audit --help',
  'prepare': 'rethink_gen.data.prepare --dataset=digits',
}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder in which made/first is a run of one epoch."""
  folder = tmp_path_factory.mktemp('made')
  train.run(helpers.make_config(num_epochs=1), folder / 'made/first', no_progress)
  return folder


@pytest.fixture
def shell(tmp_path, made):
  """shell(script): bash in a folder of its own; $python begins a command."""
  for name, target in (('configs', ROOT / 'configs'), ('made', made / 'made')):
    (tmp_path / name).symlink_to(target)
  variables = {'python': f'{sys.executable} -m', 'PYTHONPATH': str(ROOT)}

  def run(script, **more):
    return subprocess.run(
      ['bash', '-o', 'pipefail', '-c', script],
      cwd=tmp_path,
      env={k: v for k, v in (environment() | variables | more).items() if v is not None},
      capture_output=True,
      text=True,
      errors='replace',
      timeout=120,
    )

  return run


# Prints more than a buffer holds, through absl as the programs do.
PRINT = """'
import sys
from absl import flags
from rethink_gen import output
def main(argv):
  for number in range(40000):
    print("line", number, sys.argv[1:])
    sys.stdout.flush()
  print("é中…\\udcff")
output.run(main, flags.FLAGS)
'"""


@pytest.mark.parametrize(
  ('redirection', 'status', 'errors'),
  [
    ('| head -1', 141, ''),
    ('| true', 141, ''),
    ('>&-', 0, ''),
    ('>&- 2>&-', 0, ''),
    (
      '> /dev/full',
      2,
      'error: standard output cannot be written (No space left on device); redirect it.\n',
    ),
    ('> /dev/full 2> /dev/full', 2, ''),
  ],
)
def test_output_that_is_not_read(shell, redirection, status, errors):
  done = shell(f'{sys.executable} -c {PRINT} {redirection}')
  assert (done.returncode, done.stderr) == (status, errors)


@pytest.mark.parametrize(
  ('encoding', 'words'), [('ascii', '??...'), ('latin-1', '?...'), ('utf-8', 'é中…')]
)
def test_what_an_encoding_lacks_is_spelled(shell, encoding, words):
  done = shell(f'{sys.executable} -c {PRINT} | tail -1', PYTHONIOENCODING=encoding)
  assert (done.returncode, done.stderr) == (0, '')
  assert words in done.stdout


@pytest.mark.parametrize('command', COMMANDS.values(), ids=COMMANDS)
def test_no_program_complains_when_nobody_reads_it(shell, command):
  """`true` has left before the first line comes, as `head -1` has after it."""
  done = shell(f'$python {command} | true')
  assert (done.returncode, done.stderr) == (141, '')


def test_a_run_needs_no_output(shell):
  done = shell(f'$python {MAIN} >&-')
  assert (done.returncode, done.stderr) == (0, '')


def test_a_run_whose_output_nobody_reads_can_be_resumed(shell):
  assert shell(f'$python {MAIN} | head -1').stderr == ''
  done = shell(f'$python {MAIN}')
  assert done.returncode == 0
  assert 'All files are in run.' in done.stdout


def test_errors_may_be_closed_and_are_not_printed_as_output(shell):
  done = shell(f'$python {MAIN} --config.batch_size=0 2>&-')
  assert (done.returncode, done.stdout) == (2, '')


def test_runs_are_trained_and_listed_in_ascii(shell):
  for command in (f'{MAIN}/é中', 'rethink_gen.runs run', COMMANDS['estimate']):
    done = shell(f'$python {command}', PYTHONIOENCODING='ascii')
    assert (done.returncode, done.stderr) == (0, '')
    assert '??' in done.stdout or 'estimate' in command


def test_a_folder_that_the_locale_cannot_spell_is_refused(shell):
  plain = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
  sentence = one_sentence(shell(f'$python {MAIN}/é', **plain))
  assert 'is not UTF-8, or the locale is not' in sentence


@pytest.mark.parametrize(
  ('program', 'platform'),
  [('main', 'cuda'), ('main', 'nonsense'), ('estimate', 'cuda'), ('runs', 'cuda')],
)
def test_a_platform_that_is_not_there_is_said_in_a_sentence(shell, program, platform):
  command = COMMANDS[program].replace('made', 'made/first --export=x.npz')
  sentence = one_sentence(shell(f'$python {command}', JAX_PLATFORMS=platform))
  assert f'JAX cannot use the platform {platform!r} that JAX_PLATFORMS asks' in sentence
  assert 'unset JAX_PLATFORMS' in sentence


PATHS = {
  'main': f'rethink_gen.main {QUICKSTART} --workdir=',
  'runs': 'rethink_gen.runs ',
  'audit': 'rethink_gen.audit --model=mlp --workdir=',
  'prepare': 'rethink_gen.data.prepare --dataset=digits --from_archive=',
  'benchmarks': 'benchmarks.growth --out=',
}


@pytest.mark.parametrize('command', PATHS.values(), ids=PATHS)
def test_a_path_on_no_folder_of_this_machine_is_refused(shell, tmp_path, command):
  before = contents(tmp_path)
  done = shell(f'$python {command}gs://bucket/run')
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'gs://bucket/run is an address' in done.stderr
  assert 'gcsfuse' in done.stderr
  assert contents(tmp_path) == before


@pytest.mark.parametrize('address', ['gs://b/r', 's3://b/r', 'hdfs://h/r', 'file:///r'])
def test_an_address_is_refused_wherever_it_is_given(address, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  npz = helpers.make_config(**{'dataset.name': 'npz', 'dataset.path': f'{address}.npz'})
  monkeypatch.setenv('TFDS_DATA_DIR', address)
  for call in (
    lambda: train.run(helpers.make_config(), address),
    lambda: train.run(npz, 'run'),
    lambda: runs.open(address),
    lambda: runs.table(address),
    lambda: sources.load('mnist'),
    lambda: sources.load('mnist', address),
    lambda: paths.local(address.replace('//', '/')),  # as pathlib spells it
  ):
    with pytest.raises(BadInput, match='is an address'):
      call()
  assert list(tmp_path.iterdir()) == []


def test_the_home_folder_is_expanded_in_every_path(shell, tmp_path):
  home = {'HOME': str(tmp_path / 'home')}
  assert shell(f'$python {MAIN[:-3]}~/run', **home).returncode == 0
  assert shell("$python rethink_gen.runs '~/run' --export=~/x.npz", **home).returncode == 0
  names = {'x_train': np.zeros((8, 8, 8), np.uint8), 'y_train': np.arange(8) % 2}
  arrays = names | {key.replace('train', 'test'): value for key, value in names.items()}
  np.savez(tmp_path / 'home/data.npz', **arrays)
  npz = '--config.dataset.name=npz --config.batch_size=8 --config.dataset.path=~/data.npz'
  assert shell(f'$python {MAIN[:-3]}~/npz {npz}', **home).returncode == 0
  assert sorted(os.listdir(tmp_path / 'home')) == ['data.npz', 'npz', 'run', 'x.npz']
  assert not (tmp_path / '~').exists()


@pytest.mark.parametrize(
  ('path', 'words'), [("''", 'empty'), ('~nobody_of_that_name/x', 'home folder in ~nobody')]
)
def test_a_path_that_cannot_be_meant_is_refused(shell, tmp_path, path, words):
  before = contents(tmp_path)
  assert words in one_sentence(shell(f'$python {PATHS["main"]}{path}'))
  assert contents(tmp_path) == before


HOMELESS = """
import os, sys
from absl import flags
from rethink_gen import cli
os.setuid(54321)
os.environ.pop('HOME')
cli.run(lambda _: cli.setup(), flags.FLAGS)
"""


def test_without_a_home_folder_nothing_is_made_in_its_place(shell, tmp_path):
  """As in a container whose user is a number that no table knows."""
  if os.geteuid():
    pytest.skip('needs to become another user')
  tmp_path.chmod(0o777)
  before = contents(tmp_path)
  none = {'RETHINK_GEN_CACHE': None, 'XDG_CACHE_HOME': None, 'program': HOMELESS}
  done = shell(f'{sys.executable} -c "$program"', **none)
  assert 'home folder' in one_sentence(done)
  assert contents(tmp_path) == before
