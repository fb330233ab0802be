"""Times one process from its start to the end of an epoch; prints a line of JSON.

  python -m benchmarks.once --model=alexnet --who=ours

`benchmarks.run` and `benchmarks.growth` start it for what needs a separate process:
start-up, compilation, peak memory, a number of devices. It keeps compiled programs only in
JAX_COMPILATION_CACHE_DIR and TORCHINDUCTOR_CACHE_DIR, if they are set.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
from absl import app, flags, logging

from benchmarks import ours
from rethink_gen.train import compiled

WHO = ('ours', 'plain loop', 'PyTorch eager', 'PyTorch compiled')
MODEL = flags.DEFINE_enum('model', 'mlp_1x512', list(ours.CPU_BATCHES), 'The config.')
ONE = flags.DEFINE_enum('who', 'ours', WHO, 'What trains it.')
EXAMPLES = flags.DEFINE_integer('examples', None, 'Training examples.', lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 128, 'Examples per step.', lower_bound=1)
TURNS = flags.DEFINE_integer('turns', 1, 'Epochs to time, after the first.', lower_bound=1)


def main(_):
  logging.set_verbosity(logging.WARNING)
  count = EXAMPLES.value or ours.examples(MODEL.value, BATCH_SIZE.value)
  config = ours.make_config(MODEL.value, BATCH_SIZE.value, num_train=count)
  dataset = ours.load(config)
  started = time.perf_counter()
  with compiled.matmul_precision(config):
    turn = make_turn(ONE.value, config, dataset)
    turn(1)
    first_step, at = time.perf_counter() - started, time.time()
    turn()  # to the end of the epoch
    epochs = [turn() for _ in range(TURNS.value)]
  print(
    json.dumps(
      {
        'at': at,
        'build_and_first_step': first_step,
        'epochs': epochs,
        'peak_memory': peak_memory(ONE.value),
      }
    )
  )


def make_turn(who, config, dataset):
  """turn(steps=None) of one of WHO; PyTorch is imported only if needed."""
  if who == 'ours':
    return ours.compiled_epoch(config, dataset)
  if who == 'plain loop':
    return ours.plain_loop(config, dataset)
  from benchmarks import peer_torch

  return peer_torch.build(config, dataset, who.removeprefix('PyTorch ')).turn


def peak_memory(who):
  """Peak bytes of device memory, or of the whole process on CPU; None if not available."""
  if who.startswith('PyTorch'):
    import torch

    if torch.cuda.is_available():
      return torch.cuda.max_memory_allocated()
  elif jax.default_backend() != 'cpu':
    return jax.devices()[0].memory_stats()['peak_bytes_in_use']
  status = pathlib.Path('/proc/self/status')
  if not status.exists():
    return None
  # Not getrusage, whose maximum is inherited from the parent process.
  lines = (line.split() for line in status.read_text().splitlines())
  return next(1024 * int(line[1]) for line in lines if line[0] == 'VmHWM:')


def start(cache=None, devices=None, **values):
  """Runs this program with these flags; returns what it printed and `start_to_first_step`.

  Args:
    cache: a folder for compiled programs; None: they are not kept.
    devices: number of devices for a CPU to simulate.
    **values: the flags.
  """
  variables = {'JAX_ENABLE_COMPILATION_CACHE': 'true' if cache else 'false'}
  if cache:
    variables |= {
      'JAX_COMPILATION_CACHE_DIR': f'{cache}/xla',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',  # as in `cli.setup`
    }
    variables |= {'TORCHINDUCTOR_CACHE_DIR': f'{cache}/inductor'}
  if devices:
    variables['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={devices}'
  started = time.time()
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.once', *(f'--{k}={v}' for k, v in values.items())],
    env=os.environ | variables,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  report = json.loads(done.stdout.splitlines()[-1])
  return report | {'start_to_first_step': report['at'] - started}


if __name__ == '__main__':
  app.run(main)
