"""Loads images and labels from scikit-learn, a user's file, or TFDS.

Whatever the source, the rest of the project sees a `Dataset`: uint8 images and int32
labels in memory. A TFDS data set is decoded once and cached as an .npz file; later starts
read that file and do not even import TFDS. TensorFlow is never imported.
"""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import uuid
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from absl import logging

from rethink_gen import errors, paths
from rethink_gen.data import synthetic

KEYS = ('x_train', 'y_train', 'x_test', 'y_test')
MAX_CLASSES = 2**16  # a larger label is a mistake, and would inflate the last layer
CATALOGUE = 'https://www.tensorflow.org/datasets/catalog/overview#image_classification'
NAME = r'[a-z]\w*(/\w[\w.-]*)?'  # a TFDS data set, with its config if it has one
BLOCK = 1000  # examples decoded at once
# Training examples, test examples, image shape (None: varying), classes; as published at
# https://www.tensorflow.org/datasets/catalog/NAME, for digits in scikit-learn's manual.
SIZES = {
  'cifar10': (50_000, 10_000, (32, 32, 3), 10),
  'cifar100': (50_000, 10_000, (32, 32, 3), 100),
  'digits': (1_437, 360, (8, 8, 1), 10),  # every fifth of 1,797 is a test example
  'fashion_mnist': (60_000, 10_000, (28, 28, 1), 10),
  'imagenet2012': (1_281_167, 50_000, None, 1_000),  # its validation set is the test set
  'mnist': (60_000, 10_000, (28, 28, 1), 10),
  'svhn_cropped': (73_257, 26_032, (32, 32, 3), 10),
}


class Dataset(NamedTuple):
  """Images and labels, all in memory.

  Attributes:
    x_train: uint8 (n, h, w, c).
    y_train: int32 (n,), each in [0, num_classes).
    x_test: uint8 (m, h, w, c).
    y_test: int32 (m,), each in [0, num_classes).
    num_classes: at least 2.
  """

  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  y_test: np.ndarray
  num_classes: int

  @property
  def num_train(self) -> int:
    return len(self.y_train)

  @property
  def num_test(self) -> int:
    return len(self.y_test)


def first(
  dataset: Dataset, num_train: int | None = None, num_test: int | None = None
) -> Dataset:
  """A Dataset of the first num_train and num_test examples; None: all."""
  return dataset._replace(
    x_train=dataset.x_train[:num_train],
    y_train=dataset.y_train[:num_train],
    x_test=dataset.x_test[:num_test],
    y_test=dataset.y_test[:num_test],
  )


def load(name: str, data_dir: str | None = None, path: str | None = None) -> Dataset:
  """Reads a data set into memory.

  Args:
    name: `digits` (ships with scikit-learn), `npz` (the user's file), or the name of a
      TFDS image classification set, with its config if it has several
      (`cmaterdb/bangla`).
    data_dir: the folder of the TFDS data sets; by default $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    path: the file that `npz` reads.

  Raises:
    errors.BadInput: the data set is unknown, missing, damaged, or not of a supported kind.
  """
  if name == 'digits':
    return _load_digits()
  if name == 'npz':
    return _load_npz(path)
  return _load_tfds(name, tfds_folder(data_dir))


def version(name: str, data_dir: str | None = None, path: str | None = None) -> str | None:
  """What distinguishes data of the same name; arguments as for `load`.

  Returns:
    For an .npz file, a digest of its arrays, independent of its name and compression; for
    TFDS, the version that is prepared; None for digits and for missing data.

  Raises:
    errors.BadInput: the file cannot be used.
  """
  if name == 'digits':
    return None
  if name != 'npz':
    folder = find_prepared(name, tfds_folder(data_dir))
    return folder.name if folder else None
  try:
    status = os.stat(paths.local(path))
  except OSError:
    return None
  times = status.st_mtime_ns, status.st_ctime_ns
  return _npz_digest(
    paths.local(path), status.st_dev, status.st_ino, status.st_size, *times
  )


