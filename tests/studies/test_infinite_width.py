"""Infinite width: everything computed for real on a few handwritten digits."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from rethink_gen import memory
from rethink_gen.errors import BadInput
from rethink_gen.paper import scales
from rethink_gen.reporting.artifacts import Run
from rethink_gen.reproduce import grid
from rethink_gen.studies import infinite_width, wide_networks
from rethink_gen.theory import infinite_width as theory

pytestmark = pytest.mark.slow

ROWS = {row.name: row for row in infinite_width.rows('smoke')}
LABELS = {name: row for name, row in ROWS.items() if row.changes['part'] == 'labels'}


def compute(name, **changes):
  settings = ROWS[name].changes | {'seed': 0} | changes
  infinite_width.check(settings)
  summary = infinite_width.compute(settings, None, lambda line: None)
  summary = json.loads(json.dumps(summary, allow_nan=False))
  summary |= {'status': 'complete', 'seconds': 1.0, 'device': 'cpu'}
  return Run(settings, summary, [], [])


@pytest.fixture(scope='module')
def runs():
  return {(name, 0): compute(name) for name in ROWS}


def test_a_result_is_a_function_of_the_seed(runs):
  name = 'labels_digits_noise_0.4'
  again, other = compute(name), compute(name, seed=1)
  assert again.summary == runs[name, 0].summary
  assert other.summary['measure'] != again.summary['measure']


def test_a_kernel_recognizes_digits_as_scikit_learns_solver_does(runs):
  from sklearn.kernel_ridge import KernelRidge

  summary = runs['kernels_digits_200', 0].summary
  data = wide_networks.sources.load('digits')
  drawn = wide_networks.draw_examples(data, 200, 0, 1)
  x, x_test = wide_networks.scale(drawn.x_train), wide_networks.scale(data.x_test[:300])
  architecture = theory.Architecture(3, 2.0, 0.1)
  kernels, of_test = (theory.kernels(part, x, architecture) for part in (x, x_test))
  for name, kernel, test in zip(('nngp', 'ntk'), kernels, of_test, strict=True):
    model = KernelRidge(alpha=1e-6 * kernel[0, 0], kernel='precomputed')
    model.fit(kernel, np.eye(10)[drawn.y_train] - 0.1)
    right = model.predict(test).argmax(1) == data.y_test[:300]
    assert summary[name][1] == pytest.approx(right.mean(), abs=0.004)
    assert summary[name][1] > 0.9


def test_conjugate_gradients_predict_what_the_factorization_does(runs, monkeypatch):
  monkeypatch.setattr(wide_networks, 'MOST_DIRECT', 100)
  found = compute('kernels_digits_200').summary
  for name in ('nngp', 'ntk'):
    expected = runs['kernels_digits_200', 0].summary[name]
    np.testing.assert_allclose(found[name], expected, atol=0.01)


def test_shuffling_pixels_changes_no_inner_product_and_noise_raises_the_measure(runs):
  measures = {
    name.removeprefix('labels_digits_'): runs[name, 0].summary['measure'] for name in LABELS
  }
  np.testing.assert_allclose(measures['shuffled_pixels'], measures['true_labels'])
  by_noise = [np.mean(measures[name]) for name in infinite_width.NOISE_LEVELS]
  assert by_noise == sorted(by_noise)


def test_rank_correlations_are_scipys_per_draw(runs):
  measured = infinite_width.measure(runs, 'labels_digits_true_labels', 0)
  each = [
    stats.spearmanr(
      [runs[name, 0].summary['measure'][draw] for name in LABELS],
      [runs[name, 0].summary['epochs'][draw] for name in LABELS],
    ).statistic
    for draw in range(2)
  ]
  assert measured['rank_epochs'] == pytest.approx(np.mean(each))
  assert measured['rank_epochs_error'] == pytest.approx(stats.sem(each))
  error = 100 * stats.sem(runs['labels_digits_gaussian', 0].summary['test_error'])
  other = infinite_width.measure(runs, 'labels_digits_gaussian', 0)
  assert other['test_error_error'] == pytest.approx(error)
  assert 'rank_epochs' not in other


def test_labels_that_are_not_fitted_in_time_have_no_epochs_and_no_test_error(runs):
  name = 'labels_digits_random_labels'
  run = compute(name, max_epochs=1)
  assert run.summary['epochs'] == run.summary['test_error'] == [None, None]
  some = runs | {(name, 0): run}
  measured = infinite_width.measure(some, name, 0)
  assert measured.keys() == {'measure', 'measure_error', 'top'}
  assert 'rank_epochs' not in infinite_width.measure(some, 'labels_digits_true_labels', 0)
  entries = grid.make_entries(infinite_width, list(ROWS.values()), some)
  assert infinite_width.draw(entries, some).axes


def test_true_labels_are_learned_before_random_and_these_before_the_worst(runs):
  for kind in ('measured', 'predicted'):
    left = [
      runs[f'curve_{labels}_labels', 0].summary[kind][-1] for labels in wide_networks.LABELS
    ]
    assert 0 < left[0] < left[1] < left[2] < 1
  summary = runs['curve_true_labels', 0].summary
  assert (summary['steps'][0], summary['steps'][-1]) == (0, 50)
  assert summary['measured'][0] == pytest.approx(1, abs=1e-5)
  np.testing.assert_allclose(summary['measured'], summary['predicted'], atol=0.05)
  step = infinite_width.measure(runs, 'curve_true_labels', 0)['measured']
  number = summary['steps'].index(step)
  assert summary['measured'][number] <= 0.1 < summary['measured'][number - 1]
  assert 'measured' not in infinite_width.measure(runs, 'curve_worst_labels', 0)


def test_slopes_are_those_of_regression_lines(runs):
  for name in ('features_ntk', 'features_mup'):
    summary, widths = runs[name, 0].summary, runs[name, 0].config['widths']
    slopes = [
      stats.linregress(np.log(widths), np.log(changes)).slope
      for changes in summary['changes']
    ]
    measured = infinite_width.measure(runs, name, 0)
    assert measured['slope'] == pytest.approx(np.mean(slopes))
    assert measured['slope_error'] == pytest.approx(stats.sem(slopes))
    assert measured['narrow'] == pytest.approx(np.mean([c[0] for c in summary['changes']]))


def test_entries_figure_and_sentences_come_from_the_numbers(runs):
  rows = list(ROWS.values())
  entries = grid.make_entries(infinite_width, rows, runs)
  assert len(infinite_width.draw(entries, runs).axes) == 4
  assert len(list(infinite_width.findings(entries))) == 3 + 1 + 3 + 2 + 1
  nothing = grid.make_entries(infinite_width, rows, {})
  assert infinite_width.draw(nothing, {}).axes
  assert list(infinite_width.findings(nothing)) == []


@pytest.mark.parametrize('scale', scales.SCALES)
def test_every_row_says_what_it_is_and_what_it_takes(scale):
  rows = infinite_width.rows(scale)
  assert len({row.name for row in rows}) == len(rows)
  for row in rows:
    assert json.loads(json.dumps(row.changes)) == row.changes
    assert infinite_width.expected_seconds(row.changes | {'seed': 0}) > 0


def test_at_laptop_scale_all_takes_15_minutes():
  rows = infinite_width.rows('laptop')
  assert sum(infinite_width.expected_seconds(row.changes) for row in rows) < 900


def test_a_kernel_that_memory_cannot_hold_is_refused(monkeypatch):
  monkeypatch.setattr(memory, 'bytes_free', lambda: 10**6)
  with pytest.raises(BadInput, match='200 training examples need about'):
    infinite_width.check(ROWS['kernels_digits_200'].changes | {'seed': 0})
  monkeypatch.setattr(wide_networks, 'MOST_DIRECT', 100)
  with pytest.raises(BadInput, match='200 training examples need about'):
    infinite_width.check(ROWS['kernels_digits_200'].changes | {'seed': 0})


@pytest.mark.parametrize(
  ('row', 'changes', 'words'),
  [
    ('kernels_digits_200', {'part': 'none'}, "part is 'none'"),
    ('kernels_digits_200', {'depth': -1}, 'depth is -1'),
    ('kernels_digits_200', {'draws': 0}, 'draws is 0'),
    ('kernels_digits_200', {'num_train': 10**5}, 'num_train is 100000, but digits has'),
    ('kernels_digits_200', {'weight_variance': math.nan}, 'weight_variance is nan'),
    ('kernels_digits_200', {'bias_variance': -1.0}, 'bias_variance is -1.0'),
    ('labels_digits_gaussian', {'mode': 'blur'}, "mode is 'blur'"),
    ('labels_digits_gaussian', {'label_noise': 1.5}, 'label_noise is 1.5'),
    ('labels_digits_gaussian', {'num_train': 1_000}, 'of the first two classes'),
    ('curve_true_labels', {'labels': 'wrong'}, "labels is 'wrong'"),
    ('curve_true_labels', {'width': 511}, 'width is 511'),
    ('features_mup', {'parametrization': 'lazy'}, "parametrization is 'lazy'"),
    ('features_mup', {'widths': [64]}, r'widths is \[64\]'),
    ('features_mup', {'networks': None}, 'networks is None'),
  ],
)
def test_bad_settings_are_refused(row, changes, words):
  with pytest.raises(BadInput, match=words):
    infinite_width.check(ROWS[row].changes | {'seed': 0} | changes)
