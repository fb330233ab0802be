"""The launchers: stand-ins record what they call; processes of this machine are real."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
import yaml
from helpers import DIGITS, ROOT, assert_same
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

LAUNCH = ROOT / 'launch'
SCRIPTS = ('local.sh', 'slurm/run.sh', 'slurm/grid.sh', 'tpu_pod/pod.sh', 'gke/run.sh')
CONFIG = '--config=configs/quickstart.py'
SMALL = (*DIGITS, '--config.model.width=32')
SHARED = '--workdir=/mnt/share/mine'
CREATE = ('mine', '--zone=z', '--type=v6e-16', '--runtime=v2-alpha-tpuv6e')
APPLY = (
  'apply',
  'mine',
  '--image=pkg.dev/a/b:1',
  '--accelerator=tpu-v6e-slice',
  '--topology=4x4',
  '--hosts=4',
  '--chips=4',
  '--claim=share',
)
HOST = 'bash rethink_gen/launch/tpu_pod/host.sh'


@pytest.fixture
def stand_ins(tmp_path):
  """(call, called): a script among stand-ins, and what these were called with.

  call(words, **scripts) runs the words with a stand-in for each command, which does what
  its script of bash says after it has recorded its arguments. called() gives the calls
  since it was last asked: [[command, *arguments]].
  """
  record, folder = tmp_path / 'record', tmp_path / 'bin'
  folder.mkdir()

  def call(words, path='', **scripts):
    (folder / 'gcloud.n').unlink(missing_ok=True)
    for name in ('gcloud', 'sbatch', 'kubectl', 'docker', 'python', 'sleep', 'mkdir'):
      write(folder / name, name, scripts.get(name, ''))
    return subprocess.run(
      list(map(str, words)),
      cwd=ROOT,
      env=os.environ | {'PATH': path or f'{folder}:{os.environ["PATH"]}'},
      capture_output=True,
      text=True,
      timeout=60,
    )

  def write(file, name, script):
    file.write_text(
      f"#!/bin/bash\nprintf '%s\\037' {name} \"$@\" $'\\036' >> {record}\n{script}\n"
    )
    file.chmod(0o755)

  def called():
    text = record.read_text() if record.exists() else ''
    record.unlink(missing_ok=True)
    return [entry.split('\037')[:-1] for entry in text.split('\036\037')[:-1]]

  return call, called


def command(script, *arguments):
  return [LAUNCH / script, *arguments]


def documented_calls():
  """The launchers' calls that docs/launching.md shows, as words."""
  text = (ROOT / 'docs/launching.md').read_text()
  blocks = re.findall(r'^```bash\n(.*?)^```', text, re.M | re.S)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [shlex.split(line) for line in lines if re.match(r'launch/\S', line)]


def dry(words):
  return [words[0], '--dry_run', *words[1:]]


def test_every_launcher_is_documented():
  documented = {words[0] for words in documented_calls()}
  assert documented == {f'launch/{name}' for name in SCRIPTS}


@pytest.mark.parametrize('words', documented_calls(), ids=' '.join)
def test_a_dry_run_prints_what_would_run(stand_ins, words):
  """What is documented is run dry, then what that printed, then the same without it."""
  call, called = stand_ins
  answers = {
    'sbatch': 'echo 7',
    'gcloud': states(*['SUSPENDED'] * ('resume' in words), 'ACTIVE'),
    'kubectl': 'cat > /dev/null',
    # local.sh asks it for a free port
    'python': '[ $1 != -c ] || echo 4321',
  }
  shown = call(dry(words), **answers)
  assert (shown.returncode, shown.stderr) == (0, '')
  assert without_own(called()) == []
  printed = call(['bash', '-euc', shown.stdout], **answers)
  assert printed.returncode == 0, printed.stderr
  of_the_print = called()
  assert of_the_print
  done = call(words, **answers)
  assert done.returncode == 0, done.stderr
  assert sorted(without_own(called())) == sorted(of_the_print)


def without_own(calls):
  """The calls less those by which local.sh finds a port and waits."""
  return [entry for entry in calls if entry[1] not in ('-c', '0.2')]


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_shows_how_it_is_called(stand_ins, script):
  call, called = stand_ins
  done = call(command(script, '--help'))
  assert done.returncode == 0
  assert f'launch/{script} [--dry_run]' in done.stdout
  assert 'Needs' in done.stdout
  assert called() == []


