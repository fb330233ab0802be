"""What the artifacts make of runs, on made-up runs whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.paper import (
  appendix_e,
  figure1a,
  figure1b,
  figure1c,
  figure2a,
  figure2b,
  scales,
  table1,
  table2,
  theorem1,
)
from rethink_gen.reporting import differences, drawing
from rethink_gen.reporting.artifacts import Run
from rethink_gen.reproduce import grid, training
from rethink_gen.reproduce.registry import ARTIFACTS
from rethink_gen.studies import fitting_time
from rethink_gen.train import loading


def make_run(losses=(), records=(), **summary):
  return Run({}, {'status': 'complete', 'steps': len(losses)} | summary, records, losses)


def test_table_1_is_in_percent():
  runs = {('mlp_1x512', 0): make_run(train_accuracy=0.25, test_accuracy=0.125)}
  measured = table1.measure(runs, 'mlp_1x512', 0)
  assert measured == {'train_accuracy': 25.0, 'test_accuracy': 12.5}


def test_the_rows_of_table_1_say_what_they_change():
  rows = {row.name: row for row in table1.rows('full')}
  changes = rows['alexnet_crop_decay'].changes
  assert changes['regularization.random_crop'] is True
  assert changes['regularization.weight_decay'] == scales.WEIGHT_DECAY
  assert not any(field.startswith('regul') for field in rows['alexnet'].changes)
  assert rows['inception_no_bn_random'].config == 'inception_no_bn_random'


def test_figure_1a_finds_the_first_interval_below_a_loss():
  losses = np.full(40, 1.0, np.float32)
  losses[16:24] = 0.05  # the third interval of eight steps
  losses[24:] = 0.5
  measured = figure1a.measure({('inception', 0): make_run(losses)}, 'inception', 0)
  assert measured == {
    'steps_to_loss_0.1': 24,
    'steps_to_loss_0.01': None,
    'final_loss': 0.5,
  }


def test_figure_1a_averages_over_about_a_hundred_steps_at_full_scale():
  assert figure1a.interval(make_run(np.zeros(65 * 390))) == 101


def fitted_at(step):
  """A run that is evaluated at one step, where everything is right; nothing on batches."""
  return make_run(records=[{'step': step, 'train_accuracy': 1.0}], steps_per_epoch=10)


def make_climb(accuracy, every, threshold=0.99):
  """A run of 20 steps an epoch whose batches are as right as accuracy(step), without noise.

  It is evaluated after every `every` steps, at most 400, and stops at the threshold.
  """
  records = []
  for step in range(every, 401, every):
    records.append({'step': step, 'train_accuracy': float(accuracy(step))})
    if records[-1]['train_accuracy'] >= threshold:
      break
  batches = accuracy(np.arange(1, records[-1]['step'] + 1)).astype(np.float32)
  return make_run(records=records, steps_per_epoch=20)._replace(accuracies=batches)


@pytest.mark.parametrize('every', [20, 60, 100])
def test_steps_to_fit_are_interpolated_by_the_batches(every):
  """On a straight climb to 0.99 at step 247, evaluated after one, three or five epochs."""
  run = make_climb(lambda step: np.minimum(0.1 + 0.89 * step / 247, 1), every)
  assert run.records[-1]['step'] > 250
  assert figure1b.steps_to_fit(run) == pytest.approx(247, abs=5)  # a quarter of an epoch


@given(st.integers(120, 380), st.floats(0.9, 0.99))
def test_steps_to_fit_where_batches_are_less_right_than_the_whole_set(step, share):
  """As they are, each being classified before its own step."""
  run = make_climb(lambda steps: np.clip(np.asarray(steps) / step, 0, 1), 20)
  run = run._replace(accuracies=run.accuracies * np.float32(share))
  found = figure1b.steps_to_fit(run)
  last = run.records[-1]['step']
  assert last - 20 < found <= last
  assert found == pytest.approx(0.99 * step, abs=10)  # half an epoch


def test_without_the_accuracies_of_batches_the_step_of_the_evaluation_counts():
  run = make_climb(lambda step: np.minimum(np.asarray(step) / 247, 1), 20)
  assert figure1b.steps_to_fit(run._replace(accuracies=())) == 260
  assert figure1b.steps_to_fit(fitted_at(100)) == 100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 50))
def test_smoothed_is_the_mean_around_each_step(values, width):
  smooth = figure1b.smoothed(np.array(values), width)
  assert smooth.shape == (len(values),)
  half = (min(width, len(values)) - 1) // 2
  for center in range(half, len(values) - half):
    around = values[center - half : center + half + 1]
    assert smooth[center] == pytest.approx(np.mean(around), abs=1e-9)


def test_differences_are_of_the_seeds_that_both_rows_have():
  first, second = {0: 5.0, 1: 7.0, 2: None, 3: 1.0}, {0: 4.0, 1: 4.0, 2: 1.0}
  difference = differences.paired(first, second)
  assert difference == (2.0, pytest.approx(1.0), 2)
  assert differences.describe(difference, 'points') == (
    '+2.00 ± 1.00 points (standard error, 2 seeds)'
  )
  assert differences.paired({0: 1.0}, {1: 1.0}) is None
  one = differences.paired({0: 1.0}, {0: 1.5})
  assert differences.describe(one, 'steps') == '-0.50 steps (one run each)'


@pytest.mark.parametrize('name', ['table1', 'figure1c', 'figure2b'])
def test_test_accuracies_of_subsets_have_no_number_of_the_paper_beside_them(name):
  for row in ARTIFACTS[name].rows('laptop'):
    beside = any('test' in column for column in row.paper)
    guessing = row.config.endswith('random') or row.name.endswith('_1.0')
    between = name == 'figure1c' and not row.name.endswith(('_0.0', '_1.0'))
    whole = 'dataset.num_train' not in row.changes
    assert beside is ((whole or guessing) and not between)


def test_figure_2b_changes_batch_normalization_alone():
  for scale in scales.SCALES:
    with_it, without = (training.make_settings(row, 0) for row in figure2b.rows(scale))
    (difference,) = config_lib.differences(with_it, without)
    assert difference.startswith('model.batch_norm')


def test_figure_1a_tests_the_papers_order_over_seeds():
  def entry(name, *steps):
    column = 'steps_to_loss_0.1'
    values = {column: dict(enumerate(steps))}
    return {'name': name, 'ours': {column: np.mean(steps)}, 'values': values}

  order, *pairs = figure1a.findings(
    [
      entry('inception', 100, 110, 120),
      entry('inception_shuffled_pixels', 130, 130, 150),
      entry('inception_gaussian', 80, 90, 100),
    ]
  )
  assert 'Gaussian (90), true labels (110), shuffled pixels (137)' in order
  later = [pair.split(' later by ')[1] for pair in pairs if ' later by ' in pair]
  assert later == [
    '+26.67 ± 3.33 steps (standard error, 3 seeds).',  # 30, 20, 30
    '-46.67 ± 3.33 steps (standard error, 3 seeds).',
  ]


def test_figure_1b_compares_with_true_labels_of_the_same_model_and_seed():
  runs = {
    ('alexnet_0.0', 0): fitted_at(100),
    ('alexnet_0.0', 1): fitted_at(200),
    ('alexnet_0.5', 0): fitted_at(150),
    ('alexnet_0.5', 1): make_run(records=[{'step': 300, 'train_accuracy': 0.5}]),
    ('mlp_1x512_0.5', 0): fitted_at(150),
  }

  def slowdown(name, seed):
    return figure1b.measure(runs, name, seed)['slowdown']

  assert slowdown('alexnet_0.0', 0) == slowdown('alexnet_0.0', 1) == 1.0
  assert slowdown('alexnet_0.5', 0) == 1.5
  assert slowdown('alexnet_0.5', 1) is None  # never fitted
  assert slowdown('mlp_1x512_0.5', 0) is None  # nothing to compare with


def test_figure_1c_ends_at_the_errors_of_table_1_and_of_guessing():
  paper = {row.name: row.paper for row in figure1c.rows('full') if row.paper}
  assert paper == {
    'inception_0.0': {'test_error': pytest.approx(14.25)},
    'inception_1.0': {'test_error': 90.0},
    'alexnet_0.0': {'test_error': pytest.approx(23.93)},
    'alexnet_1.0': {'test_error': 90.0},
    'mlp_1x512_0.0': {'test_error': pytest.approx(49.49)},
    'mlp_1x512_1.0': {'test_error': 90.0},
  }
  runs = {('alexnet_0.5', 0): make_run(test_accuracy=0.75)}
  assert figure1c.measure(runs, 'alexnet_0.5', 0) == {'test_error': 25.0}


def test_figure_2b_gives_what_early_stopping_would_have_gained():
  run = make_run(train_accuracy=1.0, test_accuracy=0.5, best_test_accuracy=0.625)
  measured = figure2b.measure({('inception', 0): run}, 'inception', 0)
  assert measured['early_stopping_gain'] == 12.5


def test_table_2_takes_the_best_of_all_evaluations():
  records = [
    {f'{split}_{kind}': value for split in ('train', 'test')}
    | {f'{split}_top5_{kind}': value / 2 for split in ('train', 'test')}
    for kind, value in (('accuracy', 0.5), ('accuracy', 0.25))
  ]
  measured = table2.measure({('true', 0): make_run(records=records)}, 'true', 0)
  assert measured == {
    'train_accuracy': 25.0,
    'train_top5_accuracy': 12.5,
    'test_accuracy': 25.0,
    'test_top5_accuracy': 12.5,
    'best_test_accuracy': 50.0,
    'best_test_top5_accuracy': 25.0,
  }


def test_the_rows_of_table_2_are_the_papers_regularizers():
  """Augmentation, dropout, weight decay, random labels, in the order of the table."""
  expected = [
    (True, True, True, False),
    (True, False, False, False),
    (False, False, True, False),
    (False, False, False, False),
    (False, True, True, True),
    (False, False, True, True),
    (False, False, False, True),
  ]
  for row, switches in zip(table2.rows('full'), expected, strict=True):
    config = training.make_settings(row, seed=0)
    regularization = config.regularization
    augmentation = ('random_crop', 'random_flip', 'color_jitter')
    assert switches == (
      all(regularization[name] for name in augmentation),
      regularization.dropout_rate > 0,
      regularization.weight_decay > 0,
      config.corruption.mode == 'random_labels',
    )
    assert any(regularization[name] for name in augmentation) is switches[0]


def test_figure_2a_has_what_the_paper_says_of_early_stopping():
  paper = {row.name: row.paper for row in figure2a.rows('full')}
  assert paper['true']['early_stopping_gain'] == pytest.approx(63.16 - 59.80)
  assert 'early_stopping_gain' not in paper['true_augmentation_dropout_decay']


def test_appendix_e_takes_the_running_accuracy_where_batches_are_augmented():
  record = {'running_accuracy': 0.5, 'train_accuracy': 1.0}
  runs = {(row.name, 0): make_run(records=[{}, record]) for row in appendix_e.rows('full')}
  measured = {name: appendix_e.measure(runs, name, 0)['train_accuracy'] for name, _ in runs}
  assert measured == {
    'inception_random_decay': 100.0,
    'alexnet_random_decay': 100.0,
    'alexnet_random_tutorial_decay': 100.0,
    'mlp_3x512_random_decay': 100.0,
    'mlp_1x512_random_decay': 100.0,
    'mlp_1x512_random_decay_0.0005': 100.0,
    'inception_random_crop': 50.0,
    'inception_random_flip_rotate': 50.0,
  }


@pytest.mark.parametrize('scale', scales.SCALES)
def test_the_paper_has_2n_plus_d_weights_for_two_layers_alone(scale):
  """Theorem 1 is of depth two; its corollary says O(n + d) for every depth."""
  rows = {row.name: row for row in theorem1.rows(scale)}
  size, dimensions = (500, 64) if scale == 'smoke' else (50_000, 3_072)
  assert rows.pop('depth_2').paper['weights'] == 2 * size + dimensions
  for row in rows.values():
    assert 'weights' not in row.paper
    assert 'O(n + d)' in row.note


def make_examples(**columns):
  right = np.array(columns.pop('right'), bool)
  return {'right': right} | {name: np.array(values) for name, values in columns.items()}


def test_what_is_never_fitted_is_the_most_suspicious():
  examples = make_examples(
    first_fitted=[1, 3, 0, 2], last_fitted=[4, 3, 0, 2], right=[1, 1, 0, 0]
  )
  ranked = fitting_time.suspicion(examples, 'first_fitted')
  assert np.argsort(-ranked).tolist() == [2, 1, 3, 0]
  never = examples | {'forgotten': np.float32([0, 3, np.inf, 1])}
  assert fitting_time.suspicion(never, 'forgotten').tolist() == [0, 3, 4, 1]
  # One that was fitted once and is wrong at the end is not fitted for good.
  assert fitting_time.suspicion(examples, 'last_fitted').tolist() == [4, 3, 5, 5]


def test_precision_and_recall_by_hand(monkeypatch):
  """Suspicious in this order: wrong, right, then a wrong and a right one together."""
  wrong = np.array([True, False, True, False])
  monkeypatch.setattr(fitting_time, 'find_wrong', lambda run: wrong)
  examples = make_examples(
    first_fitted=[3, 2, 1, 1],
    last_fitted=[4, 4, 4, 4],
    forgotten=[0, 0, 2, 0],
    right=4 * [1],
  )
  runs = {('row', 0): make_run()._replace(examples=examples)}
  assert fitting_time.measure(runs, 'row', 0) == {
    'wrong_labels': 50.0,
    'first_fitted_average_precision': 100 * (1 + 2 / 4) / 2,
    'last_fitted_average_precision': 50.0,  # all at once
    'forgotten_average_precision': 100 * (1 + 2 / 4) / 2,
    'first_fitted_precision': 100.0,
    'last_fitted_precision': 50.0,
    'forgotten_precision': 100.0,
  }


@pytest.mark.parametrize('noise', [0.0, 0.4])
def test_wrong_labels_are_those_that_the_corruption_changed(noise, tmp_path):
  [row] = [row for row in fitting_time.rows('smoke') if row.name == 'mlp_1x512_0.4']
  config = training.make_settings(row, seed=2)
  config.update_from_flattened_dict({'corruption.label_noise': noise, 'num_epochs': 1})
  summary = train.run(config, tmp_path)
  run = grid.read(tmp_path)
  wrong = fitting_time.find_wrong(run)
  true, learned = loading.load_original(config), loading.load(config)[0]
  np.testing.assert_array_equal(wrong, learned.y_train != true.y_train[:96])
  assert wrong.mean() == summary['labels_changed']
  assert bool(wrong.any()) is (noise > 0)
  measured = fitting_time.measure({('row', 2): run}, 'row', 2)
  assert measured.keys() == (set(fitting_time.COLUMNS) if noise else {'wrong_labels'})


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=60), st.integers(0, 70))
def test_smoothing_averages_whole_intervals(losses, interval):
  steps, means = drawing.smooth(np.array(losses, np.float32), interval)
  interval = max(1, min(interval, len(losses)))
  assert len(steps) == len(means) == len(losses) // interval
  for step, mean in zip(steps, means, strict=True):
    assert mean == pytest.approx(np.mean(losses[step - interval : step]), abs=1e-5)
