"""The one-dimensional mesh of all devices, and the placement of arrays on it."""

import contextlib
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

_DEVICES = []  # to compile for, instead of this process's own


@contextlib.contextmanager
def compiling_for(devices: Iterable[jax.Device]) -> Iterator[None]:
  """Makes `mesh` a mesh of other devices, such as those of a topology, until it exits.

  For ahead-of-time compilation. Functions built inside it keep that mesh.
  """
  _DEVICES.append(list(devices))
  try:
    yield
  finally:
    _DEVICES.pop()


def devices() -> list[jax.Device]:
  """The devices that programs are compiled for: all, or those of `compiling_for`."""
  return _DEVICES[-1] if _DEVICES else jax.devices()


def platform() -> str:
  """The platform of `devices`: 'cpu', 'gpu' or 'tpu'."""
  return devices()[0].platform


def put(array: np.ndarray, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> jax.Array:
  """Places an array that every process holds on the devices of all processes."""
  return jax.make_array_from_callback(
    array.shape, NamedSharding(mesh, spec), lambda index: array[index]
  )


def mesh() -> jax.sharding.Mesh:
  """The one-dimensional mesh of all devices, along which batches are split."""
  return jax.sharding.Mesh(np.array(devices()), ('data',))


def constrain(indices: jax.Array, split: NamedSharding | None) -> jax.Array:
  return indices if split is None else jax.lax.with_sharding_constraint(indices, split)


def split() -> NamedSharding:
  return NamedSharding(mesh(), PartitionSpec('data'))
