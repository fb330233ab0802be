"""The JAX side of the benchmarks: this project's compiled epoch and a plain Flax loop.

The plain loop is what one would write first: linen's own convolution and pooling, batches
gathered by NumPy, one jitted step per batch. Every `turn(steps=None)` here trains that many
steps, or to the end of the epoch, and returns the seconds it took; the first compiles.
"""

import importlib
import time
from unittest import mock

import flax.linen as nn
import jax
import numpy as np

from rethink_gen import models
from rethink_gen.data import preprocess, sources
from rethink_gen.models import layers
from rethink_gen.ops import conv
from rethink_gen.train import compiled, loading, loop, optimizers, sgd, vmapped

# Batches of 128 per turn on a CPU: seconds of work on two cores.
CPU_BATCHES = {
  'mlp_1x512': 390,
  'mlp_3x512': 390,
  'alexnet': 24,
  'inception': 5,
  'inception_no_bn': 5,
}
EPOCH = 390 * 128  # examples per turn elsewhere: an epoch of CIFAR-10 at batch size 128


def make_config(name, batch_size=128, precision='float32', num_train=None):
  """The config configs/NAME.py with these fields set."""
  config = importlib.import_module(f'configs.{name}').get_config()
  config.batch_size = batch_size
  config.precision = precision
  config.dataset.num_train = num_train
  return config


def examples(name, batch_size, part=1):
  """Number of examples per turn, divided by `part`, in whole batches; at least two."""
  on_cpu = jax.default_backend() == 'cpu'
  wanted = 128 * CPU_BATCHES[name] if on_cpu else EPOCH
  return max(2, wanted // part // batch_size) * batch_size


def load(config):
  """The Dataset of a config, with only a few test examples, which no turn uses."""
  dataset, _ = loading.load(config)
  return sources.first(dataset, config.dataset.num_train, 100)


def compiled_epoch(config, dataset):
  """A turn of the compiled epoch, trained as in `train.run`."""
  state, train_to, *_ = compiled.build(config, dataset)

  def turn(steps=None):
    nonlocal state
    started = time.perf_counter()
    step, whole = int(state.step), len(state.losses)
    end = (step // whole + 1) * whole
    state = train_to(state, end if steps is None else min(end, step + steps))
    jax.block_until_ready(state)
    return time.perf_counter() - started

  return turn


def epoch_of_many(config, dataset, count):
  """A turn of the compiled epoch of `count` runs at once, trained as in `vmapped.run`."""
  state, *_ = compiled.build(config, dataset)
  # They are identical: only their number affects the cost.
  requests = {run: loop.Request(state, 'train') for run in range(count)}
  stack = vmapped.assemble(
    None, requests, dict.fromkeys(requests, config), dict.fromkeys(requests, dataset)
  )
  program = compiled.make_program(config, dataset)
  epoch = vmapped.compile_stack(program).epoch
  images, state = jax.device_put(dataset.x_train), stack.state

  def turn():
    nonlocal state
    started = time.perf_counter()
    end = int(state.step) + program.steps_per_epoch
    state = epoch(state, end, images, stack.train_labels, stack.keys, stack.rates)
    jax.block_until_ready(state)
    return time.perf_counter() - started

  return turn


def plain_loop(config, dataset):
  """A turn of the same training as a loop over batches, with one jitted step each."""
  model = models.create(config, dataset.num_classes)
  tx = optimizers.make_tx(config, optimizers.rates(config))
  crop_shape = preprocess.crop_shape(*dataset.x_train.shape[1:3])
  key = jax.random.key(0)
  whole = len(dataset.y_train) // config.batch_size
  channels = dataset.x_train.shape[-1]
  state = sgd.make_initialize(model, tx, (*crop_shape, channels), whole)(key)

  @jax.jit
  def step(state, images, labels):
    inputs = preprocess.preprocess(images, crop_shape)
    # While this is traced, linen's layers replace ours.
    with mock.patch.multiple(layers, convolve=convolve, max_pool=max_pool):
      return sgd.train_step(model, tx, state, inputs, labels, key)

  def turn(steps=None):
    nonlocal state
    started = time.perf_counter()
    order = np.random.default_rng().permutation(whole * config.batch_size)
    for chosen in order.reshape(whole, -1)[:steps]:
      state = step(state, dataset.x_train[chosen], dataset.y_train[chosen])
    jax.block_until_ready(state)
    return time.perf_counter() - started

  return turn


def convolve(x, kernel, stride=1, padding='SAME'):
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=conv.DIMENSIONS
  )


def max_pool(x, padding='SAME'):
  return nn.max_pool(x, (3, 3), (2, 2), padding)