@pytest.mark.parametrize(
  ('script', 'arguments', 'sentence'),
  [
    ('local.sh', (), 'give the number of processes'),
    ('local.sh', ('0', '--', CONFIG), 'give the number of processes'),
    ('local.sh', ('2', '3', '--', CONFIG), 'give the number of processes'),
    ('local.sh', ('2', '--', '--confi=x'), '--config=FILE is missing'),
    ('local.sh', ('2', CONFIG), 'give the number of processes'),
    ('slurm/run.sh', ('-N', '2', '--', CONFIG), '-N is not an option of sbatch'),
    ('slurm/run.sh', ('--nodes=2',), '--config=FILE is missing'),
    ('slurm/grid.sh', ('--', '--artifact=table1'), 'give the number of parts'),
    ('slurm/grid.sh', ('x', '--', '--artifact=table1'), 'give the number of parts'),
    ('slurm/grid.sh', ('2', 'x', '--', '--artifact=table1'), 'x is not an option'),
    ('slurm/grid.sh', ('2', '--', '--scale=smoke'), '--artifact=NAME is missing'),
    ('tpu_pod/pod.sh', (), "'' is not one of create, copy"),
    ('tpu_pod/pod.sh', ('fly', 'mine'), "'fly' is not one of create, copy"),
    ('tpu_pod/pod.sh', ('create', 'My_pod'), "'My_pod' cannot be a name"),
    ('tpu_pod/pod.sh', ('create', *CREATE[:3]), 'create needs --runtime=VALUE'),
    ('tpu_pod/pod.sh', ('create', *CREATE, '--zome=z'), '--zome=z is not an option'),
    ('tpu_pod/pod.sh', ('copy', 'mine', '--zone=z', '--spot'), '--spot is not an option'),
    ('tpu_pod/pod.sh', ('copy', 'mine', '--zone=z', '--share=/x'), 'must be SERVER:/PATH'),
    ('tpu_pod/pod.sh', ('run', 'mine', '--zone=z', '--', SHARED), '--config=FILE is'),
    (
      'tpu_pod/pod.sh',
      ('run', 'mine', '--zone=z', '--', CONFIG, '--workdir=runs/mine'),
      '--workdir=/mnt/share/RUN is missing',
    ),
    ('gke/run.sh', ('aply',), "'aply' is not one of build"),
    ('gke/run.sh', ('build',), 'build needs --image=VALUE'),
    ('gke/run.sh', ('logs', '--tail'), "'--tail' cannot be a name"),
    ('gke/run.sh', ('delete', 'mine', '--all'), '--all is not an option of delete'),
    ('gke/run.sh', (*APPLY[:-1], '--', CONFIG, SHARED), 'apply needs --claim=VALUE'),
    ('gke/run.sh', (*APPLY, '--hosts=2', '--', CONFIG, SHARED), '4x4 has 16 chips, but 2'),
    ('gke/run.sh', (*APPLY, '--hosts=x', '--', CONFIG, SHARED), "--hosts is 'x'"),
    ('gke/run.sh', (*APPLY, '--topology=4by4', '--', CONFIG, SHARED), "is '4by4'"),
    ('gke/run.sh', (*APPLY, '--image=a b', '--', CONFIG, SHARED), "--image is 'a b'"),
    ('gke/run.sh', (*APPLY, '--', CONFIG), '--workdir=/mnt/share/RUN is missing'),
  ],
)
def test_what_cannot_be_is_refused_in_a_sentence(stand_ins, script, arguments, sentence):
  call, called = stand_ins
  done = call(command(script, *arguments))
  assert done.returncode == 2
  assert done.stdout == ''
  assert re.fullmatch(r'error: [^\n]*\.\n', done.stderr)
  assert sentence in done.stderr
  assert called() == []


