import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import make_config, stop_after

from configs import alexnet
from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.errors import BadInput
from rethink_gen.train import loading, loop, metrics, summaries, workdirs


def test_a_run_leaves_what_it_promises(figures, tmp_path):
  summary = train.run(make_config(), tmp_path / 'run')
  written, records, _ = figures(tmp_path / 'run')
  assert {name: summary[name] for name in written} == written
  assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == [
    *('accuracies.npy', 'checkpoints', 'config.json', 'log.jsonl', 'losses.npy'),
    *('metrics.jsonl', 'summary.json', 'tensorboard'),
  ]
  assert [record['step'] for record in records] == [6, 12, 18, 24]
  last = records[-1]
  assert (written['status'], written['stopped_by']) == ('complete', 'num_epochs')
  assert written['train_accuracy'] == last['train_accuracy']
  assert written['generalization_gap'] == last['train_accuracy'] - last['test_accuracy']
  assert written['best_test_accuracy'] == max(r['test_accuracy'] for r in records)
  assert written['num_params'] == 7 * 7 * 32 + 32 + 32 * 10 + 10
  assert 0.8 < written['labels_changed'] < 0.98
  assert (written['num_train'], written['num_test']) == (200, 360)
  assert (written['epochs'], written['steps']) == (4, 24)
  stored = json.loads((tmp_path / 'run/config.json').read_text())
  assert config_lib.differences(make_config(), stored) == []


def test_the_seed_decides_the_run_and_nothing_else_does(figures, tmp_path):
  train.run(make_config(), tmp_path / 'a')
  train.run(make_config(), tmp_path / 'b')
  train.run(make_config(seed=1), tmp_path / 'c')
  assert figures(tmp_path / 'a') == figures(tmp_path / 'b')
  assert figures(tmp_path / 'a')[1] != figures(tmp_path / 'c')[1]


def test_a_complete_run_is_not_run_again(tmp_path, monkeypatch):
  first = train.run(make_config(), tmp_path)
  monkeypatch.setattr(loop, 'fit', None)
  assert train.run(make_config(), tmp_path) == first


@pytest.mark.slow
@pytest.mark.parametrize('seconds_per_call', [0.0, 2.0])
def test_a_stopped_run_resumes_to_the_same_figures(
  figures, tmp_path, monkeypatch, seconds_per_call
):
  """Stopped after every few calls of the device, inside epochs and between them."""
  monkeypatch.setattr(loop, 'SECONDS_PER_CALL', seconds_per_call)
  changes = {'regularization.random_crop': True, 'regularization.dropout_rate': 0.2}
  train.run(make_config(**changes), tmp_path / 'whole')
  stop_after(monkeypatch, 3)
  interruptions = 0
  while True:
    try:
      train.run(make_config(**changes), tmp_path / 'stopped')
      break
    except train.Interrupted:
      interruptions += 1
  assert interruptions >= 1
  assert figures(tmp_path / 'stopped') == figures(tmp_path / 'whole')
  lines = [json.loads(line) for line in (tmp_path / 'stopped/log.jsonl').open()]
  events = [line['event'] for line in lines]
  assert (events[0], events.count('start')) == ('start', 1)
  assert events.count('restore') == interruptions == events.count('stop') - 1
  stops = [line['stopped_by'] for line in lines if line['event'] == 'stop']
  assert stops == interruptions * ['SIGTERM'] + ['num_epochs']
  for before, line in zip(lines, lines[1:], strict=False):
    if line['event'] == 'restore':  # at the step that was saved before the stop
      assert (before['event'], before['step']) == ('stop', line['step'])


@pytest.mark.parametrize(
  ('every', 'seconds', 'saved'),
  [(3, 10.0, [18, 24]), (None, 0.0, [18, 24]), (None, 10.0, [24])],
)
def test_checkpoints_are_as_often_as_asked_or_when_the_last_is_old(
  tmp_path, monkeypatch, every, seconds, saved
):
  """Of four epochs of six steps; the newest two are kept."""
  monkeypatch.setattr(loop, 'SECONDS_PER_CHECKPOINT', seconds)
  train.run(make_config(checkpoint_every=every), tmp_path)
  names = [path.name for path in (tmp_path / 'checkpoints').iterdir()]
  assert sorted(int(name) for name in names if name.isdigit()) == saved


def test_a_run_stops_at_the_training_accuracy(figures, tmp_path):
  changes = {'stop_at_train_accuracy': 0.5, 'num_epochs': 100, 'eval_every': 3}
  summary = train.run(make_config(**changes), tmp_path)
  _, records, _ = figures(tmp_path)
  assert summary['train_accuracy'] >= 0.5
  assert summary['epochs'] < 100
  assert summary['steps_to_fit'] == summary['steps'] == records[-1]['step']
  assert all(record['train_accuracy'] < 0.5 for record in records[:-1])


@pytest.mark.parametrize(
  ('epoch', 'accuracy', 'due'),
  [(3, 0.0, True), (4, 0.0, False), (4, 0.9, True), (10, 0.0, True)],
)
def test_evaluations_are_due_regularly_at_the_end_and_when_they_may_stop(
  epoch, accuracy, due
):
  config = make_config(eval_every=3, num_epochs=10, stop_at_train_accuracy=0.9)
  assert loop.is_due(config, epoch, accuracy) is due


def test_without_a_threshold_there_are_no_steps_to_fit(tmp_path):
  assert train.run(make_config(num_epochs=1), tmp_path)['steps_to_fit'] is None


