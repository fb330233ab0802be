"""One image on the host, against Pillow and colorsys."""

import colorsys
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rethink_gen.data import host_augment

fractions = st.floats(0, 1, exclude_max=True)


def encode(image, form='jpeg', **options):
  stream = io.BytesIO()
  image.save(stream, form, **options)
  return stream.getvalue()


def smooth(width, height, mode='RGB', seed=0):
  """An image without sharp edges, in which neighboring pixels are alike."""
  random = np.random.default_rng(seed)
  coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
  return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize('size', [(64, 64), (90, 70), (31, 120)])
def test_evaluation_is_the_center_resized_by_pillow(size):
  encoded = encode(smooth(*size))
  left, top = int(size[0] * 0.0625), int(size[1] * 0.0625)
  box = (left, top, size[0] - left, size[1] - top)
  expected = Image.open(io.BytesIO(encoded)).resize((40, 40), Image.BILINEAR, box)
  ours = host_augment.decode(encoded, 40)
  assert ours.dtype == np.uint8
  np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize('size', [(640, 480), (333, 999)])
def test_a_large_jpeg_is_decoded_smaller_to_nearly_the_same(size):
  """Decoded at a quarter, with a box that is no whole number of its pixels."""
  encoded = encode(smooth(*size))
  box = (101, 33, 301, 243)
  expected = Image.open(io.BytesIO(encoded)).resize((32, 32), Image.BILINEAR, box)
  ours = host_augment.decode(encoded, 32, lambda width, height: box)
  assert abs(ours.astype(int) - expected).mean() < 1


@pytest.mark.parametrize(
  ('mode', 'form'),
  [('L', 'jpeg'), ('CMYK', 'jpeg'), ('L', 'png'), ('RGBA', 'png'), ('P', 'png')],
)
def test_other_modes_become_rgb(mode, form):
  image = smooth(48, 48)
  ours = host_augment.decode(encode(image.convert(mode), form), 42).astype(int)
  assert ours.shape == (42, 42, 3)
  expected = image.convert('L').convert('RGB') if mode == 'L' else image
  expected = np.asarray(expected.resize((42, 42), Image.BILINEAR, (3, 3, 45, 45)))
  # A palette and JPEG cost some levels.
  assert abs(ours - expected).mean() < (20 if mode == 'P' else 5)


@pytest.mark.parametrize(
  'damage', [lambda b: b[: len(b) // 2], lambda b: b'GIF', lambda b: b'']
)
def test_what_is_no_image_raises(damage):
  with pytest.raises((OSError, ValueError)):
    host_augment.decode(damage(encode(smooth(64, 64))), 32)


@given(
  st.integers(1, 3000),
  st.integers(1, 3000),
  st.lists(fractions, min_size=4, max_size=4),
)
@example(500, 375, [0.0] * 4)
@example(500, 375, [1 - 2**-53] * 4)
@settings(deadline=None, max_examples=300)
def test_random_boxes_lie_inside_and_keep_their_bounds(width, height, uniform):
  left, top, right, bottom = host_augment.random_box(width, height, uniform)
  assert 0 <= left < right <= width
  assert 0 <= top < bottom <= height
  if (left, top, right, bottom) == (0, 0, width, height):
    return  # as where nothing fits
  crop_width, crop_height = right - left, bottom - top
  # The width was rounded to the nearest pixel.
  assert (crop_width + 0.5) * crop_height >= 0.05 * width * height - 1e-6
  assert crop_width + 0.5 >= 3 / 4 * crop_height
  assert crop_width - 0.5 <= 4 / 3 * crop_height


def test_random_boxes_take_every_size_and_place():
  uniform = np.random.default_rng(0).random((4000, 4))
  boxes = np.array([host_augment.random_box(500, 375, numbers) for numbers in uniform])
  width, height = (boxes[:, 2:] - boxes[:, :2]).T
  area, aspect = width * height / (500 * 375), width / height
  assert area.min() < 0.06
  assert area.max() > 0.95
  np.testing.assert_allclose(
    np.quantile(aspect, [0, 0.5, 1]), [3 / 4, 25 / 24, 4 / 3], 0.02
  )
  room = 500 - width
  np.testing.assert_allclose((boxes[:, 0] / room)[room > 50].mean(), 0.5, atol=0.02)
  assert boxes[:, 3].max() == 375


def test_without_a_box_that_fits_it_is_the_whole_image():
  assert host_augment.random_box(1000, 10, [0.5] * 4) == (0, 0, 1000, 10)


def reference(image, numbers):
  """Slim's distort_color pixel by pixel, on HSV as colorsys has it, in float64."""
  image = image / 255
  brightness = (numbers[0] * 2 - 1) * 32 / 255
  saturation, contrast = 0.5 + numbers[1], 0.5 + numbers[3]
  hue = (numbers[2] * 2 - 1) * 0.2

  def through_hsv(change):
    flat = [change(*colorsys.rgb_to_hsv(*pixel)) for pixel in image.reshape(-1, 3)]
    return np.array([colorsys.hsv_to_rgb(*pixel) for pixel in flat]).reshape(image.shape)

  for name in ('bshc', 'sbch', 'chbs', 'hscb')[int(numbers[4] * 4)]:
    if name == 'b':
      image = image + brightness
    elif name == 's':
      image = through_hsv(lambda h, s, v: (h, min(1, s * saturation), v))
    elif name == 'h':
      image = through_hsv(lambda h, s, v: ((h + hue) % 1, s, v))
    else:
      mean = image.mean((0, 1))
      image = (image - mean) * contrast + mean
  return np.clip(image, 0, 1) * 255


@given(st.lists(fractions, min_size=5, max_size=5), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_jitter_is_slims(numbers, seed):
  # Not so dark or bright that a value leaves [0, 1], where HSV means nothing.
  image = np.random.default_rng(seed).integers(100, 156, (5, 7, 3), np.uint8)
  image[0] = image[0, :, :1]  # gray has no hue
  ours = host_augment.jitter(image, np.array(numbers))
  assert ours.dtype == np.uint8
  np.testing.assert_allclose(ours, reference(image, numbers), atol=0.51)


@given(fractions, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_neutral_jitter_changes_nothing(order, seed):
  image = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
  neutral = np.array([0.5, 0.5, 0.5, 0.5, order])
  np.testing.assert_array_equal(host_augment.jitter(image, neutral), image)


@given(st.lists(fractions, min_size=5, max_size=5))
@settings(deadline=None, max_examples=50)
def test_extremes_stay_finite(numbers):
  """Black, white and pure colors, after which brightness may make values negative."""
  image = np.array(np.meshgrid([0, 255], [0, 255], [0, 1, 255]), np.uint8).T.reshape(
    3, 4, 3
  )
  with np.errstate(divide='raise', invalid='raise', over='raise'):
    host_augment.jitter(image, np.array(numbers))
