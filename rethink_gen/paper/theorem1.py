"""Theorem 1: a network with 2n + d weights that fits any labels on a sample.

The theorem is about two layers. Its corollary covers every depth with O(n + d) weights, so
the paper gives a number to compare with at depth two only.
"""

import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rethink_gen.data import corruption, sources
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.theory import expressivity

TITLE = 'Theorem 1: 2n + d weights fit any labels'
ASKED = (
  'How many weights does a ReLU network need to fit any labels on n points in d dimensions?'
)
FOUND = (
  '2n + d in two layers (Theorem 1), and O(n + d) at every depth k with a width of O(n/k) '
  '(its corollary, which gives no constant). The proof is constructive.'
)
COLUMNS = {
  'weights': Column('free weights', '', ',.0f'),
  'width': Column('width', '', ',.0f'),
  'train_accuracy': Column('training accuracy', '%', '.2f'),
  'error': Column('largest error', '', '.1e'),
  'test_accuracy': Column('test accuracy', '%', '.2f'),
  'train_accuracy_float32': Column('training accuracy in float32', '%', '.2f'),
  'seconds_to_construct': Column('seconds to construct', '', '.2f'),
  'seconds_to_evaluate': Column('seconds to evaluate', '', '.2f'),
}
CAPTION = (
  'Left: the function along the direction that the network projects onto, at ten '
  'consecutive points: piecewise linear, through every label. Right: the slopes of its '
  'pieces. The closest of n random points on a line are about 1/n² apart, which single '
  'precision cannot resolve at 50,000 points: hence float64.'
)
DEPTHS = (2, 3, 5, 10)
SAYS = {
  'smoke': '500 handwritten digits with random labels.',
  'laptop': 'All 50,000 images of CIFAR-10 with random labels.',
  'full': 'All 50,000 images of CIFAR-10 with random labels.',
}


def rows(scale: str) -> list[Row]:
  data: dict[str, Any] = (
    {'dataset': 'digits', 'num_train': 500}
    if scale == 'smoke'
    else {'dataset': 'cifar10', 'num_train': 50_000}
  )
  size, dimensions = data['num_train'], {'digits': 64, 'cifar10': 3072}[data['dataset']]
  return [
    Row(
      f'depth_{depth}',
      'theorem1',
      data | {'depth': depth},
      {'train_accuracy': 100.0}
      | ({'weights': 2 * size + dimensions} if depth == 2 else {}),
      'Theorem 1' if depth == 2 else 'the corollary: O(n + d) weights, width O(n/k)',
    )
    for depth in DEPTHS
  ]


def check(settings: dict) -> None:
  if settings['num_train'] < 1:
    raise BadInput(f'num_train is {settings["num_train"]}, but it must be at least 1.')
  sources.load(settings['dataset'])


def expected_seconds(settings: dict) -> float:
  return 2 + 3e-9 * settings['num_train'] ** 2


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Fits random labels; outputs are class indices, rounded to the nearest class."""
  del folder  # takes only seconds
  original = sources.load(settings['dataset'])
  data = corruption.corrupt(original, 'random_labels', settings['seed'], 0.0)
  x_train, y_train = data.x_train[: settings['num_train']], data.y_train
  inputs = x_train.reshape(len(x_train), -1) / 255
  labels = y_train[: len(inputs)]
  started = time.monotonic()
  model, params = expressivity.construct(
    inputs, labels, settings['depth'], settings['seed']
  )
  constructed = time.monotonic()
  outputs = expressivity.evaluate(model, params, inputs)
  evaluated = time.monotonic()
  say(f'constructed and evaluated on {len(inputs):,} points')
  test_inputs = data.x_test.reshape(len(data.x_test), -1) / 255
  in_float32 = expressivity.evaluate(model, params, inputs, np.float32)
  thresholds, weights = (
    np.concatenate([params[name] for name in sorted(params, key=_layer) if kind in name])
    for kind in ('thresholds', 'weights')
  )
  middle = len(thresholds) // 2

  def accuracy(predicted, true):
    return float((np.rint(predicted) == true).mean())

  return {
    'depth': settings['depth'],
    'weights': expressivity.count_weights(params),
    'width': expressivity.width(model),
    'train_accuracy': accuracy(outputs, labels),
    'error': float(np.abs(outputs - labels).max()),
    'test_accuracy': accuracy(
      expressivity.evaluate(model, params, test_inputs), data.y_test
    ),
    'train_accuracy_float32': accuracy(in_float32, labels),
    'error_float32': float(np.abs(in_float32 - labels).max()),
    'seconds_to_construct': constructed - started,
    'seconds_to_evaluate': evaluated - constructed,
    # For the figure: slopes, and ten points in the middle.
    'slopes': np.percentile(np.abs(np.cumsum(weights)), np.arange(101)).tolist(),
    'thresholds': thresholds[middle : middle + 10].tolist(),
    'pieces': np.cumsum(weights)[middle : middle + 10].tolist(),
  }


def _layer(name):
  """Sort key: the direction first, then layers by number."""
  return int(name.rpartition('_')[2]) if '_' in name else -1


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  return {
    column: summary[column] * (100 if unit == '%' else 1)
    for column, (_, unit, _) in COLUMNS.items()
  }


def draw(entries: list[dict], runs: Runs):
  figure, (function, slopes) = drawing.subplots(1, 2)
  if runs:
    summary = next(iter(runs.values())).summary
    thresholds = np.array(summary['thresholds'])
    rises = np.array(summary['pieces'])[:-1] * np.diff(thresholds)
    values = np.concatenate([[0], np.cumsum(rises)])
    function.plot(thresholds - thresholds[0], values - values.min(), 'o-')
    slopes.plot(np.arange(101), summary['slopes'])
  function.set(xlabel='⟨a, x⟩ from the first point on', ylabel='output above the lowest')
  slopes.set(xlabel='share of the pieces (%)', ylabel='slope at most', yscale='log', ylim=1)
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  for entry in entries:
    ours = entry['ours']
    if ours['weights'] is not None:
      yield (
        f'Depth {entry["changes"]["depth"]}: {ours["weights"]:,.0f} free weights, in '
        f'layers of at most {ours["width"]:,.0f} units, fit '
        f'{ours["train_accuracy"]:.2f} % of the random labels, with a largest error of '
        f'{ours["error"]:.0e}.'
      )
