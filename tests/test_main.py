import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, contents, one_sentence

from configs import quickstart
from rethink_gen import cli, train
from rethink_gen.errors import BadInput

QUICKSTART = '--config=configs/quickstart.py'
# Ends after 40 epochs: no network of 8 units learns all of these labels. Augmentation and
# dropout draw numbers that a run which went on must draw again.
SHORT = (
  QUICKSTART,
  *('--config.num_epochs=40', '--config.model.depth=1', '--config.model.width=8'),
  *('--config.eval_every=1', '--config.checkpoint_every=2'),
  *('--config.regularization.dropout_rate=0.2', '--config.dataset.crop_size=7'),
  *('--config.regularization.random_crop=True', '--config.regularization.random_flip=True'),
)
# Still at it when a signal comes.
LONG = (*SHORT, '--config.num_epochs=100000', '--config.eval_every=1000')


@pytest.fixture(scope='module')
def whole(main, tmp_path_factory):
  """(the workdir of a SHORT run left alone, the process it ran in, completed)."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, main(*SHORT, f'--workdir={workdir}')


@pytest.fixture
def small_disk(tmp_path):
  """grow(size) of a disk of 1 MB, mounted for the test at tmp_path/disk."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)]
  try:
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'needs to mount a small disk: {error}')
  yield lambda size: subprocess.run(
    ['mount', '-o', f'remount,size={size}', str(folder)], check=True
  )
  subprocess.run(['umount', '--lazy', str(folder)], check=True)


def wait_until(condition):
  deadline = time.monotonic() + 120
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def steps(workdir):
  """The steps of the checkpoints that are there."""
  names = [path.name for path in (workdir / 'checkpoints').glob('*')]
  return sorted(int(name) for name in names if name.isdigit())


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ((QUICKSTART, '--config.nope=1'), 'config.nope is not a field; the fields are batch'),
    ((QUICKSTART, '--config.batch_size=1.5'), "config.batch_size is '1.5', but it must be"),
    ((QUICKSTART, '--config.model.name=vgg'), "config.model.name is 'vgg', but it must be"),
    ((QUICKSTART, 'stray'), "'stray' is not a flag"),
    ((), '--config is missing'),
    (('--config=configs/nope.py',), 'no config file configs/nope.py; configs/ holds alex'),
    (('--config=configs/quickstart.py:none',), "takes ':random' or ':true', not ':none'"),
    (('--config=configs/alexnet.py:true',), 'configs/alexnet.py takes no argument; leave'),
  ],
)
def test_a_command_line_that_makes_no_sense_is_refused(main, tmp_path, arguments, words):
  completed = main(*arguments, f'--workdir={tmp_path}/run')
  assert words in one_sentence(completed)
  assert list(tmp_path.iterdir()) == []


def test_a_field_that_may_be_empty_can_be_emptied(main, tmp_path):
  arguments = (QUICKSTART, '--config.stop_at_train_accuracy=None', '--config.num_epochs=1')
  assert main(*arguments, f'--workdir={tmp_path}').returncode == 0
  assert (
    json.loads((tmp_path / 'config.json').read_text())['stop_at_train_accuracy'] is None
  )
  assert 'batch_size cannot be None' in one_sentence(
    main(QUICKSTART, '--config.batch_size=None')
  )


def test_a_batch_that_the_devices_cannot_share_is_refused(main, tmp_path):
  arguments = (QUICKSTART, '--config.batch_size=100', f'--workdir={tmp_path}/run')
  assert 'must be a multiple of the 8 devices' in one_sentence(main(*arguments, devices=8))
  assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_said_in_a_sentence(capsys):
  def exhaust(_):
    return jnp.zeros((2**24, 2**24)).block_until_ready()  # more than can be addressed

  with pytest.raises(SystemExit, match='2'):
    cli.call(exhaust, 'runs/mine')
  assert capsys.readouterr().err == (
    'error: there is not enough memory; use a smaller model, batch or data set.\n'
  )


def test_a_damaged_data_set_is_refused(main, tmp_path):
  mnist = pathlib.Path(os.environ.get('TFDS_DATA_DIR', ''), 'mnist')
  if not list(mnist.glob('*/dataset_info.json')):
    pytest.skip('needs MNIST: set TFDS_DATA_DIR to a folder that holds it')
  folder = tmp_path / 'data'
  shutil.copytree(mnist, folder / 'mnist', copy_function=shutil.copyfile)
  [images] = folder.glob('mnist/*/mnist-train.array_record-*')
  os.truncate(images, 10_000_000)
  arguments = ('--config.dataset.name=mnist', f'--config.dataset.data_dir={folder}')
  completed = main(QUICKSTART, *arguments, f'--workdir={tmp_path}/run')
  assert f'the data set in {images.parent} cannot be read' in one_sentence(completed)
  assert not (tmp_path / 'run').exists()


