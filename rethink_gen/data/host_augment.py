"""Decodes, crops, resizes and distorts one image on the host, with NumPy and Pillow.

Follows TensorFlow's Inception preprocessing (slim's inception_preprocessing.py), with these
differences: when shrinking, Pillow averages over all pixels that an output pixel covers,
where TensorFlow uses four of them; resizing is always bilinear, where slim, outside its
fast mode, draws one of bilinear, nearest-neighbor, bicubic and area resizing for each
training image; a crop need not cover a tenth of an object's box, because TFDS has no boxes;
and the result is rounded to uint8.
"""

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

AREA = (0.05, 1.0)  # area of a random crop, as a fraction of the image
ASPECT = (3 / 4, 4 / 3)  # width of a random crop over its height


def decode(encoded: bytes, size: int, choose_box: Callable | None = None) -> np.ndarray:
  """Decodes an image file, crops and resizes it: bytes -> uint8 (size, size, 3).

  Grayscale, CMYK and palette images become RGB. Resizing is bilinear and does not keep the
  aspect ratio. A JPEG at least twice as large as needed is decoded at a half, a quarter or
  an eighth of its size, which is faster.

  Args:
    encoded: the bytes of a JPEG, a PNG or any other format that Pillow reads.
    size: side of the result, in pixels.
    choose_box: choose_box(width, height) -> the crop (left, top, right, bottom), all in
      pixels; by default `center_box`.

  Raises:
    Exception: of various types, if the bytes are damaged or not an image.
  """
  with Image.open(io.BytesIO(encoded)) as image:
    box = (choose_box or center_box)(*image.size)
    full_width, full_height = image.size
    wanted = (
      size * full_width / (box[2] - box[0]),
      size * full_height / (box[3] - box[1]),
    )
    drafted = image.draft('RGB', wanted)  # None unless it is a JPEG
    scale = drafted[1][2] / full_width if drafted else 1
    box = tuple(edge * scale for edge in box)
    resampling = Image.Resampling.BILINEAR
    return np.asarray(image.convert('RGB').resize((size, size), resampling, box))


def center_box(width: int, height: int) -> tuple[int, int, int, int]:
  """The middle 87.5 % of each side: (left, top, right, bottom), in pixels."""
  left, top = width // 16, height // 16
  return left, top, width - left, height - top


def random_box(width: int, height: int, uniform: np.ndarray) -> tuple[int, int, int, int]:
  """A crop whose area and aspect ratio lie in AREA and ASPECT, up to rounding to pixels.

  Draws the aspect ratio uniformly, then the height among those that fit, then the position,
  like slim's `distorted_bounding_box_crop`. If no crop is large enough and fits, as in an
  image twenty times as wide as it is high, the crop is the whole image.

  Args:
    width, height: size of the image, in pixels.
    uniform: float64 (4,), in [0, 1).

  Returns:
    (left, top, right, bottom), in whole pixels.
  """
  aspect = ASPECT[0] + uniform[0] * (ASPECT[1] - ASPECT[0])
  lowest = math.ceil(math.sqrt(AREA[0] * width * height / aspect))
  highest = min(height, int(width / aspect))
  if lowest > highest:
    return 0, 0, width, height
  crop_height = lowest + int(uniform[1] * (highest - lowest + 1))
  crop_width = min(width, max(1, round(crop_height * aspect)))
  top = int(uniform[2] * (height - crop_height + 1))
  left = int(uniform[3] * (width - crop_width + 1))
  return left, top, left + crop_width, top + crop_height


def jitter(image: np.ndarray, uniform: np.ndarray) -> np.ndarray:
  """Changes brightness, saturation, hue and contrast, in one of four orders.

  Args:
    image: uint8 (h, w, 3).
    uniform: float64 (5,), in [0, 1): one for each of COLOR, and one for the order.

  Returns:
    uint8 (h, w, 3). Only the final result is clipped.
  """
  planes = np.multiply(
    image.transpose(2, 0, 1), np.float32(1 / 255), dtype=np.float32, order='C'
  )
  for number in ORDERS[int(uniform[4] * len(ORDERS))]:
    change, low, high = COLOR[number]
    change(planes, np.float32(low + uniform[number] * (high - low)))
  planes *= 255
  planes.clip(0, 255, out=planes)
  return np.stack(list(np.rint(planes, out=planes).astype(np.uint8)), -1)


# The next four functions change float32 (3, h, w), from 0 (black) to 1 (white), in place:
# allocating arrays of this size would take longer than the arithmetic.


def brighten(planes: np.ndarray, amount: float | np.float32) -> None:
  """Adds `amount`, like tf.image.adjust_brightness."""
  planes += amount


def saturate(planes: np.ndarray, factor: float | np.float32) -> None:
  """Multiplies the HSV saturation, capped at 1, like tf.image.adjust_saturation."""
  high = planes.max(0)
  # Saturation is (high - low) / high, so the factor is capped at high / (high - low).
  factors = np.maximum(high - planes.min(0), np.float32(1e-6))
  np.divide(high, factors, out=factors)
  factors.clip(0, factor, out=factors)
  planes -= high
  planes *= factors
  planes += high


def turn_hue(planes: np.ndarray, turns: float | np.float32) -> None:
  """Adds `turns`, in full turns, to the HSV hue, like tf.image.adjust_hue."""
  red, green, blue = planes
  high = planes.max(0)
  span = np.maximum(high - planes.min(0), np.float32(1e-6))
  # The hue in sixths of a turn: red is 0, green 2, blue 4.
  hue = (red - green) / span + 4
  part = (blue - red) / span + 2
  np.copyto(hue, part, where=high == green)
  np.subtract(green, blue, out=part)
  part /= span
  np.copyto(hue, part, where=high == red)
  # Red is lowest in the third and fourth sixths of a turn, falls before and rises after: it
  # is high - span * clip(min(k, 4 - k), 0, 1), where k = (5 + hue) modulo 6. Green and blue
  # have other offsets.
  for plane, offset in zip(planes, (5, 3, 1), strict=True):
    np.add(hue, np.float32(offset + 6 * turns), out=part)
    part /= 6
    part -= np.floor(part, out=plane)
    part *= 6
    np.minimum(part, np.subtract(4, part, out=plane), out=part)
    part.clip(0, 1, out=part)
    part *= span
    np.subtract(high, part, out=plane)


def contrast(planes: np.ndarray, factor: float | np.float32) -> None:
  """Scales each channel about its mean, like tf.image.adjust_contrast."""
  mean = planes.mean((1, 2), keepdims=True)
  planes -= mean
  planes *= factor
  planes += mean


COLOR = (
  (brighten, -32 / 255, 32 / 255),
  (saturate, 0.5, 1.5),
  (turn_hue, -0.2, 0.2),
  (contrast, 0.5, 1.5),
)
# The four that slim uses, out of 24.
ORDERS = ((0, 1, 2, 3), (1, 0, 3, 2), (3, 2, 0, 1), (2, 1, 3, 0))
