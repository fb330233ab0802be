import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen.data import preprocess

KEY = jax.random.key(0)
NONE = {'random_rotation': 0.0, 'random_crop': False, 'random_flip': False}


@pytest.mark.parametrize(
  ('size', 'crop_size', 'expected'),
  [
    ((32, 32), None, (28, 28)),
    ((32, 32), 32, (32, 32)),
    ((8, 8), None, (7, 7)),
    ((64, 48), None, (56, 42)),
    ((64, 48), 40, (40, 40)),
  ],
)
def test_crop_shape(size, crop_size, expected):
  assert preprocess.crop_shape(*size, crop_size) == expected


@pytest.mark.parametrize('channels', [1, 3])
def test_evaluation_is_the_center_crop_standardized(channels, images):
  """Against NumPy: Appendix A, with TensorFlow's lower bound on the deviation."""
  images = images[..., :channels]
  expected = images[:, 2:30, 2:30].astype(np.float64) / 255
  mean = expected.mean((1, 2, 3), keepdims=True)
  deviation = expected.std((1, 2, 3), keepdims=True)
  expected = (expected - mean) / np.maximum(deviation, (28 * 28 * channels) ** -0.5)
  ours = preprocess.preprocess(images, (28, 28))
  assert ours.dtype == jnp.float32
  np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_constant_image_becomes_zero_and_a_faint_one_is_not_blown_up():
  faint = np.full((1, 32, 32, 3), 100, np.uint8)
  np.testing.assert_allclose(preprocess.preprocess(faint, (28, 28)), 0, atol=1e-4)
  faint[0, 10, 10, 0] = 101
  ours = preprocess.preprocess(faint, (28, 28))
  np.testing.assert_allclose(ours.max(), 1 / 255 * (28 * 28 * 3) ** 0.5, rtol=1e-3)


def test_float_images_on_the_same_scale_are_treated_the_same(images):
  np.testing.assert_array_equal(
    preprocess.preprocess(images, (28, 28)),
    preprocess.preprocess(images.astype(np.float32), (28, 28)),
  )


def test_training_without_augmentation_is_evaluation(images):
  np.testing.assert_array_equal(
    preprocess.preprocess(images, (28, 28), NONE, KEY),
    preprocess.preprocess(images, (28, 28)),
  )


def test_random_crops_take_every_place_and_keep_the_pixels():
  """In an image that holds its own coordinates, the corner tells the place."""
  y, x = np.mgrid[:6, :7].astype(np.float32)
  images = jnp.array(np.stack([np.stack([y, x], -1)] * 2000))
  ours = np.asarray(preprocess.crop_random(KEY, images, (4, 4)))
  assert ours.shape == (2000, 4, 4, 2)
  np.testing.assert_array_equal(ours - ours[:, :1, :1], images[:, :4, :4])
  corners, counts = np.unique(ours[:, 0, 0].astype(int), axis=0, return_counts=True)
  assert corners.tolist() == [[i, j] for i in range(3) for j in range(4)]
  assert counts.min() > 2000 / 12 * 0.7


def test_random_flip_mirrors_half_of_the_images():
  images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), np.uint8)
  ours = preprocess.preprocess(images, (8, 8), NONE | {'random_flip': True}, KEY)
  plain = preprocess.preprocess(images, (8, 8))
  flipped = jnp.abs(ours - plain[:, :, ::-1]).max((1, 2, 3)) < 1e-5
  kept = jnp.abs(ours - plain).max((1, 2, 3)) < 1e-5
  assert (flipped ^ kept).all()
  assert 160 < flipped.sum() < 240


def test_rotation_by_zero_changes_nothing(images):
  images = images.astype(np.float32)
  np.testing.assert_allclose(preprocess.rotate(KEY, images, 0.0), images, atol=1e-3)


def test_rotation_turns_by_at_most_the_angle_and_about_the_center():
  """The angle is read off a bright pixel far from the center of each image."""
  size, radius, middle = 65, 24, 32
  images = np.zeros((200, size, size, 1), np.float32)
  images[:, middle - 1 : middle + 2, middle + radius - 1 : middle + radius + 2] = 1
  ours = np.asarray(preprocess.rotate(KEY, images, 25.0))[..., 0]
  y, x = np.mgrid[:size, :size] - middle
  mass = ours.sum((1, 2))
  y, x = (ours * y).sum((1, 2)) / mass, (ours * x).sum((1, 2)) / mass
  np.testing.assert_allclose(np.hypot(x, y), radius, atol=0.2)
  degrees = np.rad2deg(np.arctan2(y, x))
  assert abs(degrees).max() < 25.5
  assert degrees.min() < -20
  assert degrees.max() > 20
