"""Looking at runs: what is read must be what training had, and nothing may change."""

import contextlib
import functools
import json
import shutil
import subprocess
import sys

import helpers
import jax
import numpy as np
import pandas as pd
import pytest
import rich.console
from helpers import ROOT
from safetensors import numpy as safetensors

from rethink_gen import config as config_lib
from rethink_gen import files, runs, train
from rethink_gen.data import streaming, synthetic
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress
from rethink_gen.runs import compare
from rethink_gen.train import checkpoint, compiled, loading

pytestmark = pytest.mark.slow

make_config = functools.partial(helpers.make_config, checkpoint_every=1)


def run(workdir, **changes):
  train.run(make_config(**changes), workdir, no_progress)


def stop_at(epoch):
  """A progress that dies when this epoch is evaluated, as the program might."""

  class Killed(Exception):
    pass

  def say(line, step=None):
    if line.startswith(f'epoch {epoch}/'):
      raise Killed

  @contextlib.contextmanager
  def progress(*_):
    yield (lambda *_: None), say

  return Killed, progress


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder of runs: complete ones, one of them below, an unfinished, a diverged one."""
  folder = tmp_path_factory.mktemp('runs')
  run(folder / 'first')
  run(folder / 'grid/runs/wide', **{'model.width': 48, 'seed': 3})
  run(folder / 'diverged', **{'optimizer.learning_rate': 1e30})
  killed, progress = stop_at(3)
  with pytest.raises(killed):
    train.run(make_config(seed=1), folder / 'unfinished', progress)
  return folder


@pytest.fixture
def copied(made, tmp_path):
  """The same at another path, to damage."""
  return shutil.copytree(made, tmp_path / 'elsewhere')


def contents(folder):
  return {
    path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
    for path in (folder, *folder.rglob('*'))
  }


def assert_same(tree, other):
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  for leaf, expected in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
    assert type(leaf) is np.ndarray
    np.testing.assert_array_equal(leaf, expected)


def accuracies(opened):
  data = opened.dataset()
  return [
    np.mean(opened.predict(images).argmax(-1) == labels)
    for images, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test))
  ]


def last_accuracies(opened):
  return opened.metrics.iloc[-1][['train_accuracy', 'test_accuracy']].tolist()


def test_a_run_is_opened_as_training_left_it(made):
  opened = runs.open(str(made / 'first'))
  assert config_lib.differences(opened.config, make_config()) == []
  assert opened.config.dataset.num_train == 200
  assert opened.metrics.step.tolist() == [6, 12, 18, 24]
  assert (opened.losses.dtype, opened.losses.shape) == (np.float32, (24,))
  assert opened.summary == json.loads((made / 'first/summary.json').read_text())
  assert opened.step == 24
  assert repr(opened) == f'Run({str(made / "first")!r}, step 24, complete)'
  data, _ = loading.load(make_config())
  for mine, expected in zip(opened.dataset(), data, strict=True):
    np.testing.assert_array_equal(mine, expected)
  assert accuracies(opened) == last_accuracies(opened)
  assert opened.batch_stats == {}


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
  """A run that recorded its examples, of data from a file."""
  folder = tmp_path_factory.mktemp('recorded')
  random = np.random.default_rng(0)
  arrays = {
    f'{kind}_{split}': random.integers(0, most, shape, dtype)
    for split, count in (('train', 70), ('test', 20))
    for kind, most, shape, dtype in (
      ('x', 256, (count, 8, 8), np.uint8),
      ('y', 10, count, np.int64),
    )
  }
  np.savez(folder / 'data.npz', **arrays)
  data = {'dataset.name': 'npz', 'dataset.path': str(folder / 'data.npz')}
  run(folder / 'run', **data, **{'dataset.num_train': 64, 'record_examples': True})
  return folder / 'run'


def test_examples_are_a_row_each_with_the_label_that_was_learned(recorded, made):
  opened = runs.open(recorded)
  frame, data = opened.examples, opened.dataset()
  assert list(frame) == [
    *('first_fitted', 'last_fitted', 'forgotten', 'loss', 'right', 'margin', 'label')
  ]
  np.testing.assert_array_equal(frame.label, data.y_train)
  guesses = opened.predict(data.x_train).argmax(-1)
  np.testing.assert_array_equal(frame.right, guesses == frame.label)
  assert frame.loss.mean() == pytest.approx(opened.summary['train_loss'], rel=1e-5)
  assert runs.open(made / 'first').examples is None


def test_examples_have_no_label_where_the_data_are_not_there(recorded):
  opened = runs.open(recorded)
  opened.config.dataset.path = '/nowhere.npz'
  assert list(opened.examples) == list(runs.open(recorded).examples)[:-1]


def test_damaged_examples_are_refused_in_a_sentence(recorded, tmp_path):
  folder = shutil.copytree(recorded, tmp_path / 'run')
  path = folder / 'examples.npz'
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 255
  for content in (b'', b'torn', whole[: len(whole) // 2], bytes(flipped)):
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r'examples\.npz is damaged'):
      _ = runs.open(folder).examples
  np.savez(path, loss=np.zeros(64), right=np.zeros(63, bool))
  with pytest.raises(BadInput, match='arrays differ in length'):
    _ = runs.open(folder).examples
  np.savez(path, loss=np.zeros(63))
  with pytest.raises(BadInput, match='it has 63 examples, but the data have 64'):
    _ = runs.open(folder).examples


MODELS = {
  'mlp': {'model.depth': 11, 'model.width': 8},
  'alexnet': {'dataset.crop_size': 6},
  'inception': {'model.modules': '16+16 16'},
}


@pytest.mark.parametrize('name', MODELS)
def test_parameters_their_start_and_logits_are_those_of_training(name, tmp_path):
  changes = {'model.width': None, 'dataset.num_test': 50, 'seed': 5} | MODELS[name]
  config = make_config(**{'model.name': name, 'dataset.num_train': 40} | changes)
  state, _, evaluate, _ = compiled.build(config, loading.load(config)[0])
  initial = jax.device_get(state.params)
  moved = jax.tree.map(lambda leaf: leaf + 0.01, (state.params, state.batch_stats))
  state = state._replace(step=state.step + 7, params=moved[0], batch_stats=moved[1])
  files.write_json(tmp_path / 'config.json', config.to_dict())
  with checkpoint.open_manager(tmp_path) as manager:
    checkpoint.save(manager, state)
  opened = runs.open(tmp_path)
  assert opened.step == 7
  assert_same(opened.params, state.params)
  assert_same(opened.batch_stats, state.batch_stats)
  assert_same(opened.initial_params(), initial)
  assert opened.num_classes == 10
  data = opened.dataset()
  logits = opened.predict(data.x_test)
  assert (logits.dtype, logits.shape) == (np.float32, (50, 10))
  measured = evaluate(state)
  losses = -jax.nn.log_softmax(logits)[np.arange(50), data.y_test]
  assert float(losses.mean()) == pytest.approx(measured['test_loss'], rel=1e-5)
  assert accuracies(opened)[1] == measured['test_accuracy']


def test_a_streamed_run_is_opened_too(tmp_path):
  synthetic.generate(tmp_path / 'tfds', 70, 21, (24, 48))
  changes = {'dataset.name': 'generated_images', 'dataset.streaming': True}
  changes |= {'dataset.data_dir': str(tmp_path / 'tfds'), 'dataset.crop_size': 24}
  run(tmp_path / 'run', **changes | {'dataset.num_train': None, 'num_epochs': 1})
  opened = runs.open(tmp_path / 'run')
  source = opened.dataset()
  batches = streaming.evaluation_batches(source, opened.config, source.test, 0, 1)
  right = [
    opened.predict(images).argmax(-1)[counts] == labels[counts]
    for images, labels, counts in batches
  ]
  assert np.concatenate(right).mean() == opened.summary['test_accuracy']
  data, _ = loading.load(opened.config)
  assert_same(
    opened.initial_params(),
    jax.device_get(compiled.build(opened.config, data)[0].params),
  )


def test_a_run_of_eight_devices_is_opened_on_one(main, tmp_path):
  arguments = ('--config=configs/quickstart.py', '--config.num_epochs=5')
  done = main(*arguments, f'--workdir={tmp_path}', devices=8)
  assert done.returncode == 0, done.stderr
  assert jax.device_count() == 1
  opened = runs.open(tmp_path)
  assert (opened.step, opened.summary['device'][:1]) == (55, '8')
  assert accuracies(opened) == last_accuracies(opened)


def test_a_run_of_one_device_is_opened_on_eight(made, tmp_path):
  script = (
    'from rethink_gen import runs, train\n'
    f'opened = runs.open({str(made / "first")!r})\n'
    'opened.initial_params()\n'
    f'runs.export(opened, {str(tmp_path / "params.npz")!r})'
  )
  command = [sys.executable, '-c', script]
  subprocess.run(command, cwd=ROOT, env=helpers.environment(8), check=True)
  with np.load(tmp_path / 'params.npz') as file:
    kernel = runs.open(made / 'first').params['Dense_0']['kernel']
    np.testing.assert_array_equal(file['params/Dense_0/kernel'], kernel)


def test_an_unfinished_run_is_opened_at_its_last_checkpoint(made):
  opened = runs.open(made / 'unfinished')
  assert opened.summary is None
  assert opened.step == 12
  assert opened.metrics.epoch.tolist() == [1, 2, 3]
  assert len(opened.losses) == 12
  assert 'unfinished' in repr(opened)
  assert opened.predict(opened.dataset().x_test).shape == (360, 10)


@pytest.mark.parametrize('name', ['diverged', 'new'])
def test_a_run_without_a_checkpoint_has_no_parameters(copied, name):
  (copied / 'new').mkdir()
  shutil.copy(copied / 'first/config.json', copied / 'new')
  opened = runs.open(copied / name)
  assert (opened.step, opened.params, len(opened.metrics)) == (0, None, 0)
  assert (opened.summary or {}).get('status') == {'diverged': 'diverged'}.get(name)
  for function in (
    opened.initial_params,
    lambda: opened.predict(np.zeros((1, 8, 8, 1), np.uint8)),
    lambda: runs.export(opened, copied / 'params.npz'),
  ):
    with pytest.raises(BadInput, match='has no checkpoint, so its parameters are unknown'):
      function()


def test_a_damaged_checkpoint_is_passed_over_and_left_alone(copied, caplog):
  damage = next((copied / 'first/checkpoints/24').glob('state/**/d/*'))
  damage.write_bytes(damage.read_bytes()[:100])
  before = contents(copied)
  opened = runs.open(copied / 'first')
  assert opened.step == 18
  [warning] = caplog.records
  assert 'checkpoints/24 cannot be read' in warning.getMessage()
  assert contents(copied) == before
  shutil.rmtree(copied / 'first/checkpoints/18/state')
  with pytest.raises(BadInput, match='(?s)^No checkpoint in [^\n]* can be read[^\n]*$'):
    runs.open(copied / 'first')


def test_nothing_is_written_into_the_folder(copied):
  before = contents(copied)
  runs.table(copied)
  for name in ('first', 'unfinished', 'diverged'):
    opened = runs.open(copied / name)
    if opened.params:
      opened.initial_params()
      accuracies(opened)
  assert contents(copied) == before


def test_a_folder_that_can_only_be_read_is_enough(copied, tmp_path):
  mounted = tmp_path / 'mounted'
  mounted.mkdir()
  try:
    command = ['mount', '--bind', str(copied), str(mounted)]
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'needs to mount a folder: {error}')
  try:
    command = ['mount', '-o', 'remount,ro,bind', str(mounted)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(OSError, match='Read-only'):
      (mounted / 'new').touch()
    assert len(runs.table(mounted)) == 4
    opened = runs.open(mounted / 'first')
    assert accuracies(opened) == last_accuracies(opened)
    runs.export(opened, tmp_path / 'params.npz')
  finally:
    subprocess.run(['umount', '--lazy', str(mounted)], check=True)


DAMAGES = {
  'config.json': [b'{"seed": ', b'[]', b'\xff\xfe\x00'],
  'summary.json': [b'{"status"', b'7', b'{}'],
  'metrics.jsonl': [b'\xff\xfe\x00\x80\n', b'7\n', b'{"loss": 1}\n'],
}


@pytest.mark.parametrize(
  ('name', 'content'), [(name, c) for name, cs in DAMAGES.items() for c in cs]
)
def test_a_damaged_run_is_named_in_one_sentence(copied, name, content):
  (copied / 'first' / name).write_bytes(content)
  with pytest.raises(BadInput, match=f'(?s)^[^\n]*{name} is damaged[^\n]*$') as refusal:
    runs.open(copied / 'first')
  frame, damaged = compare.make_table(copied)
  assert damaged == {'first': str(refusal.value)}
  assert frame.status['first'] == 'damaged'
  assert pd.isna(frame.train_accuracy['first'])
  assert frame.status['grid/runs/wide'] == 'complete'


def test_damaged_losses_are_named_in_one_sentence(copied):
  (copied / 'first/losses.npy').write_bytes(b'no array')
  with pytest.raises(BadInput, match='(?s)^[^\n]*losses.npy is damaged[^\n]*$'):
    runs.open(copied / 'first')


def test_parts_of_a_run_without_its_config_are_damaged(copied):
  (copied / 'first/config.json').unlink()
  with pytest.raises(BadInput, match='it has no config.json'):
    runs.open(copied / 'first')
  assert runs.table(copied).status['first'] == 'damaged'


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'later': 1}, r'does not know \(later\)'),
    ({'batch_size': 'many'}, 'config.json is damaged'),
    ({'model': 'mlp'}, 'is not that of a training run'),
  ],
)
def test_a_config_of_another_kind_is_refused(copied, change, words):
  path = copied / 'first/config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(BadInput, match=words):
    runs.open(copied / 'first')


def test_a_config_that_is_older_than_a_field_has_its_default(copied):
  path = copied / 'first/config.json'
  stored = json.loads(path.read_text())
  del stored['precision'], stored['dataset']['streaming']
  path.write_text(json.dumps(stored))
  opened = runs.open(copied / 'first')
  assert (opened.config.precision, opened.config.dataset.streaming) == ('float32', False)


def test_the_table_has_what_differs_and_what_came_out(made):
  frame = runs.table(made)
  assert frame.index.tolist() == ['diverged', 'first', 'grid/runs/wide', 'unfinished']
  assert frame.columns.tolist() == [
    *('model.width', 'optimizer.learning_rate', 'seed', 'status', 'epochs'),
    *('train_accuracy', 'test_accuracy', 'generalization_gap', 'steps_to_fit', 'seconds'),
  ]
  assert frame.seed.tolist() == [0, 0, 3, 1]
  assert frame['model.width'].tolist() == [32, 32, 48, 32]
  statuses = ['diverged', 'complete', 'complete', 'unfinished']
  assert frame.status.tolist() == statuses
  assert frame.epochs.tolist() == [1, 4, 4, 3]
  for name in ('first', 'grid/runs/wide'):
    summary = json.loads((made / name / 'summary.json').read_text())
    for column in ('train_accuracy', 'generalization_gap', 'seconds'):
      assert frame.loc[name, column] == summary[column]
  last = json.loads((made / 'unfinished/metrics.jsonl').read_text().splitlines()[-1])
  unfinished = frame.loc['unfinished']
  assert unfinished.test_accuracy == last['test_accuracy']
  gap = last['train_accuracy'] - last['test_accuracy']
  assert unfinished.generalization_gap == gap


def test_steps_to_fit_stay_whole_numbers(copied, tmp_path):
  run(copied / 'fits', **{'num_epochs': 300, 'stop_at_train_accuracy': 0.5})
  frame = runs.table(copied)
  assert frame.steps_to_fit['fits'] % 6 == 0
  assert isinstance(frame.steps_to_fit['fits'], int | np.integer)
  assert pd.isna(frame.steps_to_fit['first'])


def test_folders_that_are_no_run_are_passed_over(copied):
  other = copied / 'kernel'
  (other / 'networks/one').mkdir(parents=True)
  shutil.copytree(copied / 'first', other / 'networks/two')
  (other / 'config.json').write_text('{"dataset": "digits", "seed": 0}')
  (other / 'summary.json').write_text('{"status": "complete"}')
  for name in ('empty', 'notes'):
    (copied / name).mkdir()
  (copied / 'notes/config.json').write_text('not of ours')
  (copied / 'file').touch()
  (copied / 'audit/runs/gaussian').mkdir(parents=True)
  (copied / 'audit/audit.json').write_text('{}')
  shutil.copy(copied / 'first/metrics.jsonl', copied / 'audit/runs/gaussian')
  assert len(runs.table(copied)) == 4


def test_a_run_alone_is_a_table_of_one(made, monkeypatch):
  assert runs.table(made / 'first').index.tolist() == ['first']
  monkeypatch.chdir(made / 'first')
  assert runs.table('.').index.tolist() == ['first']


@pytest.mark.parametrize(('name', 'words'), [('nowhere', 'no folder'), ('', 'no run in')])
def test_a_folder_without_runs_is_refused(tmp_path, name, words):
  with pytest.raises(BadInput, match=words):
    runs.table(tmp_path / name)


def test_the_printed_table_is_readable_at_80_columns(copied, capsys):
  path = copied / 'first/config.json'
  stored = json.loads(path.read_text())
  stored['model'] |= {'name': 'alexnet', 'width': None}
  stored['regularization'] |= {'random_crop': True, 'weight_decay': 5e-4}
  stored['corruption']['seed'] = 12
  path.write_text(json.dumps(stored))
  for width, in_columns in ((80, False), (200, True)):
    compare.print_table(*compare.make_table(copied), rich.console.Console(width=width))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = '\n'.join(lines)
    assert ('random_crop=True' in text) == (not in_columns)
    assert 'corruption.seed' in text
    assert ' epoch 3 ' in text
    [row] = [line for line in lines if line.startswith('grid/runs/wide')]
    frame = runs.table(copied).loc['grid/runs/wide']
    assert f' {frame.test_accuracy:.2%} ' in row


def complete(*arguments):
  command = [sys.executable, '-m', 'rethink_gen.runs', *map(str, arguments)]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_program_lists_runs_and_says_which_are_damaged(copied):
  (copied / 'first/config.json').write_text('{')
  done = complete(copied)
  assert (done.returncode, done.stderr) == (0, '')
  lines = done.stdout.splitlines()
  [row] = [line for line in lines if line.startswith('first ')]
  assert 'damaged' in row
  [sentence] = [line for line in lines if line.startswith('first: ')]
  assert 'config.json is damaged' in sentence


def test_the_program_exports_one_run(copied, tmp_path):
  opened = runs.open(copied / 'first')
  for suffix in ('npz', 'safetensors'):
    path = tmp_path / f'params.{suffix}'
    done = complete(copied / 'first', f'--export={path}')
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'The parameters of step 24 are in {path}.\n'
    arrays = dict(np.load(path)) if suffix == 'npz' else safetensors.load_file(path)
    assert arrays.keys() == {
      f'params/Dense_{i}/{name}' for i in range(2) for name in ('kernel', 'bias')
    }
    np.testing.assert_array_equal(
      arrays['params/Dense_1/kernel'], opened.params['Dense_1']['kernel']
    )
  assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ((), 'Give one folder'),
    (('runs', 'more'), 'Give one folder'),
    (('runs', '--nope'), "Unknown command line flag 'nope'"),
    (('/nowhere',), 'no folder /nowhere'),
    (('/nowhere', '--export=a.npz'), '/nowhere is not the folder of a run'),
    (('{first}', '--export=a.txt'), "'a.txt', but it must end in .npz or .safetensors"),
    (('{first}', '--export=/nowhere/a.npz'), 'There is no folder /nowhere'),
    (('{first}', '--export={first}/losses.npz'), 'losses.npz already exists'),
  ],
)
def test_a_command_that_makes_no_sense_is_refused(copied, arguments, words):
  first = copied / 'first'
  (first / 'losses.npz').touch()
  before = contents(copied)
  done = complete(*(argument.format(first=first) for argument in arguments))
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1
  assert words in done.stderr
  assert contents(copied) == before


@pytest.mark.parametrize(
  'images',
  [
    np.zeros((2, 8, 8), np.uint8),
    np.zeros((2, 5, 5, 1), np.uint8),
    np.zeros((0, 8, 8, 1), np.uint8),
    np.zeros((2, 8, 8, 1), np.int64),
  ],
)
def test_images_of_another_kind_are_refused(made, images):
  with pytest.raises(BadInput, match='but they must be uint8'):
    runs.open(made / 'first').predict(images)


def test_a_linked_run_is_in_the_table_and_each_run_once(made, tmp_path):
  folder = tmp_path / 'linked'
  folder.mkdir()
  shutil.copytree(made / 'first', folder / 'first')
  (folder / 'a_link').symlink_to('first')  # sorts before what it leads to
  (folder / 'elsewhere').symlink_to(made / 'unfinished')
  (folder / 'grid').symlink_to(made / 'grid')
  (folder / 'up').symlink_to('..')
  (folder / 'nothing').symlink_to('/nowhere')
  assert runs.table(folder).index.tolist() == ['elsewhere', 'first', 'grid/runs/wide']
  (tmp_path / 'whole').symlink_to(made)
  assert runs.table(tmp_path / 'whole').index.tolist() == runs.table(made).index.tolist()
