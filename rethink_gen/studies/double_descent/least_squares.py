"""Least squares on random features: of images, and in settings with a closed form."""

import concurrent.futures
import functools
import os
from collections.abc import Callable

import numpy as np
import threadpoolctl

from rethink_gen.data.sources import Dataset
from rethink_gen.studies.double_descent import examples
from rethink_gen.theory import descent

NOISES = (0.0, 0.1, 0.2)
RIDGES = (0.0, *np.geomspace(1e-6, 1e2, 17).tolist())
SETTINGS = (
  *('dataset', 'num_train', 'width', 'held_out'),
  *('bandwidth', 'seeds', 'seed'),
)


def threads() -> int:
  return os.cpu_count() or 1


def for_each_seed(function: Callable, seed: int, seeds: int) -> list:
  """[function((seed, number)) for every number below `seeds`], a thread for each core."""
  # Threads inside LAPACK wait for one another, which on busy cores takes ten times as long.
  with (
    threadpoolctl.threadpool_limits(1),
    concurrent.futures.ThreadPoolExecutor(threads()) as pool,
  ):
    return list(pool.map(function, [(seed, number) for number in range(seeds)]))


def simulate(settings: dict) -> dict:
  """Least squares in a setting with a closed form, and that form."""
  n, width, noise = (settings[name] for name in ('num_train', 'width', 'noise'))
  if settings['part'] == 'isotropic':
    formula = descent.isotropic_risk(n, width, noise)
    run = functools.partial(descent.simulate_isotropic, n=n, p=width, noise=noise)
  else:
    d = settings['inputs']
    formula = descent.random_relu_risk(width / d, n / d, noise)
    run = functools.partial(descent.simulate_random_relu, d=d, n=n, p=width, noise=noise)
  risks = for_each_seed(
    lambda seed: run(np.random.default_rng(seed)), settings['seed'], settings['seeds']
  )
  return {'threshold': n, 'risk': risks, 'formula': formula}


@functools.lru_cache(maxsize=1)
def fourier(
  dataset: str,
  num_train: int,
  width: int,
  held_out: int,
  bandwidth: float,
  seeds: int,
  seed: int,
) -> list[dict]:
  """For each of NOISES, {column: [value per seed]}; cached, as all share the work."""
  run = functools.partial(
    fourier_once, examples.load(dataset), num_train, width, held_out, bandwidth
  )
  results = for_each_seed(run, seed, seeds)
  return [
    {name: [result[level][name] for result in results] for name in results[0][level]}
    for level in range(len(NOISES))
  ]


def fourier_once(
  dataset: Dataset,
  num_train: int,
  width: int,
  held_out: int,
  bandwidth: float,
  seed: tuple[int, int],
) -> list[dict[str, float]]:
  """{column: value} for each of NOISES: least squares on one sample and its features.

  The ridge is the one of RIDGES with the least squared error on held-out training images,
  whose labels are as noisy as those of the sample.
  """
  chosen, others = examples.draw(dataset, num_train, held_out, seed)
  x, x_held, x_test = (
    images.reshape(len(images), -1) / 255
    for images in (dataset.x_train[chosen], dataset.x_train[others], dataset.x_test)
  )
  random = np.random.default_rng((*seed, 1))
  # Row by row, so that a smaller number of features is part of a larger.
  frequencies = random.standard_normal((width // 2, x.shape[1])).T / bandwidth
  labels = [examples.noisy(dataset, noise, seed) for noise in NOISES]
  hot = np.eye(dataset.num_classes)
  features = descent.fourier_features(x, frequencies)
  targets = np.concatenate([hot[own[chosen]] for own in labels], 1)
  weights = descent.ridge_path(features, targets, RIDGES)
  outputs_held = descent.fourier_outputs(x_held, frequencies, weights)
  wanted = np.concatenate([hot[own[others]] for own in labels], 1)
  squares = ((outputs_held - wanted) ** 2).sum(1)  # (ridges, levels and classes)
  best = np.array([part.sum(1).argmin() for part in np.split(squares, len(NOISES), 1)])
  best = np.repeat(best, dataset.num_classes)
  with_ridge = np.take_along_axis(weights, best[None, None], 0)[0]
  pair = np.stack([weights[0], with_ridge])
  by_level = zip(
    labels,
    np.split(descent.fourier_outputs(x_test, frequencies, pair), len(NOISES), 2),
    np.split(features @ weights[0], len(NOISES), 1),
    np.split(weights[0], len(NOISES), 1),
    strict=True,
  )
  return [
    {
      'error': float((outputs[0].argmax(1) != dataset.y_test).mean()),
      'train_error': float((fitted.argmax(1) != own[chosen]).mean()),
      'ridge_error': float((outputs[1].argmax(1) != dataset.y_test).mean()),
      'risk': float(((outputs[0] - hot[dataset.y_test]) ** 2).sum(1).mean()),
      'norm': float(np.linalg.norm(ridgeless)),
    }
    for own, outputs, fitted, ridgeless in by_level
  ]
