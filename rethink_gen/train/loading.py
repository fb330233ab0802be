"""The data of a config: loaded, corrupted, cut, and checked against the config."""

from rethink_gen import config as config_lib
from rethink_gen.data import corruption, sources, streaming
from rethink_gen.errors import BadInput


def load(config):
  """What a config learns, and the share of training labels its corruption changed.

  Returns:
    (a Dataset, float), or (a streaming.Source, None), whose labels nobody has seen yet.
  """
  if config.dataset.streaming:
    source = streaming.open(config)
    check_batch(config, source.num_train)
    return source, None
  return corrupt(config, load_original(config))


def load_original(config):
  """The Dataset a config names, before its corruption and whole."""
  return sources.load(config.dataset.name, config.dataset.data_dir, config.dataset.path)


def corrupt(config, original):
  """(Dataset, share of labels changed): what the config makes of the data set."""
  for field, kind, available in (
    ('num_train', 'training', len(original.y_train)),
    ('num_test', 'test', len(original.y_test)),
  ):
    if (config.dataset[field] or 0) > available:
      raise BadInput(
        f'config.dataset.{field} is {config.dataset[field]}, but {config.dataset.name} has '
        f'{available} {kind} examples; take at most that many.'
      )
  noise = config.corruption
  dataset = corruption.corrupt(original, noise.mode, noise.seed, noise.label_noise)
  dataset = sources.first(dataset, config.dataset.num_train, config.dataset.num_test)
  changed = (dataset.y_train != original.y_train[: len(dataset.y_train)]).mean()
  check_data(config, dataset)
  return dataset, float(changed)


def check_data(config, dataset):
  """Raises BadInput where the config does not fit the data."""
  height, width = dataset.x_train.shape[1:3]
  crop_size = config.dataset.crop_size
  if crop_size is not None and crop_size > min(height, width):
    raise BadInput(
      f'config.dataset.crop_size is {crop_size}, larger than the images of '
      f'{height} x {width} pixels; take at most {min(height, width)}.'
    )
  check_batch(config, dataset.num_train)


def check_batch(config, num_train):
  if config.batch_size > num_train:
    raise BadInput(
      f'config.batch_size is {config.batch_size}, but there are only {num_train} training '
      'examples; take a smaller batch or more data.'
    )
  config_lib.check_steps(config, num_train)
