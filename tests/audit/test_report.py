import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import (
  dummy,
  ensemble,
  linear_model,
  naive_bayes,
  neighbors,
  neural_network,
  pipeline,
  preprocessing,
  svm,
)

import rethink_gen
from rethink_gen.audit import (
  adapters,
  randomizations,
  statistics,
  testing,
  trainings,
  verdicts,
)
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress
from rethink_gen.text import format_percent
from rethink_gen.theory import significance


@pytest.fixture(scope='module')
def digits():
  """(x_train, y_train, x_test, y_test): float32 (200, 64) and 100 test digits."""
  data = sources.first(sources.load('digits'), 200, 100)
  x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in data[::2][:2])
  return x, data.y_train, x_test, data.y_test


@pytest.fixture
def test(tmp_path):
  """The randomization test in a folder of its own, with one seed and two levels."""

  def run(model, *arrays, name='audit', **options):
    defaults = {
      'noise_levels': (),
      'seeds': 1,
      'workdir': tmp_path / name,
      'progress': no_progress,
    }
    return rethink_gen.randomization_test(model, *arrays, **defaults | options)

  return run


def text(result):
  return ' '.join(result.verdict)


def noise_images(count, seed, share=0.1):
  random = np.random.default_rng(seed)
  labels = (random.random(count) < share).astype(np.int64)
  return random.standard_normal((count, 16), np.float32), labels


# Chance.


def test_noise_with_a_large_class_is_not_said_to_be_learned(test):
  x, y = noise_images(400, 0)
  x_test, y_test = noise_images(200, 1)
  found = test(dummy.DummyClassifier(strategy='most_frequent'), x, y, x_test, y_test)
  share = np.mean(y_test == 0)
  assert share > 0.85
  assert found.settings['chance_accuracy'] == share
  assert found.settings['constant_guess'] == 0
  assert found.levels[0]['test_accuracy'] == share
  assert 'is above chance' not in text(found)
  assert text(found).count('not shown to be') == 4
  assert f'training labels, 0, is right for {share:.2%} of the test set' in text(found)
  # A model that finds the rare class better than by luck, and is no better than never
  # naming it: its predictions go with the labels, and chance is still as high.
  rare = y_test == 1
  guesses = np.where(rare | (np.arange(200) % 6 == 0), 1, 0)
  run = trainings.Training(
    {'status': 'complete', 'train_accuracy': 1.0, 'labels_changed': 0.0}
    | {'test_accuracy': np.mean(guesses == y_test), 'steps_to_fit': None},
    [],
    guesses,
  )
  dataset = sources.Dataset(x, y, x_test, y_test, 2)
  level = statistics.measure(
    randomizations.Setup('label_noise_0', 'partial_labels', 0.0),
    *(dataset, significance.group_inputs(x), [run], 0.99),
  )
  assert level['p_permutation'] < 0.001
  assert level['p_value'] == level['p_constant'] > 0.9


def test_guessing_random_labels_gives_the_largest_share_of_those_labels(test, digits):
  found = test(svm.SVC(C=0.01), *digits)
  setup = randomizations.Setup('label_noise_1', 'partial_labels', 1.0)
  labels = randomizations.randomize(sources.Dataset(*digits, 10), setup, 0).y_train
  share = np.bincount(labels).max() / 200
  assert share > 0.1
  assert found.levels[1]['train_chance'] == share
  assert f'the most frequent random label gives {share:.2%}' in text(found)
  assert 'guessing gives' not in str(found)


# All tests together.


def test_the_p_values_of_the_verdict_are_corrected_for_their_number(test, digits):
  found = test(naive_bayes.GaussianNB(), *digits, noise_levels=(0.5,))
  tested = found.table[found.table.label_noise == 0]
  assert len(tested) == found.settings['tests'] == 4
  np.testing.assert_allclose(tested.p_adjusted, significance.holm(tested.p_value))
  assert found.table.p_adjusted[found.table.label_noise > 0].isna().all()
  assert found.levels[0]['p_adjusted'] == pytest.approx(4 * found.levels[0]['p_value'])
  assert text(found).count('corrected for 4 tests') == 4


