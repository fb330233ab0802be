"""Every source gives the same kind of arrays, or says in one sentence why it cannot."""

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rethink_gen import errors
from rethink_gen.data import sources, tfds_folders

pytestmark = pytest.mark.slow

# Loads a data set and prints what was imported on the way.
START = """
import sys
from rethink_gen.data import sources
dataset = sources.load(sys.argv[1], sys.argv[2])
print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules)
"""


def example_arrays(**changes):
  """What an .npz data set holds: 6 training and 3 test images of 4x5x3, 3 classes."""
  draw = np.random.default_rng(0)
  arrays = {
    'x_train': draw.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
    'y_train': np.array([0, 1, 2, 0, 1, 2]),
    'x_test': draw.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
    'y_test': np.array([2, 1, 0]),
  } | changes
  return {key: value for key, value in arrays.items() if value is not None}


def assert_same(dataset, arrays):
  """The data set is these arrays, in the types that `Dataset` promises."""
  for key in sources.KEYS:
    actual = getattr(dataset, key)
    assert actual.dtype == (np.uint8 if key.startswith('x') else np.int32)
    np.testing.assert_array_equal(actual, arrays[key])


def assert_one_sentence(error, *words):
  """The message names `words` and could be printed as one line."""
  message = str(error.value)
  assert '\n' not in message
  assert '. ' not in message
  for word in words:
    assert word in message


def start_process(name, data_dir):
  return subprocess.Popen(
    [sys.executable, '-c', START, name, str(data_dir)],
    stdout=subprocess.PIPE,
    text=True,
  )


def output(process):
  stdout, _ = process.communicate()
  assert process.returncode == 0
  return stdout.split()[-2:]  # behind what the first start says of its decoding


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
  """A folder with the data set tiny, `example_arrays` prepared by TFDS itself."""
  import tensorflow_datasets as tfds

  class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent  # of nothing: there is no metadata

    def _info(self):
      features = {
        'image': tfds.features.Tensor(shape=(4, 5, 3), dtype=np.uint8),
        'label': tfds.features.Tensor(shape=(), dtype=np.int64),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in ('train', 'test')}

    def _generate_examples(self, split):
      arrays = example_arrays()
      for i, image in enumerate(arrays[f'x_{split}']):
        yield i, {'image': image, 'label': arrays[f'y_{split}'][i]}

  data_dir = tmp_path_factory.mktemp('tfds')
  Tiny(data_dir=data_dir, file_format='array_record').download_and_prepare()
  return data_dir


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A cache of the test's own."""
  folder = tmp_path / 'cache'
  monkeypatch.setenv('RETHINK_GEN_CACHE', str(folder))
  return folder


@pytest.fixture
def data_dir(tmp_path, cache, prepared):
  """A copy of the prepared data set that a test may damage, and an empty cache."""
  return shutil.copytree(prepared, tmp_path / 'data')


def edit(path, change):
  """Rewrites a JSON file with `change` done to what it holds."""
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


# scikit-learn's digits.


def test_digits_keep_every_fifth_image_for_the_test():
  from sklearn import datasets

  dataset, original = sources.load('digits'), datasets.load_digits()
  assert dataset.x_train.shape == (1437, 8, 8, 1)
  assert dataset.x_test.shape == (360, 8, 8, 1)
  assert dataset.num_classes == 10
  np.testing.assert_array_equal(dataset.y_test, original.target[::5])
  np.testing.assert_array_equal(dataset.y_train[:4], original.target[1:5])
  scaled = np.round(original.images[::5, ..., None] * 255 / 16)
  assert_same(dataset, dataset._asdict() | {'x_test': scaled})


# A user's file.


@pytest.mark.parametrize('label_type', [np.uint8, np.int16, np.int64, np.uint64])
def test_npz_is_read_whatever_its_integer_type(tmp_path, label_type):
  arrays = example_arrays()
  arrays |= {key: arrays[key].astype(label_type) for key in ('y_train', 'y_test')}
  np.savez_compressed(tmp_path / 'mine.npz', **arrays)
  dataset = sources.load('npz', path=str(tmp_path / 'mine.npz'))
  assert_same(dataset, arrays)
  assert dataset.num_classes == 3


def test_npz_images_without_channels_get_one(tmp_path):
  arrays = example_arrays()
  arrays |= {key: arrays[key][..., 0] for key in ('x_train', 'x_test')}
  np.savez(tmp_path / 'gray.npz', **arrays)
  dataset = sources.load('npz', path=str(tmp_path / 'gray.npz'))
  assert dataset.x_train.shape == (6, 4, 5, 1)
  np.testing.assert_array_equal(dataset.x_test[..., 0], arrays['x_test'])


LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'x_test': None, 'y_test': None}, ['x_test, y_test']),
    ({'x_train': np.zeros((6, 4, 5, 3), np.float32)}, ['x_train', 'float32']),
    ({'x_train': np.zeros((6, 60), np.uint8)}, ['x_train', '(6, 60)']),
    ({'x_test': np.zeros((3, 1, 4, 5, 3), np.uint8)}, ['x_test', '(3, 1, 4, 5, 3)']),
    ({'x_test': np.zeros((3, 4, 6, 3), np.uint8)}, ['(4, 5, 3)', '(4, 6, 3)']),
    ({'x_train': np.zeros((0, 4, 5, 3), np.uint8)}, ['x_train', '(0, 4, 5, 3)']),
    ({'x_test': np.zeros((3, 4, 0, 3), np.uint8)}, ['x_test', '(3, 4, 0, 3)']),
    ({'y_train': LABELS * 1.0}, ['y_train', 'float64']),
    ({'y_train': LABELS > 0}, ['y_train', 'bool']),
    ({'y_train': LABELS[:, None]}, ['y_train', '(6, 1)']),
    ({'y_train': LABELS[:5]}, ['x_train', '5 labels']),
    ({'y_train': LABELS - 1}, ['y_train', 'from -1', '0 to 1']),
    ({'y_test': np.array([0, 1, 3])}, ['y_test', 'to 3', '0 to 2']),
    ({'y_test': np.array([0, 1, -1])}, ['y_test', 'from -1']),
    ({'y_train': LABELS * 0, 'y_test': np.zeros(3, int)}, ['1 classes', 'from 2']),
    ({'y_train': LABELS + 2**40}, ['classes', 'to 65536']),
    ({'y_train': LABELS.astype(np.uint64) + np.uint64(2**64 - 3)}, ['classes']),
    ({'num_classes': np.array(2)}, ['y_train', '0 to 1']),
    ({'num_classes': np.array(3.5)}, ['3.5 classes']),
    ({'y_train': LABELS.astype(object)}, ['Object arrays', 'Python objects']),
  ],
)
def test_npz_that_is_no_data_set_is_refused(tmp_path, changes, words):
  np.savez(tmp_path / 'mine.npz', **example_arrays(**changes))
  with pytest.raises(errors.BadInput) as error:
    sources.load('npz', path=str(tmp_path / 'mine.npz'))
  assert_one_sentence(error, 'mine.npz', *words)


