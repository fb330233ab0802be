"""What learns: each model a linen module, `model(images, train) -> logits`."""

import dataclasses

import jax.numpy as jnp

from rethink_gen.models.alexnet import AlexNet
from rethink_gen.models.inception import Inception
from rethink_gen.models.inception_v3 import InceptionV3
from rethink_gen.models.mlp import MLP

MODELS = {
  'alexnet': AlexNet,
  'inception': Inception,
  'inception_v3': InceptionV3,
  'mlp': MLP,
}


def own_fields(name):
  """The fields that only this model has, in order: what `config.model` may set for it."""
  shared = {'num_classes', 'dropout_rate', 'dtype', 'parent', 'name'}
  fields = [field.name for field in dataclasses.fields(MODELS[name])]
  return [field for field in fields if field not in shared]


def create(config, num_classes):
  """The linen module of a config: its `model`, dropout rate and precision.

  A field of `config.model` left None takes the model's default.
  """
  name = config.model.name
  own = {field: config.model[field] for field in own_fields(name)}
  return MODELS[name](
    num_classes,
    dropout_rate=config.regularization.dropout_rate,
    dtype=jnp.dtype(config.precision),
    **{field: value for field, value in own.items() if value is not None},
  )
