"""Max-pooling, with a backward pass of its own on CPUs.

There the backward pass is written out because XLA's CPU backend takes four times as long
for autodiff's gradient of a maximum. The values are the same, except for ties (see
`max_pool`). Forward-mode differentiation does not go through a custom_vjp. Elsewhere it is
`nn.max_pool` and its autodiff.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rethink_gen import sharding


def max_pool(x, padding='SAME'):
  """3x3 max-pooling with stride 2, padding SAME or VALID: (n, h, w, c) -> (n, h', w', c).

  Pools along one side after the other, which gives the same maximum. Values that tie along
  a side share the gradient; after a ReLU nearly all ties are zeros, whose gradient the ReLU
  stops.
  """
  if sharding.platform() != 'cpu':
    return nn.max_pool(x, (3, 3), (2, 2), padding)
  return _pool_along(1, padding, _pool_along(2, padding, x))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pool_along(axis, padding, x):
  """The maximum of every three neighbors along an axis, with stride 2."""
  first, second, third, _ = _threes(axis, padding, x)
  return jnp.maximum(jnp.maximum(first, second), third)


def _pool_along_forward(axis, padding, x):
  pooled = _pool_along(axis, padding, x)
  return pooled, (x, pooled)


def _pool_along_backward(axis, padding, saved, gradient):
  """The gradient at even and at odd positions, as sums of whole arrays, interleaved.

  Even positions are the first of one window and the third of another; odd positions are the
  second of one window.
  """
  x, pooled = saved
  *threes, low = _threes(axis, padding, x)
  largest = [three == pooled for three in threes]
  share = gradient / sum(each.astype(gradient.dtype) for each in largest)
  first, second, third = (jnp.where(each, share, 0) for each in largest)
  even = _pad_along(axis, first, 0, 1) + _pad_along(axis, third, 1, 0)
  both = jnp.stack([even, _pad_along(axis, second, 0, 1)], axis + 1)
  whole = both.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
  return (lax.slice_in_dim(whole, low, low + x.shape[axis], axis=axis),)


_pool_along.defvjp(_pool_along_forward, _pool_along_backward)


def _threes(axis, padding, x):
  """(first, second and third element of every window along an axis, padding before)."""
  ((low, high),) = lax.padtype_to_pads((x.shape[axis],), (3,), (2,), padding)
  count = (x.shape[axis] + low + high - 3) // 2 + 1
  padded = _pad_along(axis, x, low, 2 * count + 2 - x.shape[axis] - low, -jnp.inf)
  first, second, third = (
    lax.slice_in_dim(padded, start, start + 2 * count - 1, 2, axis) for start in range(3)
  )
  return first, second, third, low


def _pad_along(axis, x, before, after, value=0):
  sides = [(0, 0)] * x.ndim
  sides[axis] = (before, after)
  return jnp.pad(x, sides, constant_values=value)
