"""Several real processes on this machine, with gloo collectives over loopback."""

import json
import signal
import socket
import time

import pytest
from helpers import DIGITS, assert_same, end

from rethink_gen.data import synthetic

# In so long a run some unit of a wide network comes within rounding of ReLU's kink, and its
# weights then differ from there on. With this width none comes nearer than 3e-6.
LONG = (
  *DIGITS,
  '--config.model.width=32',
  '--config.num_epochs=100',
  '--config.checkpoint_every=30',
)
INCEPTION = (
  *DIGITS,
  '--config.model.name=inception',
  '--config.model.depth=None',
  '--config.model.modules=96+96 16',  # computed in blocks on one device
  '--config.dataset.num_train=64',
  '--config.regularization.random_flip=True',
  '--config.seed=2',
)


@pytest.fixture(scope='module')
def long_run(main, tmp_path_factory):
  """The workdir of LONG by one process."""
  workdir = tmp_path_factory.mktemp('long')
  done = main(*LONG, f'--workdir={workdir}')
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture
def start_together(start):
  """start_together(count, *arguments): that many processes of main, one run."""

  def run(count, *arguments, devices=1):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{free.getsockname()[1]}'
    return [
      start(
        'rethink_gen.main',
        '--distributed',
        *arguments,
        devices=devices,
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES=str(count),
        JAX_PROCESS_ID=str(index),
      )
      for index in range(count)
    ]

  return run


@pytest.mark.parametrize(
  'rows',
  [(), ('--config.dataset.shard_rows=True', '--config.dataset.num_train=199')],
  ids=['on every device', 'sharded'],
)
def test_two_processes_give_the_figures_of_one(main, start_together, tmp_path, rows):
  done = main(*DIGITS, *rows, f'--workdir={tmp_path}/one')
  assert done.returncode == 0, done.stderr
  first, second = end(start_together(2, *DIGITS, *rows, f'--workdir={tmp_path}/two'))
  assert (first[0], second[0]) == (0, 0), first[2] + second[2]
  assert 'test accuracy' in first[1]
  assert 'accuracy' not in second[1]  # one of them speaks
  assert_same(tmp_path / 'one', tmp_path / 'two')


def test_inception_on_eight_devices_and_in_two_processes(start, start_together, tmp_path):
  """The figures of a single device, batch normalization and augmentation included.

  A single device adds convolutions up in another order, and where a unit comes within
  rounding of ReLU's kink runs part. In these four steps, with this seed, none does.
  """
  for devices in (1, 8):
    workdir = f'--workdir={tmp_path}/{devices}'
    ((status, _, errors),) = end(
      [start('rethink_gen.main', *INCEPTION, workdir, devices=devices)]
    )
    assert status == 0, errors
  workdir = f'--workdir={tmp_path}/processes'
  for status, _, errors in end(start_together(2, *INCEPTION, workdir)):
    assert status == 0, errors
  summary = json.loads((tmp_path / '8/summary.json').read_text())
  assert summary['device'].startswith('8 x')
  for other in ('8', 'processes'):
    assert_same(tmp_path / '1', tmp_path / other, rtol=1e-5, atol=1e-4)


def test_two_processes_stream_the_batches_of_one(main, start_together, tmp_path):
  synthetic.generate(tmp_path, 200, 50, (24, 48))
  streamed = (
    *DIGITS,
    '--config.dataset.name=generated_images',
    f'--config.dataset.data_dir={tmp_path}',
    '--config.dataset.streaming=True',
    '--config.dataset.crop_size=24',
  )
  done = main(*streamed, f'--workdir={tmp_path}/one')
  assert done.returncode == 0, done.stderr
  for status, _, errors in end(
    start_together(2, *streamed, '--config.dataset.workers=1', f'--workdir={tmp_path}/two')
  ):
    assert status == 0, errors
  assert_same(tmp_path / 'one', tmp_path / 'two')


