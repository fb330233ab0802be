"""Loading a config's data: read, corrupt, truncate, and check it against the config.

`load` does all of it; runs that share their images call `load_original` once and `corrupt`
for each config.
"""

from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen.data import corruption, sources, streaming
from rethink_gen.errors import BadInput


def load(
  config: config_dict.ConfigDict,
) -> tuple[sources.Dataset | streaming.Source, float | None]:
  """The training data of a config, and the fraction of training labels that it changes.

  Returns:
    (Dataset, float), or (streaming.Source, None), since streamed labels are not read yet.
  """
  if config.dataset.streaming:
    source = streaming.open(config)
    check_batch(config, source.num_train)
    return source, None
  return corrupt(config, load_original(config))


def load_original(config: config_dict.ConfigDict) -> sources.Dataset:
  """The whole Dataset that a config names, before any corruption."""
  return sources.load(config.dataset.name, config.dataset.data_dir, config.dataset.path)


def corrupt(
  config: config_dict.ConfigDict, original: sources.Dataset
) -> tuple[sources.Dataset, float]:
  """Corrupts and truncates a Dataset: (Dataset, fraction of training labels changed)."""
  for field, kind, available in (
    ('num_train', 'training', len(original.y_train)),
    ('num_test', 'test', len(original.y_test)),
  ):
    if (config.dataset[field] or 0) > available:
      raise BadInput(
        f'config.dataset.{field} is {config.dataset[field]}, but {config.dataset.name} has '
        f'{available} {kind} examples; use at most that many.'
      )
  noise = config.corruption
  dataset = corruption.corrupt(original, noise.mode, noise.seed, noise.label_noise)
  dataset = sources.first(dataset, config.dataset.num_train, config.dataset.num_test)
  changed = (dataset.y_train != original.y_train[: len(dataset.y_train)]).mean()
  check_data(config, dataset)
  return dataset, float(changed)


def check_data(config: config_dict.ConfigDict, dataset: sources.Dataset) -> None:
  """Raises BadInput if the config does not fit the data."""
  height, width = dataset.x_train.shape[1:3]
  crop_size = config.dataset.crop_size
  if crop_size is not None and crop_size > min(height, width):
    raise BadInput(
      f'config.dataset.crop_size is {crop_size}, larger than the images of '
      f'{height} x {width} pixels; use at most {min(height, width)}.'
    )
  check_batch(config, dataset.num_train)


def check_batch(config: config_dict.ConfigDict, num_train: int) -> None:
  if config.batch_size > num_train:
    raise BadInput(
      f'config.batch_size is {config.batch_size}, but there are only {num_train} training '
      'examples; use a smaller batch or more data.'
    )
  config_lib.check_steps(config, num_train)