@pytest.mark.parametrize(
  ('script', 'arguments', 'missing'),
  [
    ('slurm/run.sh', ('--', CONFIG), 'sbatch'),
    ('slurm/grid.sh', ('2', '--', '--artifact=all'), 'sbatch'),
    ('tpu_pod/pod.sh', ('delete', 'mine', '--zone=z'), 'gcloud'),
    ('gke/run.sh', ('delete', 'mine'), 'kubectl'),
    ('gke/run.sh', ('build', '--image=a'), 'docker'),
  ],
)
def test_a_command_that_is_not_installed_is_named(
  stand_ins, tmp_path, script, arguments, missing
):
  bare = tmp_path / 'bare'
  bare.mkdir()
  for name in ('env', 'bash', 'dirname', 'mkdir'):
    (bare / name).symlink_to(shutil.which(name))
  done = stand_ins[0](command(script, *arguments), path=str(bare))
  assert done.returncode == 2
  assert done.stderr == f'error: {missing} is not installed on this machine.\n'
  shown = stand_ins[0](dry(command(script, *arguments)), path=str(bare))
  assert (shown.returncode, shown.stderr) == (0, '')


def test_slurm_is_given_the_run(stand_ins):
  call, called = stand_ins
  given = command('slurm/run.sh', '--nodes=4', '--time=1', '--', CONFIG, "--x=it's a b")
  done = call(given, sbatch='echo 41')
  assert (done.returncode, done.stdout) == (0, '41\n')
  assert called()[1:] == [
    [
      *('sbatch', '--parsable', '--job-name=rethink_gen', '--output=runs/%x-%j.log'),
      *('--nodes=2', '--ntasks-per-node=1', '--nodes=4', '--time=1'),
      *(f'{LAUNCH}/slurm/job.sh', 'python', '-m', 'rethink_gen.main', '--distributed'),
      *(CONFIG, "--x=it's a b"),
    ]
  ]


@pytest.mark.parametrize('answer', ['41', '41;here'])
def test_slurm_is_given_the_grid_and_its_collection(stand_ins, answer):
  call, called = stand_ins
  given = command('slurm/grid.sh', '8', '--qos=low', '--mem=4G', '--', '--artifact=all')
  done = call(given, sbatch=f"echo '{answer}'")
  assert (done.returncode, done.stdout) == (0, f'{answer}\n' * 2)
  reproduce = ('python', '-m', 'rethink_gen.reproduce', '--artifact=all')
  checked, _, *submitted = called()
  assert checked == [*reproduce, '--dry_run']
  assert submitted == [
    [
      *('sbatch', '--parsable', '--job-name=rethink_gen', '--ntasks=1'),
      *('--output=runs/%x-%A_%a.log', '--array=1-8', '--qos=low', '--mem=4G'),
      *(f'{LAUNCH}/slurm/job.sh', *reproduce, '--shard=%a/8'),
    ],
    [
      *('sbatch', '--parsable', '--dependency=afterany:41', '--job-name=rethink_gen'),
      *('--ntasks=1', '--output=runs/%x-%j.log', '--qos=low'),
      *(f'{LAUNCH}/slurm/job.sh', *reproduce, '--collect'),
    ],
  ]


def test_nothing_is_collected_when_the_array_is_refused(stand_ins):
  call, called = stand_ins
  given = command('slurm/grid.sh', '8', '--', '--artifact=all')
  done = call(given, sbatch='echo "sbatch: error: no such partition" >&2; exit 1')
  assert done.returncode == 1
  assert 'no such partition' in done.stderr
  assert [entry[0] for entry in called()].count('sbatch') == 1


def test_a_misspelt_grid_is_not_submitted(stand_ins):
  call, called = stand_ins
  given = command('slurm/grid.sh', '8', '--', '--artifact=tabel1')
  done = call(given, python=f'exec {sys.executable} "$@"')
  assert (done.returncode, done.stdout) == (2, '')
  assert re.fullmatch(r'error: [^\n]*tabel1[^\n]*\n', done.stderr)
  assert [entry[0] for entry in called()] == ['python']


def queued(verb, *arguments):
  return ['gcloud', 'compute', 'tpus', 'queued-resources', verb, 'mine', *arguments]


DESCRIBE = queued('describe', '--zone=z', '--format=value(state.state)')
CREATED = queued(
  'create',
  '--zone=z',
  '--node-id=mine',
  '--accelerator-type=v6e-16',
  '--runtime-version=v2-alpha-tpuv6e',
)


