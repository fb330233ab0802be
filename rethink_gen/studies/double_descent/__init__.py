"""Double descent: does test error peak where a model just fits its training set?

Least squares on random features, where theory says where and how high the peak is, and
two-layer networks, in width, epochs and examples.
"""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from rethink_gen import memory
from rethink_gen.errors import BadInput
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.studies.double_descent import curves, examples, least_squares, networks
from rethink_gen.studies.double_descent.figure import draw as draw
from rethink_gen.studies.double_descent.least_squares import NOISES, RIDGES
from rethink_gen.studies.double_descent.sentences import findings as findings
from rethink_gen.theory import descent

TITLE = 'Double descent: test error in width, epochs and examples'
ASKED = (
  'Test error peaks where a model has just enough parameters to fit its training set, and '
  'falls again beyond. How high is the peak, does regularization remove it, and do longer '
  'training or more examples ever hurt?'
)
FOUND = (
  'The paper does not ask. Belkin et al. (arXiv:1812.11118) found the peak in width, '
  'Nakkiran et al. (arXiv:1912.02292) also in epochs and examples, and that label noise '
  'makes it higher; Nakkiran et al. (arXiv:2003.01897) that the best ridge removes it.'
)
COLUMNS = {
  'threshold': Column('width of the threshold', '', ',.4g'),
  'error': Column('test error', '%', '.2f'),
  'error_se': Column('±', '', '.2f'),
  'train_error': Column('training error', '%', '.2f'),
  'ridge_error': Column('test error, best ridge', '%', '.2f'),
  'ridge_error_se': Column('±', '', '.2f'),
  'risk': Column('squared risk', '', '.4g'),
  'risk_se': Column('±', '', '.2g'),
  'formula': Column('closed form', '', '.4g'),
  'norm': Column('weight norm', '', '.4g'),
  'loss': Column('test loss', '', '.3f'),
  'loss_se': Column('±', '', '.3f'),
  'stopped_error': Column('test error, stopped early', '%', '.2f'),
  'stopped_error_se': Column('±', '', '.2f'),
  'longer': Column('change by training to the end', '', '+.2f'),
  'longer_se': Column('±', '', '.2f'),
  'fall': Column('late fall', '', '.2f'),
  'fall_se': Column('±', '', '.2f'),
}
PERCENT = ('error', 'train_error', 'ridge_error', 'stopped_error', 'longer', 'fall')
CAPTION = (
  'Top left: test error of least squares on N random Fourier features of n images, without '
  'ridge (solid) and with the ridge that is best on held-out training images (dashed); a '
  'fraction of the labels is wrong. Top middle: the norm of the weights, where features of '
  'an image have norm 1. Top right: excess squared risk of least squares on Gaussian '
  'inputs and on random ReLU features, from closed forms (lines) and simulated (dots). '
  'Bottom left: errors of two-layer ReLU networks trained to the end, and test error '
  'if stopped at the epoch that is best on held-out training images (dashed). Bottom '
  'middle: test error against epochs. Bottom right: test error against width for several '
  'numbers of examples. Vertical lines: N = n; for the networks, as many parameters as '
  'outputs on the training set, nK, where a squared loss could first be fitted. Bars are '
  'standard errors over seeds.'
)
# {part: {setting of its own: least value}}
PARTS: dict[str, dict[str, int]] = {
  'fourier': {'held_out': 1},
  'isotropic': {},
  'relu': {'inputs': 1},
  'network': {'held_out': 1, 'epochs': 1, 'pooled': 1, 'batch_size': 1},
}
# {scale: settings shared by all its rows of a part}
SCALES: dict[str, dict[str, dict[str, Any]]] = {
  'smoke': {
    'fourier': {'dataset': 'digits', 'seeds': 2, 'held_out': 100, 'bandwidth': 1.5},
    'network': {
      'dataset': 'digits',
      'seeds': 2,
      'held_out': 100,
      'epochs': 20,
      'widths': [2, 8, 32],
      'pooled': 1,
      'learning_rate': 0.01,
      'batch_size': 20,
    },
    'isotropic': {'num_train': 20, 'noise': 0.5, 'seeds': 20},
    'relu': {'num_train': 60, 'inputs': 20, 'noise': 0.5, 'seeds': 4},
  },
  'laptop': {
    'fourier': {'dataset': 'mnist', 'seeds': 5, 'held_out': 1_000, 'bandwidth': 5.0},
    'network': {
      'dataset': 'mnist',
      'seeds': 5,
      'held_out': 1_000,
      'epochs': 1_000,
      'widths': [2, 4, 6, 8, 12, 16, 24, 32, 64, 128],
      'pooled': 2,
      'learning_rate': 0.003,
      'batch_size': 100,
    },
    'isotropic': {'num_train': 200, 'noise': 0.5, 'seeds': 50},
    'relu': {'num_train': 600, 'inputs': 200, 'noise': 0.5, 'seeds': 12},
  },
}
SCALES['full'] = {
  'fourier': SCALES['laptop']['fourier'],
  'network': SCALES['laptop']['network']
  | {'epochs': 4_000, 'widths': [4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 1_024, 2_048]},
  'isotropic': SCALES['laptop']['isotropic'] | {'num_train': 1_000, 'seeds': 100},
  'relu': SCALES['laptop']['relu'] | {'num_train': 3_000, 'inputs': 1_000},
}
NUM_TRAIN = {'smoke': 100, 'laptop': 1_000, 'full': 4_000}
# Widths of least squares relative to the number of examples.
FOURIER = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.96, 1, 1.04, 1.1, 1.2, 1.4, 2, 4, 8)
SIMULATED = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2, 4, 8)
# Numbers of examples relative to that of the other rows.
SAMPLES = (0.5, 2, 4)
SAYS = {
  'smoke': '100 handwritten digits: shows that everything runs, and no more.',
  'laptop': '1,000 images of MNIST (the networks: up to 2,000, of 14 × 14), 5 seeds.',
  'full': '4,000 images of MNIST (the networks: up to 8,000, of 14 × 14), 5 seeds.',
}


