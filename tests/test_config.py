import importlib
import pathlib

import pytest

from rethink_gen import config as config_lib
from rethink_gen.errors import BadInput

CONFIGS = sorted(
  path.stem for path in (pathlib.Path(__file__).parent.parent / 'configs').glob('[a-z]*.py')
)

# The paper's setting (Appendix A): learning rate, batch normalization.
PAPER = {
  'mlp_1x512': (0.01, None),
  'mlp_3x512': (0.01, None),
  'alexnet': (0.01, None),
  'inception': (0.1, True),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_has_the_shape_and_is_accepted(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  config_lib.validate(config)


@pytest.mark.parametrize('name', PAPER)
def test_configs_follow_the_paper(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  learning_rate, batch_norm = PAPER[name]
  assert config.optimizer.learning_rate == learning_rate
  assert config.optimizer.momentum == 0.9
  assert config.optimizer.decay_factor == 0.95
  assert config.model.batch_norm is batch_norm
  assert config.corruption.mode == 'none'
  assert not any(
    value for name, value in config.regularization.items() if name != 'weight_decay_on'
  )
  assert config.model.initialization == 'glorot_uniform'


@pytest.mark.parametrize('name', [*PAPER, 'inception_no_bn'])
def test_random_configs_change_only_the_labels_and_when_to_stop(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  random = importlib.import_module(f'configs.{name}_random').get_config()
  assert random.corruption.mode == 'random_labels'
  changed = {line.split(':')[0] for line in config_lib.differences(random, config)}
  schedule = {'num_epochs', 'stop_at_train_accuracy', 'eval_every'}
  assert changed - schedule == {'corruption.mode'}


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('seed', -1),
    ('dataset.num_train', 0),
    ('dataset.crop_size', 0),
    ('dataset.path', 'data.npz'),
    ('corruption.mode', 'shuffled'),
    ('corruption.label_noise', 1.5),
    ('corruption.label_noise', -0.1),
    ('corruption.label_noise', float('nan')),
    ('corruption.label_noise', 0.5),
    ('model.name', 'resnet'),
    ('model.batch_norm', True),
    ('model.depth', -1),
    ('model.aux_head', True),
    ('regularization.weight_decay', float('inf')),
    ('regularization.dropout_rate', 1.0),
    ('regularization.random_rotation', 200.0),
    ('optimizer.learning_rate', -0.1),
    ('optimizer.learning_rate', float('nan')),
    ('optimizer.momentum', 1.0),
    ('optimizer.decay_every_steps', 0),
    ('optimizer.warmup_steps', -1),
    ('batch_size', 0),
    ('num_epochs', 0),
    ('stop_at_train_accuracy', 1.1),
    ('eval_every', 0),
    ('precision', 'float16'),
    # Far too large, which would show only later, in int32 or in memory.
    ('dataset.crop_size', 10**5),
    ('model.depth', 10**4),
    ('model.width', 10**7),
    ('optimizer.decay_every_steps', 2**31),
    ('optimizer.warmup_steps', 2**31),
    ('batch_size', 2**31),
    ('num_epochs', 2**31),
    ('eval_every', 2**31),
    ('checkpoint_every', 2**31),
  ],
)
def test_bad_values_are_refused_by_name(field, value):
  config = config_lib.default()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(BadInput, match=rf'config\.{field}'):
    config_lib.validate(config)


@pytest.mark.parametrize('crop_size', [None, 74])
def test_inception_v3_needs_images_that_are_large_enough(crop_size):
  config = config_lib.default()
  config.model.name = 'inception_v3'
  config.dataset.crop_size = crop_size
  with pytest.raises(BadInput, match=r'config\.dataset\.crop_size.*75'):
    config_lib.validate(config)


def test_a_field_that_is_newer_than_a_run_had_its_default():
  stored = config_lib.default().to_dict()
  del stored['optimizer']['warmup_steps']
  config = config_lib.default()
  assert config_lib.differences(config, stored) == []
  config.optimizer.warmup_steps = 5
  assert config_lib.differences(config, stored) == [
    'optimizer.warmup_steps: 0 there, 5 here'
  ]


def test_npz_needs_a_path():
  config = config_lib.default()
  config.dataset.name = 'npz'
  with pytest.raises(BadInput, match=r'config\.dataset\.path'):
    config_lib.validate(config)


def test_a_config_of_another_shape_is_refused():
  config = config_lib.default()
  del config.seed
  with pytest.raises(BadInput, match='seed'):
    config_lib.validate(config)


def test_differences_name_the_fields_but_not_where_the_data_lies():
  config, other = config_lib.default(), config_lib.default()
  other.optimizer.learning_rate = 0.2
  other.dataset.data_dir = '/elsewhere'
  assert config_lib.differences(config, config.to_dict()) == []
  assert config_lib.differences(config, other.to_dict()) == [
    'optimizer.learning_rate: 0.2 there, 0.01 here'
  ]


def test_a_run_from_before_there_was_a_choice_of_start_is_another_run():
  """It started He-normal, so it is neither resumed nor reused as one of today's default."""
  config = importlib.import_module('configs.alexnet').get_config()
  stored = config.to_dict()
  del stored['model']['initialization'], stored['regularization']['weight_decay_on']
  (difference,) = config_lib.differences(config, stored)
  assert difference.startswith("model.initialization: 'he_normal' there")
  config.model.initialization = 'he_normal'
  assert config_lib.differences(config, stored) == []
  assert config_lib.changes(config) == config_lib.changes(stored)


def test_a_config_that_is_not_there_is_refused():
  with pytest.raises(BadInput, match="There is no config 'nosuch'"):
    config_lib.named('nosuch')
