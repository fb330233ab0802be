"""Data sets too large for a device, decoded from TFDS while the network trains.

Batch k of a run is a pure function of the config, the data set and k. So a run needs only
its step to resume at the very next example, and any number of hosts and workers sees the
same batches: each host makes its share of them. Grain calls that function ahead of time.

Images come out as uint8, cropped, resized and distorted. The device only scales them, with
`preprocess.scale` or `preprocess.standardize`; it must not crop or flip them again.
"""

import functools
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from ml_collections import config_dict

from rethink_gen import errors
from rethink_gen.data import corruption, host_augment, tfds_folders

STATISTICS = 1_000  # training images that set the mean and deviation of Gaussian images
THREADS = 2  # per process, each making one batch at a time
EPOCH = 2**32  # positions per epoch in the stream of distortions
NUMBERS = 10  # uniform random numbers that distort an image: box 4, flip 1, colors 5


class Split(NamedTuple):
  """The examples of a split; an example is identified by its index in TFDS.

  Attributes:
    where: split and data set, for messages.
    folder: the folder of the data set.
    records: random access to {'image': the bytes of a file, 'label': int}.
    redrawn: int32 (n,), for the n examples in use: the label that the corruption drew, or
      -1 where an example keeps its own.
    stream: the stream of random bits that corrupts the pixels.
  """

  where: str
  folder: pathlib.Path
  records: Any
  redrawn: np.ndarray
  stream: int


class Source(NamedTuple):
  """A data set to stream.

  Attributes:
    train, test: Split.
    num_classes: at least 2.
    image_shape: (s, s, 3), where s is config.dataset.crop_size.
    statistics: (mean, standard deviation) per channel of training images, each float32
      (3,), in the mode gaussian; else None.
  """

  train: Split
  test: Split
  num_classes: int
  image_shape: tuple[int, int, int]
  statistics: tuple[np.ndarray, np.ndarray] | None

  @property
  def num_train(self) -> int:
    return len(self.train.redrawn)

  @property
  def num_test(self) -> int:
    return len(self.test.redrawn)


def open(config: config_dict.ConfigDict) -> Source:
  """Opens the Source of a config with dataset.streaming and draws all corrupted labels.

  The test split is 'test', or 'validation' if there is no 'test' or its labels are secret,
  as in ImageNet. In the mode gaussian, the first 1,000 training images are read and their
  statistics stand for those of all: TFDS stores examples in random order.

  Raises:
    errors.BadInput: the data set is unknown, not prepared, damaged, not of a supported
      kind, or smaller than the config says.
  """
  name, mode, seed = config.dataset.name, config.corruption.mode, config.corruption.seed
  folder = tfds_folders.find(name, tfds_folders.root(config.dataset.data_dir))
  train, test, num_classes = _open_splits(name, folder)
  train = _first(train, config.dataset.num_train, 'num_train')
  test = _first(test, config.dataset.num_test, 'num_test')
  kind = corruption.CORRUPTIONS[mode]
  if kind.labels:
    noise = corruption.effective_label_noise(mode, config.corruption.label_noise)
    redrawn = kind.labels(train.redrawn, num_classes, noise, seed)
    train = train._replace(redrawn=redrawn)
  image_shape = (config.dataset.crop_size, config.dataset.crop_size, 3)
  source = Source(train, test, num_classes, image_shape, None)
  if kind.dtype:
    source = source._replace(statistics=_statistics(train, config.dataset.crop_size))
  return source


