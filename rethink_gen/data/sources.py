"""Loads images and labels from scikit-learn, a user's file, or TFDS.

Whatever the source, the rest of the project sees a `Dataset`: uint8 images and int32
labels in memory. `tfds_folders` decodes a TFDS data set once, and the result is cached as
an .npz file; later starts read that file and do not even import TFDS. TensorFlow is never
imported.
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import uuid
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from absl import logging

from rethink_gen import errors, paths
from rethink_gen.data import tfds_folders

KEYS = ('x_train', 'y_train', 'x_test', 'y_test')
MAX_CLASSES = 2**16  # a larger label is a mistake, and would inflate the last layer
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
  return _load_tfds(name, tfds_folders.root(data_dir))


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
    folder = tfds_folders.find_prepared(name, tfds_folders.root(data_dir))
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
      f'{path} cannot be read as an .npz file ({errors.reason(error)}): write it with '
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
  folder = tfds_folders.find(name, data_dir)
  stem = f'{name.replace("/", "-")}-{folder.name}'
  cached = paths.cache_folder() / f'{stem}-{tfds_folders.digest(folder)}.npz'
  if os.path.exists(cached):
    try:
      return _load_npz(cached)
    except errors.BadInput as error:
      logging.warning('Decoding %s again; its cached copy is damaged: %s', name, error)
  print(f'Decoding {name} once; later starts read {cached}', flush=True)
  dataset = _checked(tfds_folders.decode(folder), f'the data set in {folder}')
  _write_cache(dataset, cached)
  return dataset


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
