"""The functions of random and trained networks, computed for real but few."""

import json
import math

import numpy as np
import pytest

from rethink_gen.errors import BadInput
from rethink_gen.paper import scales
from rethink_gen.reporting.artifacts import Run
from rethink_gen.reproduce import grid
from rethink_gen.studies import simplicity_bias
from rethink_gen.theory import boolean_functions

SMALL = {
  'num_inputs': 4,
  'width': 8,
  'num_examples': 8,
}  # 65,536 functions, so that guesses find most
slow = pytest.mark.slow
NAMES = ('relu_2x40', 'tanh_2x40', 'sgd_batch_8', 'flipped_0.00', 'flipped_0.50')


def compute(row, **changes):
  settings = row.changes | SMALL | {'seed': 0} | changes
  simplicity_bias.check(settings)
  summary = simplicity_bias.compute(settings, None, say=lambda line: None)
  return json.loads(json.dumps(summary, allow_nan=False))


def as_run(summary):
  return Run({}, {'status': 'complete', 'seconds': 1.0, 'device': 'cpu'} | summary, [], [])


@pytest.fixture(scope='module')
def rows():
  return {row.name: row for row in simplicity_bias.rows('smoke')}


@pytest.fixture(scope='module')
def runs(rows):
  return {(name, 0): as_run(compute(rows[name])) for name in NAMES}


@slow
def test_a_row_of_random_networks(runs):
  measured = simplicity_bias.measure(runs, 'relu_2x40', 0)
  assert 0 < measured['constant'] < 100
  assert 2 < measured['distinct'] < 4_000
  assert measured['correlation'] < -0.3
  assert measured['slope'] < 0
  assert 4 <= measured['mean_complexity'] < 30
  summary = runs['relu_2x40', 0].summary
  assert summary['rank_probabilities'] == sorted(summary['rank_probabilities'])[::-1]
  assert summary['ranks'][0] == 1


def test_constants_are_counted_by_hand(rows):
  summary = compute(rows['relu_2x40'], num_networks=500)
  prior = simplicity_bias._prior(rows['relu_2x40'].changes | SMALL)
  sampled = boolean_functions.sample(prior, 0, 0, 500)
  texts = [boolean_functions.as_text(function) for function in sampled]
  constants = sum(len(set(text)) == 1 for text in texts)
  assert summary['constant'] == pytest.approx(constants / 500)
  assert summary['distinct'] == len(set(texts))
  values = [boolean_functions.lz_complexity(text) for text in texts]
  assert summary['mean_complexity'] == pytest.approx(np.mean(values))
  assert summary['complexity_error'] == pytest.approx(np.std(values) / 500**0.5)


@slow
def test_trained_networks_are_compared_with_guesses(runs):
  summary = runs['sgd_batch_8', 0].summary
  targets = summary['per_target']
  assert len(targets['complexity']) == 2
  assert min(targets['guesses']) > 100
  assert min(targets['found']) > 0.5  # the space is small
  for guessed, trained in summary['frequencies']:
    assert 0 < sum(guessed) <= 1 + 1e-9
    assert 0 < sum(trained) <= 1 + 1e-9
  measured = simplicity_bias.measure(runs, 'sgd_batch_8', 0)
  assert measured['fitted'] == 100 * np.mean(targets['fitted'])
  errors = np.array(targets['error'])
  # The standard error of two numbers is half their distance.
  assert measured['error_error'] == pytest.approx(50 * abs(errors[0] - errors[1]))
  assert measured['guess_error'] == pytest.approx(100 * np.mean(targets['guess_error']))


@slow
def test_random_targets_are_not_learned_and_those_of_networks_are(runs):
  easy, hard = (
    simplicity_bias.measure(runs, name, 0) for name in ('flipped_0.00', 'flipped_0.50')
  )
  assert easy['error'] < 40
  assert hard['error'] > easy['error']


def test_guesses_by_brute_force():
  generator = np.random.default_rng(0)
  functions = np.unique(generator.integers(0, 256, (400, 1), np.uint8), axis=0)
  weights = generator.integers(1, 20, len(functions))
  counts = boolean_functions.Counts(functions, weights)
  target = generator.random(8) < 0.5
  examples, others = np.split(generator.permutation(8), 2)
  tables = np.unpackbits(functions, axis=1).astype(bool)
  trained = functions[(tables[:, examples] == target[examples]).all(1)][:3]
  one = simplicity_bias._compare_one(
    counts, target, examples, others, trained, np.array([4, -1, 0])
  )
  total = wrong = 0
  for table, weight in zip(tables, weights, strict=True):
    if (table[examples] == target[examples]).all():
      total += weight
      wrong += weight * np.mean(table[others] != target[others])
  assert one['guesses'] == total
  assert one['guess_error'] == pytest.approx(wrong / total)
  assert one['fitted'] == pytest.approx(2 / 3)
  assert one['found'] == 1
  kept = np.unpackbits(trained[[0, 2]], axis=1).astype(bool)
  assert one['error'] == pytest.approx((kept != target)[:, others].mean())


@slow
def test_a_seed_gives_the_same_result(rows):
  row = rows['sgd_batch_8']
  changes = {'num_networks': 2_000, 'num_trained': 10}
  one = compute(row, **changes)
  simplicity_bias.count_functions.cache_clear()
  assert compute(row, **changes) == one
  assert compute(row, **changes, seed=1) != one


@slow
def test_entries_figures_and_sentences_come_from_the_numbers(runs):
  rows = [row for row in simplicity_bias.rows('smoke') if row.name in NAMES]
  entries = grid.make_entries(simplicity_bias, rows, runs)
  for entry in entries:
    values = [value for value in entry['ours'].values() if value is not None]
    assert all(math.isfinite(value) for value in values)
  assert len(simplicity_bias.draw(entries, runs).axes) == 4
  assert len(list(simplicity_bias.findings(entries))) >= 4
  nothing = grid.make_entries(simplicity_bias, rows, {})
  assert simplicity_bias.draw(nothing, {}).axes
  assert list(simplicity_bias.findings(nothing)) == []


@pytest.mark.parametrize('scale', scales.SCALES)
def test_every_row_is_accepted(scale):
  for row in simplicity_bias.rows(scale):
    simplicity_bias.check(row.changes)
    assert json.loads(json.dumps(row.changes)) == row.changes


def test_at_laptop_scale_all_takes_less_than_25_minutes():
  rows = simplicity_bias.rows('laptop')
  assert sum(simplicity_bias.expected_seconds(row.changes) for row in rows) < 1500


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'targets': 'all'}, "targets is 'all'"),
    ({'num_networks': 0}, 'num_networks is 0'),
    ({'num_targets': 1.5}, 'num_targets is 1.5'),
    ({'num_trained': -1}, 'num_trained is -1'),
    ({'max_epochs': 0}, 'max_epochs is 0'),
    ({'num_examples': 0}, 'num_examples is 0'),
    ({'num_examples': 128}, 'must be below 128'),
    ({'batch_size': 24}, 'must divide num_examples, 32'),
    ({'flips': 0.6}, 'flips is 0.6'),
    ({'learning_rate': 0.0}, 'learning_rate is 0.0'),
    ({'depth': 200}, 'depth is 200'),
  ],
)
def test_bad_settings_are_refused(rows, changes, words):
  with pytest.raises(BadInput, match=words):
    simplicity_bias.check(rows['sgd_batch_8'].changes | changes)


def test_too_few_targets_are_refused(rows):
  with pytest.raises(BadInput, match='can be targets, but num_targets is 2'):
    compute(rows['sgd_batch_8'], bias_std=1e6, num_networks=100)
