import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rethink_gen.audit import randomizations
from rethink_gen.data import sources
from rethink_gen.errors import BadInput

RANDOM = np.random.default_rng(0)
LABELS = np.arange(20) % 2


def dataset(x, y=LABELS):
  return randomizations.make_dataset(x, y, x, y)[0]


def setup(mode):
  return randomizations.Setup(mode, mode, 0.0)


# Types.


@pytest.mark.parametrize('dtype', ['u1', 'u2', 'i8', 'u8', 'f2', 'f4', 'f8', 'g', '?'])
def test_inputs_and_training_labels_keep_their_type(dtype):
  x = RANDOM.integers(0, 2, (20, 6)).astype(dtype)
  for label_type in ('i8', 'u1', 'i2'):
    made = dataset(x, LABELS.astype(label_type))
    assert made.x_train.dtype == made.x_test.dtype == x.dtype
    for each in randomizations.make_setups((0.5,), x):
      found = randomizations.randomize(made, each, 0)
      assert found.y_train.dtype == label_type
      assert each.mode == 'gaussian' or found.x_train.dtype == x.dtype


def test_a_gaussian_of_float64_is_float64():
  x = 1.7e9 + RANDOM.integers(0, 100, (20, 1))
  found = randomizations.randomize(dataset(x), setup('gaussian'), 0).x_train
  assert found.dtype == np.float64
  assert found.std() == pytest.approx(x.std(), rel=0.5)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    huge = randomizations.randomize(dataset(x * 1e39), setup('gaussian'), 0).x_train
  assert np.isfinite(huge).all()


def test_types_that_differ_between_the_splits_become_the_wider():
  x = RANDOM.random((20, 3))
  made, _ = randomizations.make_dataset(x.astype(np.float32), LABELS, x, LABELS)
  assert made.x_train.dtype == made.x_test.dtype == np.float64
  with pytest.raises(BadInput, match='differ only in length'):
    randomizations.make_dataset(x, LABELS, x.astype(np.int64), LABELS)


def test_a_network_gets_what_jax_computes_with():
  kinds = {'u1': 'u1', 'i8': 'i4', 'u2': 'i4', 'f8': 'f4', 'f2': 'f4', '?': 'f4'}
  for own, network in kinds.items():
    made = dataset(RANDOM.integers(0, 2, (20, 3)).astype(own), LABELS.astype('u1'))
    found = randomizations.for_network(made)
    assert (found.x_train.dtype, found.x_test.dtype) == (network, network)
    assert found.y_train.dtype == found.y_test.dtype == np.int32


@pytest.mark.parametrize(
  ('x', 'words'),
  [
    (np.int64(1) << np.full((20, 1), 33), 'integers from 8589934592 to 8589934592'),
    (np.full((20, 1), 1e39), r'values up to 1e\+39'),
  ],
)
def test_what_a_network_would_get_wrong_is_refused(x, words):
  with pytest.raises(BadInput, match=words) as caught:
    randomizations.for_network(dataset(x))
  assert '\n' not in str(caught.value)


def test_a_feature_that_float32_flattens_is_said(caplog):
  x = np.column_stack([1.7e9 + LABELS, LABELS, np.full(20, 1 / 3)])
  randomizations.for_network(dataset(x))
  assert 'loses precision in 1 of its features' in caplog.text
  caplog.clear()
  randomizations.for_network(dataset(x - x.mean(0)))
  assert not caplog.text


# Arrays of all kinds.


class Tensor:
  """What torch gives of a tensor with a gradient, or in bfloat16."""

  def __init__(self, error):
    self.error = error

  def __array__(self, *arguments, **options):
    raise self.error


