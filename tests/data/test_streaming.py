"""Batches that depend on the step alone, whatever the hosts, the workers and the start."""

import io
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from rethink_gen import config as config_lib
from rethink_gen import errors
from rethink_gen.data import (
  corruption,
  host_augment,
  sources,
  streaming,
  synthetic,
  tfds_folders,
)

COUNT, TEST_COUNT = 53, 13  # no multiples of any batch here
DISTORTIONS = ('random_crop', 'random_flip', 'color_jitter')

# Takes a batch from a worker, prints the worker's process and waits to be killed.
PARENT = """
import multiprocessing, sys, time
sys.path[:0] = ['tests', 'tests/data']
from test_streaming import make_config
from rethink_gen.data import streaming
if __name__ == '__main__':
  config = make_config(sys.argv[1], **{'dataset.workers': 1})
  batches = streaming.train_batches(streaming.open(config), config, 0, 0, 1)
  next(batches)
  print(*(child.pid for child in multiprocessing.active_children()), flush=True)
  time.sleep(100)
"""


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with the generated data set."""
  data_dir = tmp_path_factory.mktemp('tfds')
  synthetic.generate(data_dir, COUNT, TEST_COUNT, (24, 48))
  return data_dir


def make_config(data_dir, name='generated_images', distorted=False, **changes):
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'dataset.name': name,
      'dataset.data_dir': str(data_dir),
      'dataset.streaming': True,
      'dataset.crop_size': 24,
      'batch_size': 12,
      'num_epochs': 3,
    }
    | {f'regularization.{field}': distorted for field in DISTORTIONS}
    | changes
  )
  config_lib.validate(config)
  return config


def train(config, hosts=1, first_step=0):
  """All training batches from a step on: [(images, labels)], the hosts' shares joined."""
  source = streaming.open(config)
  shares = [
    streaming.train_batches(source, config, first_step, i, hosts) for i in range(hosts)
  ]
  return [joined(batch) for batch in zip(*shares, strict=True)]


def joined(shares):
  return tuple(np.concatenate(arrays) for arrays in zip(*shares, strict=True))


def stored(config, split='train', hosts=1):
  """Images and labels of a split in the order of TFDS, and what the counts say."""
  source = streaming.open(config)
  split = getattr(source, split)
  shares = [
    list(streaming.evaluation_batches(source, config, split, i, hosts))
    for i in range(hosts)
  ]
  images, labels, counts = joined(itertools.chain(*zip(*shares, strict=True)))
  return images, labels, counts


def indices(config, batches):
  """The example that each image is, found by its pixels: (batches, batch size)."""
  known = {image.tobytes(): i for i, image in enumerate(stored(config)[0][:COUNT])}
  assert len(known) == COUNT
  return np.array([[known[image.tobytes()] for image in images] for images, _ in batches])


def assert_equal(batches, expected):
  assert len(batches) == len(expected)
  for ours, theirs in zip(batches, expected, strict=True):
    for array, other in zip(ours, theirs, strict=True):
      assert array.dtype == other.dtype
      np.testing.assert_array_equal(array, other)


def test_an_epoch_is_a_permutation_less_what_fills_no_batch(data_dir):
  config = make_config(data_dir)
  batches = train(config)
  images, labels = batches[0]
  assert images.dtype == np.uint8
  assert images.shape == (12, 24, 24, 3)
  assert labels.dtype == np.int32
  epochs = indices(config, batches).reshape(3, 48)  # 4 batches of 12 of 53 examples
  for epoch in epochs:
    assert len(set(epoch)) == 48
  assert len({tuple(epoch) for epoch in epochs}) == 3
  assert len({frozenset(epoch) for epoch in epochs}) == 3  # others sit out
  labels = np.concatenate([labels for _, labels in batches])
  np.testing.assert_array_equal(labels, stored(config)[1][epochs.ravel()])


