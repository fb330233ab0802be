"""The one-dimensional mesh of all devices, and the placement of arrays on it."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def put(array, mesh, spec):
  """Places an array that every process holds on the devices of all processes."""
  return jax.make_array_from_callback(
    array.shape, NamedSharding(mesh, spec), lambda index: array[index]
  )


def mesh():
  """The one-dimensional mesh of all devices, along which batches are split."""
  return jax.sharding.Mesh(np.array(jax.devices()), ('data',))


def constrain(indices, split):
  return indices if split is None else jax.lax.with_sharding_constraint(indices, split)


def split():
  return NamedSharding(mesh(), PartitionSpec('data'))