def test_a_result_of_one_test_in_four_is_not_called_above_chance():
  levels = [
    {'label_noise': noise, 'p_value': p}
    for noise, p in ((0, 0.03), (1, 1e-4), (0, 0.2), (0, 0.9), (0, None))
  ]
  statistics.correct(levels)
  adjusted = [level['p_adjusted'] for level in levels]
  assert adjusted[0] == pytest.approx(0.09)
  assert not verdicts.is_above(levels[0])
  assert (adjusted[1], adjusted[4]) == (None, None)


# How random labels are drawn.


@pytest.mark.parametrize('noise', [0.0, 0.3, 1.0])
def test_shuffled_labels_keep_the_frequencies_of_the_classes(noise):
  labels = noise_images(2_000, 0)[1].astype(np.int32)
  own, other = (randomizations.shuffled_labels(labels, noise, seed) for seed in (3, 4))
  assert own.dtype == np.int32
  changed = np.mean(own != labels)
  # A label is replaced by another class with probability 2 p (1 - p).
  assert changed == pytest.approx(noise * 2 * 0.1 * 0.9, abs=0.02)
  if noise == 1:
    assert np.bincount(own).tolist() == np.bincount(labels).tolist()
  assert np.mean(own) == pytest.approx(np.mean(labels), abs=0.02)
  assert (noise > 0) == (own != other).any()
  more = randomizations.shuffled_labels(labels, 1.0, 3)
  np.testing.assert_array_equal(own[own != labels], more[own != labels])


def test_the_report_says_how_random_labels_were_drawn(test):
  x, y = noise_images(300, 0)
  x_test, y_test = noise_images(100, 1)
  model = dummy.DummyClassifier(strategy='most_frequent')
  uniform = test(model, x, y, x_test, y_test)
  shuffled = test(model, x, y, x_test, y_test, random_labels='shuffled', name='shuffled')
  assert uniform.levels[0] == shuffled.levels[0]
  assert uniform.levels[1]['train_accuracy'] < 0.6
  assert shuffled.levels[1]['train_accuracy'] == shuffled.levels[0]['train_accuracy'] > 0.85
  for result, words in ((uniform, 'uniformly over'), (shuffled, 'true labels, shuffled')):
    stored = json.loads((result.workdir / 'results.json').read_text())
    assert stored['settings']['random_labels'] in ('uniform', 'shuffled')
    assert words in text(result)
    assert words in (result.workdir / 'report.html').read_text('utf-8')
  assert stored['settings']['random_labels'] == 'shuffled'
  with pytest.raises(BadInput, match='drawn in another way'):
    test(model, x, y, x_test, y_test, random_labels='shuffled')
  with pytest.raises(BadInput, match="random_labels is 'permuted'.* uniform, shuffled"):
    test(model, x, y, x_test, y_test, random_labels='permuted', name='new')


# What a model did not do is not what it cannot do.


def test_an_estimator_that_did_not_fit_is_not_said_to_be_unable(test, digits):
  small = test(svm.SVC(C=1.0), *digits)
  assert 'did not fit random labels (drawn uniformly over the classes) with these' in text(
    small
  )
  assert 'no proof that it cannot: other settings may let it fit' in text(small)
  assert small.settings['limits'] == ['C = 1.0 (larger)']
  assert 'C = 1.0 (larger)' in text(small)
  large = test(svm.SVC(C=1_000.0), *digits, name='large')
  assert large.levels[1]['fitted'] == 1
  assert large.settings['limits'] == ['C = 1000.0 (larger)']
  assert 'no proof' not in text(large)


class Net(nn.Module):
  width: int = 16
  num_classes: int = 10

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.width)(x)))


