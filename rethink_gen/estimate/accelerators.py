"""Accelerators as specified by their vendors, and this machine as measured."""

import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Accelerator(NamedTuple):
  """Rates and sizes of one device.

  Attributes:
    bfloat16, float32: peak operations per second of dense products of this input dtype. In
      float32, a TPU makes six passes in bfloat16 (docs.jax.dev, jax.lax.Precision), and a
      GPU does not use its tensor cores: `compiled.matmul_precision` asks for no less.
    memory: bytes.
    bandwidth: memory bandwidth, bytes per second.
    link: bytes per second that a device sends to others in its group, over all links; None
      if it is alone. Vendors quote twice that, for both directions.
    group: number of devices linked in this way, a pod or a server.
    network: bytes per second that a device sends beyond its group; None if no number in
      roofline.DEVICES exceeds the group.
  """

  bfloat16: float
  float32: float
  memory: float
  bandwidth: float
  link: float | None
  group: int
  network: float | None


def tpu(peak, *rest):
  return Accelerator(peak, peak / 6, *rest)


ACCELERATORS = {
  # https://cloud.google.com/tpu/docs/v4; six links of 50 GB/s: arXiv:2304.01433
  'TPU v4': tpu(275e12, 32 * 2**30, 1200e9, 300e9, 4096, None),
  # https://cloud.google.com/tpu/docs/v5e: 400 GB/s both ways, 6.4 Tbit/s per pod of 256
  'TPU v5e': tpu(197e12, 16e9, 819e9, 200e9, 256, 25e9 / 8),
  # https://cloud.google.com/tpu/docs/v5p: 1,200 GB/s both ways
  'TPU v5p': tpu(459e12, 95e9, 2765e9, 600e9, 8960, None),
  # https://cloud.google.com/tpu/docs/v6e: 800 GB/s both ways, 25.6 Tbit/s per pod of 256
  'TPU v6e': tpu(918e12, 32e9, 1600e9, 400e9, 256, 100e9 / 8),
  # SXM, 80 GB. https://www.nvidia.com/en-us/data-center/a100/: 600 GB/s both ways; eight
  # with a 200 Gbit/s adapter each in https://docs.nvidia.com/dgx/dgxa100-user-guide/
  'A100': Accelerator(312e12, 19.5e12, 80e9, 2039e9, 300e9, 8, 25e9),
  # SXM, without sparsity. https://www.nvidia.com/en-us/data-center/h100/: 900 GB/s both
  # ways; 400 Gbit/s for each in https://docs.nvidia.com/dgx/dgxh100-user-guide/
  'H100': Accelerator(989e12, 67e12, 80e9, 3350e9, 450e9, 8, 50e9),
  # SXM, without sparsity. https://www.nvidia.com/en-us/data-center/h200/
  'H200': Accelerator(989e12, 67e12, 141e9, 4800e9, 450e9, 8, 50e9),
}


def measure_machine(precision):
  """One device of this machine as an Accelerator: the best of five products and copies.

  The copy is an in-place negation: new memory would be slow if it had to be mapped first.
  """
  device = jax.devices()[0]
  on_cpu = device.platform == 'cpu'
  side = 2048 if on_cpu else 8192
  matrix = jnp.ones((side, side), precision, device=device)
  multiply = jax.jit(jnp.matmul)
  numbers = jnp.ones(2**26 if on_cpu else 2**28, jnp.float32, device=device)
  num_bytes = 2 * numbers.nbytes  # read and written
  negate = jax.jit(jnp.negative, donate_argnums=0)
  products, copies = [], []
  for _ in range(6):  # the first compiles
    started = time.perf_counter()
    jax.block_until_ready(multiply(matrix, matrix))
    products.append(time.perf_counter() - started)
    started = time.perf_counter()
    numbers = jax.block_until_ready(negate(numbers))
    copies.append(time.perf_counter() - started)
  peak, bandwidth = 2 * side**3 / min(products), num_bytes / min(copies)
  if on_cpu:
    available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  else:
    available = device.memory_stats()['bytes_limit']
  return Accelerator(peak, peak, available, bandwidth, None, 1, None)
