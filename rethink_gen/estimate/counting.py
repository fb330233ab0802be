"""Counts the operations, memory traffic and memory of a run, from shapes only.

`count` traces the gradient step and the evaluation that training compiles, without any
array being allocated. Operations come from XLA's cost analysis, bytes from the jaxpr.
"""

import collections
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from rethink_gen import errors, models
from rethink_gen.data import corruption, preprocess, sources, tfds_folders
from rethink_gen.errors import BadInput
from rethink_gen.ops import conv
from rethink_gen.train import optimizers, sgd


class Cost(NamedTuple):
  """The cost of a computation on one device.

  Attributes:
    flops: floating-point operations, as XLA counts them.
    bytes: the least that must move between memory and arithmetic units.
    unfused: the same if every operation read its inputs from memory and wrote its outputs.
    memory: peak bytes in use.
  """

  flops: float
  bytes: float
  unfused: float
  memory: float


class Plan(NamedTuple):
  """Static description of a run, before it starts.

  Attributes:
    config: the config of the run.
    dataset: its Dataset, of which only shapes and dtypes matter.
    state: its `sgd.TrainState`, as shapes.
    step: step(b) is the Cost of a gradient step on a device that has b of the examples.
    evaluation: evaluation(b) is the Cost of evaluating b examples.
  """

  config: Any
  dataset: sources.Dataset
  state: sgd.TrainState
  step: Callable
  evaluation: Callable

  @property
  def steps_per_epoch(self):
    return len(self.state.losses)

  @property
  def evaluations(self):
    """Number of evaluations without early stopping, according to `loop.is_due`."""
    return -(-self.config.num_epochs // self.config.eval_every)


def describe_data(config):
  """A stand-in for the Dataset that a config would train on, with its sizes.

  Its arrays have the shapes of those that `sources.load` returns and the dtypes after
  corruption, but repeat one element. Streamed images have the shape of the network's input.

  Raises:
    BadInput: the size of the data set is neither known nor can be found out, or is smaller
      than the config says.
  """
  name, path = config.dataset.name, config.dataset.path
  if name == 'npz':
    real = sources.load(name, path=path)
    sizes = real.num_train, real.num_test, real.x_train.shape[1:], real.num_classes
  else:
    sizes = sources.SIZES.get(name) or find_sizes(name, config.dataset.data_dir)
  *counts, shape, num_classes = sizes
  if config.dataset.streaming:
    shape = (config.dataset.crop_size, config.dataset.crop_size, 3)
  elif shape is None:
    raise BadInput(
      f'The images of {name} vary in size, so they can only be streamed; set '
      'config.dataset.streaming=True and config.dataset.crop_size.'
    )
  pixel = (corruption.CORRUPTIONS[config.corruption.mode].dtype or np.uint8)(0)
  arrays = []
  for field, available in zip(('num_train', 'num_test'), counts, strict=True):
    number = config.dataset[field] or available
    if number > available:
      raise BadInput(
        f'config.dataset.{field} is {number}, but {name} has {available}; use at most '
        'that many.'
      )
    arrays += [
      np.broadcast_to(pixel, (number, *shape)),
      np.broadcast_to(np.int32(0), number),
    ]
  return sources.Dataset(*arrays, num_classes)


def find_sizes(name, data_dir):
  """The entry for sources.SIZES of a prepared data set; raises BadInput if it is not."""
  folder = tfds_folders.find(name, tfds_folders.root(data_dir))
  import tensorflow_datasets as tfds  # slow to import

  try:
    info = tfds.builder_from_directory(str(folder)).info
    test = 'test' if 'test' in info.splits else 'validation'
    shape = info.features['image'].shape
    return (
      info.splits['train'].num_examples,
      info.splits[test].num_examples,
      None if None in shape else shape,
      info.features['label'].num_classes,
    )
  except Exception as error:  # TFDS raises many types for unexpected contents
    raise BadInput(
      f'The size of the data set in {folder} cannot be read ({errors.reason(error)}); it '
      'must be image classification with a training and a test split.'
    ) from None


def count(config, dataset):
  """The Plan of a config and its Dataset, of which only shapes and dtypes matter."""
  train_step, evaluate, state, key = make_functions(config, dataset)
  images = dataset.x_train[: config.batch_size]
  # Training reads and writes parameters and momentum, whatever the batch size.
  update = 2 * (size(state.params) + size(state.opt_state))
  with conv.whole():
    step = per_example(train_step, state, images, key, update)
    return Plan(config, dataset, state, step, per_example(evaluate, state, images, key))


def make_functions(config, dataset):
  """(train_step, evaluate, state, key), composed as in train.compiled and train.streaming.

  train_step(state, images, labels, key) is a gradient step, the body of the compiled epoch;
  for the epoch itself, XLA would count one step, because it does not know how many there
  are. evaluate takes the same arguments and returns logits. state and key are shapes only.
  """
  config = config.copy_and_resolve_references()
  # This affects only the all-reduces, and would require the devices to be present.
  config.model.batch_norm_per_device = None
  *height_width, channels = dataset.x_train.shape[1:]
  streaming = config.dataset.streaming
  crop_shape = preprocess.crop_shape(*height_width, config.dataset.crop_size)
  model = models.create(config, dataset.num_classes)
  tx = optimizers.make_tx(config, optimizers.rates(config))
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    sgd.make_initialize(
      model,
      tx,
      (*crop_shape, channels),
      dataset.num_train // config.batch_size,
    ),
    key,
  )

  def to_inputs(images, *random):
    if streaming:
      return preprocess.scale(images)
    return preprocess.preprocess(images, crop_shape, *random)

  def train_step(state, images, labels, key):
    inputs = to_inputs(images, config.regularization, key)
    return sgd.train_step(model, tx, state, inputs, labels, key)

  def evaluate(state, images, labels, key):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    return model.apply(variables, to_inputs(images), train=False)

  return train_step, evaluate, state, key


