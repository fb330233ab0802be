import json
import os
import signal
import subprocess
import sys

import flax.linen as nn
import forked
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import environment
from sklearn import (
  base,
  dummy,
  ensemble,
  linear_model,
  naive_bayes,
  pipeline,
  preprocessing,
  svm,
)

import rethink_gen
from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.audit import adapters, flax_modules, randomizations, trainings, verdicts
from rethink_gen.data import corruption, sources
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress
from rethink_gen.text import format_percent
from rethink_gen.train import metrics

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
FIGURES = ('train_accuracy', 'test_accuracy', 'train_loss', 'test_loss', 'steps_to_fit')


class Wide(nn.Module):
  """Two layers, wide enough to memorize; takes no argument for training."""

  num_classes: int = 10
  width: int = 256

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(x)


class Regularized(nn.Module):
  """Batch normalization and dropout, and an argument that says the opposite of train."""

  @nn.compact
  def __call__(self, x, deterministic):
    x = nn.Dense(32)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=deterministic)(x))
    x = nn.Dropout(0.5, deterministic=deterministic)(x)
    return nn.Dense(10)(x)


class Tokens(nn.Module):
  """A recurrent network on integers."""

  @nn.compact
  def __call__(self, x):
    x = nn.Embed(17, 8)(x)
    x = nn.RNN(nn.GRUCell(16))(x)
    return nn.Dense(10)(x[:, -1])


@pytest.fixture(scope='module')
def digits():
  """A Dataset of 200 + 100 digits, uint8 (n, 8, 8, 1)."""
  return sources.first(sources.load('digits'), 200, 100)


def vectors(digits):
  """(x_train, y_train, x_test, y_test), the inputs float32 (n, 64)."""
  x, y, x_test, y_test, _ = digits
  x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x, x_test))
  return x, y, x_test, y_test


@pytest.fixture
def test(tmp_path):
  """The randomization test in a folder of its own, unseen, with one seed and two levels."""

  def run(model, *arrays, **options):
    defaults = {
      'noise_levels': (),
      'seeds': 1,
      'workdir': tmp_path / 'audit',
      'progress': no_progress,
    }
    if not hasattr(model, 'fit'):
      defaults |= {'num_epochs': 3, 'batch_size': 40}
    return rethink_gen.randomization_test(model, *arrays, **defaults | options)

  return run


@pytest.fixture(scope='module')
def memorizer(digits, tmp_path_factory):
  """The audit of a network that fits anything."""
  return rethink_gen.randomization_test(
    Wide(),
    *vectors(digits),
    optimizer=optax.adam(3e-3),
    num_epochs=200,
    batch_size=40,
    noise_levels=(0.5,),
    seeds=2,
    workdir=tmp_path_factory.mktemp('memorizer'),
    progress=no_progress,
  )


def test_the_package_itself_stays_light():
  code = 'import sys, rethink_gen; print("jax" in sys.modules, "numpy" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.stdout.split() == ['False', 'False'], done.stderr


def test_the_package_says_what_it_does_not_have():
  with pytest.raises(AttributeError, match='no attribute'):
    _ = rethink_gen.nothing


# What is measured.


def test_a_memorizer_is_found_out(memorizer):
  true, half, noise = memorizer.levels[:3]
  assert [level['fitted'] for level in (true, half, noise)] == [2, 2, 2]
  assert min(noise['times_longer'], half['times_longer']) > 1.5
  assert true['times_longer'] == 1
  assert noise['times_longer'] == np.median(
    np.divide(noise['steps_to_fit'], true['steps_to_fit'])
  )
  assert true['test_accuracy'] > half['test_accuracy'] > noise['test_accuracy']
  assert true['p_value'] == 1 / 10_000
  assert memorizer.rademacher['min'] > 0.95
  text = ' '.join(memorizer.verdict)
  assert text.startswith(
    'It fits random labels (drawn uniformly over the classes): in 2 of'
  )
  assert 'being too small to memorize its training set cannot be why' in text