def test_npz_file_that_is_not_one_is_refused(tmp_path):
  path = tmp_path / 'mine.npz'
  np.savez(path, **example_arrays())
  whole = path.read_bytes()
  flipped = whole.replace(example_arrays()['x_test'].tobytes(), bytes(180))
  assert flipped != whole
  np.save(tmp_path / 'lone.npy', np.zeros(3))
  lone = (tmp_path / 'lone.npy').read_bytes()
  for content in (b'', b'hello', whole[: len(whole) // 2], flipped, lone):
    path.write_bytes(content)
    with pytest.raises(errors.BadInput) as error:
      sources.load('npz', path=str(path))
    assert_one_sentence(error, 'mine.npz cannot be read', 'numpy.savez')


@pytest.mark.parametrize(
  ('path', 'words'),
  [
    (None, 'dataset.path'),
    ('nowhere/mine.npz', 'no file nowhere/mine.npz'),
    ('/', 'Is a directory'),
  ],
)
def test_npz_without_a_file_is_refused(path, words):
  with pytest.raises(errors.BadInput) as error:
    sources.load('npz', path=path)
  assert_one_sentence(error, words)


# TFDS.


def test_tfds_is_decoded_once_then_read_from_the_cache(data_dir, cache):
  first = sources.load('tiny', str(data_dir))
  assert_same(first, example_arrays())
  assert first.num_classes == 3
  (cached,) = cache.iterdir()
  written = cached.stat().st_mtime_ns
  assert_same(sources.load('tiny', str(data_dir)), example_arrays())
  assert cached.stat().st_mtime_ns == written
  assert_same(sources.load('npz', path=str(cached)), example_arrays())


def test_tensorflow_is_never_imported_and_tfds_only_to_decode(data_dir):
  tfds, tensorflow = output(start_process('tiny', data_dir))
  assert (tfds, tensorflow) == ('True', 'False')
  tfds, tensorflow = output(start_process('tiny', data_dir))
  assert (tfds, tensorflow) == ('False', 'False')


def test_processes_that_start_together_share_one_cache(data_dir, cache):
  processes = [start_process('tiny', data_dir) for _ in range(2)]
  for process in processes:
    output(process)
  assert len(list(cache.iterdir())) == 1
  assert_same(sources.load('tiny', str(data_dir)), example_arrays())


def test_the_folder_is_the_environments_unless_given(data_dir, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
  assert_same(sources.load('tiny'), example_arrays())
  monkeypatch.delenv('TFDS_DATA_DIR')
  assert tfds_folders.root() == pathlib.Path.home() / 'tensorflow_datasets'


@pytest.mark.parametrize('damage', [lambda b: b[:-500], lambda b: b''])
def test_a_damaged_cache_is_rebuilt(data_dir, cache, damage):
  sources.load('tiny', str(data_dir))
  (cached,) = cache.iterdir()
  whole = cached.read_bytes()
  cached.write_bytes(damage(whole))
  assert_same(sources.load('tiny', str(data_dir)), example_arrays())
  assert_same(sources.load('npz', path=str(cached)), example_arrays())


def test_other_content_is_another_cache_entry(data_dir, cache):
  sources.load('tiny', str(data_dir))
  edit(
    data_dir / 'tiny/1.0.0/dataset_info.json',
    lambda info: info['splits'][0].update(shardLengths=['5']),
  )
  assert len(sources.load('tiny', str(data_dir)).x_train) == 5
  assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_only_warns(data_dir, cache, monkeypatch):
  warnings = []
  monkeypatch.setattr(sources.logging, 'warning', lambda *words: warnings.append(words))
  cache.write_text('a file, not a folder')
  assert_same(sources.load('tiny', str(data_dir)), example_arrays())
  assert len(warnings) == 1


def test_a_full_disk_leaves_no_half_written_cache(data_dir, cache):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # in bytes, of any one file
  try:
    dataset = sources.load('tiny', str(data_dir))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert_same(dataset, example_arrays())
  assert list(cache.iterdir()) == []


def test_the_newest_version_is_read(data_dir):
  for version in ('1.9.0', '1.10.0', '1.2.0', 'incomplete.ABC_2.0.0'):
    shutil.copytree(data_dir / 'tiny/1.0.0', data_dir / 'tiny' / version)
  assert tfds_folders.find_prepared('tiny', data_dir).name == '1.10.0'


def test_a_config_is_part_of_the_name(data_dir):
  shutil.copytree(data_dir / 'tiny/1.0.0', data_dir / 'several/one/1.0.0')
  assert_same(sources.load('several/one', str(data_dir)), example_arrays())
  with pytest.raises(errors.BadInput) as error:
    sources.load('several', str(data_dir))
  assert_one_sentence(error, 'several/one')


@pytest.mark.parametrize('name', ['cifar10', 'svhn_cropped', 'cmaterdb/bangla'])
def test_a_data_set_that_is_not_there_says_how_to_prepare_it(tmp_path, name):
  with pytest.raises(errors.BadInput) as error:
    sources.load(name, str(tmp_path))
  assert_one_sentence(
    error,
    f'not prepared in {tmp_path}',
    f'python -m rethink_gen.data.prepare --dataset={name} --data_dir={tmp_path}',
  )


@pytest.mark.parametrize('name', ['cifar11', '', '../tiny', 'tiny/*', 'Tiny', 'a:b'])
def test_an_unknown_data_set_is_refused(data_dir, name):
  with pytest.raises(errors.BadInput) as error:
    sources.load(name, str(data_dir))
  assert_one_sentence(error, f'{name!r} is unknown', 'digits, npz', 'cifar10')


@pytest.mark.parametrize(
  ('file', 'damage'),
  [
    ('tiny-train.array_record-00000-of-00001', lambda b: b[: len(b) // 2]),
    ('tiny-train.array_record-00000-of-00001', lambda b: b[:-1]),
    ('tiny-train.array_record-00000-of-00001', lambda b: b''),
    ('tiny-test.array_record-00000-of-00001', lambda b: b[:90] + b'?' * 90 + b[180:]),
    ('dataset_info.json', lambda b: b[: len(b) // 2]),
    ('dataset_info.json', lambda b: b'[]'),
    ('dataset_info.json', lambda b: b'\xff'),
    ('features.json', lambda b: b[: len(b) // 2]),
    ('features.json', lambda b: b''),
  ],
)
def test_damaged_tfds_files_are_refused(data_dir, cache, file, damage):
  path = data_dir / 'tiny/1.0.0' / file
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(errors.BadInput) as error:
    sources.load('tiny', str(data_dir))
  assert_one_sentence(error, f'{path.parent} cannot be read', 'prepare it again')
  assert not cache.exists()


@pytest.mark.parametrize(
  'file', ['tiny-train.array_record-00000-of-00001', 'features.json']
)
def test_missing_tfds_files_are_refused(data_dir, file):
  (data_dir / 'tiny/1.0.0' / file).unlink()
  with pytest.raises(errors.BadInput) as error:
    sources.load('tiny', str(data_dir))
  assert_one_sentence(error, 'cannot be read', 'prepare it again')


def _features(content):
  return content['featuresDict']['features']


@pytest.mark.parametrize(
  ('file', 'change', 'words'),
  [
    ('dataset_info', lambda c: c.update(fileFormat='tfrecord'), ['tfrecord format']),
    ('dataset_info', lambda c: c.pop('fileFormat'), ['tfrecord format']),
    ('dataset_info', lambda c: c['splits'].pop(), ["'train' and 'test'"]),
    ('dataset_info', lambda c: c['splits'].clear(), ["'train' and 'test'"]),
    ('features', lambda c: _features(c).pop('label'), ["'image' and 'label'"]),
    (
      'features',
      lambda c: _features(c)['image']['tensor']['shape'].update(
        dimensions=['-1', '-1', '3']
      ),
      ['(None, None, 3)', 'fixed'],
    ),
    (
      'features',
      lambda c: _features(c)['image']['tensor'].update(dtype='float32'),
      ['float32', 'uint8'],
    ),
    (
      'features',
      lambda c: _features(c)['label']['tensor'].update(dtype='float32'),
      ['labels', 'float32'],
    ),
    (
      'features',
      lambda c: _features(c)['label']['tensor'].update(shape={'dimensions': ['2']}),
      ['labels', '(2,)'],
    ),
  ],
)
def test_tfds_of_another_kind_is_refused(data_dir, file, change, words):
  edit(data_dir / f'tiny/1.0.0/{file}.json', change)
  with pytest.raises(errors.BadInput) as error:
    sources.load('tiny', str(data_dir))
  assert_one_sentence(error, str(data_dir), *words)
  assert 'cannot be read' not in str(error.value)  # it is whole, and not the right kind


def test_a_class_label_knows_of_classes_that_no_image_has(data_dir):
  features = 'tensorflow_datasets.core.features'
  label = {
    'pythonClassName': f'{features}.class_label_feature.ClassLabel',
    'classLabel': {'numClasses': '7'},
  }
  edit(data_dir / 'tiny/1.0.0/features.json', lambda c: _features(c).update(label=label))
  assert sources.load('tiny', str(data_dir)).num_classes == 7
  assert sources.load('tiny', str(data_dir)).num_classes == 7  # from the cache


# The real thing. These use the user's own cache: the first run decodes, later ones not.


def real(name):
  """The folder that holds a real data set; skips the test if there is none."""
  folder = os.environ.get('TFDS_DATA_DIR')
  if not folder or not tfds_folders.find_prepared(name, pathlib.Path(folder)):
    pytest.skip(f'TFDS_DATA_DIR names no folder with {name}')
  return folder


def test_real_cifar10_and_a_second_start_that_imports_no_tfds():
  folder = real('cifar10')
  dataset = sources.load('cifar10', folder)
  assert dataset.x_train.shape == (50_000, 32, 32, 3)
  assert dataset.x_test.shape == (10_000, 32, 32, 3)
  assert dataset.num_classes == 10
  assert np.bincount(dataset.y_train).tolist() == [5000] * 10
  assert np.bincount(dataset.y_test).tolist() == [1000] * 10
  # The channel means of CIFAR-10's training images, red first.
  means = dataset.x_train.mean((0, 1, 2))
  np.testing.assert_allclose(means, [125.3, 123.0, 113.9], atol=0.1)
  assert output(start_process('cifar10', folder)) == ['False', 'False']


def test_real_mnist():
  dataset = sources.load('mnist', real('mnist'))
  assert dataset.x_train.shape == (60_000, 28, 28, 1)
  assert dataset.x_test.shape == (10_000, 28, 28, 1)
  assert dataset.num_classes == 10
  assert np.bincount(dataset.y_test)[:3].tolist() == [980, 1135, 1032]