def per_example(function, state, images, key, update=0):
  """A function cost(b): the Cost of function(state, images, labels, key) with b examples.

  The cost is a constant plus an amount per example (memory only nearly: its peak can move
  to another equation), so it is determined by two batch sizes: n and 2n.

  Args:
    function: the function to trace.
    state, key: its arguments, as shapes.
    images: an array (n, h, w, c) with the shape and dtype of the images.
    update: bytes to add to those of products.
  """
  batch_size = len(images)

  def trace(b):
    inputs = jax.ShapeDtypeStruct((b, *images.shape[1:]), images.dtype)
    labels = jax.ShapeDtypeStruct((b,), jnp.int32)
    traced = jax.jit(function).trace(state, inputs, labels, key)
    analysis = traced.lower().cost_analysis()
    jaxpr, _ = partial_eval.dce_jaxpr(
      traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.out_avals)
    )
    return Cost(
      analysis['flops'],
      update + bytes_of_products(jaxpr),
      analysis['bytes accessed'],
      most_at_once(jaxpr),
    )

  one, two = trace(batch_size), trace(2 * batch_size)

  def cost(b):
    share = b / batch_size - 1
    return Cost(*(x + share * (y - x) for x, y in zip(one, two, strict=True)))

  return cost


def bytes_of_products(jaxpr):
  """Bytes of the inputs and outputs of matrix products and convolutions."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      total += sum(size(v.aval) for v in (*equation.invars, *equation.outvars))
    total += sum(map(bytes_of_products, core.jaxprs_in_params(equation.params)))
  return total


def most_at_once(jaxpr):
  """Peak bytes of the arrays in use, in the order of the equations.

  What an inner function holds while it runs is not counted. tests/test_estimate.py compares
  this with XLA's own count for CPUs.
  """
  last = {v: None for v in jaxpr.outvars if isinstance(v, core.Var)}  # never freed
  frees = collections.defaultdict(list)
  for number, equation in reversed(list(enumerate(jaxpr.eqns))):
    for v in equation.invars:
      if isinstance(v, core.Var) and v not in last:
        last[v] = number
        frees[number].append(v)
  now = most = sum(size(v.aval) for v in jaxpr.invars)
  for number, equation in enumerate(jaxpr.eqns):
    now += sum(size(v.aval) for v in equation.outvars)
    most = max(most, now)
    now -= sum(size(v.aval) for v in frees[number])
  return most


def size(tree):
  """Bytes of all arrays in a tree, except PRNG keys."""
  return sum(
    math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  )
