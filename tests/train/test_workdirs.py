"""A run's folder: whose it is, which data the run is trained on, and how it is called."""

import json
import os
import pathlib
import shutil

import helpers
import numpy as np
import pytest

from rethink_gen import config as config_lib
from rethink_gen import runs, train
from rethink_gen.data import sources, synthetic
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress
from rethink_gen.reporting import artifacts
from rethink_gen.reproduce import grid, training


def write_data(path, seed=0, save=np.savez, **changes):
  random = np.random.default_rng(seed)
  arrays = {
    'x_train': random.integers(0, 256, (70, 8, 8), np.uint8),
    'y_train': random.integers(0, 10, 70),
    'x_test': random.integers(0, 256, (20, 8, 8), np.uint8),
    'y_test': random.integers(0, 10, 20),
    'num_classes': 10,
  }
  save(path, **arrays | changes)


def make_config(path, **changes):
  data = {'dataset.name': 'npz', 'dataset.path': str(path), 'dataset.num_train': 64}
  return helpers.make_config(**data, **{'num_epochs': 2} | changes)


def contents(folder):
  return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}


def interrupt(monkeypatch, config, workdir):
  with monkeypatch.context() as patch:
    helpers.stop_after(patch, 1)
    with pytest.raises(train.Interrupted):
      train.run(config, workdir, no_progress)


@pytest.fixture(params=['complete', 'interrupted'])
def made(request, tmp_path, monkeypatch):
  """(the config, the folder) of a run on tmp_path/data.npz."""
  write_data(tmp_path / 'data.npz')
  config, workdir = make_config(tmp_path / 'data.npz'), tmp_path / 'run'
  if request.param == 'complete':
    train.run(config, workdir, no_progress)
  else:
    interrupt(monkeypatch, config, workdir)
  return config, workdir