def test_the_report_holds_what_was_measured(memorizer):
  page = (memorizer.workdir / 'report.html').read_text()
  assert '<h1>It fits random labels</h1>' in page
  assert 'src="data:image/png;base64,' in page
  assert '://' not in page
  stored = json.loads((memorizer.workdir / 'results.json').read_text())
  assert stored['levels'] == memorizer.levels
  assert stored['verdict'] == memorizer.verdict
  accuracy = memorizer.table.train_accuracy['label_noise_1']
  assert format_percent(accuracy) in page
  assert format_percent(accuracy) in str(memorizer)
  assert (memorizer.workdir / 'figure.png').read_bytes().startswith(b'\x89PNG')


def test_the_folder_keeps_no_parameters(memorizer):
  assert len(list(memorizer.workdir.glob('runs/*/seed_*/summary.json'))) == 2 * 7
  assert not list(memorizer.workdir.glob('runs/*/*/checkpoints'))


def test_a_linear_model_does_not_fit_random_labels(test, digits):
  x, y, x_test, y_test = vectors(digits)
  # Ten inputs: no linear map of them separates 200 examples with random labels.
  linear = test(
    nn.Dense(10),
    x[:, 20:30],
    y,
    x_test[:, 20:30],
    y_test,
    num_epochs=60,
    batch_size=100,
    seeds=2,
  )
  noise = linear.levels[1]
  assert noise['name'] == 'label_noise_1'
  assert noise['fitted'] == 0
  assert noise['train_accuracy'] < 0.4
  assert linear.rademacher['max'] < 0.6
  text = ' '.join(linear.verdict)
  assert text.startswith('It did not fit random labels (drawn uniformly')
  assert 'with these settings within 60 epochs (120 steps)' in text
  assert 'memorize' not in text


def test_a_model_that_had_no_time_is_not_said_to_be_unable(test, digits):
  text = ' '.join(test(Wide(), *vectors(digits)).verdict)
  assert 'with these settings within 3 epochs (15 steps)' in text
  assert 'was still rising' in text


def test_a_run_is_that_of_train(test, digits, tmp_path):
  config = config_lib.default()
  changes = {
    'optimizer.learning_rate': 0.1,
    'regularization.weight_decay': 0.001,
    'regularization.dropout_rate': 0.1,
    'dataset.num_train': 200,
    'dataset.num_test': 100,
    'model.width': 32,
    'batch_size': 40,
    'num_epochs': 4,
    'stop_at_train_accuracy': 0.6,
  }
  config.update_from_flattened_dict(changes)
  audited = test(
    config,
    *digits[:4],
    noise_levels=(0.4,),
    seeds=2,
    num_epochs=None,
    batch_size=None,
    fit_accuracy=0.6,
  )
  setups = {
    'label_noise_0.4': {'corruption.mode': 'partial_labels', 'corruption.label_noise': 0.4},
    'shuffled_pixels': {'corruption.mode': 'shuffled_pixels'},
  }
  for name, changes in setups.items():
    own = config.copy_and_resolve_references()
    own.update_from_flattened_dict(changes | {'seed': 1, 'corruption.seed': 1})
    summary = train.run(own, tmp_path / name, no_progress)
    run = trainings.read_run(audited.workdir / 'runs' / name / 'seed_1')
    assert {f: run.summary[f] for f in FIGURES} == {f: summary[f] for f in FIGURES}
    losses = metrics.read_steps(audited.workdir / 'runs' / name / 'seed_1', 'losses')
    assert losses.tolist() == metrics.read_steps(tmp_path / name, 'losses').tolist()
    right = (run.predictions == digits.y_test).mean()
    assert right == pytest.approx(summary['test_accuracy'])


# Models and data of all kinds.


def test_a_module_with_batch_normalization_and_dropout(test, digits):
  x, y, *_ = vectors(digits)
  modes = flax_modules.training_modes(Regularized(), None, jnp.zeros((1, 64)))
  model = adapters.of_module(modes)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 64)), train=False)
  assert variables['batch_stats'].keys() == {'batch_stats'}
  same = [model.apply(variables, x[:5], train=False) for _ in range(2)]
  np.testing.assert_array_equal(*same)
  outputs, updated = model.apply(
    variables, x[:5], train=True, mutable=['any'], rngs={'dropout': jax.random.key(1)}
  )
  assert not np.allclose(outputs, same[0])
  before, after = (
    np.asarray(v['batch_stats']['batch_stats']['BatchNorm_0']['mean'])
    for v in (variables, updated)
  )
  assert not np.allclose(before, after)
  found = test(Regularized(), *vectors(digits), num_epochs=40)
  assert found.levels[0]['test_accuracy'] > 0.7


