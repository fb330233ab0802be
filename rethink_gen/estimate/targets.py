"""Devices to compile for that this machine does not have: TPU slices and NVIDIA GPUs."""

import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from rethink_gen import errors
from rethink_gen.errors import BadInput
from rethink_gen.estimate import accelerators

# kind: (name in ACCELERATORS, multiply-adds per cycle of one chip, some of its topologies).
# Matrix units, per TensorCore, from https://cloud.google.com/tpu/docs: four of 128 x 128 on
# v4, v5e and v5p, two of 256 x 256 on v6e; v4 and v5p have two TensorCores.
TPUS = {
  'v4': ('TPU v4', 2 * 4 * 128**2, '2x2x1, 2x2x2, 2x2x4, 4x4x4'),
  'v5e': ('TPU v5e', 4 * 128**2, '1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16'),
  'v5p': ('TPU v5p', 2 * 4 * 128**2, '2x2x1, 2x2x2, 2x2x4, 4x4x4'),
  'v6e': ('TPU v6e', 2 * 256**2, '1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16'),
}
# Without them libtpu would ask the metadata server of a cloud for its hosts.
TPU_VARIABLES = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-16',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # nothing runs on a TPU that they would share
}
GPUS = {'h100': 'H100'}
# XLA's GpuTargetConfig: the limits of the device, from NVIDIA's Hopper tuning guide and the
# H100's specification (SXM, 80 GB).
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
OWN_TOPOLOGY = {'1x1', '1x1x1'}  # a chip alone, without the others of its host


class Target(NamedTuple):
  """Devices to compile for.

  Attributes:
    name: as the user wrote it.
    accelerator: its name in `accelerators.ACCELERATORS`.
    devices: a list of devices that cannot run anything.
  """

  name: str
  accelerator: str
  devices: list


def find_target(name: str) -> Target:
  """The Target of a name: 'v5e:4x4', two slices '2*v5e:4x4', eight GPUs 'h100:8'.

  Raises:
    BadInput: for an unknown kind or topology, or where its compiler is not installed.
  """
  # An installed libtpu would look for a TPU.
  if jax.config.jax_platforms is None:  # type: ignore[attr-defined]
    jax.config.update('jax_platforms', 'cpu')
  # A program for a device that is not there cannot be read back from the cache.
  jax.config.update('jax_enable_compilation_cache', False)
  found = re.fullmatch(r'(?:(\d+)\*)?(\w+):(\w+)', name)
  slices, kind, shape = found.groups() if found else (None, None, None)
  if kind in TPUS:
    return Target(name, TPUS[kind][0], _tpus(name, int(slices or 1), kind, shape))
  if kind in GPUS and not slices and re.fullmatch(r'[1-9]\d*', shape):
    return Target(name, GPUS[kind], _gpus(name, int(shape)))
  known = '; '.join(f'{kind}:{{{shapes}}}' for kind, (_, _, shapes) in TPUS.items())
  raise BadInput(
    f'--compile_for is {name!r}, but it must be a TPU slice ({known}), several of them, '
    'such as 2*v5e:4x4, or a number of GPUs, such as h100:8.'
  )


def _tpus(name, slices, kind, shape):
  for variable, value in TPU_VARIABLES.items():
    os.environ.setdefault(variable, value)
  options = {'chips_per_host_bounds': (1, 1, 1)} if shape in OWN_TOPOLOGY else {}
  if slices > 1:
    options['num_slices'] = slices
  try:
    return list(
      topologies.get_topology_desc(
        platform='tpu', topology_name=f'{kind}:{shape}', **options
      ).devices
    )
  except Exception as error:  # RuntimeError or another, by what is missing
    reason = errors.reason(error)
    if 'not installed' in reason or 'libtpu' in reason:
      raise BadInput(
        f'--compile_for={name} needs the TPU compiler ({reason}); install it in an '
        "environment of its own with pip install -e '.[aot]'."
      ) from error
    raise BadInput(
      f'--compile_for={name} is no topology of {kind} ({reason}); it has '
      f'{TPUS[kind][2]}, among others.'
    ) from error


def _gpus(name, count):
  # Autotuning would measure kernels on the device.
  flags = '--xla_gpu_autotune_level=0 --xla_gpu_shard_autotuning=false'
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()
  try:
    return list(
      topologies.get_topology_desc(
        'h100', 'cuda', target_config=H100, topology=f'1x1x{count}'
      ).devices
    )
  except Exception as error:
    raise BadInput(
      f'--compile_for={name} needs the CUDA compiler ({errors.reason(error)}); install '
      "it with pip install -e '.[cuda]'."
    ) from error


def clock(accelerator: str) -> float:
  """Cycles per second of a TPU: its peak over what its matrix units do in a cycle."""
  (macs,) = {macs for name, macs, _ in TPUS.values() if name == accelerator}
  return accelerators.ACCELERATORS[accelerator].bfloat16 / (2 * macs)
