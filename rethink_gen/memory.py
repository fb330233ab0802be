"""How much memory is free, and how much this process has used at its peak.

Both are for the accelerator if there is one, and for the host otherwise.
"""

import os
import pathlib
import resource

import jax


def bytes_free() -> int:
  """Free memory of all devices, or of the host on CPU."""
  devices = jax.local_devices()
  if devices[0].platform != 'cpu':
    stats = [device.memory_stats() for device in devices]
    return sum(s['bytes_limit'] - s['bytes_in_use'] for s in stats)
  meminfo = pathlib.Path('/proc/meminfo')
  for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
    if line.startswith('MemAvailable:'):
      return int(line.split()[1]) * 1024
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def peak_gib() -> float:
  """Peak memory of this process, on the accelerator if there is one."""
  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    return device.memory_stats()['peak_bytes_in_use'] / 2**30
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # in KiB on Linux
