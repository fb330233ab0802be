"""Folders of data sets that TFDS prepared: finds, checks and decodes them.

`prepare` writes such a folder. `sources` keeps in memory what `decode` returns; `streaming`
decodes folders too large for that. TFDS is slow to import, so that happens only where it is
needed.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex

import numpy as np
from absl import logging

from rethink_gen import errors, paths
from rethink_gen.data import synthetic

CATALOGUE = 'https://www.tensorflow.org/datasets/catalog/overview#image_classification'
NAME = r'[a-z]\w*(/\w[\w.-]*)?'  # a TFDS data set, with its config if it has one
BLOCK = 1000  # examples decoded at once


def root(data_dir: str | None = None) -> pathlib.Path:
  """The folder of the TFDS data sets: the one given, or the default."""
  chosen = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return pathlib.Path(os.path.abspath(paths.local(chosen)))


def find(name: str, data_dir: pathlib.Path) -> pathlib.Path:
  """The folder of the newest prepared version, after a check of its format.

  The synthetic data set is generated in the cache if it is not prepared.

  Raises:
    errors.BadInput: the data set is unknown, not prepared, or in another format.
  """
  folder = find_prepared(name, data_dir)
  if not folder and name == synthetic.NAME:
    return synthetic.generate(paths.cache_folder() / 'tfds')
  if not folder:
    raise _not_prepared(name, data_dir)
  check_format(folder)
  return folder


def find_prepared(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
  """The folder of the newest prepared version of a TFDS data set, if there is one."""
  # Rejects names that lead elsewhere, such as ../x or x/*.
  if not re.fullmatch(NAME, name):
    return None
  versions = [info.parent for info in data_dir.glob(f'{name}/*/dataset_info.json')]
  versions = [v for v in versions if re.fullmatch(r'\d+\.\d+\.\d+', v.name)]
  return max(versions, key=lambda v: [int(n) for n in v.name.split('.')], default=None)


def check_format(folder: pathlib.Path) -> None:
  """Raises errors.BadInput unless a prepared data set is in array_record format."""
  try:
    info = json.loads((folder / 'dataset_info.json').read_bytes())
    file_format = info.get('fileFormat', 'tfrecord')
  except (OSError, ValueError, AttributeError) as error:
    raise damaged(folder, error) from None
  if file_format != 'array_record':
    raise errors.BadInput(
      f'the data set in {folder} is in the {file_format} format, but only array_record '
      'can be read: prepare it in another data_dir with python -m '
      'rethink_gen.data.prepare'
    )


def unknown(name: str) -> errors.BadInput:
  """The error for an unknown data set."""
  return errors.BadInput(
    f'data set {name!r} is unknown: give digits, npz, or the name of a TFDS image '
    f'classification set such as cifar10, cifar100 or mnist, listed at {CATALOGUE}'
  )


def _not_prepared(name: str, data_dir: pathlib.Path) -> errors.BadInput:
  """The error for a data set that is unknown or not in the folder."""
  if not re.fullmatch(NAME, name):
    return unknown(name)
  configs = sorted(
    {
      f'{name}/{config.parts[-3]}'
      for config in data_dir.glob(f'{name}/*/*/dataset_info.json')
    }
  )
  if configs:
    return errors.BadInput(
      f'data set {name!r} has several configs: give one of those prepared in '
      f'{data_dir}, {" or ".join(configs)}'
    )
  import tensorflow_datasets as tfds

  try:
    tfds.builder_cls(name.split('/')[0])
  except tfds.core.DatasetNotFoundError:
    return unknown(name)
  except Exception as error:  # TFDS knows the data set but cannot import it
    logging.debug('TFDS cannot import %s: %s', name, error)
  return errors.BadInput(
    f'data set {name!r} is not prepared in {data_dir}: set TFDS_DATA_DIR to the folder '
    "that holds it, or pip install -e '.[prepare]' and prepare it with python -m "
    'rethink_gen.data.prepare '
    f'--dataset={name} --data_dir={shlex.quote(str(data_dir))}'
  )


def damaged(folder: pathlib.Path, error: Exception) -> errors.BadInput:
  """The error for prepared files that cannot be read."""
  return errors.BadInput(
    f'the data set in {folder} cannot be read ({errors.reason(error)}): make it '
    'readable, or delete this folder if it is damaged and prepare it again with '
    'python -m rethink_gen.data.prepare'
  )


def digest(folder: pathlib.Path) -> str:
  """A digest of all files in a folder, names and bytes; raises errors.BadInput."""
  content = hashlib.blake2b(digest_size=16)
  try:
    for path in sorted(filter(pathlib.Path.is_file, folder.iterdir())):
      with open(path, 'rb') as file:
        content.update(path.name.encode() + b'\0')
        content.update(hashlib.file_digest(file, 'blake2b').digest())
  except OSError as error:
    raise damaged(folder, error) from None
  return content.hexdigest()


def decode(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """All images and labels of a prepared TFDS data set, decoded.

  Returns:
    The arrays x_train, y_train, x_test, y_test and, where TFDS knows it, num_classes.

  Raises:
    errors.BadInput: the data set is damaged, not of a supported kind, or too large.
  """
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(str(folder))
    check_kind(builder, folder, ('train', 'test'))
    _check_shape(builder, folder)
    arrays = {}
    for split in ('train', 'test'):
      source = builder.as_data_source(split=split)
      x, y = _decode_split(source, builder.info.features['image'].shape)
      arrays |= {f'x_{split}': x, f'y_{split}': y}
    num_classes = getattr(builder.info.features['label'], 'num_classes', None)
  except (errors.BadInput, ImportError):
    raise
  except MemoryError:
    raise errors.BadInput(
      f'the images of the data set in {folder} do not fit in memory: use a smaller one'
    ) from None
  except Exception as error:  # TFDS and array_record raise many types for damaged files
    raise damaged(folder, error) from None
  if num_classes:
    arrays['num_classes'] = np.asarray(num_classes)
  return arrays


def check_kind(builder, folder: pathlib.Path, splits: tuple[str, ...]) -> None:
  """Raises errors.BadInput unless the set is image classification with these splits."""
  features = builder.info.features
  for split in splits:
    if split not in builder.info.splits:
      raise errors.BadInput(
        f'the data set in {folder} has the splits '
        f'{", ".join(builder.info.splits) or "none"}: a data set needs '
        f'{" and ".join(map(repr, splits))}'
      )
  keys = sorted(getattr(features, 'keys', list)())
  if 'image' not in keys or 'label' not in keys:
    raise errors.BadInput(
      f'the data set in {folder} has the features {", ".join(keys) or "none"}: a '
      "data set needs 'image' and 'label'"
    )
  label = features['label']
  if label.shape != () or not np.issubdtype(label.np_dtype, np.integer):
    raise errors.BadInput(
      f'the labels of the data set in {folder} are {label.np_dtype} of shape '
      f'{label.shape}: each must be one integer'
    )


def _check_shape(builder, folder: pathlib.Path) -> None:
  """Raises errors.BadInput unless all images are uint8 of one shape."""
  image = builder.info.features['image']
  fixed = isinstance(image.shape, tuple) and len(image.shape) == 3
  if not fixed or None in image.shape or image.np_dtype != np.uint8:
    raise errors.BadInput(
      f'the images of the data set in {folder} are {image.np_dtype} of shape '
      f'{image.shape}: they must be uint8 of one fixed shape (h, w, c), or streamed with '
      'config.dataset.streaming=True'
    )


def _decode_split(source, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Images uint8 (n, *shape) and labels int64 (n,) from a TFDS data source."""
  x = np.empty((len(source), *shape), np.uint8)
  y = np.empty(len(source), np.int64)
  for start in range(0, len(source), BLOCK):
    block = range(start, min(start + BLOCK, len(source)))
    for i, example in zip(block, source.__getitems__(block), strict=True):
      x[i], y[i] = example['image'], example['label']
  return x, y
