"""Programs as `python -m` runs them, without the two seconds it takes to import JAX.

A server process imports the libraries and starts nothing. Each program is a fork of it with
its own environment, folder and streams. Tests of how a program starts do without it.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from concurrent import futures
from multiprocessing import reduction

context = multiprocessing.get_context('forkserver')
# Modules that define no flags: those, a program defines when it runs.
context.set_forkserver_preload(
  ['rethink_gen.cli', 'rethink_gen.audit', 'rethink_gen.reproduce.registry']
)


class _Stream:
  """A file descriptor that a forked process receives as a duplicate."""

  def __init__(self, descriptor):
    self.descriptor = descriptor

  def __reduce__(self):
    return _detach, (reduction.DupFd(self.descriptor),)


def _detach(duplicate):
  return duplicate.detach()


def _run(words, environment, folder, stdout, stderr):
  os.environ.clear()
  os.environ.update(environment)
  os.chdir(folder)
  os.dup2(stdout, 1)
  os.dup2(stderr, 2)
  os.close(stdout)
  os.close(stderr)
  sys.argv = list(words)
  sys.path.insert(0, os.getcwd())
  runpy.run_module(words[0], run_name='__main__', alter_sys=True)


class Program:
  """As subprocess.Popen([sys.executable, '-m', *words], text=True), with both pipes."""

  def __init__(self, words, environment, folder):
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    streams = (_Stream(to_out), _Stream(to_err))
    self._process = context.Process(
      target=_run, args=(words, environment, folder, *streams)
    )
    self._process.start()
    os.close(to_out)
    os.close(to_err)
    self.stdout, self.stderr = open(out), open(err)

  @property
  def returncode(self):
    return self._process.exitcode

  def poll(self):
    return self.returncode

  def wait(self, timeout=None):
    self._process.join(timeout)
    if self.returncode is None:
      raise subprocess.TimeoutExpired(self._process.name, timeout)
    return self.returncode

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self._process.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout=None):
    with futures.ThreadPoolExecutor(2) as threads:
      reading = [threads.submit(stream.read) for stream in (self.stdout, self.stderr)]
      try:
        self.wait(timeout)
      except subprocess.TimeoutExpired:
        self.kill()
        raise
      return tuple(one.result() for one in reading)


def complete(words, environment, folder, timeout):
  """As subprocess.run([sys.executable, '-m', *words], text=True), with its output."""
  program = Program(words, environment, folder)
  stdout, stderr = program.communicate(timeout)
  return subprocess.CompletedProcess(words, program.returncode, stdout, stderr)