@pytest.mark.parametrize(
  'changes',
  [
    {'seed': 1},
    {'y_test': np.arange(20) % 10},
    {'y_train': np.arange(70) % 10},
    {'num_classes': 11},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_a_file_that_has_changed_is_refused_by_name(made, changes):
  config, workdir = made
  write_data(config.dataset.path, **changes)
  before = contents(workdir)
  with pytest.raises(BadInput, match='(?s)^[^\n]*$') as refusal:
    train.run(config, workdir, no_progress)
  assert f'trained on different data than {config.dataset.path} holds' in str(refusal.value)
  with pytest.raises(BadInput, match='trained on different data'):
    runs.open(workdir).dataset()
  assert contents(workdir) == before


def spellings(folder):
  home = os.path.relpath(folder, pathlib.Path.home())
  (folder / 'link').symlink_to(folder, target_is_directory=True)
  os.link(folder / 'data.npz', folder / 'copy.npz')
  return (
    *(os.path.relpath(folder / 'data.npz'), f'~/{home}/data.npz'),
    *(f'{folder}/link/data.npz', f'{folder}/../{folder.name}/data.npz'),
    f'{folder}/copy.npz',
  )


@pytest.mark.parametrize('known', [True, False], ids=['digest', 'older version'])
def test_the_same_file_is_the_same_data_however_it_is_spelled(made, known):
  config, workdir = made
  if not known:
    (workdir / 'data.json').unlink()
  for number, path in enumerate(spellings(workdir.parent)):
    copy = shutil.copytree(workdir, workdir.with_name(f'copy{number}'))
    config.dataset.path = path
    if known or 'copy' not in path:
      assert train.run(config, copy, no_progress)['steps'] == 4
    else:  # whether another file holds the same is not known
      with pytest.raises(BadInput, match='dataset.path: '):
        train.run(config, copy, no_progress)


def test_the_same_arrays_in_another_archive_are_the_same_data(made):
  config, workdir = made
  write_data(config.dataset.path, save=np.savez_compressed)
  assert train.run(config, workdir, no_progress)['steps'] == 4


def test_a_complete_run_whose_data_are_gone_is_still_there(tmp_path):
  write_data(tmp_path / 'data.npz')
  config = make_config(tmp_path / 'data.npz')
  summary = train.run(config, tmp_path / 'run', no_progress)
  (tmp_path / 'data.npz').unlink()
  assert train.run(config, tmp_path / 'run', no_progress) == summary


def test_a_damaged_note_of_the_data_is_refused(made):
  config, workdir = made
  (workdir / 'data.json').write_text('[')
  with pytest.raises(BadInput, match=r'^[^\n]*data\.json is damaged[^\n]*$'):
    train.run(config, workdir, no_progress)


def test_another_version_of_a_tfds_data_set_is_refused(tmp_path, monkeypatch):
  folder = synthetic.generate(tmp_path / 'data', 64, 8)
  config = helpers.make_config(
    **{'dataset.name': 'generated_images', 'dataset.data_dir': str(tmp_path / 'data')},
    **{'dataset.streaming': True, 'dataset.crop_size': 16, 'dataset.num_train': 32},
    num_epochs=1,
  )
  train.run(config, tmp_path / 'run', no_progress)
  assert json.loads((tmp_path / 'run/data.json').read_text())['version'] == folder.name
  shutil.copytree(folder, folder.with_name('9.0.0'))
  with pytest.raises(BadInput, match=f'version {folder.name} then, 9.0.0 now'):
    train.run(config, tmp_path / 'run', no_progress)


def test_a_row_whose_file_has_changed_is_refused_before_the_grid_starts(tmp_path):
  write_data(tmp_path / 'data.npz')
  config = make_config(tmp_path / 'data.npz')
  row = artifacts.Row('mine', 'default', config_lib.changes(config))
  job = grid.Job('mine', training.make_settings(row, 0), None, training)
  grid.run_all({tmp_path / 'runs/mine': job})
  write_data(tmp_path / 'data.npz', seed=1)
  with pytest.raises(BadInput, match='trained on different data'):
    grid.check({tmp_path / 'runs/mine': job})


def test_a_digest_is_read_again_only_when_the_file_is_written(tmp_path):
  path = str(tmp_path / 'data.npz')
  write_data(path)
  sources._npz_digest.cache_clear()
  first = sources.version('npz', path=path)
  assert sources.version('npz', path=path) == first
  assert sources._npz_digest.cache_info().misses == 1
  write_data(path, seed=1)
  assert sources.version('npz', path=path) != first


NAMES = (
  *('[lr=0.1]', '[!a]', 'a[', ']', 'a*', 'a?', 'a**', '{a,b}', 'a#b', 'a%20b'),
  *('a b', ' a', 'trailing...', 'é中', '-a', '~a', '$HOME', 'a:b', 'x:', "a'b", 'a"b'),
)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('place', ['{}', '{}/run'], ids=['folder', 'parent'])
def test_a_run_in_a_folder_with_any_name_keeps_its_checkpoints(
  name, place, tmp_path, monkeypatch
):
  config = helpers.make_config(num_epochs=2)
  beside = tmp_path / place.format('ab')  # which 'a*' as a pattern would match
  train.run(helpers.make_config(num_epochs=1, seed=1), beside, no_progress)
  workdir = tmp_path / place.format(name)
  interrupt(monkeypatch, config, workdir)
  lines = []
  train.run(config, workdir, helpers.record_lines(lines))
  assert lines[0] == 'Resuming from step 1 of 12.'
  assert runs.open(workdir).step == 12
  assert not list((workdir / 'checkpoints').glob('*.damaged'))


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('a\\b', 'Orbax cannot read'),
    ('logs:', 'Orbax cannot read'),
    ('a\udcff', 'is not UTF-8'),
  ],
)
@pytest.mark.parametrize('place', ['{}', '{}/run'], ids=['folder', 'parent'])
def test_a_folder_that_would_lose_checkpoints_is_refused(name, words, place, tmp_path):
  workdir = tmp_path / place.format(name)
  with pytest.raises(BadInput, match=f'(?s)^[^\n]*{words}[^\n]*$'):
    train.run(helpers.make_config(), workdir, no_progress)
  assert list(tmp_path.iterdir()) == []


def test_a_mount_that_orbax_takes_for_a_bucket_is_refused():
  with pytest.raises(BadInput, match='Orbax mistakes /gs for an object store'):
    train.run(helpers.make_config(), '/gs/bucket/run', no_progress)
  assert not pathlib.Path('/gs').exists()
