"""Adapts any model to `train`: linen modules, pure functions and estimators."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax.experimental import checkify
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import errors, models
from rethink_gen.audit import estimators, flax_modules, identity, randomizations
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.train import compiled, loading, optimizers, sgd

ADAM = 1e-3  # learning rate if no optimizer is given


class Learner(NamedTuple):
  """What is trained and how: a Program and the config of its loop, or an estimator."""

  name: str
  config: config_dict.ConfigDict
  program: compiled.Program | None  # None for an estimator
  estimator: Any | None  # None for a Program
  digest: str | None  # of all that determines the result but the data; None: unknown


class Model(NamedTuple):
  """The interface that `sgd` expects of a linen module, with the argument `train`.

  The variables in 'params' are trained; 'batch_stats' holds all others.
  """

  init: Callable  # init(key, inputs, train) -> {'params': ..., 'batch_stats': ...}
  apply: Callable  # apply(variables, inputs, train, mutable=False, rngs=None)


def is_of_package(model) -> bool:
  return isinstance(model, str | config_dict.ConfigDict)


def adapt(model, dataset: Dataset) -> Dataset:
  """The Dataset in the form that this model takes.

  An estimator gets the user's own types; a network gets uint8, float32 or int32. The
  package's own models get images (n, h, w, c), with a channel added to uint8 (n, h, w).
  """
  if estimators.is_estimator(model):
    return dataset
  dataset = randomizations.for_network(dataset)
  if (
    is_of_package(model) and dataset.x_train.dtype == np.uint8 and dataset.x_train.ndim == 3
  ):
    images = dataset.x_train[..., None], dataset.x_test[..., None]
    dataset = dataset._replace(x_train=images[0], x_test=images[1])
  return dataset


def make_learner(
  model,
  dataset: Dataset,
  optimizer: optax.GradientTransformation | optax.MultiSteps | None,
  config: config_dict.ConfigDict,
  training_argument: str | None = None,
) -> Learner:
  """The Learner for a model.

  Args:
    model, training_argument: as for `audit.randomization_test`.
    dataset: the Dataset to learn, from `adapt`.
    optimizer: an optax transformation; None: Adam, or what a config says.
    config: a ConfigDict that says how long to train, in which batches, and when to stop.

  Raises:
    BadInput: if the model cannot be trained on this data.
  """
  if training_argument is not None and not isinstance(model, nn.Module):
    raise BadInput(
      f'training_argument is {training_argument!r}, but only a Flax linen module has one; '
      'leave it out.'
    )
  if is_of_package(model):
    name, program = config.model.name, of_package(config, dataset)
  elif isinstance(model, nn.Module):
    modes = flax_modules.training_modes(model, training_argument, _batch(config, dataset))
    name, program = type(model).__name__, of_model(of_module(modes), config, dataset)
  elif isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
    name = str(getattr(model[1], '__qualname__', type(model[1]).__name__))
    program = of_model(of_functions(*model), config, dataset)
  elif estimators.is_estimator(model):
    if optimizer is not None:
      raise BadInput(
        f'An optimizer is given, but {type(model).__name__} is trained by its own fit '
        'method; leave the optimizer out.'
      )
    return Learner(
      type(model).__name__, config, None, model, _identity(estimators.unfitted(model))
    )
  else:
    raise BadInput(
      f'The model is {str(model)[:80]!r}, but it must be a Flax linen module, a pair of '
      'functions (init, apply), an object with fit and predict, or the name of one of the '
      f"package's own models ({', '.join(models.MODELS)})."
    )
  if optimizer is not None:
    if isinstance(optimizer, optax.MultiSteps):
      optimizer = optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
      raise BadInput(
        f'The optimizer is {str(optimizer)[:80]!r}, but it must be an optax '
        'transformation, such as optax.adam(1e-3).'
      )
    program = program._replace(make_tx=lambda rates: optimizer)
  text = _check(program, config, dataset)
  if not is_of_package(model):
    check_extremes(program, config, dataset)
  digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
  if 'callback' in text:  # whose code is not in the text
    code = _identity((model, optimizer))
    digest = code and digest + code
  return Learner(name, config, program, None, digest)


def _identity(model):
  """A digest of the model's code and values, or None if they cannot be determined."""
  try:
    return identity.digest(model)
  except identity.Unknown as error:
    logging.warning(
      'Whether this is the model of an earlier audit cannot be determined (%s), so '
      'everything is run, and this audit cannot be resumed.',
      error,
    )
    return None


