"""launch/slurm on a real SLURM: a cluster of one node, started and stopped here."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest
from helpers import DIGITS, ROOT, assert_same

DAEMONS = ('munged', 'slurmctld', 'slurmd')
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  """slurm(*words): a command that talks to the cluster, and what it printed.

  The daemons keep everything, key and socket of munge too, in a folder of the test.
  """
  missing = [name for name in (*DAEMONS, 'sbatch') if not shutil.which(name)]
  if missing:
    pytest.skip(f'needs {", ".join(missing)}')
  if os.geteuid():
    pytest.skip('needs root, to run the daemons')
  folder = tmp_path_factory.mktemp('slurm')
  for name in ('state', 'spool'):
    (folder / name).mkdir()
  key = folder / 'munge.key'
  key.touch(0o600)
  key.write_bytes(os.urandom(128))
  file = folder / 'slurm.conf'
  host = socket.gethostname().split('.')[0]
  file.write_text(CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2)))
  python = pathlib.Path(sys.executable).parent
  environment = os.environ | {
    'SLURM_CONF': str(file),
    'PATH': f'{python}:{os.environ["PATH"]}',
  }

  def call(*words):
    done = subprocess.run(
      list(map(str, words)),
      cwd=folder,
      env=environment,
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

  processes = []
  with (folder / 'daemons.log').open('w') as log:
    for words in (
      # --force: it wants its folder open to all, and only root talks to it here.
      ['munged', '--foreground', '--force', f'--socket={folder}/munge.socket']
      + [f'--{name}-file={folder}/munge.{name}' for name in ('key', 'log', 'pid', 'seed')],
      ['slurmctld', '-D', '-f', file],
      ['slurmd', '-D', '-f', file],
    ):
      processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    try:
      wait_until(lambda: 'idle' in answer(environment), 60, folder / 'daemons.log')
      yield call
    finally:
      subprocess.run(['scancel', '--user=root'], env=environment, timeout=60)
      for process in reversed(processes):
        process.terminate()
      for process in reversed(processes):
        try:
          process.wait(timeout=20)
        except subprocess.TimeoutExpired:
          process.kill()
          process.wait()


def free_ports(count):
  sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports


def answer(environment):
  """The state of the node, or why there is none yet."""
  words = ['sinfo', '--noheader', '--format=%T']
  return subprocess.run(words, env=environment, capture_output=True, text=True).stdout


def wait_until(condition, seconds, log=None):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, log.read_text() if log else 'it takes too long'
    time.sleep(0.1)


def state(slurm, job):
  """(what SLURM says of the job, how often it was queued again)."""
  lines = slurm('scontrol', 'show', 'job', job).split()
  fields = dict(word.split('=', 1) for word in lines if '=' in word)
  return fields['JobState'], int(fields['Restarts'])


def end(slurm, job, seconds=150):
  wait_until(
    lambda: state(slurm, job)[0] not in ('PENDING', 'RUNNING', 'COMPLETING'), seconds
  )
  return state(slurm, job)


def interrupt(slurm, job):
  """What two minutes before the time limit would: SIGTERM to what srun runs."""
  slurm('scancel', '--signal=TERM', job)
  wait_until(lambda: state(slurm, job) == ('PENDING', 1), 60)
  # A job that is queued again waits for two minutes. That the node refuses its number for
  # what it has just killed is over after a second.
  slurm('scontrol', 'update', f'JobId={job}', 'StartTime=now+4')


def test_a_grid_is_run_by_an_array_job_and_collected(slurm, tmp_path):
  printed = slurm(
    *(ROOT / 'launch/slurm/grid.sh', '2', f'--output={tmp_path}/part_%a.log', '--'),
    *('--artifact=theorem1', '--scale=smoke', '--rows=depth_2,depth_3,depth_5'),
    f'--workdir={tmp_path}/grid',
  )
  array, collect = printed.split()
  # One of the parts is interrupted, and resumes by itself.
  wait_until(lambda: state(slurm, f'{array}_1')[0] == 'RUNNING', 60)
  time.sleep(1)
  interrupt(slurm, f'{array}_1')
  assert end(slurm, collect) == ('COMPLETED', 0)
  assert end(slurm, f'{array}_1') == ('COMPLETED', 1)
  assert end(slurm, f'{array}_2') == ('COMPLETED', 0)
  ran = [(tmp_path / f'part_{part}.log').read_text() for part in (1, 2)]
  assert '2/2  depth_5  computed' in ran[0]
  assert '1/1  depth_3  computed' in ran[1]
  rows = json.loads((tmp_path / 'grid/theorem1/results.json').read_text())['rows']
  assert [(row['name'], row['status']) for row in rows] == [
    ('depth_2', 'complete'),
    ('depth_3', 'complete'),
    ('depth_5', 'complete'),
  ]
  assert (tmp_path / 'grid/theorem1/report.html').exists()


def test_two_tasks_do_what_one_process_does_and_go_on(slurm, main, tmp_path):
  whole = (*DIGITS, '--config.model.width=32', '--config.num_epochs=100')
  whole += ('--config.checkpoint_every=10',)
  done = main(*whole, f'--workdir={tmp_path}/one')
  assert done.returncode == 0, done.stderr
  absolute = f'--config={ROOT}/configs/quickstart.py'
  job = slurm(
    *(ROOT / 'launch/slurm/run.sh', '--nodes=1', '--ntasks-per-node=2'),
    *(f'--output={tmp_path}/log', '--', absolute, *whole[1:]),
    f'--workdir={tmp_path}/two',
  )
  wait_until((tmp_path / 'two/losses.npy').exists, 100)
  interrupt(slurm, job)
  assert end(slurm, job) == ('COMPLETED', 1)
  log = (tmp_path / 'log').read_text()
  assert log.count('saved; the same command resumes') == 2
  assert 'Resuming from step' in log
  assert_same(tmp_path / 'one', tmp_path / 'two')


def test_what_is_canceled_or_fails_stays_so(slurm):
  job = (ROOT / 'launch/slurm/job.sh').resolve()
  sleeping = slurm('sbatch', '--parsable', '--output=sleeping.log', job, 'sleep', '100')
  failing = slurm(
    'sbatch', '--parsable', '--output=failing.log', job, 'bash', '-c', 'exit 3'
  )
  assert end(slurm, failing) == ('FAILED', 0)
  wait_until(lambda: state(slurm, sleeping)[0] == 'RUNNING', 60)
  time.sleep(0.5)
  slurm('scancel', sleeping)
  assert end(slurm, sleeping) == ('CANCELLED', 0)
