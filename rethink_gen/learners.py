"""Anybody's model as what `train` trains: linen modules, pure functions, estimators."""

import functools
import hashlib
import inspect
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import models, programs, sgd, train
from rethink_gen.data import sources
from rethink_gen.errors import BadInput

# What linen modules call the argument that says whether they are being trained, and what
# it is then.
TRAINING = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}
ADAM = 1e-3  # the learning rate where no optimizer is given


class Learner(NamedTuple):
  """What is trained, and how: a Program and the config of its loop, or an estimator."""

  name: str
  config: config_dict.ConfigDict
  program: programs.Program | None  # None for an estimator
  estimator: Any | None  # None for a Program
  digest: str  # of all that decides what training gives, but the data


class Model(NamedTuple):
  """What `sgd` wants of a linen module: `init` and `apply` with the argument train.

  Of the variables 'params' are trained, and 'batch_stats' is whatever else there is.
  """

  init: Callable  # init(key, inputs, train) -> {'params': ..., 'batch_stats': ...}
  apply: Callable  # apply(variables, inputs, train, mutable=False, rngs=None)


def make(model, dataset, optimizer, config):
  """The Learner of a model.

  Args:
    model: as for `audit.randomization_test`.
    dataset: the Dataset it is to learn.
    optimizer: an optax transformation, or None: Adam, or what a config says.
    config: a ConfigDict that says how long to train, in which batches, when to stop.

  Raises:
    BadInput: for what cannot be trained on this data.
  """
  if isinstance(model, str | config_dict.ConfigDict):
    name, program = config.model.name, of_package(config, dataset)
  elif isinstance(model, nn.Module):
    name, program = type(model).__name__, of_model(of_module(model), config, dataset)
  elif isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
    name = getattr(model[1], '__qualname__', type(model[1]).__name__)
    program = of_model(of_functions(*model), config, dataset)
  elif not isinstance(model, type) and hasattr(model, 'fit') and hasattr(model, 'predict'):
    if optimizer is not None:
      raise BadInput(
        f'An optimizer is given, but {type(model).__name__} is fitted by its own method '
        'fit; leave the optimizer out.'
      )
    return Learner(type(model).__name__, config, None, model, _digest(_pickled(model)))
  else:
    raise BadInput(
      f'The model is {str(model)[:80]!r}, but it must be a Flax linen module, a pair of '
      'functions (init, apply), an object with fit and predict, or the name of one of the '
      f"package's own models ({', '.join(models.MODELS)})."
    )
  if optimizer is not None:
    if not isinstance(optimizer, optax.GradientTransformation):
      raise BadInput(
        f'The optimizer is {str(optimizer)[:80]!r}, but it must be an optax '
        'transformation, such as optax.adam(1e-3).'
      )
    program = program._replace(optimizer=lambda rates: optimizer)
  return Learner(name, config, program, None, _digest(_check(program, config, dataset)))


def of_package(config, dataset):
  """The Program of a model of the package, as `train.run` trains it."""
  config_lib.validate(config)
  if config.dataset.streaming:
    raise BadInput(
      'config.dataset.streaming is set, but what is audited is in memory; set it to False.'
    )
  if dataset.x_train.dtype != np.uint8 or dataset.x_train.ndim != 4:
    raise BadInput(
      f'The inputs are {dataset.x_train.dtype} of shape {dataset.x_train.shape}, but the '
      "package's own models take uint8 images of shape (n, h, w, c); give a module of "
      'your own for others.'
    )
  train.check_data(config, dataset)
  return programs.make(config, dataset)


def of_model(model, config, dataset):
  """The Program of a Model: images of uint8 are scaled to [0, 1], nothing else is done."""
  transformation = optax.adam(ADAM)
  dtype = dataset.x_train.dtype
  scale = dtype == np.uint8
  first = jnp.float32 if scale else dtype

  def init(key, inputs, train):
    return model.init(key, inputs.astype(first), train)

  return programs.Program(
    model=model._replace(init=init),
    optimizer=lambda rates: transformation,
    # Gaussian noise in the place of uint8 images is on their scale.
    prepare=lambda inputs, key=None: inputs.astype(first) / 255 if scale else inputs,
    input_shape=dataset.x_train.shape[1:],
    batch_size=config.batch_size,
    steps_per_epoch=dataset.num_train // config.batch_size,
  )


def of_module(module):
  """The Model of a linen module, whatever its argument for training and collections.

  In training its random numbers come from the stream of dropout, under any name.
  """
  parameters = inspect.signature(type(module).__call__).parameters
  argument = next((name for name in TRAINING if name in parameters), None)

  def options(train):
    return {argument: train == TRAINING[argument]} if argument else {}

  def init(key, inputs, train):
    rngs = {'params': key, 'dropout': jax.random.fold_in(key, sgd.DROPOUT)}
    variables = dict(module.init(rngs, inputs, **options(train)))
    variables.pop('intermediates', None)
    return {'params': variables.pop('params', {}), 'batch_stats': variables}

  def apply(variables, inputs, train, mutable=False, rngs=None):
    rest = variables['batch_stats']
    everything = {'params': variables['params'], **rest}
    if not mutable:
      return _float32(module.apply(everything, inputs, **options(train)))
    rngs = {'params': rngs['dropout'], **rngs}
    outputs, updated = module.apply(
      everything, inputs, mutable=list(rest), rngs=rngs, **options(train)
    )
    return _float32(outputs), {'batch_stats': {**rest, **updated}}

  return Model(init, apply)


