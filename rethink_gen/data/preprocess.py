"""Turns stored images into network inputs, compiled, on the device (Appendix A)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage


def crop_shape(height: int, width: int, crop_size: int | None = None) -> tuple[int, int]:
  """(h, w) after the crop: a square of side `crop_size`; None: 7/8 of each side."""
  if crop_size is not None:
    return crop_size, crop_size
  return round(height * 7 / 8), round(width * 7 / 8)


def preprocess(
  images: jax.Array | np.ndarray,
  shape: tuple[int, int],
  regularization=None,
  key: jax.Array | None = None,
) -> jax.Array:
  """Scales, crops to `shape` and standardizes: (n, h, w, c) -> float32 (n, *shape, c).

  Args:
    images: uint8, or float32 on the same scale.
    shape: (h, w) of the crop, from `crop_shape`.
    regularization: None for evaluation: the center crop, and nothing random. For training,
      `config.regularization`, whose random_rotation, random_crop and random_flip are
      applied in this order, independently for each image.
    key: PRNG key of this batch; required if anything is random.
  """
  images = images.astype(jnp.float32) / 255
  random = regularization or {}
  keys = jax.random.split(key, 3) if regularization else None
  if random.get('random_rotation'):
    images = rotate(keys[0], images, random['random_rotation'])
  images = (
    crop_random(keys[1], images, shape)
    if random.get('random_crop')
    else crop_center(images, shape)
  )
  if random.get('random_flip'):
    flips = jax.random.bernoulli(keys[2], shape=(len(images), 1, 1, 1))
    images = jnp.where(flips, images[:, :, ::-1], images)
  return standardize(images)


def scale(images: jax.Array) -> jax.Array:
  """Scales to [-1, 1], like TensorFlow's Inception: uint8 or float32 -> float32."""
  return images.astype(jnp.float32) / 127.5 - 1


def standardize(images) -> jax.Array:
  """Per-image standardization: subtract the mean, divide by max(std, 1/sqrt(size)).

  Mean and standard deviation are over all pixels and channels of each image, as in
  TensorFlow's `per_image_standardization`.
  """
  axes = (1, 2, 3)
  size = images[0].size
  deviation = jnp.maximum(images.std(axes, keepdims=True), size**-0.5)
  return (images - images.mean(axes, keepdims=True)) / deviation


def crop_center(
  images: jax.Array | np.ndarray, shape: tuple[int, int]
) -> jax.Array | np.ndarray:
  top, left = ((n - m) // 2 for n, m in zip(images.shape[1:3], shape, strict=True))
  return images[:, top : top + shape[0], left : left + shape[1]]


def crop_random(
  key: jax.Array, images: jax.Array | np.ndarray, shape: tuple[int, int]
) -> jax.Array:
  """Crops each image independently, at a position uniform over those where it fits."""
  room = jnp.array(images.shape[1:3]) - jnp.array(shape)
  corners = jax.random.randint(key, (len(images), 2), 0, room + 1)

  def crop(image, corner):
    return jax.lax.dynamic_slice(image, (*corner, 0), (*shape, image.shape[-1]))

  return jax.vmap(crop)(images, corners)


def rotate(key: jax.Array, images: jax.Array | np.ndarray, max_degrees: float) -> jax.Array:
  """Rotates about the center by angles uniform in +-max_degrees; bilinear, black fill."""
  angles = jnp.deg2rad(
    jax.random.uniform(key, (len(images),), minval=-max_degrees, maxval=max_degrees)
  )
  height, width = images.shape[1:3]
  y, x = jnp.mgrid[:height, :width]
  y, x = y - (height - 1) / 2, x - (width - 1) / 2

  def rotate_channel(channel, angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source = (
      cos * y - sin * x + (height - 1) / 2,
      sin * y + cos * x + (width - 1) / 2,
    )
    return ndimage.map_coordinates(channel, source, order=1)

  over_channels = jax.vmap(rotate_channel, (-1, None), -1)
  return jax.vmap(over_channels)(images, angles)
