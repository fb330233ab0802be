"""Shared by both kernel artifacts: the computation, its checks and its columns."""

import json
import math
import pathlib
import time
from collections.abc import Callable

import numpy as np

from rethink_gen import files, memory
from rethink_gen.data import sources
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.progress import progress_lines
from rethink_gen.reporting.artifacts import Column, Runs
from rethink_gen.text import format_duration
from rethink_gen.theory import (
  features,
  gram_matrix,
  interpolation,
  preconditioning,
  significance,
)

COLUMNS = {
  'train_error': Column('training error', '%', '.2f'),
  'test_error': Column('test error', '%', '.2f'),
  'standard_error': Column('its standard error', '%', '.2f'),
  'norm': Column('norm', '', ',.0f'),
  'ridge_test_error': Column('test error, best ridge', '%', '.2f'),
  'ridge_p_value': Column('p, ridge against none', '', '.2g'),
  'iterations': Column('iterations', '', ',.0f'),
  'residual': Column('relative residual', '', '.2e'),
  'interpolates': Column('interpolates (1: yes)', '', '.0f'),
  'seconds_to_interpolate': Column('seconds to interpolate', '', ',.0f'),
  'condition': Column('condition number, lower bound', '', '.1e'),
  'peak_gib': Column('peak memory (GiB)', '', '.1f'),
}
COMMON = {
  'held_out': 0,
  'landmarks': 2_000,
  'tolerance': 1e-3,
  'max_iterations': 200,
  'ridges': [0.0, 0.001, 0.01, 0.1, 1.0],
}
SMOKE = {'dataset': 'digits', 'num_train': 500, 'num_test': 300, 'landmarks': 50}
SELECTION = 10_000  # maximum number of training examples used to choose a bandwidth
KINDS = ('pixels', 'gabor', 'convolutional')


def check(settings: dict) -> None:
  """Raises BadInput for unusable settings of either kernel artifact."""
  check_settings(settings)
  data = sources.load(settings['dataset'])
  for name, kind, labels in (
    ('num_train', 'training', data.y_train),
    ('num_test', 'test', data.y_test),
  ):
    if settings[name] > len(labels):
      raise BadInput(
        f'{name} is {settings[name]}, but {settings["dataset"]} has {len(labels)} {kind} '
        'examples; take at most that many.'
      )
  interpolation.check_memory(
    settings['num_train'] - settings['held_out'],
    settings['num_test'] + settings['held_out'],
    num_features(settings, data.x_train.shape[1:]),
    settings['landmarks'],
  )


def check_settings(settings: dict) -> None:
  """The part of `check` that does not need the data."""
  for name in ('num_train', 'num_test', 'landmarks', 'max_iterations'):
    if not settings[name] >= 1:
      raise BadInput(f'{name} is {settings[name]}, but it must be at least 1.')
  if settings['features'] not in KINDS:
    raise BadInput(
      f'features is {settings["features"]!r}, but it must be one of {", ".join(KINDS)}.'
    )
  if not 0 <= settings['held_out'] < settings['num_train']:
    raise BadInput(
      f'held_out is {settings["held_out"]}, but it must be from 0 to less than num_train, '
      f'{settings["num_train"]}.'
    )
  if not 0 < settings['tolerance'] < 1:
    raise BadInput(f'tolerance is {settings["tolerance"]}, but it must be in (0, 1).')
  ridges = settings['ridges']
  if not ridges or not all(0 <= ridge < math.inf for ridge in ridges):
    raise BadInput(f'ridges is {ridges}, but it must hold finite numbers of 0 or more.')
  check_features(settings)


def check_features(settings: dict) -> None:
  if settings['features'] == 'convolutional':
    examples = settings['num_train'] - settings['held_out']
    if 8 * settings['filters'] < examples and 0 in settings['ridges']:
      raise BadInput(
        f'{settings["filters"]} filters give {8 * settings["filters"]} features, too few '
        f'to fit {examples} examples exactly; leave 0 out of ridges, or use at least '
        f'{math.ceil(examples / 8)} filters.'
      )
    return
  for bandwidth in settings['bandwidths']:
    if not 0 < bandwidth < math.inf:
      raise BadInput(f'A bandwidth is {bandwidth}, but it must be a positive number.')
  if not settings['bandwidths']:
    raise BadInput('bandwidths is empty, but it must hold at least one number.')


