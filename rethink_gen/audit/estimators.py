"""Estimators in the style of scikit-learn: copied, fitted and asked for labels.

An estimator is any object with the methods fit and predict. It gets copies of the user's
arrays, in their own types, and what it raises or returns is checked.
"""

from typing import Any

import numpy as np

from rethink_gen import errors
from rethink_gen.errors import BadInput


def is_estimator(model) -> bool:
  return not isinstance(model, type) and hasattr(model, 'fit') and hasattr(model, 'predict')


def unfitted(estimator) -> Any:
  """An unfitted copy of an estimator, with every random_state None."""
  import sklearn.base  # slow to import

  try:
    return _seeded(sklearn.base.clone(estimator, safe=False), None)
  except Exception as error:
    raise BadInput(
      f'{type(estimator).__name__} cannot be copied ({errors.reason(error)}); the '
      'estimator must be one that copy.deepcopy can copy, like those of scikit-learn.'
    ) from error


def _seeded(estimator, seed):
  """The estimator, with every random_state set to the seed."""
  if hasattr(estimator, 'get_params'):
    names = [n for n in estimator.get_params() if n.split('__')[-1] == 'random_state']
    estimator.set_params(**dict.fromkeys(names, seed))
  return estimator


def fit(estimator, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
  """A fitted clone of the estimator: inputs are rows, every random_state is the seed."""
  import sklearn.base  # slow to import

  clone = _seeded(sklearn.base.clone(estimator, safe=False), seed)
  try:
    clone.fit(rows(x), np.array(y))
  except MemoryError:
    raise
  except Exception as error:
    raise BadInput(
      f'{type(estimator).__name__} cannot be fitted to inputs of shape {rows(x).shape} '
      f'({type(error).__name__}: {errors.reason(error)}); give one that takes them.'
    ) from error
  return clone


def predict(estimator, x: np.ndarray, num_classes: int) -> np.ndarray:
  """int64 (n,): the labels that an estimator predicts; raises BadInput for non-labels."""
  name = type(estimator).__name__
  try:
    found = np.asarray(estimator.predict(rows(x)))
  except MemoryError:
    raise
  except Exception as error:
    raise BadInput(
      f'{name} cannot predict from inputs of shape {rows(x).shape} ('
      f'{type(error).__name__}: {errors.reason(error)}); give one that does.'
    ) from error
  if found.shape != (len(x),) or found.dtype.kind not in 'biuf':
    raise BadInput(
      f'{name} predicts {found.dtype} of shape {found.shape} for {len(x):,} examples, but '
      'predict must return one label, a whole number, for each.'
    )
  # Written so that NaN counts as wrong too.
  wrong = ~((found >= 0) & (found < num_classes) & (found == np.floor(found)))
  if wrong.any():
    raise BadInput(
      f'{name} predicts {found[wrong][0]:.6g} for an example, but a label is a whole '
      f'number from 0 to {num_classes - 1}; give a classifier, which predicts labels.'
    )
  return found.astype(np.int64)


def rows(x: np.ndarray) -> np.ndarray:
  """A copy of the inputs as rows, because an estimator may overwrite its inputs."""
  return np.array(x, order='C').reshape(len(x), -1)
