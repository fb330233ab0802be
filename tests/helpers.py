"""What several test files share: small runs, processes, comparisons."""

import contextlib
import functools
import json
import os
import pathlib

import jax
import numpy as np
from numpy.testing import assert_allclose

from rethink_gen import config as config_lib
from rethink_gen.train import checkpoint, compiled, loading, loop

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = (
  '--config=configs/quickstart.py',
  '--config.dataset.num_train=200',
  '--config.batch_size=32',
  '--config.num_epochs=2',
  '--config.eval_every=100',
  '--config.regularization.dropout_rate=0.2',
  '--config.regularization.random_crop=True',
  '--config.optimizer.learning_rate=0.001',  # at 0.1 rounding grows in every step
)


def make_config(**changes):
  """200 digits, random labels, four epochs of six steps."""
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'optimizer.learning_rate': 0.1,
      'dataset.num_train': 200,
      'corruption.mode': 'random_labels',
      'model.width': 32,
      'batch_size': 32,
      'num_epochs': 4,
    }
    | changes
  )
  return config


def stop_after(monkeypatch, calls):
  """Makes a signal arrive after every `calls` calls of the compiled epoch, from now on."""
  train_epoch, count = loop.train_epoch, 0

  def stopping(config, state, pace, update, received):
    def counting(*shown):
      nonlocal count
      count += 1
      if count % calls == 0:
        received.append(15)
      update(*shown)

    return train_epoch(config, state, pace, counting, received)

  monkeypatch.setattr(loop, 'train_epoch', stopping)


def record_lines(lines):
  """A progress, as of `train.run`, whose lines are added to a list."""

  @contextlib.contextmanager
  def progress(*_):
    yield (lambda *_: None), lambda line, step=None: lines.append(line)

  return progress


def environment(devices=1):
  """The variables of a process with simulated devices, which compiles quickly.

  Most of the suite's time is spent compiling programs that run for milliseconds; with few
  of LLVM's optimizations, it is about half. With none, some take longer to run. XLA's older
  code generator for fusions halves it again, in the versions of jaxlib that still have it.
  """
  flags = [
    '--xla_backend_optimization_level=1',
    f'--xla_force_host_platform_device_count={devices}',
  ]
  if jax.__version_info__ < (0, 11):
    flags.append('--xla_cpu_use_fusion_emitters=false')
  return os.environ | {'XLA_FLAGS': ' '.join(flags)}


def end(processes, timeout=200):
  """[(exit status, what it printed, its errors)] of each process."""
  ended = []
  for process in processes:
    out, err = process.communicate(timeout=timeout)
    ended.append((process.returncode, out, err))
  return ended


def numbers(workdir):
  """(records, losses, the last checkpoint's parameters), as arrays."""
  summary = json.loads((workdir / 'summary.json').read_text())
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  keep = ('step', 'train_loss', 'test_loss', 'train_accuracy', 'test_accuracy')
  records = [[json.loads(line)[name] for name in keep] for line in lines]
  config = config_lib.default()
  stored = config_lib.flatten(json.loads((workdir / 'config.json').read_text()))
  config.update_from_flattened_dict(stored)
  state, _, _, _ = compiled.build(config, loading.load(config)[0])
  with checkpoint.open_manager(workdir) as manager:
    state = checkpoint.restore(manager, state)
  assert int(state.step) == summary['steps']
  return np.array(records), np.load(workdir / 'losses.npy'), state.params


def assert_same(one, other, rtol=1e-4, atol=1e-5):
  for mine, theirs in zip(numbers(one), numbers(other), strict=True):
    jax.tree.map(functools.partial(assert_allclose, rtol=rtol, atol=atol), mine, theirs)


def contents(folder):
  return {
    path: path.is_file() and path.read_bytes()
    for path in (folder, *folder.rglob('*'))
    if path.exists()
  }


def one_sentence(completed):
  """What the program refused with, which must be one line of the right form."""
  assert completed.returncode == 2
  assert completed.stdout == '' or completed.stdout.startswith('Decoding ')
  assert completed.stderr.startswith('error: ')
  assert completed.stderr.endswith('\n')
  assert completed.stderr.count('\n') == 1
  assert 'Traceback' not in completed.stderr
  return completed.stderr