def _open_splits(name, folder):
  """(train, test, number of classes) of a prepared data set, with all examples in use."""
  import tensorflow_datasets as tfds  # slow, and not needed by workers

  try:
    builder = tfds.builder_from_directory(str(folder))
    secret = name == 'imagenet2012' or 'test' not in builder.info.splits
    names = ('train', 'validation' if secret else 'test')
    tfds_folders.check_kind(builder, folder, names)
    features = builder.info.features
    num_classes = getattr(features['label'], 'num_classes', None)
    if not isinstance(features['image'], tfds.features.Image) or not num_classes:
      raise errors.BadInput(
        f'the data set in {folder} has the features image: {features["image"]} and '
        f'label: {features["label"]}, but only encoded images with class labels can be '
        'streamed: leave config.dataset.streaming at False'
      )
    undecoded = {'image': tfds.decode.SkipDecoding()}
    splits = []
    for split, stream in zip(
      names, (corruption.TRAIN_PIXELS, corruption.TEST_PIXELS), strict=True
    ):
      records = builder.as_data_source(split=split, decoders=undecoded)
      for path in builder.info.splits[split].filepaths:
        os.stat(path)
      redrawn = np.full(len(records), -1, np.int32)
      splits.append(Split(f'{split} of {name}', folder, records, redrawn, stream))
  except (errors.BadInput, ImportError):
    raise
  except Exception as error:  # TFDS and array_record raise many types for damaged files
    raise tfds_folders.damaged(folder, error) from None
  return *splits, num_classes


def _first(split, count, field):
  """The Split, with only its first `count` examples in use; None: all."""
  available = len(split.redrawn)
  if (count or 0) > available:
    raise errors.BadInput(
      f'config.dataset.{field} is {count}, but {split.where} has {available} examples; '
      'take at most that many.'
    )
  return split._replace(redrawn=split.redrawn[:count])


def _statistics(split, size):
  """Mean and standard deviation per channel over the first STATISTICS images."""
  indices = range(min(STATISTICS, len(split.redrawn)))
  moments = []
  for index, (encoded, _) in zip(indices, _read(split, indices), strict=True):
    image = _decode(split, index, encoded, size) / np.float64(1)
    moments.append((image.mean((0, 1)), (image**2).mean((0, 1))))
  mean, square = np.mean(moments, 0)
  return mean.astype(np.float32), np.sqrt(square - mean**2).astype(np.float32)