def of_package(config: config_dict.ConfigDict, dataset: Dataset) -> compiled.Program:
  """The Program of one of the package's own models, as `train.run` trains it."""
  config_lib.validate(config)
  if config.dataset.streaming:
    raise BadInput(
      'config.dataset.streaming is set, but an audit keeps its data in memory; set it to '
      'False.'
    )
  if dataset.x_train.dtype != np.uint8 or dataset.x_train.ndim != 4:
    raise BadInput(
      f'The inputs are {dataset.x_train.dtype} of shape {dataset.x_train.shape}, but the '
      "package's own models take uint8 images of shape (n, h, w, c); give a module of "
      'your own for other inputs.'
    )
  loading.check_data(config, dataset)
  return compiled.make_program(config, dataset)


def of_model(
  model: Model, config: config_dict.ConfigDict, dataset: Dataset
) -> compiled.Program:
  """The Program of a Model: uint8 images are scaled to [0, 1], nothing else is done."""
  tx = optax.adam(ADAM)
  scale = dataset.x_train.dtype == np.uint8
  first = jnp.float32 if scale else dataset.x_train.dtype

  def init(key, inputs, train):
    return model.init(key, inputs.astype(first), train)

  return compiled.Program(
    model=model._replace(init=init),
    make_tx=lambda rates: tx,
    # Gaussian noise that replaces uint8 images is on their scale.
    to_inputs=lambda inputs, key=None: inputs.astype(first) / 255 if scale else inputs,
    image_shape=dataset.x_train.shape[1:],
    input_shape=dataset.x_train.shape[1:],
    batch_size=config.batch_size,
    steps_per_epoch=dataset.num_train // config.batch_size,
  )


def of_module(modes: tuple[tuple[nn.Module, dict], tuple[nn.Module, dict]]) -> Model:
  """The Model of a linen module, for any training argument and any collections.

  In training, all random numbers come from the dropout stream, under any name.

  Args:
    modes: from `flax_modules.training_modes`.
  """

  def init(key, inputs, train):
    module, options = modes[train]
    rngs = {'params': key, 'dropout': jax.random.fold_in(key, sgd.DROPOUT)}
    variables = dict(module.init(rngs, inputs, **options))
    variables.pop('intermediates', None)
    return {'params': variables.pop('params', {}), 'batch_stats': variables}

  def apply(variables, inputs, train, mutable=False, rngs=None):
    module, options = modes[train]
    rest = variables['batch_stats']
    everything = {'params': variables['params'], **rest}
    if not mutable:
      return _float32(module.apply(everything, inputs, **options))
    rngs = {'params': rngs['dropout'], **rngs}
    outputs, updated = module.apply(
      everything, inputs, mutable=list(rest), rngs=rngs, **options
    )
    return _float32(outputs), {'batch_stats': {**rest, **updated}}

  return Model(init, apply)


