"""Lower bounds on the time of a run, by the roofline model, and its memory per device.

A step takes at least as long as its arithmetic or its memory traffic, whichever is slower,
plus the all-reduces of its gradients and of batch normalization's statistics.
"""

import math

import jax

from rethink_gen.estimate import counting

DEVICES = (1, 8, 64, 256, 1024)
HOP = 1e-6  # seconds from one device to the next, assumed to be about a microsecond


def compute_seconds(run, machine, cost):
  """The least time of arithmetic or memory traffic, whichever is slower."""
  peak = getattr(machine, run.config.precision)
  return max(cost.flops / peak, cost.bytes / machine.bandwidth)


def all_reduce_seconds(machine, devices, num_bytes, times=1):
  """Seconds to sum num_bytes, which each device holds, over all devices.

  Each of n devices sends 2 (n - 1) / n of the bytes over its links; beyond a group of n,
  each then sums its n-th of them across groups, over the network. Added to this are
  2 log2(devices) hops for each of the `times` all-reduces that the bytes are spread over.
  """
  if devices == 1:
    return 0.0
  within = min(devices, machine.group)
  across = devices // within
  seconds = 2 * (within - 1) / within * num_bytes / machine.link
  if across > 1:
    seconds += 2 * (across - 1) / across * num_bytes / within / machine.network
  return seconds + times * 2 * math.log2(devices) * HOP


def step_seconds(run, machine, devices):
  """Seconds of a gradient step, including the sum of gradients over devices."""
  # A layer's mean and variance are reduced together, and so are their gradients: two
  # all-reduces per layer, as many as there are such arrays. Statistics that each device
  # computes on its own part of the batch are reduced with the parameters' gradients.
  own = run.config.model.batch_norm_per_device
  times = 1 if own else 1 + len(jax.tree.leaves(run.state.batch_stats))
  num_bytes = counting.size((run.state.params, run.state.batch_stats))
  cost = run.step(run.config.batch_size / devices)
  return compute_seconds(run, machine, cost) + all_reduce_seconds(
    machine, devices, num_bytes, times
  )


def run_seconds(run, machine, devices):
  """Seconds of all epochs, and of their evaluations over both whole splits."""
  examples = run.dataset.num_train + run.dataset.num_test
  evaluation = compute_seconds(run, machine, run.evaluation(examples / devices))
  steps = run.steps_per_epoch * run.config.num_epochs
  return steps * step_seconds(run, machine, devices) + run.evaluations * evaluation


def memory(run, devices):
  """Bytes on each device during training: those of the step, and the images."""
  needed = run.step(run.config.batch_size / devices).memory
  if run.config.dataset.streaming:
    return needed
  images = run.dataset.x_train.nbytes + run.dataset.x_test.nbytes
  return needed + images / (devices if run.config.dataset.shard_rows else 1)


def cell(run, machine, devices, price=None):
  """One table cell: time, device-hours and cost on `devices` devices."""
  if machine.link is None and devices > 1:
    return ''
  if run.config.batch_size % devices:
    return '-'
  if memory(run, devices) > machine.memory:
    return 'does not\nfit'
  seconds = run_seconds(run, machine, devices)
  hours = devices * seconds / 3600
  lines = [say(seconds), f'{hours:,.3g}']
  if price is not None:
    lines.append(f'{hours * price:,.2f}')
  return '\n'.join(lines)


def say(seconds):
  """A time in one unit, to three significant digits."""
  for unit, length, most in (('ms', 1e-3, 1), ('s', 1, 100), ('min', 60, 6000)):
    if seconds < most:
      return f'{seconds / length:,.3g} {unit}'
  hours = seconds / 3600
  return f'{hours:,.3g} h' if hours < 100 else f'{hours:,.0f} h'
