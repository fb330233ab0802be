import numpy as np
import pytest
from sklearn import base, linear_model, pipeline, preprocessing

from rethink_gen.audit import estimators
from rethink_gen.errors import BadInput

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
X = RANDOM.random((40, 5), np.float32)
Y = np.arange(40) % 2


class Recorder(base.BaseEstimator):
  """Predicts `answer`, and writes in all that it is given."""

  def __init__(self, answer=0, seen=None):
    self.answer = answer
    self.seen = seen

  def fit(self, x, y):
    self.types_ = x.dtype, y.dtype
    x[:], y[:] = 0, 0
    return self

  def predict(self, x):
    x[:] = 0
    if isinstance(self.answer, Exception):
      raise self.answer
    return np.broadcast_to(self.answer, len(x))


@pytest.mark.parametrize('dtype', [np.uint8, np.int64, np.float64, np.float16, bool])
def test_an_estimator_gets_arrays_of_its_own_in_the_users_type(dtype):
  x = RANDOM.integers(0, 2, (40, 5)).astype(dtype)
  y, before = Y.astype(np.int16), x.copy()
  fitted = estimators.fit(Recorder(1), x, y, 0)
  assert estimators.predict(fitted, x, 2).tolist() == 40 * [1]
  np.testing.assert_array_equal(x, before)
  np.testing.assert_array_equal(y, Y)
  assert fitted.types_ == (x.dtype, np.int16)


def test_a_scaler_without_a_copy_leaves_the_data_alone():
  x, y = RANDOM.normal(50, 3, (60, 4)), np.arange(60) % 2
  x[:, 0] += 9 * y
  model = pipeline.make_pipeline(
    preprocessing.StandardScaler(copy=False), linear_model.LogisticRegression()
  )
  fitted = estimators.fit(model, x, y, 0)
  for _ in range(2):
    assert (estimators.predict(fitted, x, 2) == y).mean() > 0.85


@pytest.mark.parametrize(
  ('answer', 'words'),
  [
    (0.97, 'predicts 0.97'),
    (-1, 'predicts -1'),
    (2, 'predicts 2 .* from 0 to 1'),
    (np.nan, 'predicts nan'),
    (np.inf, 'predicts inf'),
    ('1', 'predicts <U1'),
    (None, 'predicts object'),
    (RuntimeError('no'), 'cannot predict .*RuntimeError: no'),
  ],
)
def test_predictions_that_are_no_labels_are_refused(answer, words):
  with pytest.raises(BadInput, match=words) as caught:
    estimators.predict(Recorder(answer), X, 2)
  assert '\n' not in str(caught.value)


def test_whole_numbers_of_any_type_are_labels():
  for answer in (1.0, True, np.uint8(1)):
    found = estimators.predict(Recorder(answer), X, 2)
    assert found.dtype == np.int64
    assert found.tolist() == 40 * [1]