def on_hosts(worker, words):
  begin = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'mine', '--zone=z']
  return [*begin, f'--worker={worker}', f'--command={words}']


def states(*names):
  """A gcloud that gives the states one after another, and the last from then on."""
  counted = 'n=$(cat "$0.n" 2> /dev/null || echo 0); echo $((n + 1)) > "$0.n"'
  listed = (
    f'all=({" ".join(names)}); echo ${{all[n < {len(names)} ? n : {len(names) - 1}]}}'
  )
  return f'[ $4 = describe ] || exit 0; {counted}; {listed}'


def test_a_slice_is_waited_for(stand_ins):
  call, called = stand_ins
  gcloud = states('WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE')
  done = call(command('tpu_pod/pod.sh', 'create', *CREATE, '--spot'), gcloud=gcloud)
  assert done.returncode == 0, done.stderr
  waited = ['sleep', '30']
  assert called() == [
    [*CREATED, '--spot'],
    *(DESCRIBE, waited, DESCRIBE, waited, DESCRIBE),
  ]


@pytest.mark.parametrize('state', ['FAILED', 'SUSPENDED', 'SUSPENDING', 'DELETING'])
def test_a_slice_that_will_not_come_is_not_waited_for(stand_ins, state):
  call, called = stand_ins
  done = call(command('tpu_pod/pod.sh', 'create', *CREATE), gcloud=states(state))
  assert done.returncode == 2
  assert f'error: mine is {state};' in done.stderr
  assert called() == [CREATED, DESCRIBE]


def test_a_slice_is_used_and_deleted(stand_ins):
  call, called = stand_ins
  pod = ('mine', '--zone=z')
  flags = (CONFIG, SHARED, "--config.dataset.path=it's a b")
  for arguments in (
    ('run', *pod, '--', *flags),
    ('logs', *pod),
    ('logs', *pod, '--worker=3'),
    ('delete', *pod),
  ):
    assert call(command('tpu_pod/pod.sh', *arguments)).returncode == 0
  started, *others = called()
  assert started == on_hosts('all', started[-1].removeprefix('--command='))
  *words, last = shlex.split(started[-1].removeprefix('--command='))
  assert ' '.join(words) == f'{HOST} start {CONFIG} {SHARED}'
  assert last == flags[-1]
  assert others == [
    on_hosts(0, f'{HOST} follow'),
    on_hosts(3, f'{HOST} follow'),
    queued('delete', '--zone=z', '--force', '--quiet'),
  ]


def test_what_is_copied_to_a_slice_is_there(stand_ins):
  call, called = stand_ins
  arguments = ('copy', 'mine', '--zone=z', '--share=10.0.0.2:/vol')
  assert call(command('tpu_pod/pod.sh', *arguments)).returncode == 0
  first, copied, last = called()
  assert first == on_hosts('all', 'mkdir -p rethink_gen')
  begin = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'scp', '--recurse', '--worker=all']
  assert copied[:8] == [*begin, '--zone=z']
  assert copied[-1] == 'mine:rethink_gen/'
  assert all((ROOT / name).exists() for name in copied[8:-1])
  assert {'pyproject.toml', 'README.md', 'LICENSE', 'launch'} < set(copied[8:-1])
  assert last == on_hosts('all', f'{HOST} install 10.0.0.2:/vol')


def test_a_preempted_slice_is_asked_for_again(stand_ins):
  call, called = stand_ins
  resume = ('resume', *CREATE, '--spot', '--share=10.0.0.2:/vol', '--', CONFIG, SHARED)
  for state in ('ACTIVE', 'WAITING_FOR_RESOURCES'):
    done = call(command('tpu_pod/pod.sh', *resume), gcloud=states(state))
    assert done.returncode == 2
    assert f'mine is {state}' in done.stderr
    assert called() == [DESCRIBE]
  gcloud = states('SUSPENDED', 'PROVISIONING', 'ACTIVE')
  done = call(command('tpu_pod/pod.sh', *resume), gcloud=gcloud)
  assert done.returncode == 0, done.stderr
  calls = called()
  assert calls[:6] == [
    DESCRIBE,
    queued('delete', '--zone=z', '--force', '--quiet'),
    [*CREATED, '--spot'],
    *(DESCRIBE, ['sleep', '30'], DESCRIBE),
  ]
  assert [entry[-1] for entry in calls[6:]] == [
    '--command=mkdir -p rethink_gen',
    'mine:rethink_gen/',
    f'--command={HOST} install 10.0.0.2:/vol',
    f'--command={HOST} start {CONFIG} {SHARED}',
  ]


