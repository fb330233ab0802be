"""Preparing needs TensorFlow and a network or the files; each lack is one sentence."""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from rethink_gen import errors
from rethink_gen.data import prepare, sources

needs_tensorflow = pytest.mark.skipif(
  importlib.util.find_spec('tensorflow') is None,
  reason="TensorFlow is not installed: pip install 'rethink_gen[prepare]'",
)


def refusal(*arguments):
  """The message with which `prepare.prepare` refuses: one sentence."""
  with pytest.raises(errors.BadInput) as error:
    prepare.prepare(*arguments)
  message = str(error.value)
  assert '\n' not in message
  assert '. ' not in message
  return message


def cifar10_arrays():
  """Images and labels of a CIFAR-10 with five times 4 training and 3 test images."""
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)
  return images, np.arange(23, dtype=np.uint8) % 10


def write_cifar10(path):
  """Writes `cifar10_arrays` as the archive that TFDS would download."""
  images, labels = cifar10_arrays()
  # A record is the label and then the image, channel by channel.
  flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
  records = np.concatenate([labels[:, None], flat], axis=1)
  files = {f'data_batch_{i + 1}.bin': records[4 * i : 4 * i + 4] for i in range(5)}
  files = {name: batch.tobytes() for name, batch in files.items()}
  files['test_batch.bin'] = records[20:].tobytes()
  files['batches.meta.txt'] = '\n'.join(f'class{i}' for i in range(10)).encode()
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in files.items():
      entry = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
      entry.size = len(content)
      archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def archive(tmp_path):
  path = tmp_path / 'mine.tar.gz'
  write_cifar10(path)
  return path


def declare_original(monkeypatch, archive):
  """Makes TFDS know the checksum of this archive as that of the CIFAR-10 it has."""
  import tensorflow_datasets as tfds

  url_infos = tfds.builder_cls('cifar10').url_infos
  ((url, info),) = url_infos.items()
  content = archive.read_bytes()
  declared = type(info)(
    size=len(content),
    checksum=hashlib.sha256(content).hexdigest(),
    filename=info.filename,
  )
  monkeypatch.setitem(url_infos, url, declared)


def by_content(images, labels):
  """Images and labels as a set, for TFDS shuffles the examples as it writes them."""
  return {(x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)}


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], '--dataset=NAME'),
    (['cifar10'], '--dataset=NAME'),
    (['--dataset=../up'], "'../up' is unknown"),
    (['--dataset=cifar11'], "'cifar11' is unknown"),
    (['--nonsense'], "Unknown command line flag 'nonsense'"),
  ],
)
def test_the_command_refuses_in_one_line_with_status_2(arguments, words):
  command = [sys.executable, '-m', 'rethink_gen.data.prepare', *arguments]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stdout == ''
  assert len(done.stderr.splitlines()) == 1
  assert words in done.stderr


def test_without_tensorflow_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  message = refusal('cifar10', tmp_path / 'data', [])
  assert "pip install 'rethink_gen[prepare]'" in message
  assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize('name', ['digits', 'npz'])
def test_what_is_no_tfds_data_set_needs_no_preparation(tmp_path, name):
  assert 'needs no preparation' in prepare.prepare(name, tmp_path, [])


def test_what_is_prepared_stays_as_it_is(tmp_path):
  folder = tmp_path / 'cifar10/3.0.2'
  folder.mkdir(parents=True)
  info = folder / 'dataset_info.json'
  info.write_text(json.dumps({'fileFormat': 'array_record'}))
  assert prepare.prepare('cifar10', tmp_path, []) == (
    f'cifar10 is already prepared in {folder}'
  )
  info.write_text(json.dumps({'fileFormat': 'tfrecord'}))
  assert 'tfrecord' in refusal('cifar10', tmp_path, [])
  assert list(tmp_path.rglob('*')) == [folder.parent, folder, info]


@needs_tensorflow
def test_an_archive_stands_in_for_the_download(tmp_path, archive, monkeypatch):
  monkeypatch.setenv('RETHINK_GEN_CACHE', str(tmp_path / 'cache'))
  declare_original(monkeypatch, archive)
  data_dir = tmp_path / 'data'
  message = prepare.prepare('cifar10', data_dir, [str(archive)])
  assert message.startswith('cifar10 is prepared in ')
  dataset = sources.load('cifar10', str(data_dir))
  images, labels = cifar10_arrays()
  train, test = (
    by_content(images[:20], labels[:20]),
    by_content(images[20:], labels[20:]),
  )
  assert by_content(dataset.x_train, dataset.y_train) == train
  assert by_content(dataset.x_test, dataset.y_test) == test
  assert dataset.num_classes == 10
  assert list(data_dir.iterdir()) == [data_dir / 'cifar10']
  assert 'already' in prepare.prepare('cifar10', data_dir, [])


def test_another_archive_than_the_original_is_refused(tmp_path, archive):
  message = refusal('cifar10', tmp_path / 'data', [str(archive)])
  assert hashlib.sha256(archive.read_bytes()).hexdigest() in message
  official = 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'
  assert f'cifar-10-binary.tar.gz {official}' in message
  assert not (tmp_path / 'data').exists()


@needs_tensorflow
def test_a_damaged_archive_leaves_nothing(tmp_path, archive, monkeypatch):
  archive.write_bytes(archive.read_bytes()[:20_000])
  declare_original(monkeypatch, archive)
  data_dir = tmp_path / 'data'
  assert 'could not be prepared' in refusal('cifar10', data_dir, [str(archive)])
  assert list(data_dir.iterdir()) == []


@needs_tensorflow
def test_without_a_network_it_asks_for_the_archive(tmp_path, monkeypatch):
  from tensorflow_datasets.core.download import downloader

  monkeypatch.setattr(downloader, 'MAX_RETRIES', 0)
  monkeypatch.setenv('HTTPS_PROXY', 'http://127.0.0.1:9')  # nobody listens there
  message = refusal('cifar10', tmp_path / 'data', [])
  assert 'could not be downloaded' in message
  assert '--from_archive' in message
  assert list((tmp_path / 'data').iterdir()) == []


@pytest.mark.parametrize(
  ('name', 'archives', 'words'),
  [
    ('cifar11', [], "'cifar11' is unknown"),
    ('cmaterdb/nope', [], "no config 'nope': it has bangla"),
    ('cifar10', ['/no/such/file'], '/no/such/file cannot be read (No such file'),
    ('imagenet2012', [], 'cannot be downloaded automatically'),
  ],
)
def test_bad_names_and_files_are_refused(tmp_path, name, archives, words):
  assert words in refusal(name, tmp_path / 'data', archives)
  assert not (tmp_path / 'data').exists()


@needs_tensorflow
def test_a_folder_in_the_way_is_named(tmp_path):
  folder = tmp_path / 'cifar10/3.0.2'
  folder.mkdir(parents=True)
  assert f'{folder} exists' in refusal('cifar10', tmp_path, [])
  assert folder.exists()
