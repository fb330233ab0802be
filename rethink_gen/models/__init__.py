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


def create(model_config, num_classes, dropout_rate=0.0, dtype=jnp.float32):
  """The linen module of `config.model`; a field left None takes the model's default."""
  fields = {
    field: model_config[field]
    for field in own_fields(model_config.name)
    if model_config[field] is not None
  }
  return MODELS[model_config.name](
    num_classes, dropout_rate=dropout_rate, dtype=dtype, **fields
  )