def test_a_pair_of_functions_is_the_module_it_was_made_of(test, digits, tmp_path):
  arrays = vectors(digits)
  module = test(nn.Dense(10), *arrays)
  model = nn.Dense(10)
  functions = test((model.init, model.apply), *arrays, workdir=tmp_path / 'pair')
  assert functions.levels == module.levels

  def init(key, inputs):
    return {'w': jnp.zeros((inputs.shape[-1], 10)), 'b': jnp.zeros(10)}

  def apply(params, inputs):
    return inputs @ params['w'] + params['b']

  own = test((init, apply), *arrays, num_epochs=30, workdir=tmp_path / 'own')
  assert own.levels[0]['test_accuracy'] > 0.7


def test_images_of_uint8_and_their_noise_are_scaled(test, digits, tmp_path):
  of_images = test(Wide(), *digits[:4])
  of_vectors = test(Wide(), *vectors(digits), workdir=tmp_path / 'vectors')
  for field in ('train_accuracy', 'test_accuracy'):
    # The Gaussian is another: that of a channel of images, of a feature of vectors.
    one, other = of_images.table[field].iloc[:4], of_vectors.table[field].iloc[:4]
    np.testing.assert_allclose(one, other, atol=0.02)


def test_images_without_a_channel_are_those_with_one(test, digits, tmp_path):
  images, y, x_test, y_test, _ = digits
  flat = test('mlp', images[..., 0], y, x_test[..., 0], y_test, num_epochs=1)
  whole = test('mlp', *digits[:4], num_epochs=1, workdir=tmp_path / 'whole')
  assert flat.levels == whole.levels


def test_sequences_of_tokens(test, digits):
  x, y, x_test, y_test, _ = digits
  x, x_test = (np.int64(a[:, :, 4, 0]) // 16 for a in (x, x_test))
  found = test(Tokens(), x, y, x_test, y_test)
  assert 'gaussian' not in found.table.index
  assert found.settings['input_type'] == 'int32'


@pytest.mark.parametrize(
  ('shape', 'dtype', 'positions'),
  [
    ((6,), np.float32, (6, 1, 1)),
    ((5, 3), np.float32, (5, 1, 3)),
    ((5, 3), np.uint8, (15, 1, 1)),
    ((4, 4, 3), np.uint8, (16, 1, 3)),
    ((2, 3, 4, 5), np.float32, (24, 1, 5)),
  ],
)
def test_positions_are_permuted_with_their_channels(shape, dtype, positions):
  x = RANDOM.integers(0, 256, (30, *shape)).astype(dtype)
  y = np.arange(30, dtype=np.int32) % 2
  dataset = sources.Dataset(x, y, x[:7], y[:7], 2)
  assert randomizations.layout(x, 'random_pixels') == positions
  for mode in ('shuffled_pixels', 'random_pixels'):
    changed = randomizations.randomize(dataset, randomizations.Setup(mode, mode, 0.0), 3)
    assert changed.x_train.shape == x.shape
    flat, before = (a.reshape(30, *positions) for a in (changed.x_train, x))
    order = np.lexsort(flat[0, :, 0].T), np.lexsort(before[0, :, 0].T)
    np.testing.assert_array_equal(flat[0, order[0]], before[0, order[1]])
    assert (changed.x_train != x).any()
  gaussian = randomizations.randomize(
    dataset, randomizations.Setup('gaussian', 'gaussian', 0.0), 3
  )
  assert gaussian.x_train.shape == x.shape
  assert gaussian.x_train.mean() == pytest.approx(x.mean(), rel=0.2)


def test_images_are_randomized_as_the_package_does(digits):
  for mode in ('shuffled_pixels', 'random_pixels', 'gaussian'):
    ours = randomizations.randomize(digits, randomizations.Setup(mode, mode, 0.0), 2)
    for one, other in zip(ours, corruption.corrupt(digits, mode, 2), strict=True):
      np.testing.assert_array_equal(one, other)


# Estimators.


def test_a_forest_memorizes_and_a_support_vector_machine_need_not(test, digits, tmp_path):
  arrays = vectors(digits)
  trees = ensemble.RandomForestClassifier(30, bootstrap=False)
  forest = test(trees, *arrays, seeds=2)
  assert [level['fitted'] for level in forest.levels[:2]] == [2, 2]
  assert forest.levels[0]['test_accuracy'] > 0.8
  assert [forest.rademacher[name] for name in ('mean', 'min', 'max')] == [1, 1, 1]
  assert forest.rademacher['draws'] == 2
  assert forest.rademacher['upper_bound'] is None
  assert forest.verdict[0].startswith('It fits random labels')
  assert not any('steps' in sentence for sentence in forest.verdict)
  soft = pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC(C=0.1))
  machine = test(soft, *arrays, workdir=tmp_path / 'svm')
  assert machine.levels[1]['fitted'] == 0
  assert machine.verdict[0].startswith('It did not fit random labels (')