@pytest.mark.parametrize('distorted', [False, True])
@pytest.mark.parametrize('hosts', [2, 3])
def test_any_number_of_hosts_sees_the_same_batches(data_dir, hosts, distorted):
  config = make_config(data_dir, distorted=distorted)
  assert_equal(train(config, hosts), train(config))


@pytest.mark.parametrize('first_step', [1, 5, 8, 12])
def test_going_on_at_a_step_is_to_skip_the_steps_before(data_dir, first_step):
  """Also on another number of hosts, at the start of an epoch, and behind the last step."""
  config = make_config(data_dir, distorted=True)
  assert_equal(train(config, 2, first_step), train(config)[first_step:])


@pytest.mark.slow
def test_workers_change_nothing_and_errors_come_out_of_them(data_dir):
  config = make_config(data_dir, distorted=True, num_epochs=1)
  expected = train(config)
  config.dataset.workers = 2
  assert_equal(train(config), expected)
  config.dataset.workers = 1
  source = streaming.open(config)
  damaged = source.train._replace(records=['not to be read'])
  batches = streaming.train_batches(source._replace(train=damaged), config, 0, 0, 1)
  with pytest.raises(errors.BadInput, match='cannot be read'):
    next(batches)
  batches.close()


def test_workers_of_a_killed_run_end(data_dir):
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT, str(data_dir)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  (worker,) = map(int, parent.stdout.readline().split())
  os.kill(worker, signal.SIGINT)  # as Ctrl-C does, which is the parent's affair
  time.sleep(0.5)
  os.kill(worker, 0)
  parent.kill()
  parent.communicate()
  for _ in range(100):
    try:
      os.kill(worker, 0)
    except ProcessLookupError:
      return
    time.sleep(0.1)
  os.kill(worker, signal.SIGKILL)
  pytest.fail('the worker is still there')


