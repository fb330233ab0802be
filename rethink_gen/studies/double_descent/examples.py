"""The training, held-out and test images of a row."""

import functools

import numpy as np

from rethink_gen.data import corruption, sources


@functools.lru_cache(maxsize=1)
def load(name: str) -> sources.Dataset:
  """`sources.load`, cached for all rows."""
  return sources.load(name)


def draw(
  dataset: sources.Dataset, num_train: int, held_out: int, seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Indices (num_train,) and (held_out,) of training images; smaller samples are nested."""
  order = np.random.default_rng(seed).permutation(len(dataset.y_train))
  return order[:num_train], order[len(order) - held_out :]


def noisy(dataset: sources.Dataset, noise: float, seed: tuple[int, int]) -> np.ndarray:
  """int32 (all training images,): labels, each wrong with probability `noise`.

  A label that is replaced becomes any class, the true one included, hence the factor.
  """
  classes = dataset.num_classes
  replaced = noise * classes / (classes - 1)
  own = 1_000 * seed[0] + seed[1]
  return corruption.noisy_labels(dataset.y_train, classes, replaced, own)
