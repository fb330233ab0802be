"""Guess and check, computed for real on a few handwritten digits."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from rethink_gen.errors import BadInput
from rethink_gen.paper import scales
from rethink_gen.reporting.artifacts import Run
from rethink_gen.reproduce import grid
from rethink_gen.studies import volume

pytestmark = pytest.mark.slow

ROWS = {row.name: row for row in volume.rows('smoke')}


def compute(name, **changes):
  settings = ROWS[name].changes | {'seed': 0} | changes
  volume.check(settings)
  summary = volume.compute(settings, None, lambda line: None)
  return Run(settings, json.loads(json.dumps(summary, allow_nan=False)), [], [])


def stored(run):
  """What `grid` adds to a summary."""
  return run._replace(
    summary=run.summary | {'status': 'complete', 'seconds': 1.0, 'device': 'cpu'}
  )


@pytest.fixture(scope='module')
def runs():
  names = 'width_8_n4', 'width_8_n32', 'width_32_n4'
  return {(name, 0): stored(compute(name)) for name in names}


def test_a_result_is_a_function_of_the_seed(runs):
  again = compute('width_8_n4').summary
  assert again.items() <= runs['width_8_n4', 0].summary.items()
  other = compute('width_8_n4', seed=1).summary
  assert other['guess_accuracy'] != again['guess_accuracy']


def test_training_sets_are_balanced_nested_and_do_not_depend_on_the_network():
  x, signs, _, _ = volume.load('digits')
  small, large = (volume.training_set(x, signs, count, 0, 3) for count in (4, 8))
  assert small[1].tolist() == [-1, -1, 1, 1]
  images = {image.tobytes() for image in large[0]}
  assert {image.tobytes() for image in small[0]} <= images
  assert len(images) == 8
  other = volume.training_set(x, signs, 4, 0, 2)
  assert not np.array_equal(other[0], small[0])


def test_the_table_has_the_numbers_of_the_runs(runs):
  summary = runs['width_8_n4', 0].summary
  measured = volume.measure(runs, 'width_8_n4', 0)
  assert measured.keys() <= volume.COLUMNS.keys()
  draws = summary['draws'] * 3
  expected = stats.binomtest(sum(summary['fits']), draws).proportion_ci(0.95, 'exact')
  assert measured['fit_probability'] == sum(summary['fits']) / draws
  assert (measured['fit_low'], measured['fit_high']) == pytest.approx(tuple(expected))
  accuracies = 100 * np.array(summary['guess_accuracy'])
  half = stats.t.ppf(0.975, 2) * stats.sem(accuracies)
  assert measured['guess_accuracy'] == pytest.approx(accuracies.mean())
  assert measured['guess_interval'] == pytest.approx(half)
  assert 'guess_change' not in measured  # it is the reference
  wide = runs['width_32_n4', 0].summary
  changes = 100 * np.subtract(wide['sgd_accuracy'], summary['sgd_accuracy'])
  compared = volume.measure(runs, 'width_32_n4', 0)
  assert compared['sgd_change'] == pytest.approx(changes.mean())
  assert compared['sgd_change_interval'] == pytest.approx(volume.interval(changes))


def test_fitting_networks_are_about_as_many_as_estimated_and_sgd_has_no_higher_loss(runs):
  for name in ('width_8_n4', 'width_32_n4'):
    summary = runs[name, 0].summary
    assert all(count <= 8 for count in summary['compared'])
    assert max(summary['fits']) >= 4  # of 8, with an estimate from 10 or more
    measured = volume.measure(runs, name, 0)
    assert measured['sgd_loss'] < measured['guess_loss'] < math.log(2)
    assert measured['sgd_reached'] > 60
    assert measured['above_chance'] > 60


def test_a_row_that_needs_too_many_draws_is_left_out_and_says_so(runs):
  summary = runs['width_8_n32', 0].summary
  assert summary['draws'] > 2_000
  assert 'fits' not in summary
  entries = grid.make_entries(volume, list(ROWS.values()), runs)
  said = list(volume.findings(entries))
  assert any(
    'width_8_n32 is left out' in line and f'{summary["draws"]:,}' in line for line in said
  )
  # One network of this many can fit at most; none fits the estimate.
  never = {'num_train': 200, 'max_draws': 100}
  assert compute('width_8_n4', **never).summary == {'draws': 8 * volume.PILOT_STEP}


def test_entries_figure_and_sentences_come_from_the_numbers(runs):
  rows = list(ROWS.values())
  entries = grid.make_entries(volume, rows, runs)
  figure = volume.draw(entries, runs)
  assert [len(axis.containers) for axis in figure.axes] == [4, 2, 2]
  assert len(list(volume.findings(entries))) >= 5
  nothing = grid.make_entries(volume, rows, {})
  assert volume.draw(nothing, {}).axes
  assert list(volume.findings(nothing)) == []


@pytest.mark.parametrize('scale', scales.SCALES)
def test_every_row_says_what_it_is_and_what_it_takes(scale):
  rows = volume.rows(scale)
  assert len({row.name for row in rows}) == len(rows)
  for row in rows:
    assert json.loads(json.dumps(row.changes)) == row.changes
    assert volume.expected_seconds(row.changes | {'seed': 0}) > 0


def test_at_laptop_scale_all_takes_25_minutes():
  assert sum(volume.expected_seconds(row.changes) for row in volume.rows('laptop')) < 1_500


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'num_train': 3}, 'num_train is 3, but it must be even'),
    ({'num_train': 10_000}, 'at most 2'),
    ({'num_train': None}, 'num_train is None'),
    ({'depth': 0}, 'depth is 0'),
    ({'width': 1.5}, 'width is 1.5'),
    ({'samples': 1}, 'samples is 1'),
    ({'kept': 0}, 'kept is 0'),
    ({'max_draws': 2**32 + 1}, 'max_draws is 4,294,967,297'),
    ({'max_steps': 0}, 'max_steps is 0'),
    ({'learning_rate': 0.0}, 'learning_rate is 0.0'),
    ({'initialization': 'zeros'}, "initialization is 'zeros'"),
  ],
)
def test_bad_settings_are_refused(changes, words):
  with pytest.raises(BadInput, match=words):
    volume.check(ROWS['width_8_n4'].changes | {'seed': 0} | changes)