@pytest.mark.parametrize(
  ('x', 'words'),
  [
    ([[1, 2], [3]] * 10, 'inhomogeneous|sequence'),
    (Tensor(RuntimeError("Can't call numpy() on a Tensor that requires grad")), 'detach'),
    (Tensor(TypeError('Got unsupported ScalarType BFloat16')), 'BFloat16.*float'),
    (sparse.csr_matrix(np.eye(20)), 'toarray'),
    (np.ma.masked_less(np.eye(20), 0.5), 'masked'),
    (np.array([[{}]] * 20), 'must be numbers'),
  ],
)
def test_what_is_no_array_is_refused_in_a_sentence(x, words):
  for arguments in ((x, LABELS, None, None), (np.eye(20), x, None, None)):
    with pytest.raises(BadInput, match=words if arguments[0] is x else '.') as caught:
      randomizations.make_dataset(*arguments)
    assert '\n' not in str(caught.value)


def test_bfloat16_is_exact_in_float32():
  x = jnp.asarray(RANDOM.random((20, 3)), jnp.bfloat16)
  found = dataset(x).x_train
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, np.asarray(x.astype(jnp.float32)))


# Labels, and what is held out.


def test_the_only_example_of_a_class_is_not_held_out():
  _, test = randomizations.hold_out(LABELS)
  alone = LABELS.copy()
  alone[test[0]] = 2
  x = np.arange(20.0)[:, None]
  made, held_out = randomizations.make_dataset(x, alone, None, None)
  assert held_out
  assert made.num_classes == 3
  assert (made.num_train, made.num_test) == (17, 3)
  assert set(made.y_train) == {0, 1, 2}
  assert sorted([*made.x_train[:, 0], *made.x_test[:, 0]]) == list(range(20))
  with pytest.raises(BadInput, match='give x_test and y_test'):
    randomizations.make_dataset(x, np.arange(20), None, None)


def test_labels_are_named_as_they_are():
  x = np.eye(20)
  with pytest.raises(BadInput, match='from 0 to 1000000 and y_train has 3 classes'):
    randomizations.make_dataset(x, np.where(np.arange(20) == 3, 10**6, LABELS), x, LABELS)
  with pytest.raises(BadInput, match='y_test has the labels 7, which y_train lacks'):
    randomizations.make_dataset(x, LABELS, x, np.where(LABELS, 7, 0))


# Positions.


@pytest.mark.parametrize('shape', [(3, 5, 6), (1, 8, 8), (4, 5, 5, 5)])
def test_the_pixels_of_images_with_channels_first_are_permuted(shape, caplog):
  x = RANDOM.random((20, *shape))
  last = np.moveaxis(x, 1, -1)
  channels, positions = shape[0], int(np.prod(shape[1:]))
  assert randomizations.layout(x, 'random_pixels') == (positions, 1, channels)
  for mode in ('shuffled_pixels', 'random_pixels', 'gaussian'):
    found = randomizations.randomize(dataset(x), setup(mode), 1)
    other = randomizations.randomize(dataset(last), setup(mode), 1)
    assert found.x_train.shape == x.shape
    np.testing.assert_array_equal(np.moveaxis(found.x_train, 1, -1), other.x_train)
    np.testing.assert_array_equal(np.moveaxis(found.x_test, 1, -1), other.x_test)
  randomizations.warn_of_layout(x)
  assert 'channels first' in caplog.text


def test_inputs_that_could_be_two_things_are_named(caplog):
  randomizations.warn_of_layout(RANDOM.random((20, 8, 8)))
  assert 'sequences of 8 steps, each of 8 numbers' in caplog.text
  caplog.clear()
  for shape in ((20, 8, 8, 1), (20, 8, 3), (20, 8)):
    randomizations.warn_of_layout(RANDOM.random(shape))
  randomizations.warn_of_layout(np.zeros((20, 8, 8), np.uint8))
  assert not caplog.text


def test_images_of_the_package_are_randomized_as_before():
  images = RANDOM.integers(0, 256, (20, 8, 8, 3), np.uint8)
  made = sources.Dataset(images, LABELS.astype(np.int32), images, LABELS, 2)
  found = randomizations.randomize(made, setup('gaussian'), 0)
  assert found.x_train.dtype == np.float32