def test_guessing_is_not_said_to_learn(test, digits):
  found = test(dummy.DummyClassifier(strategy='uniform'), *vectors(digits))
  assert found.levels[0]['p_value'] > verdicts.LEVEL
  assert any('not shown to be better than chance' in s for s in found.verdict)


def test_an_estimator_keeps_its_numbers_whatever_it_writes_in(test, digits, tmp_path):
  x, y, x_test, y_test = vectors(digits)
  found = [
    test(
      pipeline.make_pipeline(
        preprocessing.StandardScaler(copy=copy), linear_model.RidgeClassifier()
      ),
      *(x, y, x_test, y_test),
      workdir=tmp_path / str(copy),
    )
    for copy in (True, False)
  ]
  assert found[0].levels == found[1].levels
  assert found[0].levels[0]['test_accuracy'] > 0.7


@pytest.mark.parametrize('scale', ['shifted', 'seconds', 'huge'])
def test_numbers_beyond_float32_and_int32_reach_an_estimator(test, scale):
  y = np.arange(200) // 3 % 2
  x = {'shifted': y << 33, 'seconds': 1.7e9 + y, 'huge': 1e39 * y}[scale][:, None]
  model = pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC())
  assert test(model, x, y, x, y).levels[0]['test_accuracy'] == 1.0


class Nearest(base.BaseEstimator):
  """The nearest class mean: quick, and with an edit of its code as a parameter."""

  def fit(self, x, y):
    self.means_ = np.stack([x[y == k].mean(0) for k in range(y.max() + 1)])
    return self

  def predict(self, x):
    return ((x[:, None] - self.means_) ** 2).sum(2).argmin(1)


def test_numbers_of_numpy_are_taken_and_written(test, digits, tmp_path):
  plain = test(Nearest(), *vectors(digits), fit_accuracy=0.5, seeds=2)
  for seeds, fit_accuracy in ((np.int64(2), np.float32(0.5)), (np.uint8(2), 0.5)):
    options = {'seeds': seeds, 'fit_accuracy': fit_accuracy, 'workdir': tmp_path / 'other'}
    found = test(Nearest(), *vectors(digits), noise_levels=np.zeros(1), **options)
    assert found.levels == plain.levels
    stored = json.loads((found.workdir / 'results.json').read_text())
    assert stored['settings']['seeds'] == 2


def test_a_setup_that_fails_leaves_the_others(test, digits):
  found = test(naive_bayes.GaussianNB(priors=[0.1] * 10), *vectors(digits))
  assert found.rademacher is None
  assert found.verdict[0].startswith('Failed: 1 of 1 runs of the setup random_signs')
  assert 'Number of priors must match' in found.verdict[0]
  assert found.table.failed.sum() == 0
  assert found.levels[0]['test_accuracy'] > 0.6
  assert 'Number of priors' in (found.workdir / 'report.html').read_text()
  assert not (found.workdir / 'runs/random_signs/seed_0').exists()  # tried again


class Fragile(Nearest):
  """Cannot be fitted to negative inputs, which Gaussian ones alone have."""

  def fit(self, x, y):
    if x.min() < 0:
      raise ValueError('negative inputs')
    return super().fit(x, y)