def of_functions(init, apply):
  """The Model of pure functions: all that init(key, inputs) returns is trained.

  Of a dict with 'params' that alone is trained, and the rest stays as it is.
  """

  def is_divided(variables):
    return hasattr(variables, 'keys') and 'params' in variables

  def init_divided(key, inputs, train):
    variables = init(key, inputs)
    if not is_divided(variables):
      return {'params': variables, 'batch_stats': {}}
    rest = {name: value for name, value in variables.items() if name != 'params'}
    return {'params': {'params': variables['params']}, 'batch_stats': rest}

  def apply_joined(variables, inputs, train, mutable=False, rngs=None):
    params, rest = variables['params'], variables['batch_stats']
    if is_divided(params):
      params = {**params, **rest}
    logits = _float32(apply(params, inputs))
    return (logits, {'batch_stats': rest}) if mutable else logits

  return Model(init_divided, apply_joined)


def _float32(outputs):
  return outputs.astype(jnp.float32)


def _check(program, config, dataset):
  """The training program's text; raises BadInput where there is none."""
  inputs = jax.ShapeDtypeStruct(
    (config.batch_size, *dataset.x_train.shape[1:]), dataset.x_train.dtype
  )
  key = jax.random.key(0)
  initialise, epoch, _, _ = programs.functions(program)
  try:
    state = jax.eval_shape(initialise, key)
    outputs = jax.eval_shape(
      lambda state, inputs: program.model.apply(
        {'params': state.params, 'batch_stats': state.batch_stats},
        program.prepare(inputs),
        train=False,
      ),
      state,
      inputs,
    )
  except Exception as error:  # The model is anybody's code: anything may come out of it.
    raise _failed(error, inputs) from error
  expected = (config.batch_size, dataset.num_classes)
  if outputs.shape != expected:
    raise BadInput(
      f'The model makes of a batch of {config.batch_size} an output of shape '
      f'{outputs.shape}, but the labels have {dataset.num_classes} classes, so it must be '
      f'{expected}: logits, one for each class.'
    )
  split = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in dataset[:2]]
  try:
    with programs.matmul_precision(config):
      start = initialise.lower(key)
      trained = epoch.lower(state, 0, *split, key, sgd.rates(config))
  except Exception as error:
    raise _failed(error, inputs) from error
  return start.as_text() + trained.as_text() + str(sgd.rates(config))


def _failed(error, inputs):
  said = f'{type(error).__name__}: {sources.reason(error)}'
  return BadInput(
    f'The model raises an error when it is applied to inputs of shape {inputs.shape} and '
    f'type {inputs.dtype} ({said}); give one that takes them (uint8 is scaled to [0, 1] '
    'as float32, tokens are to be int32).'
  )


def _pickled(estimator):
  """(text, bytes) that say what an estimator is, before it is fitted."""
  import sklearn.base  # slow to import

  try:
    unfitted = sklearn.base.clone(estimator, safe=False)
    return type(estimator).__qualname__ + sklearn.__version__, pickle.dumps(unfitted)
  except Exception as error:
    raise BadInput(
      f'{type(estimator).__name__} cannot be copied ({sources.reason(error)}); the '
      'estimator must be one that pickle takes, as those of scikit-learn do.'
    ) from error


def _digest(content):
  """A digest of a text, or of (text, bytes)."""
  text, rest = content if isinstance(content, tuple) else (content, b'')
  return hashlib.blake2b(text.encode() + rest, digest_size=8).hexdigest()


def fit_estimator(estimator, x, y, seed):
  """A clone of the estimator, fitted: inputs as rows, every random_state the seed."""
  import sklearn.base  # slow to import

  clone = sklearn.base.clone(estimator, safe=False)
  if hasattr(clone, 'get_params'):
    names = [n for n in clone.get_params() if n.split('__')[-1] == 'random_state']
    clone.set_params(**dict.fromkeys(names, seed))
  try:
    clone.fit(rows(x), y)
    # Of one that finds a class for each row, whatever type it gives it.
    if predict(clone, x[:1]).shape != (1,):
      raise ValueError('predict must return one label for each example')
  except Exception as error:
    raise BadInput(
      f'{type(estimator).__name__} cannot be fitted to inputs of shape {rows(x).shape} '
      f'({type(error).__name__}: {sources.reason(error)}); give one that takes them.'
    ) from error
  return clone


def predict(estimator, x):
  """int64 (n,): the labels an estimator gives."""
  return np.asarray(estimator.predict(rows(x))).astype(np.int64)


def rows(x):
  return x.reshape(len(x), -1)


@functools.partial(jax.jit, static_argnums=0)
def forward(program, variables, inputs):
  """float32 (n, classes): logits of a Program's model, as evaluation computes them."""
  return program.model.apply(variables, program.prepare(inputs), train=False)