def quickstart_with(**changes):
  config = quickstart.get_config()
  config.num_epochs = 1
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'corruption.mode': 'random'}, "mode is 'random', but it must be one of none"),
    ({'corruption.mode': 'partial_labels', 'corruption.label_noise': 1.5}, 'from 0 to 1'),
    ({'corruption.mode': 'partial_labels', 'corruption.label_noise': -1.0}, 'from 0 to 1'),
    ({'optimizer.learning_rate': -0.1}, 'learning_rate is -0.1, but it must be a positive'),
    ({'dataset.name': 'nothing_of_the_kind'}, "'nothing_of_the_kind' is unknown"),
    ({'dataset.name': 'mnist', 'dataset.data_dir': '/nowhere'}, 'not prepared in /nowhere'),
    ({'dataset.crop_size': 9}, 'crop_size is 9, larger than the images of 8 x 8 pixels'),
    ({'batch_size': 1438}, 'batch_size is 1438, but there are only 1437 training examples'),
  ],
)
def test_a_config_that_cannot_be_run_is_refused(tmp_path, changes, words):
  with pytest.raises(BadInput, match='(?s)^[^\n]*$') as refusal:
    train.run(quickstart_with(**changes), tmp_path / 'run')
  assert words in str(refusal.value)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'x_train': np.zeros((4, 8, 8, 3, 1), np.uint8)}, 'x_train'),
    ({'x_test': np.zeros((4, 9, 9, 3), np.uint8)}, 'they must be the same'),
    ({'x_train': np.zeros((4, 8, 8, 3), np.float32)}, 'x_train'),
    ({'y_train': np.zeros(4)}, 'y_train'),
    ({'y_train': np.zeros(3, int)}, '3 labels'),
    ({'y_test': np.array([0, 1, 2, 3])}, 'labels from 0 to 3'),
    ({'y_test': np.array([0, 1, 0, -1])}, 'labels from -1 to 1'),
  ],
)
def test_a_file_of_arrays_that_do_not_fit_is_refused(tmp_path, changes, words):
  images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])
  arrays = {'x_train': images, 'y_train': labels, 'x_test': images, 'y_test': labels}
  np.savez(tmp_path / 'data.npz', **arrays | changes)
  config = {'dataset.name': 'npz', 'dataset.path': str(tmp_path / 'data.npz')}
  with pytest.raises(BadInput, match='(?s)^[^\n]*$') as refusal:
    train.run(quickstart_with(**config, batch_size=4), tmp_path / 'run')
  assert words in str(refusal.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('files', 'workdir', 'words'),
  [
    ({'file': ''}, 'file', 'file is a file'),
    ({'file': ''}, 'file/below/it', 'file is a file'),
    ({'run/config.json': '{"seed": '}, 'run', 'config.json is damaged'),
    ({'run/config.json': '[]'}, 'run', 'config.json is damaged'),
    ({'run/config.json': '{"seed": 7}'}, 'run', 'seed: 7 there, 0 here'),
    ({'run/metrics.jsonl': ''}, 'run', 'parts of a run but no config.json'),
    ({}, '/proc/run', 'The folder /proc/run cannot be created'),
  ],
)
def test_a_folder_that_cannot_hold_the_run_is_refused(tmp_path, files, workdir, words):
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  before = contents(tmp_path)
  with pytest.raises(BadInput, match='(?s)^[^\n]*$') as refusal:
    train.run(quickstart_with(), tmp_path / workdir)
  assert words in str(refusal.value)
  assert contents(tmp_path) == before


def test_a_folder_that_may_not_be_written_is_refused(small_disk, tmp_path):
  small_disk('1m,ro')
  with pytest.raises(BadInput, match='disk is not writable'):
    train.run(quickstart_with(), tmp_path / 'disk/run')


def test_a_run_with_another_config_is_left_alone(main, tmp_path):
  (tmp_path / 'config.json').write_text(quickstart_with().to_json())
  (tmp_path / 'checkpoints').mkdir()
  before = contents(tmp_path)
  completed = main(QUICKSTART, '--config.seed=3', f'--workdir={tmp_path}')
  sentence = one_sentence(completed)
  assert 'num_epochs: 1 there, 300 here; seed: 0 there, 3 here' in sentence
  assert contents(tmp_path) == before