def test_a_level_that_fails_is_not_said_to_diverge(test, digits):
  found = test(Fragile(), *vectors(digits), seeds=2)
  assert found.table.failed['gaussian'] == 2
  assert found.table.diverged.sum() == 0
  assert found.verdict[0].startswith('Failed: 2 of 2 runs of the setup gaussian')
  assert 'diverged' not in str(found)
  assert found.table.failed['random_pixels'] == 0


def test_what_fails_at_once_takes_no_folder(test, digits):
  for _ in range(2):
    with pytest.raises(BadInput, match='cannot be fitted'):
      test(svm.SVC(C=-1.0), *vectors(digits))
  assert test(Nearest(), *vectors(digits)).levels[0]['runs'] == 1  # in the same folder


def test_results_are_those_of_this_code(test, digits, monkeypatch):
  arrays = vectors(digits)
  first = test(Nearest(), *arrays)
  assert test(Nearest(), *arrays).levels == first.levels

  def predict(self, x):
    return np.full(len(x), 3)

  monkeypatch.setattr(Nearest, 'predict', predict)
  with pytest.raises(BadInput, match='another model or training; choose'):
    test(Nearest(), *arrays)
  monkeypatch.chdir(first.workdir.parent)
  assert test(Nearest(), *arrays, workdir=None).levels != first.levels


class Opaque(Nearest):
  """Has a parameter of which nobody can say what it is."""

  def __init__(self, source=None):
    self.source = source


class Source:
  """A stream, which can be copied but neither stored nor compared."""

  def __deepcopy__(self, memo):
    return self

  def __reduce_ex__(self, protocol):
    raise TypeError('a stream has no state')


def test_a_model_that_cannot_be_known_is_run_again(test, digits, monkeypatch, caplog):
  arrays = vectors(digits)
  found = test(Opaque(Source()), *arrays)
  assert 'cannot be determined (TypeError: a stream has no state)' in caplog.text
  with pytest.raises(BadInput, match='cannot be determined; choose another workdir'):
    test(Opaque(Source()), *arrays)
  monkeypatch.chdir(found.workdir.parent)
  folders = [test(Opaque(Source()), *arrays, workdir=None).workdir for _ in range(2)]
  assert folders[0] != folders[1]


def test_the_folder_says_what_is_other(test, digits):
  x, y, x_test, y_test = vectors(digits)
  test(Nearest(), x, y, x_test, y_test)
  test(Nearest(), x, y, x_test, y_test, fit_accuracy=0.5)  # trains an estimator alike
  with pytest.raises(BadInput, match='holds an audit of other data;'):
    test(Nearest(), x.astype(np.float64), y, x_test, y_test)
  with pytest.raises(BadInput, match='another model or training and of other data;'):
    test(svm.SVC(), x + 1, y, x_test, y_test)


def test_nothing_is_shown_without_progress(test, digits, capsys):
  test(Nearest(), *vectors(digits), progress=None)
  assert capsys.readouterr().out == ''


# Interruptions.


def test_an_audit_that_was_killed_goes_on_to_the_same_result(start, tmp_path):
  arguments = ('--model=mlp', '--num_train=300', '--seeds=1', '--noise_levels=0.5')
  arguments += ('--epochs=40', '--learning_rate=0.1', '--batch_size=32')

  def levels(folder):
    return json.loads((folder / 'results.json').read_text())['levels']

  def run(name):
    return start('rethink_gen.audit', *arguments, f'--workdir={tmp_path}/{name}')

  whole = run('whole')
  out, err = whole.communicate(timeout=200)
  assert whole.returncode == 0, err
  assert 'random labels' in out
  for number in (signal.SIGKILL, signal.SIGTERM):
    killed = run('killed')
    assert killed.stdout.readline()  # one more run is finished
    killed.send_signal(number)
    killed.communicate(timeout=60)
    assert killed.returncode in (-number, 128 + number)  # or between two runs
    assert not (tmp_path / 'killed/results.json').exists()
  again = run('killed')
  _, err = again.communicate(timeout=200)
  assert again.returncode == 0, err
  assert levels(tmp_path / 'killed') == levels(tmp_path / 'whole')


