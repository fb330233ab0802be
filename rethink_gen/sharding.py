"""The one-dimensional mesh of all devices, and the placement of arrays on it."""

import contextlib

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

_DEVICES = []  # to compile for, instead of this process's own


@contextlib.contextmanager
def compiling_for(devices):
  """Makes `mesh` a mesh of other devices, such as those of a topology, until it exits.

  For ahead-of-time compilation. Functions built inside it keep that mesh.
  """
  _DEVICES.append(list(devices))
  try:
    yield
  finally:
    _DEVICES.pop()


def devices():
  """The devices that programs are compiled for: all, or those of `compiling_for`."""
  return _DEVICES[-1] if _DEVICES else jax.devices()


def platform():
  """The platform of `devices`: 'cpu', 'gpu' or 'tpu'."""
  return devices()[0].platform


def put(array, mesh, spec):
  """Places an array that every process holds on the devices of all processes."""
  return jax.make_array_from_callback(
    array.shape, NamedSharding(mesh, spec), lambda index: array[index]
  )


def mesh():
  """The one-dimensional mesh of all devices, along which batches are split."""
  return jax.sharding.Mesh(np.array(devices()), ('data',))


def constrain(indices, split):
  return indices if split is None else jax.lax.with_sharding_constraint(indices, split)


def split():
  return NamedSharding(mesh(), PartitionSpec('data'))
