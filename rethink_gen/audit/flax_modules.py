"""How a Flax linen module is told whether it is being trained.

Each module has its own argument or field for it. `training_modes` finds it by name and
checks, without computing anything, that dropout and batch normalization obey it.
"""

import dataclasses
import inspect

import flax.linen as nn
import jax
import numpy as np
from absl import logging

from rethink_gen.errors import BadInput

# Names of the argument or field by which linen modules know whether they are being trained,
# and its value in training.
TRAINING = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}
SWITCHES = ('deterministic', 'use_running_average')  # in Flax's own layers


def training_modes(
  module: nn.Module, argument: str | None, inputs: jax.ShapeDtypeStruct
) -> tuple[tuple[nn.Module, dict], tuple[nn.Module, dict]]:
  """The pair of (module, options) of a linen module in evaluation and in training.

  The options are keyword arguments of its call; if the argument is a field of the module,
  the modules differ instead. Both are found by name: `argument`, or those in TRAINING.

  Args:
    module: a linen module.
    argument: the name, or None.
    inputs: a ShapeDtypeStruct of a batch.

  Raises:
    BadInput: for a module with dropout or batch normalization that would silently stay in
      evaluation mode during training.
  """
  parameters = inspect.signature(type(module).__call__).parameters
  anything = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
  fields = {f.name for f in dataclasses.fields(module)} - {'parent', 'name'}
  named = TRAINING if argument is None else {argument: TRAINING.get(argument)}
  found = {name: value for name, value in named.items() if name in parameters}
  if not found and argument is not None and anything:
    found = named
  of_fields = {} if found else {n: value for n, value in named.items() if n in fields}
  if argument is not None and not (found or of_fields):
    raise BadInput(
      f'training_argument is {argument!r}, but {type(module).__name__} has no such '
      f'argument or field; it has {", ".join([*parameters, *sorted(fields)][1:])}.'
    )

  def modes(values):
    own = {n: values[n] for n in of_fields}
    changed = module.clone(**own) if own else module
    return changed, {n: values[n] for n in found}

  values = {name: value is not False for name, value in named.items()}
  switches = _switches(modes(values), inputs)
  if argument not in (None, *TRAINING) and not any(switches.values()):
    values = {argument: False}  # or a name such as is_evaluated
    switches = _switches(modes(values), inputs)
  idle = sorted(name for name, is_trained in switches.items() if not is_trained)
  if switches and not any(switches.values()):
    raise BadInput(
      f'{type(module).__name__} has {" and ".join(idle)}, but none of its arguments '
      f'({", ".join([*parameters][1:])}) is known to say whether it is being trained; pass '
      'the name of the one that does as training_argument, or give the pair (module.init, '
      'module.apply) to train it as it is.'
    )
  if idle:
    logging.warning(
      '%s in %s stays in evaluation mode during training.',
      *(' and '.join(idle), type(module).__name__),
    )
  return modes({n: not value for n, value in values.items()}), modes(values)


def _switches(mode, inputs):
  """{Flax layer type that differs in evaluation: whether it is in training mode}."""
  module, options = mode
  found = {}

  def look(call, arguments, named, context):
    layer = context.module
    own = [c for c in type(layer).__mro__ if c.__module__.startswith('flax.')]
    rate = getattr(layer, 'rate', getattr(layer, 'dropout_rate', None))
    if context.method_name == '__call__' and own[0] is not nn.Module and rate != 0:
      bound = inspect.signature(own[0].__call__).bind_partial(layer, *arguments, **named)
      for switch in SWITCHES:
        value = bound.arguments.get(switch)
        value = getattr(layer, switch, None) if value is None else value
        if isinstance(value, bool | np.bool_):
          name = own[0].__name__
          found[name] = found.get(name, False) or not value
    return call(*arguments, **named)

  def initialize(key, inputs):
    rngs = {'params': key, 'dropout': key}
    return module.init(rngs, inputs, **options)

  with nn.intercept_methods(look):
    try:
      jax.eval_shape(initialize, jax.random.key(0), inputs)
    except Exception:  # It is raised again and reported when the model is checked.
      return {}
  return found
