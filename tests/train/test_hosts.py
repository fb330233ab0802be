"""Two hosts with addresses and names of their own, by network namespaces of Linux."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import DIGITS, ROOT, assert_same, end

SMALL = (*DIGITS, '--config.model.width=32')
ADDRESSES = {'rethink-gen-a': '10.231.17.1', 'rethink-gen-b': '10.231.17.2'}


@pytest.fixture
def hosts(tmp_path):
  """start(host, *words, **variables): a process on one of two hosts, joined by a cable.

  Nothing of this machine's own network is touched.
  """
  if not shutil.which('ip'):
    pytest.skip('needs ip, of iproute2')
  names = list(ADDRESSES)
  processes = []
  table = tmp_path / 'hosts'
  table.write_text(
    '127.0.0.1 localhost\n'
    + ''.join(f'{address} {name}\n' for name, address in ADDRESSES.items())
  )

  def ip(words):
    return subprocess.run(['ip', *words.split()], capture_output=True, text=True)

  def start(host, *words, **variables):
    # A name of its own, and a table of names as on any two machines.
    script = f'mount --bind {table} /etc/hosts && hostname {host} && exec "$@"'
    inside = ['unshare', '--mount', '--uts', 'sh', '-c', script, 'sh', *words]
    process = subprocess.Popen(
      ['ip', 'netns', 'exec', host, *inside],
      cwd=ROOT,
      env=os.environ | variables,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    processes.append(process)
    return process

  try:
    for name in names:
      added = ip(f'netns add {name}')
      if added.returncode:
        pytest.skip(f'needs network namespaces: {added.stderr.strip()}')
    commands = [f'link add one netns {names[0]} type veth peer name one netns {names[1]}']
    for name, address in ADDRESSES.items():
      commands += [
        f'-n {name} link set lo up',
        f'-n {name} address add {address}/24 dev one',
        f'-n {name} link set one up',
      ]
    for words in commands:
      done = ip(words)
      assert done.returncode == 0, f'ip {words}: {done.stderr}'
    yield start
  finally:
    for process in processes:
      process.kill()
      process.communicate()
    for name in names:
      ip(f'netns delete {name}')


def test_two_hosts_give_the_figures_of_one_process(main, hosts, tmp_path):
  done = main(*SMALL, f'--workdir={tmp_path}/one')
  assert done.returncode == 0, done.stderr
  first, second = end(
    [
      hosts(
        name,
        *(sys.executable, '-m', 'rethink_gen.main', '--distributed', *SMALL),
        f'--workdir={tmp_path}/two',
        JAX_COORDINATOR_ADDRESS=f'{ADDRESSES["rethink-gen-a"]}:29517',
        JAX_NUM_PROCESSES='2',
        JAX_PROCESS_ID=str(index),
      )
      for index, name in enumerate(ADDRESSES)
    ]
  )
  assert (first[0], second[0]) == (0, 0), first[2] + second[2]
  assert_same(tmp_path / 'one', tmp_path / 'two')


def test_the_hosts_reach_each_other_and_nothing_else(hosts):
  script = (
    'import socket, sys\n'
    'print(socket.gethostname(), socket.gethostbyname(socket.gethostname()))\n'
    'server = socket.create_server((sys.argv[1], 29518))\n'
    'server.settimeout(30)\n'
    'print(server.accept()[1][0])\n'
  )
  listening = hosts('rethink-gen-a', sys.executable, '-c', script, '10.231.17.1')
  script = (
    'import socket, time\n'
    'for _ in range(100):\n'
    '  try:\n'
    '    socket.create_connection(("rethink-gen-a", 29518), timeout=5)\n'
    '    break\n'
    '  except OSError:\n'
    '    time.sleep(0.1)\n'
    'print(open("/proc/net/route").read().count("\\n"))\n'
  )
  asking = hosts('rethink-gen-b', sys.executable, '-c', script)
  (_, heard, _), (_, routes, errors) = end([listening, asking], timeout=60)
  assert heard.split() == ['rethink-gen-a', '10.231.17.1', '10.231.17.2'], errors
  assert routes.strip() == '2'  # the heading, and the way to the other host