def test_a_diverged_run_stops_and_says_so(tmp_path):
  summary = train.run(make_config(**{'optimizer.learning_rate': 1e30}), tmp_path)
  assert summary['status'] == 'diverged'
  assert summary['steps'] < 24
  assert json.loads((tmp_path / 'summary.json').read_text()) == summary
  assert not list((tmp_path / 'checkpoints').glob(f'{summary["steps"]}*'))


def test_cifar10_trains_without_tensorflow(tmp_path, cifar10):
  """The real data through the real loop, in a process that must not import TensorFlow."""
  script = """
import sys
from configs import mlp_1x512_random
from rethink_gen import train
config = mlp_1x512_random.get_config()
config.dataset.num_train = 1280
config.num_epochs = 12
summary = train.run(config, sys.argv[1])
print(summary['num_params'], summary['train_accuracy'], 'tensorflow' in sys.modules)
"""
  done = subprocess.run(
    [sys.executable, '-c', script, str(tmp_path / 'run')],
    env=os.environ,
    capture_output=True,
    text=True,
    check=True,
  )
  num_params, train_accuracy, tensorflow = done.stdout.split()[-3:]
  assert num_params == '1209866'
  assert float(train_accuracy) > 0.5  # of labels that are random: it has begun to memorize
  assert tensorflow == 'False'


def test_a_subset_sees_the_labels_of_the_whole(tmp_path):
  whole, _ = loading.load(make_config(**{'dataset.num_train': None}))
  part, changed = loading.load(make_config())
  np.testing.assert_array_equal(part.y_train, whole.y_train[:200])
  assert len(part.y_train) == 200
  assert 0.8 < changed < 1


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'dataset.num_train': 2000}, 'num_train'),
    ({'dataset.num_test': 361}, 'num_test'),
    ({'batch_size': 201}, 'batch_size'),
    ({'dataset.crop_size': 9}, 'crop_size'),
    ({'dataset.name': 'no_such_set'}, 'no_such_set'),
    ({'num_epochs': 10**9}, 'num_epochs is 1,000,000,000, which is 6,000,000,000 steps'),
  ],
)
def test_what_does_not_fit_the_data_is_refused_and_nothing_written(
  tmp_path, changes, words
):
  with pytest.raises(BadInput, match=words):
    train.run(make_config(**changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_another_config_in_the_same_folder_is_refused(tmp_path):
  train.run(make_config(num_epochs=1), tmp_path)
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  with pytest.raises(BadInput, match='num_epochs: 1 there, 2 here'):
    train.run(make_config(num_epochs=2), tmp_path)
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_a_folder_where_another_process_is_at_work_is_refused(tmp_path):
  with workdirs.only_writer(tmp_path), pytest.raises(BadInput, match='Another process'):
    train.run(make_config(), tmp_path)
  assert train.run(make_config(), tmp_path)['status'] == 'complete'


@pytest.mark.parametrize('start', ['he_normal', 'glorot_uniform'])
def test_a_start_that_kills_a_layer_is_reported(tmp_path, cifar10, start):
  """AlexNet from He-normal kernels: most of its second convolution dies in 20 steps."""
  config = alexnet.get_config()
  config.update_from_flattened_dict(
    {
      'model.initialization': start,
      'dataset.num_train': 640,
      'dataset.num_test': 100,
      'batch_size': 32,
      'num_epochs': 1,
    }
  )
  summary = train.run(config, tmp_path)
  record = metrics.read_records(tmp_path)[-1]
  shares = {name for name in record if name.startswith('dead_units/')}
  assert shares == {f'dead_units/{n}' for n in ('conv_1', 'conv_2', 'linear_1', 'linear_2')}
  said = summaries.describe_dead(summary['dead_layers'])
  if start == 'he_normal':
    assert summary['dead_layers']['conv_2'] == record['dead_units/conv_2'] > 0.5
    assert 'of conv_2' in said
  else:
    assert (summary['dead_layers'], said) == ({}, '')
    assert record['dead_units/conv_2'] == 0


def test_chance_is_the_best_constant_guess(tmp_path):
  random = np.random.default_rng(0)
  y_train, y_test = (np.int64(random.random(n) < 0.1) for n in (200, 100))
  arrays = {
    'x_train': random.integers(0, 256, (200, 8, 8, 1), np.uint8),
    'x_test': random.integers(0, 256, (100, 8, 8, 1), np.uint8),
  }
  np.savez(tmp_path / 'noise.npz', **arrays, y_train=y_train, y_test=y_test)
  of_noise = {'dataset.name': 'npz', 'dataset.path': str(tmp_path / 'noise.npz')}
  of_noise |= {'num_epochs': 1, 'corruption.mode': 'none', 'dataset.num_train': None}
  share = np.mean(y_test == 0)
  assert share > 0.85
  true = train.run(make_config(**of_noise), tmp_path / 'true')
  assert (true['constant_accuracy'], true['chance_accuracy']) == (share, share)
  assert 'generalizes' not in summaries.conclusion(true)
  # Labels that are drawn uniformly make no class the most frequent but by luck.
  for name, changes in {
    'random': {'corruption.mode': 'random_labels'},
    'partial': {'corruption.mode': 'partial_labels', 'corruption.label_noise': 1.0},
  }.items():
    found = train.run(make_config(**of_noise | changes), tmp_path / name)
    assert (found['constant_accuracy'], found['chance_accuracy']) == (None, 0.5)
    assert 'and a uniform guess in 50.00%.' in summaries.conclusion(found)