def test_more_seeds_run_only_what_is_new(test, digits):
  first = test(Wide(), *vectors(digits))
  file = first.workdir / 'runs/label_noise_0/seed_0/summary.json'
  before = os.stat(file).st_mtime_ns
  second = test(Wide(), *vectors(digits), seeds=2)
  assert os.stat(file).st_mtime_ns == before
  assert second.levels[0]['runs'] == 2
  with pytest.raises(BadInput, match='an audit of another model or training;'):
    test(Wide(), *vectors(digits), optimizer=optax.adam(0.002))


# Bad input.


def corrupted(digits, **changes):
  names = ('x_train', 'y_train', 'x_test', 'y_test')
  arrays = dict(zip(names, vectors(digits), strict=True))
  return list((arrays | changes).values())


BAD_DATA = {
  'lengths': ({'y_train': np.zeros(7, int)}, '200 examples and y_train 7 labels'),
  'nan': ({'x_train': np.full((200, 64), np.nan)}, 'NaN or infinite values in 200'),
  'one class': ({'y_train': np.zeros(200, int)}, 'at least two classes'),
  'float labels': ({'y_train': np.zeros(200)}, 'labels must be integers'),
  'ragged': ({'x_train': [[1, 2], [3]] * 100}, 'cannot be made a NumPy array'),
  'beyond float32': ({'x_train': np.full((200, 64), 1e39)}, 'a network takes float32'),
  'test labels': ({'y_test': np.full(100, 10)}, 'y_test has the labels 10'),
  'text': ({'x_train': np.full((200, 64), 'a')}, 'must be numbers'),
  'empty': ({'x_train': np.zeros((0, 64)), 'y_train': np.zeros(0, int)}, 'empty'),
  'gaps': ({'y_train': np.arange(200) % 10 * 2}, 'numpy.unique'),
  'negative': ({'y_train': np.arange(200) % 10 - 1}, 'from -1 to 8'),
  'half a test set': ({'x_test': None}, 'Only one of x_test and y_test'),
  'shapes': ({'x_test': np.zeros((100, 63), np.float32)}, 'differ only in length'),
}


@pytest.mark.parametrize('case', BAD_DATA)
def test_data_that_cannot_be_used_is_refused_in_a_sentence(test, digits, case, tmp_path):
  changes, words = BAD_DATA[case]
  with pytest.raises(BadInput, match=words) as caught:
    test(Wide(), *corrupted(digits, **changes))
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'audit').exists()


class Raises(nn.Module):
  @nn.compact
  def __call__(self, x):
    raise KeyError('no such layer')


BAD_MODELS = {
  'width': (Wide(num_classes=7), {}, r'output of shape \(40, 7\).* 10 classes'),
  'raises': (Raises(), {}, "KeyError: 'no such layer'"),
  'another rank': (nn.Conv(10, (3, 3)), {}, 'raises an error|output of shape'),
  'a number': (3, {}, 'must be a Flax linen module'),
  'a class': (svm.SVC, {}, 'must be a Flax linen module'),
  'a name': ('resnet', {}, "no model 'resnet'"),
  'own model on vectors': ('mlp', {}, 'take uint8 images'),
  'optimizer': (Wide(), {'optimizer': 'adam'}, 'optax transformation'),
  'optimizer of an estimator': (svm.SVC(), {'optimizer': optax.adam(1)}, 'leave the opt'),
  'estimator': (svm.SVC(C=-1.0), {}, 'cannot be fitted'),
  'epochs': (Wide(), {'num_epochs': 0}, 'num_epochs is 0'),
  'batch': (Wide(), {'batch_size': 500}, '200 training examples'),
  'no batch': (Wide(), {'batch_size': 2.5}, 'batch_size is 2.5'),
  'noise': (Wide(), {'noise_levels': (0.2, 1.5)}, 'probabilities from 0 to 1'),
  'noise that is no number': (Wide(), {'noise_levels': (float('nan'),)}, 'from 0 to 1'),
  'seeds': (Wide(), {'seeds': 0}, 'seeds is 0'),
  'no seeds': (Wide(), {'seeds': True}, 'seeds is True'),
  'epochs of an estimator': (svm.SVC(), {'num_epochs': 7}, 'leave num_epochs out'),
  'batch of an estimator': (svm.SVC(), {'batch_size': 7}, 'leave batch_size out'),
  'folder': (svm.SVC(), {'workdir': 3}, 'workdir is 3'),
  'a regression': (linear_model.LinearRegression(), {}, 'a label is a whole number'),
  'threshold': (Wide(), {'fit_accuracy': 99}, 'fit_accuracy is 99'),
}