@pytest.mark.parametrize('hosts', [1, 2, 3])
@pytest.mark.parametrize(('split', 'count'), [('train', COUNT), ('test', TEST_COUNT)])
def test_evaluation_has_every_example_once_and_masks_the_rest(
  data_dir, split, count, hosts
):
  config = make_config(data_dir, distorted=True)  # which evaluation ignores
  images, labels, counts = stored(config, split, hosts)
  assert len(images) == len(labels) == len(counts) == -(-count // 12) * 12
  np.testing.assert_array_equal(counts, np.arange(len(counts)) < count)
  assert not images[count:].any()
  folder = tfds_folders.find('generated_images', data_dir)
  records = builder(folder).as_data_source(split)
  np.testing.assert_array_equal(labels[:count], [record['label'] for record in records])
  for ours, record in zip(images[:count], records, strict=True):
    image = Image.fromarray(record['image'])
    box = host_augment.center_box(*image.size)
    np.testing.assert_array_equal(ours, image.resize((24, 24), Image.BILINEAR, box))


def builder(folder):
  import tensorflow_datasets as tfds

  return tfds.builder_from_directory(str(folder))


def test_fewer_examples_are_the_first_ones(data_dir):
  config = make_config(data_dir)
  images, labels, _ = stored(config)
  config.dataset.num_train = 20
  config.dataset.num_test = 5
  fewer, fewer_labels, counts = stored(config)
  np.testing.assert_array_equal(fewer[:20], images[:20])
  np.testing.assert_array_equal(fewer_labels[:20], labels[:20])
  assert counts.sum() == 20
  assert stored(config, 'test')[2].sum() == 5
  shown = {image.tobytes() for image in joined(train(config))[0]}
  assert shown <= {image.tobytes() for image in images[:20]}
  assert len(train(config)) == 3


def test_distortion_depends_on_seed_epoch_and_example_alone(data_dir):
  """Not on the batch that an example is in; and undistorted images are evaluation's."""
  config = make_config(data_dir, distorted=True)
  whole = joined(train(config))
  config.batch_size = 6
  halves = joined(train(config)[:8])  # of the first epoch
  np.testing.assert_array_equal(halves[0], whole[0][:48])
  config.batch_size = 12

  plain = make_config(data_dir)
  order = indices(plain, train(plain)).reshape(3, 48)
  epochs = whole[0].reshape(3, 48, 24, 24, 3)
  for i in set(order[0]) & set(order[1]):  # distorted differently in every epoch
    first, second = (epochs[epoch][order[epoch] == i] for epoch in (0, 1))
    assert (first != second).any()
  config.seed = 1
  assert (joined(train(config))[0] != whole[0]).any()


@pytest.mark.parametrize('field', DISTORTIONS)
def test_each_distortion_does_what_it_says(data_dir, field):
  plain = make_config(data_dir, num_epochs=1)
  images = joined(train(plain))[0].astype(float)
  ours = joined(
    train(make_config(data_dir, num_epochs=1, **{f'regularization.{field}': True}))
  )
  ours = ours[0].astype(float)
  same = (ours == images).all((1, 2, 3))
  flipped = (ours == images[:, :, ::-1]).all((1, 2, 3))
  if field == 'random_flip':
    assert (same ^ flipped).all()
    assert 12 < flipped.sum() < 36  # of 48
  else:
    assert not (same | flipped).any()


@pytest.mark.parametrize('mode', ['partial_labels', 'random_labels'])
def test_labels_are_those_of_the_resident_path(data_dir, mode):
  """So all that holds of them holds here; they stay with their example in every epoch."""
  config = make_config(data_dir)
  images, labels, _ = stored(config)
  tests = stored(config, 'test')
  order = indices(config, train(config)).ravel()
  config.corruption.mode = mode
  config.corruption.seed = 5
  config.corruption.label_noise = 0.5 if mode == 'partial_labels' else 0.0
  noise = 0.5 if mode == 'partial_labels' else 1.0
  expected = corruption.noisy_labels(labels[:COUNT], 10, noise, seed=5)
  assert (expected != labels[:COUNT]).any()
  ours = stored(config, hosts=3)
  np.testing.assert_array_equal(ours[1][:COUNT], expected)
  np.testing.assert_array_equal(ours[0], images)
  np.testing.assert_array_equal(joined(train(config, 2))[1], expected[order])
  np.testing.assert_array_equal(stored(config, 'test')[1], tests[1])


@pytest.mark.parametrize('mode', ['shuffled_pixels', 'random_pixels', 'gaussian'])
def test_pixels_are_those_of_the_resident_path_after_resizing(data_dir, mode):
  config = make_config(data_dir)
  (x_train, y_train, _), (x_test, y_test, _) = stored(config), stored(config, 'test')
  order = indices(config, train(config)).ravel()
  expected = corruption.corrupt(
    sources.Dataset(x_train[:COUNT], y_train[:COUNT], x_test[:TEST_COUNT], y_test, 10),
    mode,
    seed=5,
  )
  config.corruption.mode = mode
  config.corruption.seed = 5
  ours = stored(config, hosts=2)[0][:COUNT]
  assert ours.dtype == expected.x_train.dtype
  np.testing.assert_allclose(ours, expected.x_train, rtol=1e-5, atol=1e-3)
  tests = stored(config, 'test')[0][:TEST_COUNT]
  np.testing.assert_allclose(tests, expected.x_test, rtol=1e-5, atol=1e-3)
  np.testing.assert_array_equal(joined(train(config, 3))[0], ours[order])


def encode(image, form='jpeg'):
  stream = io.BytesIO()
  image.save(stream, form)
  return stream.getvalue()


def write(data_dir, name, splits, encoded=True):
  """Prepares a data set of {split: [(bytes or array, label)]}, in this order."""
  import tensorflow_datasets as tfds

  class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent  # of nothing: there is no metadata

    def _info(self):
      image = tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8)
      features = {
        'image': tfds.features.Image(encoding_format='jpeg') if encoded else image,
        'label': tfds.features.ClassLabel(num_classes=3),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(pairs) for split, pairs in splits.items()}

    def _generate_examples(self, pairs):
      for i, (image, label) in enumerate(pairs):
        yield i, {'image': image, 'label': label}

  Written.name = name
  builder = Written(data_dir=data_dir, file_format='array_record')
  builder.download_and_prepare(download_dir=data_dir / 'downloads')