@pytest.mark.parametrize(
  ('model', 'named'),
  [
    (
      pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC(C=0.1)),
      ['svc__C = 0.1 (larger)'],
    ),
    (
      neural_network.MLPClassifier((20,), max_iter=50),
      [
        'alpha = 0.0001 (smaller)',
        'hidden_layer_sizes = (20,) (larger)',
        'learning_rate_init = 0.001 (different)',
        'max_iter = 50 (larger)',
      ],
    ),
    (neighbors.KNeighborsClassifier(5), ['n_neighbors = 5 (smaller)']),
    (neighbors.KNeighborsClassifier(1), []),
    (
      ensemble.RandomForestClassifier(10, max_depth=3),
      ['max_depth = 3 (larger)', 'n_estimators = 10 (larger)'],
    ),
    (Net(), ['num_epochs = 30 (larger)', 'width = 16 (larger)']),
    (nn.Dense(10), ['num_epochs = 30 (larger)']),
  ],
)
def test_the_settings_that_limit_a_model_are_named(model, named, digits):
  config = testing.make_config(nn.Dense(10), sources.Dataset(*digits, 10), 30, 50, 0.99)
  assert verdicts.limits(model, config, None, 10) == named


def test_the_settings_of_the_packages_own_models_are_named(digits):
  images = tuple(np.zeros((200, 8, 8, 1), np.uint8) if a.ndim > 1 else a for a in digits)
  config = testing.make_config('mlp', sources.Dataset(*images, 10), 30, 50, 0.99)
  config.model.width, config.regularization.weight_decay = 64, 0.1
  named = verdicts.limits('mlp', config, None, 10)
  assert 'model.width = 64 (larger)' in named
  assert 'regularization.weight_decay = 0.1 (smaller)' in named
  assert 'optimizer.learning_rate = 0.01 (different)' in named
  # An optimizer that was given has a rate of its own, which nobody can read from it.
  named = verdicts.limits('mlp', config, optax.sgd(0.1), 10)
  assert not any('learning_rate' in setting or 'decay' in setting for setting in named)


@pytest.mark.slow
def test_a_network_that_did_not_fit_is_told_what_else_to_try(test, digits):
  found = test(Net(), *digits, num_epochs=2, batch_size=50)
  assert 'num_epochs = 2 (larger); width = 16 (larger); the optimizer' in text(found)


# Equal inputs.


def test_what_equal_inputs_leave_possible_is_said(test, digits):
  x, y, x_test, y_test = digits
  repeated = np.repeat(x[:60], 2, 0), np.repeat(y[:60], 2)
  trees = ensemble.RandomForestClassifier(10, bootstrap=False)
  found = test(trees, *repeated, x_test, y_test)
  true, noise, permuted = found.levels[:3]
  assert true['best_accuracy'] == permuted['best_accuracy'] == 1
  assert noise['train_accuracy'] <= noise['best_accuracy'] < 0.7
  assert found.settings['repeated_inputs'] == 120
  share = format_percent(noise['best_accuracy'])
  assert '120 of the 120 training inputs occur more than once' in text(found)
  assert f'can have a training accuracy above {share}, so none can fit them' in text(found)
  assert 'no proof' not in text(found)
  page = (found.workdir / 'report.html').read_text('utf-8')
  assert '<h1>No model can fit these random labels' in page
  once = test(trees, *digits, name='once')
  assert once.settings['repeated_inputs'] == 0
  assert 'more than once' not in text(once)


# Rademacher complexity of linear classifiers.


@pytest.mark.parametrize(
  ('model', 'is_linear'),
  [
    (linear_model.LogisticRegression(max_iter=50), True),
    (linear_model.RidgeClassifier(), True),
    (pipeline.make_pipeline(preprocessing.StandardScaler(), svm.LinearSVC()), True),
    (svm.SVC(kernel='linear'), True),
    (svm.SVC(), False),
    (
      pipeline.make_pipeline(
        preprocessing.PolynomialFeatures(2), linear_model.RidgeClassifier()
      ),
      False,
    ),
    (naive_bayes.GaussianNB(), False),
    (nn.Dense(10), True),
    (nn.Sequential([nn.Dense(20), nn.Dense(10)]), True),
    (Net(), False),
    ((lambda key, x: jnp.zeros((64, 10)), lambda w, x: x @ w), True),
    ((lambda key, x: jnp.zeros((64, 10)), lambda w, x: jnp.tanh(x @ w)), False),
  ],
)
def test_linear_models_are_known_by_their_outputs(model, is_linear, digits):
  dataset = sources.Dataset(*digits, 10)
  config = testing.make_config(nn.Dense(10), dataset, 1, 50, 0.99)
  learner = adapters.make_learner(model, dataset, None, config)
  inputs = statistics.linear_inputs(learner, dataset)
  assert (inputs is not None) == is_linear
  if is_linear:
    np.testing.assert_allclose(inputs, digits[0], rtol=1e-6)


