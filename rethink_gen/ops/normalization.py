"""Local response normalization, computed as a product with a band matrix."""

import jax.numpy as jnp
from jax import lax


def local_response_normalization(x, depth_radius=4, bias=1.0, alpha=0.001 / 9):
  """x / (bias + alpha * sum of squares over nearby channels)^0.75 (AlexNet, section 3.3).

  The sum runs over the 2 * depth_radius + 1 channels around each one; the defaults are
  those of TensorFlow's CIFAR-10 tutorial. (n, h, w, c) -> same.
  """
  channel = jnp.arange(x.shape[-1])
  band = jnp.abs(channel[:, None] - channel) <= depth_radius
  scale = bias + alpha * (jnp.square(x) @ band.astype(x.dtype))
  inverse_root = lax.rsqrt(scale)
  return x * inverse_root * jnp.sqrt(inverse_root)
