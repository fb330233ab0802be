"""Double descent on handwritten digits, computed for real but small."""

import json

import numpy as np
import pytest

from rethink_gen import memory
from rethink_gen.errors import BadInput
from rethink_gen.paper import scales
from rethink_gen.reporting.artifacts import Run
from rethink_gen.reproduce import grid
from rethink_gen.studies import double_descent
from rethink_gen.studies.double_descent import curves, examples, least_squares, networks
from rethink_gen.theory import descent

ROWS = {row.name: row for row in double_descent.rows('smoke')}
FOURIER = 'fourier_n100_w100_noise20'
RELU, ISOTROPIC = 'relu_n60_w66_noise50', 'isotropic_n20_w40_noise50'
NETWORK = 'network_n100_w8_noise20'


def compute(name, **changes):
  settings = ROWS[name].changes | {'seed': 0} | changes
  double_descent.check(settings)
  summary = double_descent.compute(settings, None, lambda line: None)
  return Run(settings, json.loads(json.dumps(summary, allow_nan=False)), [], [])


def stored(run):
  """What `grid` adds to a summary."""
  return run._replace(
    summary=run.summary | {'status': 'complete', 'seconds': 1.0, 'device': 'cpu'}
  )


def make_entries(runs):
  return grid.make_entries(double_descent, list(ROWS.values()), runs)


def curve_of(*errors):
  return [(width, {'error': error, 'error_se': 0.3}) for width, error in errors]


@pytest.fixture(scope='module')
def least():
  return {
    (name, 0): stored(compute(name))
    for name in ROWS
    if ROWS[name].changes['part'] != 'network'
  }


def test_one_decomposition_serves_all_noise_levels_and_ridges():
  data = examples.load('digits')
  arguments = 40, 30, 20, 1.5, (0, 1)  # examples, width, held out, bandwidth, seed
  results = least_squares.fourier_once(data, *arguments)
  chosen, others = examples.draw(data, 40, 20, (0, 1))
  frequencies = np.random.default_rng((0, 1, 1)).standard_normal((15, 64)).T / 1.5
  own, held, test = (
    descent.fourier_features(x.reshape(len(x), -1) / 255, frequencies)
    for x in (data.x_train[chosen], data.x_train[others], data.x_test)
  )
  for noise, result in zip(double_descent.NOISES, results, strict=True):
    labels = examples.noisy(data, noise, (0, 1))
    hot = np.eye(10)[labels]
    weights = [np.linalg.lstsq(own, hot[chosen], rcond=1e-12)[0]] + [
      np.linalg.solve(own.T @ own + ridge * np.eye(30), own.T @ hot[chosen])
      for ridge in least_squares.RIDGES[1:]
    ]
    best = min(weights, key=lambda each: np.sum((held @ each - hot[others]) ** 2))
    outputs = test @ weights[0]
    wrong = outputs.argmax(1) != data.y_test
    assert result['error'] == pytest.approx(wrong.mean())
    assert result['ridge_error'] == np.mean((test @ best).argmax(1) != data.y_test)
    assert result['train_error'] == np.mean((own @ weights[0]).argmax(1) != labels[chosen])
    risk = np.sum((outputs - np.eye(10)[data.y_test]) ** 2, 1).mean()
    assert result['risk'] == pytest.approx(risk)
    assert result['norm'] == pytest.approx(np.linalg.norm(weights[0]))


def test_held_out_images_are_training_images_outside_every_sample():
  data = examples.load('digits')
  small, held = examples.draw(data, 50, 100, (3, 1))
  large, same = examples.draw(data, 200, 100, (3, 1))
  assert small.tolist() == large[:50].tolist()
  assert held.tolist() == same.tolist()
  assert not set(large.tolist()) & set(held.tolist())


def test_the_noise_is_the_fraction_of_wrong_labels():
  data = examples.load('digits')
  some, more = (examples.noisy(data, noise, (0, 1)) for noise in (0.1, 0.2))
  assert np.mean(some != data.y_train) == pytest.approx(0.1, abs=0.025)
  assert np.mean(more != data.y_train) == pytest.approx(0.2, abs=0.03)
  wrong = some != data.y_train
  assert (more[wrong] == some[wrong]).all()
  assert (examples.noisy(data, 0.0, (0, 1)) == data.y_train).all()


def test_the_error_peaks_at_the_threshold_and_the_ridge_removes_the_peak(least):
  by_width = {
    width: double_descent.measure(least, f'fourier_n100_w{width}_noise20', 0)
    for width in (40, 100, 800)
  }
  assert by_width[100]['error'] > 1.5 * by_width[40]['error']
  assert by_width[800]['error'] < by_width[40]['error']
  assert by_width[100]['ridge_error'] < by_width[40]['error']
  assert by_width[100]['norm'] > 10 * by_width[800]['norm']
  assert by_width[100]['threshold'] == 100


def test_the_table_has_means_and_standard_errors(least):
  errors = 100 * np.array(least[FOURIER, 0].summary['error'])
  measured = double_descent.measure(least, FOURIER, 0)
  assert measured.keys() <= double_descent.COLUMNS.keys()
  assert measured['error'] == pytest.approx(errors.mean())
  assert measured['error_se'] == pytest.approx(abs(errors[0] - errors[1]) / 2)
  measured = double_descent.measure(least, ISOTROPIC, 0)
  assert measured['formula'] == descent.isotropic_risk(20, 40, 0.5)
  assert len(least[RELU, 0].summary['risk']) == 4