def test_images_of_uint8_do_not_wrap_around(digits):
  images = tuple(
    (255 * a).astype(np.uint8).reshape(-1, 8, 8, 1) if a.ndim > 1 else a for a in digits
  )
  dataset = sources.Dataset(*images, 10)
  config = testing.make_config(nn.Dense(10), dataset, 1, 50, 0.99)
  for model in (linear_model.RidgeClassifier(), Flat()):
    learner = adapters.make_learner(model, dataset, None, config)
    assert statistics.linear_inputs(learner, dataset).shape == (200, 64)


class Flat(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(10)(x.reshape(len(x), -1))


def test_a_linear_model_gets_the_best_of_several_fits_and_an_upper_bound(test, digits):
  x, y, x_test, y_test = digits
  arrays = x[:, 20:30], y, x_test[:, 20:30], y_test
  found = test(linear_model.LogisticRegression(C=0.01), *arrays, seeds=3)
  bounds = found.rademacher
  assert bounds['own_mean'] + 0.05 < bounds['mean'] < bounds['upper_bound'] < 1
  assert bounds['min'] <= bounds['mean'] <= bounds['max']
  assert bounds['dimension'] == 11
  words = verdicts.complexity_sentence(found)
  assert f'at most {bounds["upper_bound"]:.3f}, from the number of its sign' in words
  assert f'at least {bounds["mean"]:.3f} (mean over 3 draws' in words
  assert words in (found.workdir / 'report.html').read_text('utf-8')
  other = test(svm.SVC(), *arrays, name='other')
  assert other.rademacher['upper_bound'] is None
  assert other.rademacher['mean'] == other.rademacher['own_mean']
  assert '(one draw of random signs)' in verdicts.complexity_sentence(other)


# What counts as a fit.


def test_a_fit_that_a_constant_guess_has_too_is_not_called_memorizing(test):
  x, y = noise_images(400, 0)
  arrays = x, y, *noise_images(200, 1)
  model = dummy.DummyClassifier(strategy='most_frequent')
  found = test(model, *arrays, random_labels='shuffled', fit_accuracy=0.85)
  assert found.levels[1]['fitted'] == 1
  share = format_percent(np.mean(y == 0))
  assert 'A fit of random labels says nothing here: always predicting the' in text(found)
  assert f'gives a training accuracy of {share}, and 0.85 counts as a fit' in text(found)
  assert 'being too small to memorize' not in text(found)
  assert verdicts.answer(found).startswith('Not shown: a constant guess')
  strict = test(model, *arrays, random_labels='shuffled', fit_accuracy=0.99, name='strict')
  assert 'says nothing here' not in text(strict)


def test_a_part_of_the_random_labels_is_not_all_of_them(test, digits):
  found = test(svm.SVC(C=3.0), *digits, fit_accuracy=0.5)
  noise = found.levels[1]
  assert noise['fitted'] == 1
  assert noise['train_accuracy'] < verdicts.MEMORIZED
  assert 'above chance' in text(found)
  assert 'being too small to memorize' not in text(found)


def test_times_have_their_range_over_seeds():
  true, noise = (
    {'steps_to_fit': fits, 'steps': fits, 'diverged': 0, 'runs': 3, 'label_noise': 0.0}
    for fits in ([10, 10, 20], [30, 20, 60])
  )
  levels = [true, noise | {'label_noise': 1.0}]
  statistics.compare(levels)
  assert levels[1]['times_longer'] == 3
  assert levels[1]['times_longer_range'] == [2, 3]


# The heading.


def test_runs_that_diverged_are_not_left_out_of_the_heading(test, digits):
  found = test(ensemble.RandomForestClassifier(10, bootstrap=False), *digits)
  assert verdicts.answer(found) == 'It fits random labels'
  noise = found.levels[1] | {'runs': 3, 'diverged': 2}
  changed = found._replace(levels=[found.levels[0], noise])
  assert verdicts.answer(changed) == 'It fits random labels in 1 of 3 runs; 2 diverged'