@functools.lru_cache(maxsize=16)
def _npz_digest(path: str, *status: int) -> str:
  """A digest of the `Dataset` in a file, which is read again if its status changes."""
  del status
  digest = hashlib.blake2b(digest_size=16)
  for array in map(np.ascontiguousarray, _load_npz(path)):
    digest.update(f'{array.dtype} {array.shape};'.encode())
    digest.update(array.data)
  return digest.hexdigest()


def tfds_folder(data_dir: str | None = None) -> pathlib.Path:
  """The folder of the TFDS data sets: the one given, or the default."""
  chosen = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return pathlib.Path(os.path.abspath(paths.local(chosen)))


def _load_digits() -> Dataset:
  """Handwritten digits, 8x8x1, ten classes: 1,437 training and 360 test examples.

  Read from scikit-learn's file directly, because importing scikit-learn takes 1 to 2 s.
  """
  folder = pathlib.Path(importlib.util.find_spec('sklearn').origin).parent
  rows = np.loadtxt(folder / 'datasets/data/digits.csv.gz', delimiter=',')
  images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
  labels = rows[:, -1].astype(np.int32)
  test = np.arange(len(labels)) % 5 == 0
  return Dataset(images[~test], labels[~test], images[test], labels[test], 10)


def _load_npz(path: str | os.PathLike | None) -> Dataset:
  """Reads an .npz file with `KEYS` and optionally num_classes; raises errors.BadInput."""
  if not path:
    raise errors.BadInput(
      "data set 'npz' needs the path of a file with the arrays "
      f'{", ".join(KEYS)}: set config.dataset.path'
    )
  return _checked(read_npz(path), str(path))


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Those of `KEYS` and num_classes that an .npz file has; raises errors.BadInput."""
  path = paths.local(path)
  try:
    with open(path, 'rb') as stream:
      if not zipfile.is_zipfile(stream):  # np.load also reads other kinds of files
        raise zipfile.BadZipFile('it is not a zip archive')
      # Pickled arrays run code when they are loaded, so none is accepted.
      file = np.load(stream, allow_pickle=False)
      return {key: file[key] for key in (*KEYS, 'num_classes') if key in file}
  except FileNotFoundError:
    raise errors.BadInput(f'there is no file {path}: give an existing one') from None
  except MemoryError:
    raise errors.BadInput(f'{path} does not fit in memory: use fewer images') from None
  except Exception as error:  # NumPy and zipfile raise many types for a damaged file
    raise errors.BadInput(
      f'{path} cannot be read as an .npz file ({reason(error)}): write it with '
      f'numpy.savez and the arrays {", ".join(KEYS)}, none of them holding Python objects'
    ) from None


def _checked(arrays: Mapping[str, np.ndarray], where: str) -> Dataset:
  """Checks arrays and makes a `Dataset` of them.

  Args:
    arrays: x_train, x_test uint8 (n, h, w) or (n, h, w, c); y_train, y_test any integer
      type (n,); optionally num_classes, by default the largest training label plus one.
    where: name of their source, for messages.

  Raises:
    errors.BadInput: an array is missing, or its shape, type, length or range is wrong.
  """
  missing = [key for key in KEYS if key not in arrays]
  if missing:
    raise errors.BadInput(
      f'{where} has no array {", ".join(missing)}: it must hold {", ".join(KEYS)}'
    )
  images, labels = {}, {}
  for split in ('train', 'test'):
    x, y = arrays[f'x_{split}'], arrays[f'y_{split}']
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
      raise errors.BadInput(
        f'x_{split} in {where} is {x.dtype} {x.shape}: it must be uint8 of shape '
        '(n, h, w) or (n, h, w, c)'
      )
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
      raise errors.BadInput(
        f'y_{split} in {where} is {y.dtype} {y.shape}: it must be integers of shape (n,)'
      )
    if not x.size or len(x) != len(y):
      raise errors.BadInput(
        f'{where} has x_{split} of shape {x.shape} and {len(y)} labels y_{split}: '
        'there must be at least one image, no empty ones, and one label per image'
      )
    images[split], labels[split] = x[..., None] if x.ndim == 3 else x, y
  if images['train'].shape[1:] != images['test'].shape[1:]:
    raise errors.BadInput(
      f'{where} has training images of shape {images["train"].shape[1:]} and test '
      f'images of shape {images["test"].shape[1:]}: they must be the same'
    )
  num_classes = np.asarray(arrays.get('num_classes', int(labels['train'].max()) + 1))
  if num_classes.shape or not (
    np.issubdtype(num_classes.dtype, np.integer) and 2 <= num_classes <= MAX_CLASSES
  ):
    raise errors.BadInput(
      f'{where} has {num_classes} classes: num_classes, by default the largest '
      f'training label plus one, must be a whole number from 2 to {MAX_CLASSES}'
    )
  for split, y in labels.items():
    if y.min() < 0 or y.max() >= num_classes:
      raise errors.BadInput(
        f'y_{split} in {where} has labels from {y.min()} to {y.max()}: they must be '
        f'within 0 to {num_classes - 1}'
      )
  return Dataset(
    images['train'],
    labels['train'].astype(np.int32),
    images['test'],
    labels['test'].astype(np.int32),
    int(num_classes),
  )


def _load_tfds(name: str, data_dir: pathlib.Path) -> Dataset:
  """Reads a prepared TFDS data set, from the cache if it has been read before."""
  folder = find(name, data_dir)
  stem = f'{name.replace("/", "-")}-{folder.name}'
  cached = cache_folder() / f'{stem}-{_digest(folder)}.npz'
  if os.path.exists(cached):
    try:
      return _load_npz(cached)
    except errors.BadInput as error:
      logging.warning('Decoding %s again; its cached copy is damaged: %s', name, error)
  print(f'Decoding {name} once; later starts read {cached}', flush=True)
  dataset = _decode(folder)
  _write_cache(dataset, cached)
  return dataset


def find(name: str, data_dir: pathlib.Path) -> pathlib.Path:
  """The folder of the newest prepared version, after a check of its format.

  The synthetic data set is generated in the cache if it is not prepared.

  Raises:
    errors.BadInput: the data set is unknown, not prepared, or in another format.
  """
  folder = find_prepared(name, data_dir)
  if not folder and name == synthetic.NAME:
    return synthetic.generate(cache_folder() / 'tfds')
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
    f'the data set in {folder} cannot be read ({reason(error)}): make it '
    'readable, or delete this folder if it is damaged and prepare it again with '
    'python -m rethink_gen.data.prepare'
  )


def _digest(folder: pathlib.Path) -> str:
  """A digest of all files in a folder, names and bytes; raises errors.BadInput."""
  digest = hashlib.blake2b(digest_size=16)
  try:
    for path in sorted(filter(pathlib.Path.is_file, folder.iterdir())):
      with open(path, 'rb') as file:
        digest.update(path.name.encode() + b'\0')
        digest.update(hashlib.file_digest(file, 'blake2b').digest())
  except OSError as error:
    raise damaged(folder, error) from None
  return digest.hexdigest()


def _decode(folder: pathlib.Path) -> Dataset:
  """Decodes all images of a prepared TFDS data set; raises errors.BadInput."""
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
  return _checked(arrays, f'the data set in {folder}')


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


def cache_folder() -> pathlib.Path:
  """The folder that keeps decoded data and compiled programs between runs."""
  own = os.environ.get('RETHINK_GEN_CACHE')
  shared = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  try:
    return pathlib.Path(paths.local(own or os.path.join(shared, 'rethink_gen')))
  except errors.BadInput as error:
    raise errors.BadInput(
      f'there is no folder for compiled programs: {error}, or set '
      'RETHINK_GEN_CACHE to a folder'
    ) from None


def _write_cache(dataset: Dataset, path: pathlib.Path) -> None:
  """Writes the file atomically; if it cannot be written, only warns."""
  temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(temporary, 'xb') as file:
        np.savez(file, **dataset._asdict())
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)  # exists only if something above failed
  except OSError as error:
    logging.warning(
      'The decoded images are not cached, so the next start decodes them again: %s',
      error,
    )


def reason(error: Exception | str) -> str:
  """The first sentence of an error's message, short enough to quote in another."""
  sentence = re.split(r'[.:]?\s*(?:\n|$|\.\s)', str(error).strip(), maxsplit=1)[0]
  return sentence[:200] or type(error).__name__