def test_a_run_moves_between_devices_and_processes(
  long_run, start, start_together, tmp_path
):
  """Eight devices, then two processes, one, and two with two devices each."""
  workdir = f'--workdir={tmp_path}/moved'
  for starting in (
    lambda: [start('rethink_gen.main', *LONG, workdir, devices=8)],
    lambda: start_together(2, *LONG, workdir),
    lambda: [start('rethink_gen.main', *LONG, workdir)],
  ):
    processes = starting()
    wait_for_steps(tmp_path / 'moved', processes)
    processes[-1].send_signal(signal.SIGTERM)
    for status, _, errors in end(processes):
      assert status == 128 + signal.SIGTERM, errors
  for status, _, errors in end(start_together(2, *LONG, workdir, devices=2)):
    assert status == 0, errors
  assert_same(long_run, tmp_path / 'moved')


def wait_for_steps(workdir, processes):
  """Until the run has taken steps since the processes were started."""
  file = workdir / 'losses.npy'
  before = file.stat().st_mtime_ns if file.exists() else None
  while not file.exists() or file.stat().st_mtime_ns == before:
    assert all(process.poll() is None for process in processes), end(processes)
    time.sleep(0.05)


@pytest.mark.parametrize('killed', [0, 1])
def test_a_process_that_dies_stops_the_others_and_the_restart_goes_on(
  long_run, start_together, tmp_path, killed
):
  workdir = f'--workdir={tmp_path}/killed'
  processes = start_together(2, *LONG, workdir)
  wait_for_steps(tmp_path / 'killed', processes)
  while not [p for p in tmp_path.glob('killed/checkpoints/*') if p.name.isdigit()]:
    assert all(process.poll() is None for process in processes), end(processes)
    time.sleep(0.05)
  processes[killed].kill()
  status, _, errors = end([processes[1 - killed]], timeout=60)[0]
  assert status != 0
  assert 'the same command' in errors or 'another task died' in errors
  for status, _, errors in end(start_together(2, *LONG, workdir)):
    assert status == 0, errors
  assert_same(long_run, tmp_path / 'killed')


def test_what_one_process_refuses_all_refuse(start_together, tmp_path):
  occupied = tmp_path / 'file'
  occupied.touch()
  for status, _, errors in end(start_together(2, *DIGITS, f'--workdir={occupied}/run')):
    assert status == 2
    assert 'cannot be a folder' in errors


class Damaged:
  def save(self, file, *_, **__):
    file.write(b'no image')


def test_what_one_process_alone_refuses_stops_all_with_its_sentence(
  start_together, tmp_path, monkeypatch
):
  """An image of one host's share of a batch is damaged: the other has no reason to stop."""
  draw, drawn = synthetic.draw, []

  def damage(*arguments):
    drawn.append(arguments)
    return Damaged() if len(drawn) == 7 else draw(*arguments)

  monkeypatch.setattr(synthetic, 'draw', damage)
  synthetic.generate(tmp_path, 64, 32, (24, 48))
  streamed = (
    '--config.dataset.name=generated_images',
    '--config.dataset.num_train=64',
    f'--config.dataset.data_dir={tmp_path}',
    '--config.dataset.streaming=True',
    '--config.dataset.crop_size=24',
  )
  ended = end(start_together(2, *DIGITS, *streamed, f'--workdir={tmp_path}/run'), 90)
  assert all(status != 0 for status, _, _ in ended)
  (sentence,) = (errors for _, _, errors in ended if 'cannot be decoded' in errors)
  assert sentence.startswith('error: image ')
  assert 2 in [status for status, _, _ in ended]


@pytest.mark.parametrize('address', [None, 'nonsense'])
def test_processes_that_cannot_be_found_are_said_so(main, tmp_path, monkeypatch, address):
  if address:
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', address)
    monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
    monkeypatch.setenv('JAX_PROCESS_ID', '0')
  done = main(*DIGITS, '--distributed', f'--workdir={tmp_path}/run')
  assert done.returncode == 2
  assert 'JAX_COORDINATOR_ADDRESS' in done.stderr
  assert 'Traceback' not in done.stderr