@pytest.mark.parametrize('case', BAD_MODELS)
def test_what_cannot_be_trained_is_refused_in_a_sentence(test, digits, case):
  model, options, words = BAD_MODELS[case]
  with pytest.raises(BadInput, match=words) as caught:
    test(model, *vectors(digits), **options)
  assert '\n' not in str(caught.value)


def test_a_loss_that_diverges_is_reported_and_the_rest_goes_on(test, digits):
  x, y, x_test, y_test = vectors(digits)

  def apply(params, inputs):
    # Of inputs that were permuted alone the outputs are not numbers.
    moved = jnp.any(inputs[:, 0] > 0.5)
    return inputs @ params / jnp.where(moved, 0.0, 1.0)

  def init(key, inputs):
    return jnp.zeros((inputs.shape[-1], 10))

  found = test((init, apply), x, y, x_test, y_test)
  assert (x[:, 0] <= 0.5).all()
  assert found.table.diverged.tolist() == [0, 0, *found.table.diverged[2:]]
  assert found.table.diverged['random_pixels'] == 1
  assert found.verdict[0].startswith('Diverged: the loss was no longer a finite number')
  assert any('did not fit random labels' in sentence for sentence in found.verdict)
  everything = test(
    Wide(), x, y, optimizer=optax.sgd(1e30), workdir=found.workdir.parent / 'all'
  )
  assert everything.table.diverged.all()
  assert everything.rademacher is None
  assert 'unknown' in ' '.join(everything.verdict)


def test_without_a_test_set_a_part_is_held_out(test, digits):
  x, y, *_ = vectors(digits)
  found = test(Wide(), x, y)
  assert (found.settings['num_train'], found.settings['num_test']) == (160, 40)
  assert 'no test set was given' in found.verdict[-1]
  assert 'no test set was given' in (found.workdir / 'report.html').read_text()


# The command.


@pytest.fixture
def command(tmp_path):
  """command(*arguments): the program, in a folder with a module of the user's own."""
  (tmp_path / 'own.py').write_text(
    'import flax.linen as nn\n\ndef make(num_classes):\n  return nn.Dense(num_classes)\n'
  )

  def run(*arguments):
    return forked.complete(('rethink_gen.audit', *arguments), environment(), tmp_path, 200)

  return run


def test_the_command_audits_a_file_and_a_model_of_the_users_own(command, digits, tmp_path):
  x, y, x_test, y_test = vectors(digits)
  np.savez(tmp_path / 'my.npz', x_train=x, y_train=y)
  options = ('--epochs=3', '--seeds=1', '--noise_levels=0.5')
  done = command('--data=my.npz', '--model=own:make', *options)
  assert done.returncode == 0, done.stderr
  (report,) = (tmp_path / 'runs/audit').glob('*/report.html')
  assert 'no test set was given' in report.read_text()
  assert 'at most' in done.stdout  # how much time is left
  done = command('--data=my.npz', '--estimator=sklearn.svm:SVC', '--seeds=1')
  assert done.returncode == 0, done.stderr
  assert len(list((tmp_path / 'runs/audit').glob('*/report.html'))) == 2


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ((), 'Give either --model or --estimator'),
    (('--model=own:nothing',), 'does not give a model (AttributeError'),
    (('--data=none.npz', '--model=mlp'), 'there is no file none.npz'),
    (('--model=mlp', '--epochs=many'), 'flag --epochs=many'),
    (('--model=mlp', '--num_train=-5'), '--num_train is -5'),
    (('--model=mlp', '--num_train=5000'), 'there are 1,437 training examples'),
    (('--model=mlp', '--num_train=5'), 'only 5 of 10 classes; take more, or shuffle'),
    (('--estimator=sklearn.svm:SVC', '--learning_rate=0.1'), 'leave --learning_rate out'),
    (('--estimator=sklearn.svm:SVC', '--epochs=3'), 'leave --epochs out'),
  ],
)
def test_the_command_refuses_in_a_sentence(command, arguments, words):
  done = command(*arguments)
  assert done.returncode == 2
  assert words in done.stderr
  assert 'Traceback' not in done.stderr