@pytest.fixture
def host(tmp_path):
  """host(*arguments): host.sh in a home of its own; (the home, that function)."""
  home = tmp_path / 'home'
  script = home / 'rethink_gen/launch/tpu_pod/host.sh'
  script.parent.mkdir(parents=True)
  shutil.copy(LAUNCH / 'tpu_pod/host.sh', script)

  def run(*arguments):
    return subprocess.run(
      shlex.split(HOST) + list(arguments),
      cwd=home,
      env=os.environ | {'HOME': str(home), 'PATH': f'{home}/bin:{os.environ["PATH"]}'},
      capture_output=True,
      text=True,
      timeout=60,
    )

  return home, run


def executable(file, script):
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text(f'#!/bin/bash\n{script}\n')
  file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_a_host_runs_what_it_is_told_and_shows_it(host):
  home, run = host
  python = home / 'rethink_gen/.venv/bin/python'
  executable(python, 'echo "$PWD|$TFDS_DATA_DIR|$*"; sleep 1; echo the end >&2')
  begun = time.monotonic()
  assert run('start', CONFIG, '--x=a b').returncode == 0
  assert time.monotonic() - begun < 0.8  # it does not wait for the run
  again = run('start', CONFIG)
  assert again.returncode == 1
  assert 'a run is already in progress' in again.stderr
  followed = run('follow')
  assert followed.stdout == (
    f'{home}/rethink_gen|/mnt/share/tensorflow_datasets|'
    f'-m rethink_gen.main --distributed {CONFIG} --x=a b\nthe end\n'
  )
  assert run('start', CONFIG).returncode == 0  # once the first has ended


@pytest.mark.parametrize('mounted', [False, True])
def test_a_host_is_prepared(host, mounted):
  home, run = host
  for name in ('bin/sudo', 'bin/python3', '.local/bin/uv'):
    executable(home / name, f'echo {name.split("/")[-1]} "$@"')
  executable(home / 'bin/mountpoint', f'exit {0 if mounted else 1}')
  done = run('install', '10.0.0.2:/vol')
  assert done.returncode == 0, done.stderr
  mounting = [
    'sudo apt-get -qq update',
    'sudo apt-get -qq install -y nfs-common',
    'sudo mkdir -p /mnt/share',
    'sudo mount -t nfs 10.0.0.2:/vol /mnt/share',
  ]
  assert done.stdout.splitlines() == [
    *([] if mounted else mounting),
    'python3 -m pip install --quiet --user uv',
    'uv venv --quiet --clear --python 3.12 .venv',
    'uv pip install --quiet --python .venv/bin/python --editable .[tpu]',
  ]


def strictly(manifest):
  """The manifest as JobSet's published types read it; anything they do not know, raises."""
  read = JobsetV1alpha2JobSet.from_dict(manifest)
  assert read.to_dict() == manifest
  return manifest


@pytest.mark.parametrize('spot', [False, True])
def test_kubernetes_is_given_a_job_set(stand_ins, tmp_path, spot):
  call, called = stand_ins
  flags = [CONFIG, SHARED, '--config.dataset.path=a "b" \\c: #d', '--x=$(y) & `z`']
  given = command('gke/run.sh', *APPLY, *['--spot'][: int(spot)], '--', *flags)
  done = call(given, kubectl=f'cat > {tmp_path}/manifest')
  assert done.returncode == 0, done.stderr
  assert called() == [['kubectl', 'apply', '--filename=-']]
  manifest = strictly(yaml.safe_load((tmp_path / 'manifest').read_text()))
  assert manifest['metadata']['name'] == 'mine'
  (replicated,) = manifest['spec']['replicatedJobs']
  job = replicated['template']['spec']
  assert (replicated['replicas'], job['parallelism'], job['completions']) == (1, 4, 4)
  pod = job['template']['spec']
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice',
    'cloud.google.com/gke-tpu-topology': '4x4',
  } | ({'cloud.google.com/gke-spot': 'true'} if spot else {})
  assert ('tolerations' in pod) == spot
  (container,) = pod['containers']
  assert container['image'] == 'pkg.dev/a/b:1'
  assert container['args'] == flags
  assert container['resources'] == {'limits': {'google.com/tpu': 4}}
  (volume,) = pod['volumes']
  assert volume['persistentVolumeClaim'] == {'claimName': 'share'}
  assert container['volumeMounts'] == [{'name': volume['name'], 'mountPath': '/mnt/share'}]
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['onExitCodes']['containerName'] == container['name']
  assert rule['onExitCodes']['values'] == [2, 3]  # refused, diverged


