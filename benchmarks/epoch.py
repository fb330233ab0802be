"""The compiled epoch beside a plain Flax loop, in images per second.

  TFDS_DATA_DIR=... python -m benchmarks.epoch

The plain loop is what one writes first: linen's own convolution and pooling, batches
gathered by NumPy, one jitted step a batch. Both train the same model on the same CIFAR-10
images; they take turns, so that a machine that changes its speed changes both. A benchmark,
not a test: it prints, and asserts nothing. About ten minutes on two CPU cores.
"""

import importlib
import statistics
import time

import flax.linen as nn
import jax
import numpy as np
from absl import app, flags

from rethink_gen import models, sgd, train
from rethink_gen.data import preprocess
from rethink_gen.models import layers

# Steps of each turn: seconds of work on two CPU cores. 390 are an epoch of CIFAR-10.
STEPS = {
  'mlp_1x512': 390,
  'mlp_3x512': 390,
  'alexnet': 24,
  'inception': 5,
  'inception_no_bn': 5,
}
MODELS = flags.DEFINE_list('models', list(STEPS), 'Which of the configs to time.')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'How many turns each takes.')


def main(_):
  print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}')
  print(f'{"":16} {"epoch":>8} {"plain":>8} {"ratio":>6}   (ratios from least to most)')
  for name in MODELS.value:
    config = importlib.import_module(f'configs.{name}').get_config()
    dataset, _ = train.load(config)
    dataset = dataset._replace(
      x_train=dataset.x_train[: STEPS[name] * config.batch_size],
      y_train=dataset.y_train[: STEPS[name] * config.batch_size],
    )
    turns = compiled_epoch(config, dataset), plain_loop(config, dataset)
    images = len(dataset.y_train) // config.batch_size * config.batch_size
    speeds = [[images / turn() for turn in turns] for _ in range(ROUNDS.value)]
    ours, plain = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratios = sorted(a / b for a, b in speeds)
    print(
      f'{name:16} {ours:8,.0f} {plain:8,.0f} {statistics.median(ratios):6.2f}'
      f'   {ratios[0]:.2f} to {ratios[-1]:.2f}',
      flush=True,
    )


def compiled_epoch(config, dataset):
  """A function that trains one epoch, compiled already, and returns its seconds."""
  state, train_to, _, _ = train.build(config, dataset)
  state = train_to(state, 0)

  def turn():
    nonlocal state
    started = time.perf_counter()
    state = train_to(state, int(state.step) + len(state.losses))
    jax.block_until_ready(state)
    return time.perf_counter() - started

  return turn


def plain_loop(config, dataset):
  """The same of a loop over batches, a jitted step each."""

  def convolve(x, kernel, stride=1, padding='SAME'):
    return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), padding, dimension_numbers=layers.DIMENSIONS
    )

  def max_pool(x, padding='SAME'):
    return nn.max_pool(x, (3, 3), (2, 2), padding)

  model = models.create(config.model, dataset.num_classes)
  transformation = sgd.optimizer(config, sgd.rates(config))
  crop_shape = preprocess.crop_shape(*dataset.x_train.shape[1:3])
  key = jax.random.key(0)
  steps = len(dataset.y_train) // config.batch_size
  state = sgd.make_initialise(model, transformation, (*crop_shape, 3), steps)(key)

  @jax.jit
  def step(state, images, labels):
    inputs = preprocess.preprocess(images, crop_shape)
    return sgd.train_step(model, transformation, state, inputs, labels, key)

  def turn(steps=steps):
    nonlocal state
    started = time.perf_counter()
    order = np.random.default_rng().permutation(len(dataset.y_train))
    for chosen in order.reshape(-1, config.batch_size)[:steps]:
      state = step(state, dataset.x_train[chosen], dataset.y_train[chosen])
    jax.block_until_ready(state)
    return time.perf_counter() - started

  ours = layers.convolve, layers.max_pool
  layers.convolve, layers.max_pool = convolve, max_pool
  turn(steps=2)  # compiles, with linen's layers in the place of ours
  layers.convolve, layers.max_pool = ours
  return turn


if __name__ == '__main__':
  app.run(main)
