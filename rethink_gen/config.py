"""The config of a run: every field, its default, and the values it accepts."""

import importlib.util
import math
import re
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import config_dict

from rethink_gen import models, sharding
from rethink_gen.data.corruption import CORRUPTIONS
from rethink_gen.errors import BadInput
from rethink_gen.models.inception_v3 import SMALLEST
from rethink_gen.models.initialization import RULES
from rethink_gen.models.mlp import PARAMETRIZATIONS


def _inverse_sqrt_sgd(schedule, momentum):
  """SGD whose learning rate also falls as 1/sqrt(1 + floor(step/512)), arXiv:1912.02292."""
  return optax.sgd(lambda step: schedule(step) / jnp.sqrt(1 + step // 512), momentum)


# name: function(schedule of the learning rate, momentum) -> optax transformation
OPTIMIZERS = {'sgd': optax.sgd, 'inverse_sqrt_sgd': _inverse_sqrt_sgd}
PRECISIONS = ('float32', 'bfloat16')
# Kernels that decay: all, or only those of linear layers except the last, as in
# TensorFlow's CIFAR-10 tutorial.
DECAYING = ('kernels', 'hidden_linear')
# Values that runs older than a field correspond to, if they differ from its default now.
BEFORE = {'model.initialization': 'he_normal'}
# Fields that affect where and how the work is done, but not its result.
WITHOUT_EFFECT = ('dataset.data_dir', 'dataset.workers', 'checkpoint_every')


def default() -> config_dict.ConfigDict:
  """The fields of every config; a field's comment says what None means."""
  optional = config_dict.placeholder
  config = config_dict.ConfigDict()
  config.seed = 0  # initialization, order of examples, augmentation and dropout

  config.dataset = config_dict.ConfigDict()
  config.dataset.name = 'digits'  # or npz, or a TFDS image-classification set
  config.dataset.data_dir = optional(str)  # None: $TFDS_DATA_DIR, ~/tensorflow_datasets
  config.dataset.path = optional(str)  # the .npz file, only for the data set `npz`
  config.dataset.num_train = optional(int)  # train on the first N examples; None: all
  config.dataset.num_test = optional(int)  # test on the first N test examples; None: all
  config.dataset.shard_rows = False  # each device holds only its part of the images
  config.dataset.crop_size = optional(int)  # pixels; None: 7/8 of each side (32 -> 28)
  config.dataset.streaming = False  # decode while training, to crop_size pixels per side
  config.dataset.workers = 0  # processes that decode; 0: threads of this process

  config.corruption = config_dict.ConfigDict()
  config.corruption.mode = 'none'  # or another of corruption.CORRUPTIONS
  config.corruption.label_noise = 0.0  # probability, for partial_labels
  config.corruption.seed = 0

  config.model = config_dict.ConfigDict()
  config.model.name = 'mlp'  # alexnet, cnn, inception, inception_v3, mlp
  config.model.initialization = 'glorot_uniform'  # or another of initialization.RULES
  config.model.depth = optional(int)  # mlp: hidden layers; None: 1
  # mlp: units per hidden layer; None: 512. cnn: channels of the first block; None: 64
  config.model.width = optional(int)
  config.model.parametrization = optional(str)  # mlp: ntk, mup; None: standard
  config.model.base_width = optional(int)  # mlp: where all of these agree; None: 512
  config.model.modules = optional(str)  # inception; None: the paper's, inception.MODULES
  config.model.repeats = optional(str)  # inception_v3: modules at each size; None: 3 4 2
  config.model.batch_norm = optional(bool)  # inception; None: True
  config.model.aux_head = optional(bool)  # inception_v3: a second classifier; None: False
  # inception, inception_v3: statistics of each device's part of the batch; None: False
  config.model.batch_norm_per_device = optional(bool)

  config.regularization = config_dict.ConfigDict()
  config.regularization.weight_decay = 0.0  # w of the penalty w/2 * |kernels|^2
  config.regularization.weight_decay_on = 'kernels'  # or 'hidden_linear', see DECAYING
  config.regularization.dropout_rate = 0.0
  config.regularization.random_crop = False  # instead of the center crop
  config.regularization.random_flip = False  # left to right
  config.regularization.random_rotation = 0.0  # up to N degrees either way; the paper: 25
  config.regularization.color_jitter = False  # as in Inception; only when streaming

  config.optimizer = config_dict.ConfigDict()
  config.optimizer.name = 'sgd'  # or another of OPTIMIZERS
  config.optimizer.learning_rate = 0.01
  config.optimizer.warmup_steps = 0  # steps over which the learning rate rises from near 0
  config.optimizer.momentum = 0.9
  config.optimizer.decay_factor = 0.95
  # One epoch of CIFAR-10 at batch size 128, whatever the data: decaying after each of a
  # subset's short epochs would make the learning rate vanish too soon.
  config.optimizer.decay_every_steps = 390

  config.batch_size = 128
  config.num_epochs = 100
  config.stop_at_train_accuracy = optional(float)  # fraction; None: run all epochs
  config.eval_every = 1  # epochs
  # epochs; None: at the first epoch end 10 s or more after the last checkpoint
  config.checkpoint_every = optional(int)
  config.record_examples = False  # record which examples are fitted after each epoch
  config.precision = 'float32'  # of layers and gradients; weights are always float32
  return config


# Step counts are int32, and every step's loss and accuracy are stored: 10**9 steps take
# 8 GB.
MOST_STEPS = 10**9


def _count(of, least=1, most=MOST_STEPS):
  return (lambda v: least <= v <= most), f'a number of {of} from {least} to {most:,}'


_MODULE = r'[1-9]\d{0,3}(\+[1-9]\d{0,3})?'

# field: (the values it accepts, the same in words)
ACCEPTED = {
  'seed': (lambda v: 0 <= v < 2**32, 'an integer from 0 to 2**32 - 1'),
  'dataset.num_train': (lambda v: v >= 1, 'a positive number of examples'),
  'dataset.num_test': (lambda v: v >= 1, 'a positive number of examples'),
  'dataset.crop_size': _count('pixels', most=4_096),
  'dataset.workers': (lambda v: v >= 0, 'a number of processes, 0 or more'),
  'corruption.mode': (
    lambda v: v in CORRUPTIONS,
    f'one of {", ".join(CORRUPTIONS)}',
  ),
  'corruption.label_noise': (lambda v: 0 <= v <= 1, 'a probability from 0 to 1'),
  'corruption.seed': (lambda v: 0 <= v < 2**32, 'an integer from 0 to 2**32 - 1'),
  'model.name': (
    lambda v: v in models.MODELS,
    f'one of {", ".join(sorted(models.MODELS))}',
  ),
  'model.initialization': (lambda v: v in RULES, f'one of {", ".join(RULES)}'),
  'model.depth': _count('hidden layers', least=0, most=1_000),
  'model.modules': (
    lambda v: re.fullmatch(rf'{_MODULE}( {_MODULE})*', v),
    "channels of each module, such as '16+16 16'",
  ),
  'model.repeats': (
    lambda v: re.fullmatch(r'([1-9]\d?) ([1-9]\d?) ([1-9]\d?)', v),
    "three positive numbers, such as '1 1 1'",
  ),
  'model.width': _count('units', most=1_000_000),
  'model.parametrization': (
    lambda v: v in PARAMETRIZATIONS,
    f'one of {", ".join(PARAMETRIZATIONS)}',
  ),
  'model.base_width': _count('units', most=1_000_000),
  'regularization.weight_decay': (
    lambda v: 0 <= v < math.inf,
    'a finite number, 0 or more',
  ),
  'regularization.weight_decay_on': (
    lambda v: v in DECAYING,
    f'one of {", ".join(DECAYING)}',
  ),
  'regularization.dropout_rate': (lambda v: 0 <= v < 1, 'a probability below 1'),
  'regularization.random_rotation': (
    lambda v: 0 <= v <= 180,
    'an angle from 0 to 180 degrees',
  ),
  'optimizer.name': (lambda v: v in OPTIMIZERS, f'one of {", ".join(OPTIMIZERS)}'),
  'optimizer.learning_rate': (lambda v: 0 < v < math.inf, 'a positive finite number'),
  'optimizer.warmup_steps': _count('steps', least=0),
  'optimizer.momentum': (lambda v: 0 <= v < 1, 'a number from 0 to below 1'),
  'optimizer.decay_factor': (lambda v: 0 < v <= 1, 'a factor above 0, at most 1'),
  'optimizer.decay_every_steps': _count('steps'),
  'batch_size': _count('examples'),
  'num_epochs': _count('epochs'),
  'stop_at_train_accuracy': (lambda v: 0 < v <= 1, 'a fraction above 0, at most 1'),
  'eval_every': _count('epochs'),
  'checkpoint_every': _count('epochs'),
  'precision': (lambda v: v in PRECISIONS, f'one of {", ".join(PRECISIONS)}'),
}


def named(name: str) -> config_dict.ConfigDict:
  """The ConfigDict of configs/NAME.py; raises BadInput if there is no such file."""
  if importlib.util.find_spec(f'configs.{name}') is None:
    raise BadInput(
      f'There is no config {name!r}; take the name of a file in configs/, like inception.'
    )
  return importlib.import_module(f'configs.{name}').get_config()


def validate(config: config_dict.ConfigDict) -> None:
  """Raises BadInput for values and combinations that are invalid for any data."""
  values = flatten(config)
  fields = flatten(default())
  if values.keys() != fields.keys():
    wrong = ', '.join(sorted(values.keys() ^ fields.keys()))
    raise BadInput(
      f'The config has missing or unknown fields ({wrong}); start it from '
      'configs/default.py, which has the fields of every config.'
    )
  for field, (accepts, words) in ACCEPTED.items():
    optional = fields[field] is None
    if not (optional if values[field] is None else accepts(values[field])):
      raise BadInput(f'config.{field} is {values[field]!r}, but it must be {words}.')

  mode, noise = config.corruption.mode, config.corruption.label_noise
  if noise and CORRUPTIONS[mode].label_noise is not None:
    takers = [name for name, kind in CORRUPTIONS.items() if kind.label_noise is None]
    raise BadInput(
      f'config.corruption.label_noise is {noise} with config.corruption.mode {mode!r}, '
      f'but only {", ".join(takers)} takes label noise; set that mode or leave the noise '
      'at 0.'
    )
  own = models.own_fields(config.model.name)
  for field, value in config.model.items():
    untouched = value == fields[f'model.{field}']
    if field != 'name' and field not in own and not untouched:
      raise BadInput(
        f'config.model.{field} is {value!r}, but the model {config.model.name!r} has '
        f'no such field; it has {", ".join(own) or "none of its own"}.'
      )
  if (config.dataset.name == 'npz') != (config.dataset.path is not None):
    raise BadInput(
      f'config.dataset.name is {config.dataset.name!r} and config.dataset.path is '
      f"{config.dataset.path!r}, but the data set 'npz' needs a path and no other takes "
      'one; set both or neither.'
    )
  if config.model.name == 'inception_v3' and (config.dataset.crop_size or 0) < SMALLEST:
    raise BadInput(
      f'config.dataset.crop_size is {config.dataset.crop_size!r} with config.model.name '
      f"'inception_v3', which takes images of at least {SMALLEST} pixels per side; set it "
      'to 299, as in the paper, or to at least that minimum.'
    )
  _validate_streaming(config)
  if config.batch_size % len(sharding.devices()):
    raise BadInput(
      f'config.batch_size is {config.batch_size}, but it must be a multiple of the '
      f'{len(sharding.devices())} devices that share each batch.'
    )


def _validate_streaming(config):
  """Raises BadInput for fields that only streaming supports, or that it does not."""
  streaming = config.dataset.streaming
  wrong = {
    'dataset.workers': config.dataset.workers and not streaming,
    'dataset.shard_rows': config.dataset.shard_rows and streaming,
    'record_examples': config.record_examples and streaming,
    'regularization.color_jitter': config.regularization.color_jitter and not streaming,
    'regularization.random_rotation': config.regularization.random_rotation and streaming,
    'dataset.crop_size': config.dataset.crop_size is None and streaming,
    'dataset.name': config.dataset.name in ('digits', 'npz') and streaming,
  }
  for field in (field for field, refused in wrong.items() if refused):
    raise BadInput(
      f'config.{field} is {flatten(config)[field]!r} with config.dataset.streaming '
      f'{streaming}, but streaming needs a TFDS data set and a crop_size and does not '
      'support random_rotation, shard_rows or record_examples, and only streaming '
      'supports workers and color_jitter; change one.'
    )


def check_steps(config: config_dict.ConfigDict, num_train: int) -> None:
  """Raises BadInput if `num_train` training examples make too many steps."""
  steps = num_train // config.batch_size * config.num_epochs
  if steps > MOST_STEPS:
    raise BadInput(
      f'config.num_epochs is {config.num_epochs:,}, which is {steps:,} steps at batch size '
      f'{config.batch_size} with {num_train:,} examples, but a run can have at most '
      f'{MOST_STEPS:,}; use fewer epochs.'
    )


def flatten(config: config_dict.ConfigDict | dict) -> dict[str, Any]:
  """Flattens a config, or its nested dict, to {'dataset.name': 'cifar10', ...}."""
  flat = {}
  for field, value in config.items():
    if hasattr(value, 'items'):
      flat |= {f'{field}.{inner}': v for inner, v in flatten(value).items()}
    else:
      flat[field] = value
  return flat


def changes(config: config_dict.ConfigDict | dict) -> dict[str, Any]:
  """{field: value} for what differs from the oldest runs and can affect results.

  A run from before a field was added thus has the same changes as one with its old value.
  """
  unchanged = (flatten(default()) | BEFORE).items()
  return {
    field: value
    for field, value in flatten(config).items()
    if (field, value) not in unchanged and field not in WITHOUT_EFFECT
  }


def differences(
  config: config_dict.ConfigDict | dict, other: config_dict.ConfigDict | dict
) -> list[str]:
  """['field: y there, x here', ...] for what differs and can affect results.

  A config that lacks a field is older than the field and gets its value in BEFORE, or else
  its default.
  """
  here, there = changes(config), changes(other)
  everything = flatten(default()) | BEFORE
  return [
    f'{field}: {there.get(field, before)!r} there, {here.get(field, before)!r} here'
    for field in sorted(here.keys() | there.keys())
    for before in [everything.get(field)]
    if here.get(field, before) != there.get(field, before)
  ]