def test_on_a_full_disk_the_run_says_so_and_goes_on_when_there_is_room(
  figures, main, small_disk, tmp_path
):
  """The disk has room for the records, not for a checkpoint, written in the background."""
  arguments = (QUICKSTART, '--config.num_epochs=6', '--config.checkpoint_every=2')
  command = (*arguments, f'--workdir={tmp_path}/disk/run')
  completed = main(*command)
  assert completed.returncode == 2
  assert completed.stderr == (
    f'error: {tmp_path}/disk/run: No space left on device; once that is fixed, the same '
    'command resumes.\n'
  )
  assert not (tmp_path / 'disk/run/summary.json').exists()
  small_disk('50m')
  completed = main(*command)
  assert (completed.returncode, completed.stderr) == (0, '')
  summary, records, _ = figures(tmp_path / 'disk/run')
  assert (summary['status'], summary['steps']) == ('complete', 66)
  assert [record['epoch'] for record in records] == [5, 6]


def test_a_diverged_run_fails_and_says_so_again(main, tmp_path):
  command = (QUICKSTART, '--config.optimizer.learning_rate=1e30', f'--workdir={tmp_path}')
  first = main(*command)
  assert (first.returncode, first.stderr) == (3, '')
  assert 'Diverged: the loss was no longer a finite number' in first.stdout
  text = (tmp_path / 'summary.json').read_text()
  assert json.loads(text, parse_constant=pytest.fail)['status'] == 'diverged'
  before = contents(tmp_path)
  second = main(*command)
  assert (second.returncode, second.stderr) == (3, '')
  assert second.stdout == first.stdout[first.stdout.index('\n  model') :]
  assert contents(tmp_path) == before


def test_a_run_killed_at_any_moment_goes_on_to_the_same_end(
  figures, main, start, tmp_path, whole
):
  workdir = tmp_path / 'killed'
  seen, moments = [], random.Random(0)
  for _ in range(3):
    process = start('rethink_gen.main', *SHORT, f'--workdir={workdir}')
    saved = max(steps(workdir), default=0)
    wait_until(lambda saved=saved: max(steps(workdir), default=0) > saved)  # noqa: B023
    time.sleep(moments.uniform(0, 0.2))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    seen.append(max(steps(workdir)))
  assert seen[0] < seen[-1] < 440  # It was killed before the end, and went on.
  completed = main(*SHORT, f'--workdir={workdir}')
  assert (completed.returncode, completed.stderr) == (0, '')
  assert f'Resuming from step {max(seen):,} of 440' in completed.stdout
  assert figures(workdir) == figures(whole[0])


@pytest.mark.parametrize(
  ('program', 'library'),
  [('main', 'jax'), ('reproduce', 'jax'), ('estimate', 'jax'), ('data.prepare', 'numpy')],
)
def test_an_interrupt_while_a_program_starts_is_said_in_a_line(tmp_path, program, library):
  """It comes in a callback of the garbage collector, where Python ignores exceptions."""
  (tmp_path / f'{library}.py').write_text(
    'import gc, os, signal\n'
    'gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))\n'
    'gc.collect()\n'
    'raise SystemExit(9)\n'
  )
  path = os.pathsep.join([str(tmp_path), str(ROOT)])
  done = subprocess.run(
    [sys.executable, '-m', f'rethink_gen.{program}'],
    env=os.environ | {'PYTHONPATH': path},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 130
  assert done.stderr == 'SIGINT: the same command resumes from what was saved.\n'


def test_a_library_leaves_interrupts_alone():
  script = (
    'import signal; signal.signal(2, signal.default_int_handler); '
    'from rethink_gen import main; print(signal.getsignal(2).__name__)'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout == 'default_int_handler\n'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(start, tmp_path, number):
  process = start('rethink_gen.main', *LONG, f'--workdir={tmp_path}')
  wait_until(lambda: steps(tmp_path))
  process.send_signal(number)
  stdout, stderr = process.communicate()
  assert process.returncode == 128 + number
  name = signal.Signals(number).name
  assert stderr == (
    f'{name}: stopping once the state is saved; press Ctrl-C to stop immediately.\n'
    f'{name}: saved; the same command resumes here.\n'
  )
  assert not (tmp_path / 'summary.json').exists()


def test_without_a_terminal_there_are_only_plain_lines(whole):
  workdir, completed = whole
  assert (completed.returncode, completed.stderr) == (0, '')
  lines = completed.stdout.splitlines()
  assert lines[0].startswith('epoch  1/40  loss ')
  assert lines[39].startswith('epoch 40/40  loss ')
  assert lines[-1] == f'All files are in {workdir}.'
  assert '\x1b' not in completed.stdout
