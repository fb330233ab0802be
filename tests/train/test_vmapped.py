import functools
import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import helpers
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen import models
from rethink_gen import train as train_lib
from rethink_gen.errors import BadInput
from rethink_gen.models import layers
from rethink_gen.train import loop, metrics, vmapped

pytestmark = pytest.mark.slow

make_config = functools.partial(helpers.make_config, num_epochs=3)


def make_configs(folder, **changes):
  """Five runs that differ in all that they may differ in."""
  differences = (
    {},
    {'seed': 1, 'corruption.seed': 1, 'num_epochs': 4},
    {'optimizer.learning_rate': 0.05, 'regularization.weight_decay': 0.01},
    {'corruption.mode': 'none', 'stop_at_train_accuracy': 0.3, 'num_epochs': 9},
    {'corruption.mode': 'partial_labels', 'corruption.label_noise': 0.3, 'eval_every': 2},
  )
  return {
    folder / str(number): make_config(**changes | different)
    for number, different in enumerate(differences)
  }


def assert_alike(folder, other):
  """That two runs have the same summary, records and losses, but for rounding."""

  def read(path):
    records = metrics.read_records(path)
    return [json.loads((path / 'summary.json').read_text()), *records]

  for one, another in zip(read(folder), read(other), strict=True):
    for name in one.keys() - {'seconds', 'examples_per_second', 'runs_at_once'}:
      value = another[name]
      assert one[name] == (pytest.approx(value, 1e-4) if type(value) is float else value)
  losses = np.load(folder / 'losses.npy')
  np.testing.assert_allclose(losses, np.load(other / 'losses.npy'), rtol=1e-4)


def check_against_runs_alone(folder):
  configs = make_configs(folder)
  summaries = vmapped.run(configs)
  assert [s['steps'] for s in summaries.values()] != [18] * 5  # some have ended sooner
  for path, config in configs.items():
    train_lib.run(config, folder / f'{path.name}_alone')
    assert_alike(path, folder / f'{path.name}_alone')


def test_each_run_ends_as_it_does_alone(tmp_path):
  check_against_runs_alone(tmp_path)


def test_the_runs_spread_over_devices_end_as_they_do_alone(tmp_path):
  """Five on two devices, so that one place of the stack is left over."""
  code = (
    'import pathlib, sys, test_vmapped;'
    'test_vmapped.check_against_runs_alone(pathlib.Path(sys.argv[1]))'
  )
  here = pathlib.Path(__file__).parent
  path = {'PYTHONPATH': os.pathsep.join([str(here.parent), str(here)])}
  command = [sys.executable, '-c', code, str(tmp_path)]
  done = subprocess.run(command, env=helpers.environment(2) | path, cwd=here, check=False)
  assert done.returncode == 0


class Small(nn.Module):
  """A convolution of the package, batch normalization and logits."""

  num_classes: int
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train):
    x = layers.Conv(4, 3)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return nn.Dense(self.num_classes)(x.mean((1, 2)))


def test_convolutions_and_batch_normalization_end_as_they_do_alone(tmp_path, monkeypatch):
  monkeypatch.setitem(models.MODELS, 'small', Small)
  changes = {
    'model.name': 'small',
    'model.width': None,
    'dataset.num_train': 24,
    'dataset.num_test': 8,
    'batch_size': 8,
    'num_epochs': 1,
    'optimizer.learning_rate': 0.001,
    'regularization.random_crop': True,
  }
  configs = {tmp_path / str(seed): make_config(seed=seed, **changes) for seed in range(2)}
  vmapped.run(configs)
  for path, config in configs.items():
    train_lib.run(config, tmp_path / f'{path.name}_alone')
    assert_alike(path, tmp_path / f'{path.name}_alone')


def test_stopped_runs_go_on_to_the_same_figures(tmp_path, monkeypatch):
  monkeypatch.setattr(loop, 'SECONDS_PER_CALL', 0.0)
  vmapped.run(make_configs(tmp_path / 'whole'))
  helpers.stop_after(monkeypatch, 23)
  interruptions = 0
  while True:
    try:
      summaries = vmapped.run(make_configs(tmp_path / 'stopped'))
      break
    except train_lib.Interrupted:
      interruptions += 1
  assert interruptions > 2
  assert all(summary['status'] == 'complete' for summary in summaries.values())
  for number in range(5):
    assert_alike(tmp_path / 'whole' / str(number), tmp_path / 'stopped' / str(number))


def test_runs_that_are_at_different_steps_are_brought_together(tmp_path, monkeypatch):
  """As after a kill in the middle of saving: one is ahead of the others, one is done."""
  configs = make_configs(tmp_path / 'together')
  ahead, done, *_ = configs
  train_lib.run(configs[done], done)
  with monkeypatch.context() as patch:
    helpers.stop_after(patch, 2)
    with pytest.raises(train_lib.Interrupted):
      train_lib.run(configs[ahead], ahead)
  before = (done / 'metrics.jsonl').read_text()
  vmapped.run(configs)
  assert (done / 'metrics.jsonl').read_text() == before
  for path, config in configs.items():
    train_lib.run(config, tmp_path / path.name)
    assert_alike(path, tmp_path / path.name)


def test_a_run_that_diverges_leaves_the_others_alone(tmp_path):
  configs = make_configs(tmp_path)
  wild = make_config(**{'optimizer.learning_rate': 1e12})
  summaries = vmapped.run(configs | {tmp_path / 'wild': wild})
  assert summaries.pop(tmp_path / 'wild')['status'] == 'diverged'
  assert {summary['status'] for summary in summaries.values()} == {'complete'}
  train_lib.run(configs[tmp_path / '0'], tmp_path / 'alone')
  assert_alike(tmp_path / '0', tmp_path / 'alone')


def test_complete_runs_are_not_run_again(tmp_path, monkeypatch):
  first = vmapped.run(make_configs(tmp_path))
  monkeypatch.setattr(vmapped, 'learn', None)
  assert vmapped.run(make_configs(tmp_path)) == first


@pytest.mark.parametrize(
  'changes',
  [
    {'model.width': 16},
    {'batch_size': 16},
    {'corruption.mode': 'random_pixels'},
    {'regularization.dropout_rate': 0.1},
    {'dataset.shard_rows': True},
  ],
)
def test_runs_that_are_not_one_program_are_refused(tmp_path, changes):
  configs = {tmp_path / 'a': make_config(), tmp_path / 'b': make_config(**changes)}
  with pytest.raises(BadInput, match=f'config.{next(iter(changes))}'):
    vmapped.run(configs)
  assert not list(tmp_path.iterdir())


def test_corrupted_images_are_shared_by_runs_of_one_corruption(tmp_path):
  """Pixels that one seed has shuffled are the same for all; of two seeds they are not."""
  changes = {'corruption.mode': 'shuffled_pixels'}
  same = {tmp_path / str(seed): make_config(seed=seed, **changes) for seed in range(2)}
  vmapped.run(same)
  train_lib.run(same[tmp_path / '1'], tmp_path / 'alone')
  assert_alike(tmp_path / '1', tmp_path / 'alone')
  other = {tmp_path / 'other': make_config(**{'corruption.seed': 1}, **changes)}
  with pytest.raises(BadInput, match=r'config\.corruption\.seed'):
    vmapped.run({tmp_path / '0': same[tmp_path / '0']} | other)
