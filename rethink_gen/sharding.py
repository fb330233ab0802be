"""One row of devices, and how arrays lie on them."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def put(array, mesh, spec):
  """The array, which every process holds, on the devices of all."""
  return jax.make_array_from_callback(
    array.shape, NamedSharding(mesh, spec), lambda index: array[index]
  )


def mesh():
  """All devices in one row, along which batches are split."""
  return jax.sharding.Mesh(np.array(jax.devices()), ('data',))


def constrain(indices, split):
  return indices if split is None else jax.lax.with_sharding_constraint(indices, split)


def split():
  return NamedSharding(mesh(), PartitionSpec('data'))
