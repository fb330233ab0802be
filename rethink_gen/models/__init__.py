"""The models: each is a linen module, `model(images, train) -> logits`.

The rest of the package relies on the following, which a new model must provide:
- fields `num_classes`, `initialization`, `dropout_rate` and `dtype`; every other field of a
  simple type is a field of `config.model`, where None means the module's default;
- inputs (n, h, w, c), float32 logits (n, num_classes);
- weights that decay are parameters named `kernel` (`train.optimizers`);
- the output layer is the last `nn.Dense` by Flax's automatic names (`linear_layers`);
- ReLUs are `layers.relu`, which reports active units.
"""

import dataclasses

import jax.numpy as jnp

from rethink_gen.models.alexnet import AlexNet
from rethink_gen.models.cnn import CNN
from rethink_gen.models.inception import Inception
from rethink_gen.models.inception_v3 import InceptionV3
from rethink_gen.models.mlp import MLP

MODELS = {
  'alexnet': AlexNet,
  'cnn': CNN,
  'inception': Inception,
  'inception_v3': InceptionV3,
  'mlp': MLP,
}


def own_fields(name):
  """The fields of `config.model` that apply to this model, in order."""
  shared = {'num_classes', 'dropout_rate', 'dtype', 'parent', 'name'}
  fields = [field.name for field in dataclasses.fields(MODELS[name])]
  return [field for field in fields if field not in shared]


def linear_layers(params):
  """The names of the linear layers in a model's parameters, output layer last."""
  return sorted(
    (name for name in params if name.startswith('Dense_')),
    key=lambda name: int(name.removeprefix('Dense_')),
  )


def create(config, num_classes):
  """The linen module for a config: its `model` fields, dropout rate and precision.

  A field of `config.model` that is None means the module's default.
  """
  name = config.model.name
  own = {field: config.model[field] for field in own_fields(name)}
  return MODELS[name](
    num_classes,
    dropout_rate=config.regularization.dropout_rate,
    dtype=jnp.dtype(config.precision),
    **{field: value for field, value in own.items() if value is not None},
  )