def train_batches(
  source: Source,
  config: config_dict.ConfigDict,
  first_step: int,
  process_index: int,
  process_count: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """This host's share of the run's batches, starting at step `first_step`.

  Every epoch is a new permutation of the training examples; those left over after the last
  whole batch are not used. Host p gets the p-th part of each global batch, so the parts put
  together are the same batch however many there are.

  Args:
    source: from `open`, for this config.
    config: uses batch_size, a multiple of process_count; num_epochs, which ends the
      iteration; dataset.workers, seed, corruption and regularization.
    first_step: 0 or the step of a checkpoint.
    process_index, process_count: this host and the number of hosts, as in JAX.

  Returns:
    An iterator of (images uint8 (b / hosts, s, s, 3), labels int32 (b / hosts,)); float32
    on the uint8 scale in the mode gaussian. It makes batches ahead of time, in threads or
    worker processes; close() ends them.

  Raises:
    errors.BadInput: during iteration, for a damaged image or file.
  """
  steps = steps_per_epoch(source, config) * config.num_epochs
  share = (process_index, process_count)
  make = functools.partial(_train_batch, source, config, share)
  return _ahead(make, range(first_step, steps), config.dataset.workers)


def evaluation_batches(
  source: Source,
  config: config_dict.ConfigDict,
  split: Split,
  process_index: int,
  process_count: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """This host's share of one pass over a split, undistorted, every example once.

  Args:
    source, config, process_index, process_count: as for `train_batches`.
    split: source.train, corrupted as in training, or source.test.

  Returns:
    An iterator like that of `train_batches`, of (images, labels, counts). counts is bool
    (b / hosts,), False where the last batch is padded with black images.
  """
  batches = range(-(-len(split.redrawn) // config.batch_size))
  share = (process_index, process_count)
  make = functools.partial(_evaluation_batch, source, config, split, share)
  return _ahead(make, batches, config.dataset.workers)


def steps_per_epoch(source: Source, config: config_dict.ConfigDict) -> int:
  return len(source.train.redrawn) // config.batch_size


def _ahead(make, numbers, workers):
  """An iterator of make(number) that Grain prefetches; 0 workers: in this process."""
  if not flags.FLAGS.is_parsed():  # in a notebook or a test
    flags.FLAGS.mark_as_parsed()  # without this, Grain's workers die
  batches = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
  return iter(
    batches.to_iter_dataset(
      grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    ).mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), _start_worker)
  )


def _start_worker(index, count):
  """Leaves Ctrl-C to the parent, which ends its workers; exits if the parent is killed."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _train_batch(source, config, share, step):
  """(images, labels) for this host at a step of the run."""
  epoch, position = divmod(step, steps_per_epoch(source, config))
  order = _order(config.seed, epoch, len(source.train.redrawn))
  indices = order[position * config.batch_size :][: config.batch_size]
  indices = np.split(indices, share[1])[share[0]].tolist()
  return _batch(source, config, source.train, indices, epoch)


def _evaluation_batch(source, config, split, share, number):
  """(images, labels, counts) for this host in evaluation batch `number`."""
  indices = number * config.batch_size + np.arange(config.batch_size)
  indices = np.split(indices, share[1])[share[0]]
  counts = indices < len(split.redrawn)
  images, labels = _batch(source, config, split, indices[counts].tolist())
  missing = len(counts) - len(labels)
  images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
  return images, np.pad(labels, (0, missing)), counts


@functools.lru_cache(maxsize=2)
def _order(seed, epoch, count):
  """int64 (count,): the order of the training examples in an epoch."""
  return corruption.random_permutations(seed, corruption.ORDER, epoch, 1, count)[0]


def _batch(source, config, split, indices, epoch=None):
  """Images (n, s, s, 3) and labels int32 (n,); distorted if `epoch` is given."""
  dtype = corruption.CORRUPTIONS[config.corruption.mode].dtype or np.uint8
  shape = (len(indices), *source.image_shape)
  images = np.empty(shape, dtype)
  labels = np.empty(len(indices), np.int32)
  records = _read(split, indices)
  for i, (index, (encoded, label)) in enumerate(zip(indices, records, strict=True)):
    images[i] = _image(source, config, split, index, encoded, epoch)
    labels[i] = label if split.redrawn[index] < 0 else split.redrawn[index]
  return images, labels


def _read(split, indices):
  """[(bytes of the image file, stored label)] of the examples at `indices`."""
  try:
    records = split.records.__getitems__(list(indices))
  except Exception as error:  # TFDS and array_record raise many types for damaged files
    raise tfds_folders.damaged(split.folder, error) from None
  return [(record['image'], record['label']) for record in records]


def _image(source, config, split, index, encoded, epoch):
  """The image (s, s, 3) of one example, distorted if `epoch` is given, then corrupted."""
  mode, seed = config.corruption.mode, config.corruption.seed
  random = config.regularization
  uniform = None if epoch is None else _uniform(config.seed, epoch, index)
  choose_box = None
  if uniform is not None and random.random_crop:
    choose_box = functools.partial(host_augment.random_box, uniform=uniform[:4])
  image = _decode(split, index, encoded, source.image_shape[0], choose_box)
  if uniform is not None and random.random_flip and uniform[4] < 0.5:
    image = image[:, ::-1]
  if uniform is not None and random.color_jitter:
    image = host_augment.jitter(image, uniform[5:])
  return corruption.corrupt_images(
    image[None], index, split.stream, mode, seed, source.statistics
  )[0]


def _decode(split, index, encoded, size, choose_box=None):
  """`host_augment.decode`, with errors.BadInput naming an image that cannot be decoded."""
  try:
    return host_augment.decode(encoded, size, choose_box)
  except MemoryError:
    raise
  except Exception as error:  # Pillow raises many types
    raise errors.BadInput(
      f'image {index} of {split.where} in {split.folder} cannot be decoded '
      f'({errors.reason(error)}): delete this folder and prepare the data set again'
    ) from None


def _uniform(seed, epoch, index):
  """float64 (NUMBERS,), in [0, 1), for a training example in an epoch."""
  place = epoch * EPOCH + index
  bits = corruption.random_bits(seed, corruption.DISTORTION, place, 1, NUMBERS)[0]
  return (bits >> np.uint64(11)) * 2.0**-53
