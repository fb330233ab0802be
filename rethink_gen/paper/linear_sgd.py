"""Section 5: SGD on linear models, started at zero, finds the minimum-norm solution."""

import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen.data import preprocess, sources
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.theory import linear

TITLE = 'Linear models: the solution that SGD finds'
ASKED = (
  'With more unknowns than equations, a linear model has infinitely many solutions with '
  'zero training error. Which one does SGD find, and can flatness tell them apart?'
)
FOUND = (
  'Started at zero, SGD stays in the span of the data, which contains exactly one '
  'solution: the one with minimum norm. The Hessian of the loss is the same at every '
  'solution, so flatness, as measured by the Hessian, cannot tell them apart.'
)
COLUMNS = {
  'loss': Column('training loss', '', '.1e'),
  'distance': Column('relative distance to minimum-norm solution', '', '.1e'),
  'distance_in_rows': Column('distance within the row space', '', '.1e'),
  'kept': Column('relative change outside it', '', '.1e'),
  'norm': Column('norm / minimum norm', '', '.4f'),
  'hessian_difference': Column('largest change of the Hessian', '', '.1e'),
}
CAPTION = (
  'Distance of the weights to the minimum-norm solution, relative to its norm, against '
  'SGD steps. A start outside the row space of the data keeps its component outside it '
  '(dotted: the size of that component) and converges to a different solution. In float64.'
)
SAYS = {
  'smoke': '10 handwritten digits, 20,000 steps.',
  'laptop': '100 images of CIFAR-10, 100,000 steps.',
  'full': '100 images of CIFAR-10, 100,000 steps.',
}
STARTS = {'zero': 0.0, 'random': 1.0}


def rows(scale: str) -> list[Row]:
  if scale == 'smoke':
    settings = {'dataset': 'digits', 'num_train': 10, 'steps_per_record': 200}
  else:
    settings = {'dataset': 'cifar10', 'num_train': 100, 'steps_per_record': 1_000}
  paper = {'zero': {'norm': 1.0}, 'random': {}}
  return [
    Row(start, 'linear_sgd', settings | {'start': start}, paper[start]) for start in STARTS
  ]


def check(settings: dict) -> None:
  sources.load(settings['dataset'])


def expected_seconds(settings: dict) -> float:
  return 5 + 100 * settings['steps_per_record'] * 1e-5


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Regresses centered class indices on per-image standardized images."""
  del folder, say  # takes only seconds
  data = sources.load(settings['dataset'])
  images = jnp.asarray(data.x_train[: settings['num_train']])
  shape = preprocess.crop_shape(*images.shape[1:3])
  with jax.enable_x64(True):
    inputs = np.asarray(preprocess.preprocess(images, shape), np.float64)
    x = jnp.asarray(inputs.reshape(len(inputs), -1))
    y = jnp.asarray(data.y_train[: len(x)], jnp.float64)
    y -= y.mean()
    return _solve(x, y, settings)


def _solve(x, y, settings):
  least = linear.minimum_norm_solution(x, y)
  scale = jnp.linalg.norm(least)
  start_key, order_key = jax.random.split(jax.random.key(settings['seed']))
  start = jax.random.normal(start_key, least.shape)
  start *= STARTS[settings['start']] * scale / jnp.linalg.norm(start)
  # The largest learning rate at which a step on one example cannot overshoot.
  rate = 1 / jnp.max(jnp.sum(x**2, axis=1))
  per_record = settings['steps_per_record']
  weights = linear.descend(x, y, start, rate, 1, 100, per_record, order_key)
  end = weights[-1]

  def outside(w):
    return w - linear.project_on_rows(x, w)

  hessians = [jax.hessian(linear.loss)(w, x, y) for w in (start, end)]
  relative = jnp.linalg.norm(weights - least, axis=1) / scale
  return {
    'loss': float(linear.loss(end, x, y)),
    'distance': float(relative[-1]),
    'distance_in_rows': float(
      jnp.linalg.norm(linear.project_on_rows(x, end - least)) / scale
    ),
    'kept': float(jnp.linalg.norm(outside(end - start)) / scale),
    'norm': float(jnp.linalg.norm(end) / scale),
    'hessian_difference': float(jnp.abs(hessians[1] - hessians[0]).max()),
    'start_outside': float(jnp.linalg.norm(outside(start)) / scale),
    'distances': relative.tolist(),
    'steps': (per_record * np.arange(101)).tolist(),
  }


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  return {column: runs[name, seed].summary[column] for column in COLUMNS}


def draw(entries: list[dict], runs: Runs):
  figure, axis = drawing.subplots()
  colors = dict(zip(STARTS, drawing.PALETTE, strict=False))
  for (name, seed), run in runs.items():
    summary = run.summary
    label = f'start: {name}' if seed == 0 else None
    axis.plot(summary['steps'], summary['distances'], color=colors[name], label=label)
    if summary['start_outside'] > 0.01:
      axis.axhline(summary['start_outside'], linestyle=':', color=colors[name])
  axis.set(xlabel='steps', ylabel='distance to the minimum-norm solution', yscale='log')
  drawing.legend(axis)
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  ours = {e['name']: e['ours'] for e in entries if e['ours']['norm'] is not None}
  if 'zero' in ours:
    yield (
      f'From zero, SGD ends at a relative distance of {ours["zero"]["distance"]:.0e} from '
      f'the minimum-norm solution, at a training loss of {ours["zero"]["loss"]:.0e}.'
    )
  if 'random' in ours:
    yield (
      f'From a random start it ends at {ours["random"]["norm"]:.2f} times the minimum '
      f'norm, at a loss of {ours["random"]["loss"]:.0e}; outside the row space the '
      f'weights moved by {ours["random"]["kept"]:.0e} of the minimum norm.'
    )
  if ours:
    largest = max(numbers['hessian_difference'] for numbers in ours.values())
    difference = f'differ by at most {largest:.0e}' if largest else 'are equal'
    yield f'The Hessians of the loss at the start and at the end {difference}.'