def test_figure_and_sentences_come_from_the_numbers(least):
  network = dict.fromkeys(
    ('error', 'train_error', 'stopped_error', 'longer', 'fall'), [0.1, 0.2]
  )
  network |= {'threshold': 13.2, 'loss': [1, 2], 'epochs': [1, 2], 'curve': [0.5, 0.1]}
  runs = least | {
    (name, 0): stored(Run(row.changes, network, [], []))
    for name, row in ROWS.items()
    if row.changes['part'] == 'network'
  }
  entries = make_entries(runs)
  assert len(double_descent.draw(entries, runs).axes) == 6
  said = list(double_descent.findings(entries))
  assert len(said) == 6 + 1 + 2 + 4 * 3 + 2  # no peaks in the networks' numbers
  nothing = make_entries({})
  assert double_descent.draw(nothing, {}).axes
  assert list(double_descent.findings(nothing)) == []


def test_the_largest_rise_is_above_the_lowest_point_before_it():
  rise = curves.largest_rise(
    curve_of((1, 50), (2, 20), (3, 40), (4, 30), (5, 10), (6, 25)), 'error'
  )
  assert rise[:3] == (2, 3, 20)
  assert rise.error == pytest.approx(0.3 * 2**0.5)
  assert curves.largest_rise(curve_of((1, 50), (2, 20)), 'error').size == -30
  assert curves.largest_rise(curve_of((1, 50)), 'error') is None


def test_epochs_are_chosen_on_held_out_images():
  def column(*values):  # the same for two seeds, of one width
    return np.array(values)[:, None, None] * np.ones((1, 2, 1))

  records = {
    'epochs': np.arange(1, 6),
    'held': column(0.9, 0.3, 0.5, 0.6, 0.4),
    'test': column(0.8, 0.25, 0.1, 0.5, 0.3),
    'train': column(0.9, 0.2, 0.1, 0.05, 0.0),
    'loss': column(3.0, 1.0, 1.5, 2.0, 2.5),
  }
  described = networks.describe(records, 0)
  assert described['stopped_error'] == [0.25, 0.25]
  assert described['longer'] == pytest.approx([0.05, 0.05])
  assert described['fall'] == pytest.approx([0.2, 0.2])
  assert described['error'] == [0.3, 0.3]


@pytest.mark.slow
def test_networks_of_all_widths_are_trained_once_and_learn(monkeypatch):
  run = compute(NETWORK)
  summary = run.summary
  assert summary['epochs'][-1] == 20
  assert summary['curve'][-1] < summary['curve'][0]
  assert summary['curve'][-1] == pytest.approx(np.mean(summary['error']))
  # 64 inputs, 10 classes: 75 H + 10 parameters, 1,000 outputs.
  assert summary['threshold'] == pytest.approx(990 / 75)
  monkeypatch.setattr(descent, 'train', None)
  wide = compute(NETWORK.replace('w8', 'w32')).summary
  assert np.mean(wide['train_error']) < np.mean(summary['train_error'])


def test_images_are_pooled_and_standardized():
  settings = ROWS[NETWORK].changes | {'seed': 0, 'pooled': 2}
  splits, d, classes = networks.prepare(settings)
  assert (d, classes) == (16, 10)
  data = examples.load('digits')
  blocks = data.x_train.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
  chosen, _ = examples.draw(data, 100, 100, (0, 1))
  expected = (blocks[chosen] - blocks.mean()) / blocks.std()
  np.testing.assert_allclose(splits['train'][0][1], expected, atol=1e-5)
  assert splits['test'][0].shape == (2, 360, 16)


@pytest.mark.parametrize('scale', scales.SCALES)
def test_every_row_says_what_it_is_and_what_it_takes(scale):
  rows = double_descent.rows(scale)
  assert len({row.name for row in rows}) == len(rows)
  for row in rows:
    assert json.loads(json.dumps(row.changes)) == row.changes
    assert double_descent.expected_seconds(row.changes | {'seed': 0}) > 0
    assert double_descent.bytes_needed(row.changes) > 0


def test_at_laptop_scale_all_takes_15_minutes():
  rows = double_descent.rows('laptop')
  assert sum(double_descent.expected_seconds(row.changes) for row in rows) < 900


@pytest.mark.parametrize(
  ('name', 'changes', 'words'),
  [
    (FOURIER, {'part': 'splines'}, "part is 'splines'"),
    (FOURIER, {'num_train': 1}, 'num_train is 1'),
    (FOURIER, {'num_train': 1_400}, 'num_train is 1,400 and held_out is 100'),
    (FOURIER, {'width': 101}, 'width is 101, but it must be even'),
    (FOURIER, {'noise': 0.3}, 'noise is 0.3, but it must be one of'),
    (FOURIER, {'bandwidth': 0.0}, 'bandwidth is 0.0'),
    (FOURIER, {'seeds': 1}, 'seeds is 1'),
    (FOURIER, {'held_out': None}, 'held_out is None'),
    (RELU, {'width': 60}, 'must differ from num_train'),
    (RELU, {'noise': -1.0}, 'noise is -1.0'),
    (RELU, {'inputs': 0}, 'inputs is 0'),
    (NETWORK, {'width': 3}, 'width is 3, but it must be one of'),
    (NETWORK, {'batch_size': 101}, 'batch_size is 101'),
    (NETWORK, {'epochs': 0}, 'epochs is 0'),
    (NETWORK, {'pooled': 3}, 'pooled is 3'),
    (NETWORK, {'learning_rate': -1.0}, 'learning_rate is -1.0'),
  ],
)
def test_bad_settings_are_refused(name, changes, words):
  with pytest.raises(BadInput, match=words):
    double_descent.check(ROWS[name].changes | {'seed': 0} | changes)


def test_memory_is_checked_before_it_is_used(monkeypatch):
  monkeypatch.setattr(memory, 'bytes_free', lambda: 2**20)
  with pytest.raises(BadInput, match='100 examples at width 100 need about'):
    double_descent.check(ROWS[FOURIER].changes | {'seed': 0, 'seeds': 50})