def of_functions(init: Callable, apply: Callable) -> Model:
  """The Model of pure functions: everything that init(key, inputs) returns is trained.

  If it returns a dict with 'params', only those are trained and the rest stays as it is.
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


def _batch(config, dataset):
  """A ShapeDtypeStruct of a batch in the form that networks get."""
  dtype = dataset.x_train.dtype
  shape = (config.batch_size, *dataset.x_train.shape[1:])
  return jax.ShapeDtypeStruct(shape, np.float32 if dtype == np.uint8 else dtype)


def _check(program, config, dataset):
  """The text of the lowered training program; raises BadInput if it cannot be lowered."""
  inputs = jax.ShapeDtypeStruct(
    (config.batch_size, *dataset.x_train.shape[1:]), dataset.x_train.dtype
  )
  key = jax.random.key(0)
  split = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in dataset[:2]]
  expected = (config.batch_size, dataset.num_classes)

  def lower(program):
    initialize, epoch, _, _ = compiled.compile_program(program)
    state = jax.eval_shape(initialize, key)
    outputs = jax.eval_shape(
      lambda state, inputs: program.model.apply(
        {'params': state.params, 'batch_stats': state.batch_stats},
        program.to_inputs(inputs),
        train=False,
      ),
      state,
      inputs,
    )
    if outputs.shape != expected:
      raise BadInput(
        f'The model maps a batch of {config.batch_size} to an output of shape '
        f'{outputs.shape}, but the labels have {dataset.num_classes} classes, so it must '
        f'be {expected}: one logit per class.'
      )
    start, trained = (
      initialize.lower(key),
      epoch.lower(state, 0, *split, key, optimizers.rates(config)),
    )
    return start.as_text() + trained.as_text() + str(optimizers.rates(config))

  with compiled.matmul_precision(config):
    try:
      return lower(program)
    except BadInput:
      raise
    except Exception as error:  # The user's code can raise anything.
      _explain(lower, program, inputs)
      raise BadInput(
        f'The optimizer raises an error in a training step ({type(error).__name__}: '
        f'{errors.reason(error)}); give an optax transformation whose update takes '
        'gradients, state and parameters and, if it asks for them, value, grad and '
        'value_fn.'
      ) from error


def _explain(lower, program, inputs):
  """Raises BadInput if a program cannot be lowered with any optimizer."""
  try:
    lower(program._replace(make_tx=lambda rates: optax.identity()))
  except BadInput:
    raise
  except Exception as error:
    said = f'{type(error).__name__}: {errors.reason(error)}'
    raise BadInput(
      f'The model raises an error when it is applied to inputs of shape {inputs.shape} and '
      f'type {inputs.dtype} ({said}); give one that takes them (uint8 is scaled to [0, 1] '
      'as float32, tokens must be int32).'
    ) from error


def check_extremes(
  program: compiled.Program, config: config_dict.ConfigDict, dataset: Dataset
) -> None:
  """Raises BadInput if the untrained model cannot take the smallest or largest inputs.

  For a token without a row in an embedding it would return NaN, or silently use another
  row.
  """
  initialize, *_ = compiled.compile_program(program)
  state = initialize(jax.random.key(config.seed))
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  apply = functools.partial(forward, program, variables)
  for name, x in (('x_train', dataset.x_train), ('x_test', dataset.x_test)):
    flat = x.reshape(len(x), -1)
    places = [int(flat.min(1).argmin()), int(flat.max(1).argmax())]
    said = None
    if np.issubdtype(x.dtype, np.signedinteger):
      said = _index_fault(apply, x[places])
    if not said and not np.isfinite(apply(x[places])).all():
      said = 'before training, its outputs for them are not finite'
    if said:
      raise BadInput(
        f'The model cannot take examples {places[0]} and {places[1]} of {name}, whose '
        f'values range from {x.min()} to {x.max()} ({said}); give a model whose vocabulary '
        'has all tokens, or inputs on a scale that it can handle.'
      )


def _index_fault(apply, tokens):
  """Describes an out-of-bounds array index that the tokens cause, or returns None."""
  try:
    found, _ = checkify.checkify(apply, errors=checkify.index_checks)(tokens)
  except Exception:  # checkify does not support everything that a model may use.
    return None
  return errors.reason(found.get()) if found.get() else None


@functools.partial(jax.jit, static_argnums=0)
def forward(
  program: compiled.Program, variables: dict[str, Any], inputs: jax.Array | np.ndarray
) -> jax.Array:
  """float32 (n, classes): logits of a Program's model in evaluation mode."""
  return program.model.apply(variables, program.to_inputs(inputs), train=False)