def test_a_job_set_with_a_slip_is_found(stand_ins):
  shown = stand_ins[0](dry(command('gke/run.sh', *APPLY, '--spot', '--', CONFIG, SHARED)))
  lines = shown.stdout.splitlines()
  assert (lines[0], lines[-1]) == ("kubectl apply --filename=- << 'EOF'", 'EOF')
  manifest = '\n'.join(lines[1:-1])
  strictly(yaml.safe_load(manifest))
  assert not re.search(r': [A-Z]{2,}$', manifest, re.M)  # nothing is left to fill in
  keys = set(re.findall(r'(?<=[ {])([a-zA-Z]+):(?= |$)', manifest, re.M))
  assert len(keys) > 30
  for key in keys:
    slipped = re.sub(rf'(?<=[ {{]){key}:', f'{key}x:', manifest)
    try:
      strictly(yaml.safe_load(slipped))
    except (AssertionError, ValueError):
      continue
    pytest.fail(f'{key} is never read')
  for right, wrong in (('parallelism: 4', 'parallelism: four'), ('[2, 3]', '["2", 3]')):
    with pytest.raises(ValueError, match='validation error'):
      strictly(yaml.safe_load(manifest.replace(right, wrong)))


def test_kubernetes_is_asked_for_logs_and_deletion(stand_ins):
  call, called = stand_ins
  for action in ('logs', 'delete'):
    assert call(command('gke/run.sh', action, 'mine')).returncode == 0
  assert called() == [
    [
      *('kubectl', 'logs', '--follow', '--prefix', '--tail=-1', '--max-log-requests=256'),
      '--selector=jobset.sigs.k8s.io/jobset-name=mine',
    ],
    ['kubectl', 'delete', 'jobset', 'mine'],
  ]


def test_the_image_is_built_and_pushed(stand_ins):
  call, called = stand_ins
  assert call(command('gke/run.sh', 'build', '--image=a/b')).returncode == 0
  assert called() == [
    ['docker', 'build', '--file=launch/gke/Dockerfile', '--tag=a/b', '.'],
    ['docker', 'push', 'a/b'],
  ]
  done = call(command('gke/run.sh', 'build', '--image=a/b'), docker='exit 1')
  assert done.returncode == 1
  assert [entry[1] for entry in called()] == ['build']  # not pushed
  lines = (LAUNCH / 'gke/Dockerfile').read_text().splitlines()
  sources = [
    name for line in lines if line.startswith('COPY') for name in line.split()[1:-1]
  ]
  assert all((ROOT / name).exists() for name in sources)
  assert {'pyproject.toml', 'README.md', 'LICENSE', 'configs', 'rethink_gen'} == set(
    sources
  )
  entry = json.loads(lines[-1].removeprefix('ENTRYPOINT '))
  assert entry == ['python', '-m', 'rethink_gen.main', '--distributed']


