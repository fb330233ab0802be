import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen import config as config_lib
from rethink_gen.data import corruption
from rethink_gen.data.sources import Dataset
from rethink_gen.reporting.artifacts import Run
from rethink_gen.reproduce import grid
from rethink_gen.studies import double_descent_cnn


def make_entries(errors, seeds=2):
  """Entries with 20 % wrong labels: test errors {width: percent}, seed 1 one point more.

  At width 8, it has two points more.
  """
  rows = {row.name: row for row in double_descent_cnn.rows('laptop')}
  rows = {width: rows[f'noise20_w{width}'] for width in errors}
  runs = {}
  for width, error in errors.items():
    for seed in range(seeds):
      right = 1 - (error + seed * (2 if width == 8 else 1)) / 100
      records = [
        {'test_accuracy': accuracy, 'train_accuracy': 0.9}
        for accuracy in (right + 0.1, right)
      ]
      summary = {'status': 'complete', 'seconds': 1.0, 'device': 'cpu'}
      runs[rows[width].name, seed] = Run({}, summary, records, [])
  return grid.make_entries(double_descent_cnn, list(rows.values()), runs), runs


def test_the_largest_rise_is_told_with_its_standard_error():
  entries, runs = make_entries({1: 60.0, 4: 40.0, 8: 55.0, 10: 30.0})
  (sentence,) = double_descent_cnn.findings(entries)
  # By 15 and 16 points.
  said = (
    'rises most from width 4 to width 8, by +15.50 ± 0.50 points (standard error, 2 seeds)'
  )
  assert said in sentence
  assert sentence.endswith('The test error at width 10 is 30.5 %.')
  assert entries[2]['ours']['best_error'] == pytest.approx(46.0)
  assert double_descent_cnn.draw(entries, runs).axes


def test_an_error_that_does_not_rise_is_called_so():
  entries, _ = make_entries({1: 60.0, 4: 40.0, 8: 40.0}, seeds=1)
  assert list(double_descent_cnn.findings(entries)) == [
    'With 20 % wrong labels, the test error rises from no width to a larger one.'
  ]
  assert list(double_descent_cnn.findings(make_entries({1: 60.0})[0])) == []


def test_the_noise_is_the_fraction_of_wrong_labels():
  """The literature's noise never draws the true class, this package's may."""
  y = np.zeros(100_000, np.int64)
  x = np.zeros((len(y), 1, 1, 1), np.uint8)
  (row,) = (r for r in double_descent_cnn.rows('full') if r.name == 'noise20_w64')
  noise = row.changes['corruption.label_noise']
  noisy = corruption.corrupt(Dataset(x, y, x, y, 10), 'partial_labels', 0, noise)
  assert np.mean(noisy.y_train != y) == pytest.approx(0.2, abs=0.005)


def test_the_learning_rate_falls_with_the_square_root_of_the_steps():
  tx = config_lib.OPTIMIZERS['inverse_sqrt_sgd'](lambda step: 0.1, 0.0)
  params = jnp.ones(1)
  state, updates = tx.init(params), []
  for _ in range(1537):
    update, state = tx.update(params, state)
    updates.append(float(update[0]))
  expected = [-0.1, -0.1, -0.1 / 2**0.5, -0.1 / 3**0.5, -0.1 / 4**0.5]
  assert [updates[n] for n in (0, 511, 512, 1535, 1536)] == pytest.approx(expected)