def rows(scale: str) -> list[Row]:
  shared, n = SCALES[scale], NUM_TRAIN[scale]
  rows = []

  def add(part, num_train, width, noise, note=''):
    changes = shared[part] | {
      'part': part,
      'num_train': num_train,
      'width': width,
      'noise': noise,
    }
    name = curves.row_name(part, num_train, width, noise)
    rows.append(Row(name, 'double_descent', changes, note=note))

  for ratio in FOURIER:
    for noise in NOISES:
      add('fourier', n, 2 * round(ratio * n / 2), noise)
  for ratio in SAMPLES:
    add('fourier', round(ratio * n), n, NOISES[-1])
  for part in ('isotropic', 'relu'):
    count, noise = shared[part]['num_train'], shared[part]['noise']
    for ratio in SIMULATED:
      add(part, count, round(ratio * count), noise)
  for count, noise in ((n, 0.0), (n, 0.2), (n // 2, 0.2), (2 * n, 0.2)):
    for width in shared['network']['widths']:
      add('network', count, width, noise)
  return rows


def check(settings: dict) -> None:
  """Raises BadInput for invalid settings, or if memory is short."""
  part = settings.get('part')
  if part not in PARTS:
    raise BadInput(f'part is {part!r}, but it must be one of {", ".join(PARTS)}.')
  counts = {'num_train': 2, 'width': 1, 'seeds': 2} | PARTS[part]
  for name, least in counts.items():
    value = settings.get(name)
    if not isinstance(value, int) or value < least:
      raise BadInput(f'{name} is {value!r}, but it must be an integer of {least} or more.')
  for name in {'fourier': ['bandwidth'], 'network': ['learning_rate']}.get(part, []):
    if not 0 < settings.get(name, 0) < math.inf:
      raise BadInput(f'{name} is {settings.get(name)!r}, but it must be positive.')
  n, width, noise = (settings.get(name) for name in ('num_train', 'width', 'noise'))
  if part in ('isotropic', 'relu'):
    if not 0 <= noise < math.inf or abs(n - width) <= 1:
      raise BadInput(
        f'noise is {noise} and width is {width} with num_train {n}, but the noise must be '
        '0 or positive and the width must differ from num_train by more than 1.'
      )
  else:
    _check_data(settings)
  needed, free = bytes_needed(settings), memory.bytes_free()
  if needed > free:
    raise BadInput(
      f'{n:,} examples at width {width:,} need about {needed / 2**30:.1f} GiB of memory, '
      f'but {free / 2**30:.1f} GiB are free; use fewer of either.'
    )


def _check_data(settings):
  """The part of `check` for rows that read a data set."""
  n, width, noise = (settings[name] for name in ('num_train', 'width', 'noise'))
  if noise not in NOISES:
    raise BadInput(f'noise is {noise!r}, but it must be one of {NOISES}.')
  if settings['part'] == 'fourier' and width % 2:
    raise BadInput(f'width is {width}, but it must be even: a cosine and a sine each.')
  if settings['part'] == 'network':
    if width not in settings['widths']:
      raise BadInput(f'width is {width}, but it must be one of {settings["widths"]}.')
    if settings['batch_size'] > n:
      raise BadInput(
        f'batch_size is {settings["batch_size"]}, but there are only {n} examples.'
      )
  images = examples.load(settings['dataset']).x_train
  if n + settings['held_out'] > len(images):
    raise BadInput(
      f'num_train is {n:,} and held_out is {settings["held_out"]:,}, but the data set has '
      f'only {len(images):,} training images.'
    )
  if any(side % settings.get('pooled', 1) for side in images.shape[1:3]):
    raise BadInput(
      f'pooled is {settings["pooled"]}, but it must divide the sides of the images.'
    )


def bytes_needed(settings: dict) -> int:
  """Estimated peak memory in bytes."""
  n, width, seeds = (settings[name] for name in ('num_train', 'width', 'seeds'))
  if settings['part'] == 'network':
    # For at most 784 inputs: weights, gradients and Adam's two moments, and the images and
    # the hidden units of all of them.
    units, images = sum(settings['widths']), max(n, 10_000)
    return 4 * (4 * seeds * 784 * units + images * (784 * seeds + 2 * units))
  at_once = min(seeds, least_squares.threads())
  outputs = len(RIDGES) * len(NOISES) * 10 if settings['part'] == 'fourier' else 1
  images = descent.BATCH_OF_IMAGES if settings['part'] == 'fourier' else 2_000
  # Features, their copy and singular vectors; weights; features of other images.
  return at_once * 8 * width * (4 * n + 2 * outputs + 2 * images)


def expected_seconds(settings: dict) -> float:
  """Estimated seconds; rows that differ in noise or in a network's width share the work."""
  n, width, seeds = (settings[name] for name in ('num_train', 'width', 'seeds'))
  if settings['part'] == 'network':
    per_width = settings['epochs'] * n * sum(settings['widths']) / len(settings['widths'])
    return 1 + 4e-8 * seeds * per_width
  least_squares = 5e-10 * n * width * min(n, width)
  if settings['part'] == 'fourier':
    return seeds * (0.5 + 4e-4 * width + least_squares) / len(NOISES)
  return seeds * (0.05 + least_squares)


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Measures one width on several samples.

  Args:
    settings: those of a row, and the seed.
    folder: unused.
    say: say(line) shows progress.

  Returns:
    {name of a column without `_se`: number, or list with one per sample}, errors as
    fractions, and for the figure {'epochs', 'curve'}: mean test errors while training.
  """
  del folder
  own = {name: value for name, value in settings.items() if name not in ('width', 'noise')}
  if settings['part'] == 'network':
    records = networks.train(own | {'noise': settings['noise']}, say)
    place = settings['widths'].index(settings['width'])
    return {'threshold': records['threshold']} | networks.describe(records, place)
  if settings['part'] == 'fourier':
    results = least_squares.fourier(*(settings[name] for name in least_squares.SETTINGS))
    threshold = {'threshold': settings['num_train']}
    return threshold | results[NOISES.index(settings['noise'])]
  return least_squares.simulate(settings)


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  measured = {}
  for column in COLUMNS.keys() & summary.keys():
    values = np.atleast_1d(summary[column]) * (100 if column in PERCENT else 1)
    measured[column] = float(values.mean())
    if f'{column}_se' in COLUMNS:
      error = values.std(ddof=1) / len(values) ** 0.5
      measured[f'{column}_se'] = float(error)
  return measured