def test_scripts_are_clean():
  if not shutil.which('shellcheck'):
    pytest.skip('needs shellcheck')
  scripts = [ROOT / '.ci/run', *LAUNCH.rglob('*.sh')]
  assert len(scripts) >= 8
  done = subprocess.run(
    ['shellcheck', '--external-sources', *scripts], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_gcloud_knows_the_options(stand_ins, tmp_path):
  """gcloud's own check of a command line, which runs nothing."""
  if not shutil.which('gcloud'):
    pytest.skip('needs gcloud')
  shown = [
    line
    for words in documented_calls()
    if words[0].endswith('pod.sh')
    for line in stand_ins[0](dry(words)).stdout.splitlines()
  ]
  # One call of each kind; the check takes a second or two.
  calls = {line.split()[4]: line for line in shown if line.startswith('gcloud')}
  assert calls.keys() == {'create', 'delete', 'describe', 'ssh', 'scp'}
  for line, known in [
    *((line, True) for line in calls.values()),
    (calls['ssh'] + ' --worke=all', False),
  ]:
    done = subprocess.run(
      ['gcloud', 'meta', 'lint-gcloud-commands', f'--command-string={line}'],
      env=os.environ | {'CLOUDSDK_CONFIG': str(tmp_path)},
      capture_output=True,
      text=True,
      timeout=60,
    )
    if 'Invalid choice' in done.stderr:
      pytest.skip('this gcloud cannot check a command line')
    (answer,) = json.loads(done.stdout)
    assert answer['success'] == known, answer['error_message']


# Where tests run in the background SIGINT is ignored, and bash would keep it so.
UNIGNORE = (
  'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); '
  'os.execv(sys.argv[1], sys.argv[1:])'
)


@pytest.fixture
def local():
  """local(*arguments, **variables): local.sh, running, with this Python."""
  processes = []

  def start(*arguments, python=pathlib.Path(sys.executable).parent):
    process = subprocess.Popen(
      [sys.executable, '-c', UNIGNORE, LAUNCH / 'local.sh', *arguments],
      cwd=ROOT,
      env=os.environ | {'PATH': f'{python}:{os.environ["PATH"]}'},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    processes.append(process)
    return process

  yield start
  for process in processes:
    if process.poll() is None:
      process.terminate()
    process.communicate(timeout=60)


def test_local_processes_do_what_one_does(main, local, tmp_path):
  done = main(*SMALL, f'--workdir={tmp_path}/one')
  assert done.returncode == 0, done.stderr
  process = local('2', '--', *SMALL, f'--workdir={tmp_path}/two')
  out, errors = process.communicate(timeout=200)
  assert process.returncode == 0, errors
  assert out.count('All files are in') == 1  # one of them speaks
  assert_same(tmp_path / 'one', tmp_path / 'two')


def test_a_local_process_that_fails_stops_the_others(local, tmp_path):
  executable(
    tmp_path / 'python',
    # The first process finds the port, the others are those of the run.
    f'[ "$1" != -c ] || exec {sys.executable} "$@"\n'
    'trap "touch $0.stopped; exit 143" TERM\n'
    '[ $JAX_PROCESS_ID = 1 ] && sleep 0.5 && exit 7\n'
    'while :; do sleep 0.1; done',
  )
  process = local('2', '--', CONFIG, python=tmp_path)
  process.communicate(timeout=20)
  assert process.returncode == 7
  assert (tmp_path / 'python.stopped').exists()


def test_local_processes_that_are_stopped_as_they_start_are_stopped_silently(
  local, tmp_path
):
  """Then a signal ends them, of which bash would tell."""
  executable(
    tmp_path / 'python',
    f'[ "$1" != -c ] || exec {sys.executable} "$@"\n'
    '[ $JAX_PROCESS_ID = 1 ] && sleep 0.5 && exit 7\n'
    'exec sleep 60',
  )
  process = local('3', '--', CONFIG, python=tmp_path)
  assert process.communicate(timeout=20) == ('', '')
  assert process.returncode == 7


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_local_processes_all_get_a_signal(local, tmp_path, number):
  name = number.name.removeprefix('SIG')
  executable(
    tmp_path / 'python',
    f'[ "$1" != -c ] || exec {sys.executable} "$@"\n'
    f'trap "echo $JAX_PROCESS_ID {name} >> $0.got; exit {128 + number}" {name}\n'
    'touch $0.began.$JAX_PROCESS_ID\n'
    'while :; do sleep 0.1; done',
  )
  process = local('3', '--', CONFIG, python=tmp_path)
  while len(list(tmp_path.glob('python.began.*'))) < 3:
    time.sleep(0.05)
  process.send_signal(number)
  process.communicate(timeout=20)
  assert process.returncode == 128 + number
  got = (tmp_path / 'python.got').read_text().splitlines()
  assert sorted(got) == [f'{index} {name}' for index in range(3)]  # once each