def test_imagenet_is_tested_on_its_validation_split(tmp_path):
  image = encode(Image.new('RGB', (30, 40)))
  splits = {'train': [(image, 1)] * 12, 'validation': [(image, 2)], 'test': [(image, -1)]}
  write(tmp_path, 'imagenet2012', splits)
  config = make_config(tmp_path, 'imagenet2012')
  assert stored(config, 'test')[1][0] == 2
  del splits['test']
  write(tmp_path, 'others', splits)
  assert stored(make_config(tmp_path, 'others'), 'test')[1][0] == 2


def test_gray_and_cmyk_images_stream_and_a_damaged_one_is_named(tmp_path):
  image = Image.new('RGB', (30, 40), (200, 100, 50))
  modes = [encode(image.convert(mode)) for mode in ('L', 'CMYK', 'RGB')]
  pairs = [(image, 0) for image in modes * 4]
  damaged = encode(image)[:-200], 1
  write(tmp_path, 'mixed', {'train': [*pairs, damaged], 'test': pairs})
  config = make_config(tmp_path, 'mixed', **{'dataset.num_train': 12})
  images = stored(config)[0]
  assert images.shape == (12, 24, 24, 3)
  assert (images[0] == images[0][..., :1]).all()
  np.testing.assert_allclose(images[1:3].mean((1, 2)), [[200, 100, 50]] * 2, atol=8)
  config.dataset.num_train = None
  with pytest.raises(errors.BadInput, match=r'image 12 of train of mixed in .* decoded'):
    stored(config)


@pytest.mark.parametrize(
  ('name', 'changes', 'words'),
  [
    ('generated_images', {'dataset.num_train': 54}, 'num_train is 54, but train of'),
    ('generated_images', {'dataset.num_test': 14}, 'has 13 examples'),
    ('no_such_set', {}, "'no_such_set' is unknown"),
    ('imagenet2012', {}, "'imagenet2012' is not prepared in"),
    ('../up', {}, 'is unknown'),
  ],
)
def test_what_cannot_be_streamed_is_refused(data_dir, name, changes, words):
  with pytest.raises(errors.BadInput) as error:
    streaming.open(make_config(data_dir, name, **changes))
  assert words in str(error.value)
  assert '\n' not in str(error.value)


def test_a_missing_generated_set_is_made_in_the_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('RETHINK_GEN_CACHE', str(tmp_path / 'cache'))
  source = streaming.open(make_config(tmp_path))
  assert (source.num_train, source.num_test) == (1_000, 200)
  assert not (tmp_path / 'generated_images').exists()


def test_unencoded_images_and_missing_files_are_refused(tmp_path):
  pairs = [(np.zeros((4, 4, 3), np.uint8), 0)]
  write(tmp_path, 'plain', {'train': pairs, 'test': pairs}, encoded=False)
  with pytest.raises(errors.BadInput, match='only encoded images'):
    streaming.open(make_config(tmp_path, 'plain'))
  synthetic.generate(tmp_path, 12, 1, (20, 30))
  next(tmp_path.glob('generated_images/*/*test.array_record*')).unlink()
  with pytest.raises(errors.BadInput, match='cannot be read'):
    streaming.open(make_config(tmp_path))


def test_generated_classes_can_be_told_apart_and_stay_the_same(data_dir, tmp_path):
  """Mean colors tell red from blue; and another folder gets the same files."""
  images, labels, _ = stored(make_config(data_dir))
  images, labels = images[:COUNT], labels[:COUNT]
  assert sorted(set(labels)) == list(range(10))
  red = images[..., 0].max((1, 2)) > images[..., 2].max((1, 2))
  np.testing.assert_array_equal(red, labels < 5)
  synthetic.generate(tmp_path, COUNT, TEST_COUNT, (24, 48))
  again = stored(make_config(tmp_path))
  np.testing.assert_array_equal(again[0][:COUNT], images)