def num_features(settings: dict, shape: tuple[int, ...]) -> int:
  """Number of features in memory at once."""
  if settings['features'] == 'convolutional':
    return 8 * min(settings['filters'], settings['block'])
  if settings['features'] == 'gabor':
    squares = [(s - settings['window']) // settings['stride'] + 1 for s in shape[:2]]
    return len(settings['wavelengths']) * settings['orientations'] * math.prod(squares)
  return math.prod(shape)


def expected_seconds(settings: dict) -> float:
  """Estimated seconds on two CPU cores, at 10^11 multiplications per second and 12 GB/s."""
  examples, tests = settings['num_train'], settings['num_test'] + settings['held_out']
  shape = {'digits': (8, 8, 1), 'mnist': (28, 28, 1)}.get(settings['dataset'], (32, 32, 3))
  dimensions, work = num_features(settings, shape), 0
  if settings['features'] == 'convolutional':
    dimensions = 8 * settings['filters']
    places = (shape[0] - settings['patch'] + 1) ** 2
    inputs = settings['patch'] ** 2 * shape[2]
    work = 2 * (examples + tests) * places * inputs * settings['filters']
  work += examples * (examples + 2 * tests) * dimensions
  ridges, landmarks = len(settings['ridges']), settings['landmarks']
  work += ridges * examples * landmarks * 4 * (landmarks + gram_matrix.BLOCK)
  return 20 + work / 1e11 + ridges * 20 * (4 * examples**2 / 12e9)


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Computes features and the Gram matrix, then solves for every ridge.

  Args:
    settings: those of a row, and the seed, which selects the examples and the filters.
    folder: gets the state of every ridge, so that the same call resumes after a kill.
    say: say(line) shows progress.

  Returns:
    A dict with the bandwidth, the seconds of each part, and `path`: for every ridge its
    errors (fractions), norms, iterations, the indices of the misclassified test examples
    and, at ridge 0, whether it interpolates.
  """
  data = split(sources.load(settings['dataset']), settings)
  targets = np.eye(data.num_classes, dtype=np.float32)[data.y_train].T
  seconds = {}
  started = time.monotonic()
  gram, order, bandwidth = make_gram(data, settings, folder, seconds, say)
  seconds['gram'] = time.monotonic() - started - seconds.get('bandwidth', 0.0)
  targets, labels = targets[:, order], data.y_test
  started = time.monotonic()
  marks = preconditioning.spread_landmarks(gram.layout, settings['landmarks'])
  rank_part = preconditioning.low_rank(gram, marks)
  gram = gram._replace(landmarks=())  # no longer needed
  seconds['low_rank'] = time.monotonic() - started

  def watch(ridge, alpha, history):
    errors = test_errors(gram, alpha, labels, settings['num_test'])
    say(describe(ridge, history, errors, settings['tolerance']))
    return errors

  path, alpha = [], None
  for ridge in settings['ridges']:
    alpha, history = interpolation.solve(
      gram,
      rank_part,
      targets,
      ridge,
      settings,
      begin=alpha,
      path=folder / f'ridge_{ridge:g}.npz',
      watch=lambda *now, ridge=ridge: watch(ridge, *now),
    )
    point = summarize(gram, alpha, targets, ridge, history, settings['tolerance'])
    wrong = misclassified(gram, alpha, labels)[: settings['num_test']]
    path.append(point | {'wrong': np.flatnonzero(wrong).tolist()})
  return {
    'num_train': gram.layout.examples,
    'bandwidth': bandwidth,
    'seconds_of': seconds,
    'path': path,
    'peak_gib': memory.peak_gib(),
  }


def split(data: Dataset, settings: dict) -> Dataset:
  """The requested number of examples; those held out are appended to the test set."""
  chosen = np.random.default_rng(settings['seed']).permutation(len(data.y_train))
  chosen = chosen[: settings['num_train']]
  train, held = np.split(chosen, [settings['num_train'] - settings['held_out']])
  part = slice(settings['num_test'])
  return data._replace(
    x_train=data.x_train[train],
    y_train=data.y_train[train],
    x_test=np.concatenate([data.x_test[part], data.x_train[held]]),
    y_test=np.concatenate([data.y_test[part], data.y_train[held]]),
  )


def make_gram(
  data: Dataset,
  settings: dict,
  folder: pathlib.Path,
  seconds: dict[str, float],
  say: Callable,
) -> tuple[gram_matrix.Gram, np.ndarray, float | None]:
  """(Gram, the order of its training examples, bandwidth or None)."""
  layout = gram_matrix.make_layout(len(data.y_train))
  marks = preconditioning.spread_landmarks(layout, settings['landmarks'])
  if settings['features'] == 'convolutional':
    return *convolutional_gram(data, settings, marks, say), None
  train, test = embed(data, settings)
  started = time.monotonic()
  bandwidth = choose_bandwidth(train, data.y_train, settings['bandwidths'], folder, say)
  seconds['bandwidth'] = time.monotonic() - started
  order = preconditioning.coherent_order(train)
  gram = gram_matrix.add(None, train[order], test, marks, bandwidth, say)
  return gram, order, bandwidth


def convolutional_gram(
  data: Dataset, settings: dict, marks: np.ndarray, say: Callable
) -> tuple[gram_matrix.Gram, np.ndarray]:
  gram = order = None
  blocks = features.convolutional(
    data.x_train,
    data.x_test,
    settings['filters'],
    settings['patch'],
    settings['seed'],
    settings['block'],
  )
  done = progress_lines(
    say, 'Blocks of filters', math.ceil(settings['filters'] / settings['block'])
  )
  for number, (train, test) in enumerate(blocks, 1):
    if order is None:
      order = preconditioning.coherent_order(train)
    gram = gram_matrix.add(gram, train[order], test, marks)
    done(number)
  return gram, order


def embed(data: Dataset, settings: dict) -> tuple[np.ndarray, np.ndarray]:
  """float32 (n, d) features of training and test images, minus the training mean."""
  images = data.x_train, data.x_test
  if settings['features'] == 'gabor':
    names = ('wavelengths', 'orientations', 'window', 'stride')
    options = [settings[name] for name in names]
    train, test = (features.gabor(each, *options) for each in images)
  else:
    train, test = (each.reshape(len(each), -1).astype(np.float32) / 255 for each in images)
  center = train.mean(0)
  return train - center, test - center


def choose_bandwidth(
  train: np.ndarray,
  labels: np.ndarray,
  bandwidths: list[float],
  folder: pathlib.Path,
  say: Callable,
) -> float:
  """The bandwidth with the lowest error on training examples held out for this choice.

  Four fifths of the first SELECTION training examples are fitted exactly (with a ridge of
  1e-6), and the rest measure the error. The test set is not used. Ties go to the first.
  """
  if len(bandwidths) == 1:
    return bandwidths[0]
  file = folder / 'bandwidth.json'
  if file.exists():
    return json.loads(file.read_text())['bandwidth']
  fit, held = np.split(train[:SELECTION], [min(len(train), SELECTION) * 4 // 5])
  targets = np.eye(labels.max() + 1)[labels[: len(fit)]].T
  errors = []
  for bandwidth in bandwidths:
    alpha = interpolation.direct(gram_matrix.kernel(fit, fit, bandwidth), targets, 1e-6)
    guesses = np.argmax(alpha @ np.asarray(gram_matrix.kernel(fit, held, bandwidth)), 0)
    errors.append(float(np.mean(guesses != labels[len(fit) : len(fit) + len(held)])))
    say(f'bandwidth {bandwidth:g}: {errors[-1]:.2%} error on {len(held):,} held out')
  best = bandwidths[int(np.argmin(errors))]
  files.write_json(file, {'bandwidth': best, 'held_out_errors': errors})
  return best


def misclassified(
  gram: gram_matrix.Gram, alpha: np.ndarray, labels: np.ndarray
) -> np.ndarray:
  """bool (n,): which test examples, then held-out examples, are misclassified."""
  guesses = np.argmax(np.asarray(interpolation.predict(gram.tests, alpha)), 0)
  return guesses[: len(labels)] != labels


def test_errors(
  gram: gram_matrix.Gram, alpha: np.ndarray, labels: np.ndarray, num_test: int
) -> dict[str, float]:
  """{'test_error'}, and 'held_out_error' if examples are held out, as fractions."""
  wrong = misclassified(gram, alpha, labels)
  errors = {'test_error': float(wrong[:num_test].mean())}
  if len(labels) > num_test:
    errors['held_out_error'] = float(wrong[num_test:].mean())
  return errors


def describe(
  ridge: float, history: list[dict], errors: dict[str, float], tolerance: float
) -> str:
  last = history[-1]
  line = (
    f'ridge {ridge:g}, iteration {len(history)}: relative residual {last["residual"]:.1e}, '
    f'training error {last["train_error"]:.2%}, test error {errors["test_error"]:.2%}'
  )
  ahead = interpolation.iterations_left(history, tolerance)
  if ahead:
    line += f', about {format_duration(ahead * last["seconds"] / len(history))} left'
  return line


def summarize(
  gram: gram_matrix.Gram,
  alpha: np.ndarray,
  targets: np.ndarray,
  ridge: float,
  history: list[dict],
  tolerance: float,
) -> dict:
  """One point of the ridge path, as plain JSON."""
  last = history[-1]
  per_class, norm = interpolation.norms(alpha[:, : gram.layout.examples], targets, ridge)
  point = {name: last[name] for name in ('residual', 'largest', 'train_error', 'seconds')}
  point |= {name: error for name, error in last.items() if name.endswith('_error')}
  point |= {
    'ridge': ridge,
    'norm': norm,
    'norms': per_class.tolist(),
    'iterations': len(history),
    'residuals': [record['residual'] for record in history],
    'converged': last['residual'] <= tolerance,
    'condition_preconditioned': interpolation.condition(history),
  }
  if ridge == 0:
    point['interpolates'] = point['converged'] and last['train_error'] == 0
    point['condition'] = interpolation.condition_at_least(gram, alpha, targets)
  return point


def standard_error(error: float, count: int) -> float:
  """Standard error of an error rate (a fraction) measured on `count` examples."""
  return math.sqrt(error * (1 - error) / count)


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  """The numbers at ridge 0, and the test error and p-value at the best positive ridge.

  The best ridge is chosen on held-out examples if there are any. Otherwise it is chosen on
  the test set, and its p-value is too small by up to a factor of the number of ridges.
  """
  summary, num_test = runs[name, seed].summary, runs[name, seed].config['num_test']
  exact = next((point for point in summary['path'] if point['ridge'] == 0), None)
  ridged = [point for point in summary['path'] if point['ridge'] > 0]
  measured = {'peak_gib': summary['peak_gib']}
  if exact:
    measured |= {c: exact[c] for c in ('norm', 'iterations', 'residual', 'condition')}
    measured |= {c: 100 * exact[c] for c in ('train_error', 'test_error')}
    error = standard_error(exact['test_error'], num_test)
    measured |= {
      'standard_error': 100 * error,
      'interpolates': float(exact['interpolates']),
    }
    parts = summary['seconds_of']
    measured['seconds_to_interpolate'] = (
      parts['gram'] + parts['low_rank'] + exact['seconds']
    )
  if ridged:
    best = min(ridged, key=lambda point: point.get('held_out_error', point['test_error']))
    measured |= {'ridge_test_error': 100 * best['test_error'], 'ridge': best['ridge']}
    if exact and 'wrong' in exact:  # older runs stored only the error rates
      examples = np.arange(num_test)
      measured['ridge_p_value'] = significance.mcnemar(
        *(~np.isin(examples, point['wrong']) for point in (exact, best))
      )
  return measured


def summaries(runs: Runs, name: str) -> list[dict]:
  return [run.summary for (other, _), run in runs.items() if other == name]


def plot_path(axis, summary: dict, column: str, color: str, label: str) -> None:
  """Plots a column of the ridge path; ridge 0 is at the left end of a logarithmic axis."""
  ridges = [point['ridge'] for point in summary['path']]
  scale = 100 if column.endswith('error') else 1
  values = [scale * point[column] for point in summary['path']]
  axis.plot(ridges, values, 'o-', color=color, label=label)
  smallest = min((ridge for ridge in ridges if ridge), default=1.0)
  axis.set_xscale('symlog', linthresh=smallest)
  axis.set(xlabel='ridge λ')


def plot_residuals(axis, summary: dict, color: str) -> None:
  for point in summary['path']:
    if point['ridge'] == 0:
      numbers = range(1, point['iterations'] + 1)
      axis.semilogy(numbers, point['residuals'], color=color)
  axis.set(xlabel='iterations', ylabel='relative residual')
