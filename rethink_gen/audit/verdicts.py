"""The verdict of an audit: sentences that say what its numbers mean."""

import dataclasses
import numbers

import flax.linen as nn
from ml_collections import config_dict

from rethink_gen.audit import randomizations
from rethink_gen.text import format_percent

LEVEL = 0.05  # significance level of all tests in the verdict together
MEMORIZED = 0.95  # training accuracy from which random labels count as memorized
STILL = 0.01  # late gain from which training accuracy is called still rising
NAMES = {
  'shuffled_pixels': 'positions permuted, the same way for all',
  'random_pixels': 'positions permuted, differently for each',
  'gaussian': 'Gaussian inputs',
}
DRAWN = {
  'uniform': 'drawn uniformly over the classes',
  'shuffled': 'the true labels, shuffled',
}
# Settings that limit how closely a model fits its training set, by the last part of their
# names, with the values that let it fit more closely. For an estimator:
LIMITS = {
  **dict.fromkeys(
    (
      *('C', 'max_iter', 'max_depth', 'max_leaf_nodes', 'n_estimators', 'num_leaves'),
      *('hidden_layer_sizes', 'n_components', 'gamma', 'epochs', 'max_epochs'),
    ),
    'larger',
  ),
  **dict.fromkeys(
    (
      *('alpha', 'reg_alpha', 'reg_lambda', 'l2_regularization', 'ccp_alpha', 'shrinkage'),
      *('reg_param', 'min_samples_leaf', 'min_samples_split', 'min_impurity_decrease'),
      *('min_child_weight', 'n_neighbors', 'weight_decay', 'dropout_rate'),
    ),
    'smaller',
  ),
  **dict.fromkeys(('learning_rate', 'learning_rate_init', 'eta0'), 'different'),
}
SMALLEST = {'n_neighbors': 1, 'min_samples_leaf': 1, 'min_samples_split': 2}
# For a module, fields with these names.
SIZES = (
  *('width', 'widths', 'features', 'hidden', 'hidden_size', 'hidden_sizes', 'hidden_dim'),
  *('units', 'depth', 'num_layers', 'layers', 'channels', 'num_hidden'),
)


def limits(model, config, optimizer, num_classes: int) -> list[str]:
  """Settings that may be why a model does not fit, such as 'C = 1.0 (larger)'.

  Args:
    model: as for `audit.randomization_test`.
    config: the ConfigDict of its training loop; ignored for an estimator.
    optimizer: None if the package's own models are trained as the config says.
    num_classes: a module's field with this value is assumed to be its number of outputs.
  """
  if hasattr(model, 'fit') and not isinstance(model, nn.Module):
    params = model.get_params() if hasattr(model, 'get_params') else {}
    found = [
      (name, value, LIMITS.get(name.split('__')[-1])) for name, value in params.items()
    ]
  else:
    found = [('num_epochs', config.num_epochs, 'larger')]
  if isinstance(model, nn.Module):
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    found += [
      (name, fields[name], 'larger')
      for name in SIZES
      if name in fields and fields[name] != num_classes
    ]
  elif isinstance(model, str | config_dict.ConfigDict):
    found += [
      ('model.width', config.model.width, 'larger'),
      ('model.depth', config.model.depth, 'larger'),
      ('regularization.dropout_rate', config.regularization.dropout_rate, 'smaller'),
    ]
    if optimizer is None:
      found += [
        ('regularization.weight_decay', config.regularization.weight_decay, 'smaller'),
        ('optimizer.learning_rate', config.optimizer.learning_rate, 'different'),
      ]
  return [
    f'{name} = {value} ({better})'
    for name, value, better in found
    if better and _is_size(value) and value != SMALLEST.get(name.split('__')[-1])
  ]


def _is_size(value):
  """Whether the value is a positive number or a sequence of them; others are no limit."""
  if isinstance(value, tuple | list):
    return bool(value) and all(map(_is_size, value))
  return isinstance(value, numbers.Real) and not isinstance(value, bool) and value > 0


def label(level: dict) -> str:
  """A setup in words."""
  if randomizations.changes_inputs(level['name']):
    return NAMES.get(level['name'], level['name'].replace('_', ' '))
  noise = level['label_noise']
  words = {0: 'true labels', 1: 'random labels'}
  return words.get(noise, f'{100 * noise:.4g}% of labels random')


def verdict(result) -> list[str]:
  """The sentences; each says only what was measured and what follows from it."""
  settings = result.settings
  levels = {level['name']: level for level in result.levels}
  true, noise = levels['label_noise_0'], levels['label_noise_1']
  return [
    *_divergence(result.levels),
    *_trivial(result.levels, settings),
    *_fit(true, noise, settings),
    *_test(true, noise, settings),
    *_inputs(
      [level for level in result.levels if randomizations.changes_inputs(level['name'])],
      settings,
    ),
    _scope(settings),
  ]


def _divergence(levels):
  for level in levels:
    if level['diverged']:
      yield (
        f'Diverged: the loss was no longer a finite number in {level["diverged"]} of '
        f'{level["runs"]} runs with {label(level)}; they are excluded below, and a smaller '
        'learning rate may help.'
      )


def is_trivial(level: dict, settings: dict) -> bool:
  """Whether a constant guess reaches the training accuracy that counts as a fit."""
  return level['train_chance'] >= settings['fit_accuracy']


def _trivial(levels, settings):
  """Says where a fit is meaningless."""
  for level in levels:
    if not randomizations.changes_inputs(level['name']) and is_trivial(level, settings):
      yield (
        f'A fit of {label(level)} says nothing here: always predicting the most frequent '
        f'one gives a training accuracy of {format_percent(level["train_chance"])}, and '
        f'{settings["fit_accuracy"]:.4g} counts as a fit; choose a larger fit_accuracy.'
      )


def _fit(true, noise, settings):
  if noise['train_accuracy'] is None:
    yield 'Whether it fits random labels is unknown: no run on them was completed.'
    return
  threshold = f'{settings["fit_accuracy"]:.4g}'
  reached = f'training accuracy {percent_range(noise, "train")}'
  budget = ''
  if not settings['is_estimator']:
    budget = f' within {settings["num_epochs"]:,} epochs ({settings["steps"]:,} steps)'
  done = noise['runs'] - noise['diverged']
  drawn = DRAWN[settings['random_labels']]
  if noise['fitted'] == done:
    yield (
      f'It fits random labels ({drawn}): in {done} of {done} runs the training accuracy '
      f'reached {threshold}{budget}, though the labels say nothing about the inputs '
      f'({reached}).'
    )
  elif noise['fitted']:
    yield (
      f'It fits random labels ({drawn}) in {noise["fitted"]} of {done} runs: those reached '
      f'a training accuracy of {threshold}{budget} ({reached}).'
    )
  else:
    yield (
      f'It did not fit random labels ({drawn}) with these settings{budget}: {reached}, '
      f'where {threshold} counts as a fit and always predicting the most frequent random '
      f'label gives {format_percent(noise["train_chance"])}.'
    )
    yield from _late(noise)
    if true['fitted'] == 0 and true['train_accuracy'] is not None:
      yield (
        'It did not fit the true labels to that threshold either (training accuracy '
        f'{percent_range(true, "train")}); the two differ by '
        f'{_points(true["train_accuracy"] - noise["train_accuracy"])}.'
      )
  yield from _repeated(true, noise, settings)
  if noise['fitted'] < done and noise['best_accuracy'] >= settings['fit_accuracy']:
    yield from _limits(settings)
  if noise['times_longer'] is not None:
    low, high = noise['times_longer_range']
    seeds = f'; median over seeds, {low:.1f} to {high:.1f}' if noise['runs'] > 1 else ''
    yield (
      f'Random labels took {noise["times_longer"]:.1f} times as many steps to fit as true '
      f'ones (in whole epochs{seeds}).'
    )
  elif noise['longer_than'] is not None and noise['fitted'] < done:
    yield (
      f'After {noise["longer_than"]:.1f} times as many steps as the true labels took to '
      'fit, not every run had fitted the random ones.'
    )


def _repeated(true, noise, settings):
  """How far equal inputs with different labels limit the training accuracy."""
  for level in (true, noise):
    best = level['best_accuracy']
    if best == 1:
      continue
    yield (
      f'{settings["repeated_inputs"]:,} of the {settings["num_train"]:,} training inputs '
      f'occur more than once, and with {label(level)} equal inputs have different labels: '
      f'no model that sees only the inputs can have a training accuracy above '
      f'{format_percent(best)}'
      + ('.' if best >= settings['fit_accuracy'] else ', so none can fit them.')
    )


def _limits(settings):
  """Which settings may be why the model did not fit."""
  found = settings['limits']
  if not found and settings['is_estimator']:
    return
  if not settings['is_estimator']:
    if not any('learning_rate' in setting for setting in found):
      found = [*found, "the optimizer's learning rate (different)"]
  yield (
    'That is no proof that it cannot: other settings may let it fit more closely, such as '
    f'{"; ".join(found)}.'
  )


def _late(level):
  gained = level['gained_late']
  if gained is None:
    return
  if gained >= STILL:
    yield (
      f'Training accuracy was still rising, by {_points(gained)} in the last fifth of '
      'training, so it may fit with more epochs.'
    )
  else:
    yield (
      'Training accuracy was hardly rising at the end: in the last fifth of training it '
      f'changed by {_points(gained)}.'
    )


def _test(true, noise, settings):
  if true['test_accuracy'] is None:
    return
  words = (
    f'On true labels its test accuracy is {percent_range(true, "test")}, a generalization '
    f'gap of {_points(true["generalization_gap"])}'
  )
  yield f'{words}. {chance_sentence(settings)}'
  if not is_above(true):
    yield (
      f'That test accuracy is not shown to be better than chance ({_p(true, settings)}).'
    )
    return
  yield f'That test accuracy is above chance ({_p(true, settings)}).'
  if noise['train_accuracy'] is None:
    return
  done = noise['runs'] - noise['diverged']
  memorized = noise['train_accuracy_range'][0] >= MEMORIZED
  if noise['fitted'] == done and memorized and not is_trivial(noise, settings):
    yield (
      'So the same model, trained in the same way, generalizes on true labels and fits '
      'random ones, with a generalization gap of '
      f'{_points(noise["generalization_gap"])}: being too small to memorize its training '
      'set cannot be why it generalizes.'
    )


def _inputs(levels, settings):
  for level in levels:
    if level['test_accuracy'] is None:
      continue
    done = level['runs'] - level['diverged']
    above = 'above' if is_above(level) else 'not shown to be above'
    yield (
      f'{label(level).capitalize()}: it fits in {level["fitted"]} of {done} runs, with '
      f'test accuracy {percent_range(level, "test")}, {above} chance '
      f'({_p(level, settings)}).'
    )


def _scope(settings):
  held_out = ''
  if settings['held_out']:
    held_out = ' (no test set was given, so a fifth was held out at random)'
  count = settings['seeds']
  return (
    f'These results are for {settings["num_train"]:,} training and '
    f'{settings["num_test"]:,} test examples{held_out} and {count} '
    f'seed{"s" if count > 1 else ""}; they say nothing about other data, sizes or training.'
  )


def is_above(level: dict) -> bool:
  """Whether its test accuracy is above chance, corrected for all tests."""
  return level['p_adjusted'] <= LEVEL


def chance_sentence(settings: dict) -> str:
  """A sentence on what chance is for this data."""
  guess = f'the most frequent class of the training labels, {settings["constant_guess"]},'
  right = f'is right for {format_percent(settings["constant_accuracy"])} of the test set'
  if settings['constant_accuracy'] >= settings['chance_accuracy']:
    return f'Chance is the best constant guess: {guess} {right}.'
  return (
    f'Chance is a uniform guess, {format_percent(settings["chance_accuracy"])}; '
    f'always predicting {guess} {right}.'
  )


def _p(level, settings):
  tests = settings['tests']
  corrected = f', corrected for {tests} tests' if tests > 1 else ''
  return f'p = {level["p_adjusted"]:.2g}{corrected}'


def percent_range(level: dict, split: str) -> str:
  """A mean, and its range over seeds if they differ."""
  low, high = level[f'{split}_accuracy_range']
  mean = format_percent(level[f'{split}_accuracy'])
  if low == high:
    return mean
  return f'{mean} ({format_percent(low)} to {format_percent(high)})'


def _points(difference):
  return f'{100 * difference:.2f} percentage points'


def complexity_sentence(result) -> str | None:
  """A sentence on the empirical Rademacher complexity, or None."""
  found = result.rademacher
  if found is None:
    return None
  draws = f'mean over {found["draws"]} draws' if found['draws'] > 1 else 'one draw'
  spread = f', {found["min"]:.3f} to {found["max"]:.3f}'
  if found['min'] == found['max']:
    spread = ''
  least = f'at least {found["mean"]:.3f} ({draws} of random signs{spread}'
  one = 'a class that fits every sign has 1.'
  if found['upper_bound'] is None:
    return (
      'Empirical Rademacher complexity of the functions that training reaches: '
      f'{least}); {one}'
    )
  return (
    'The model is linear, so its functions are among the linear classifiers of these '
    f'inputs, a space of {found["dimension"]:,} dimensions. Empirical Rademacher '
    f'complexity of that class: {least}, from the best of several fits; the trained model '
    f'itself reaches {found["own_mean"]:.3f}), and at most '
    f'{found["upper_bound"]:.3f}, from the number of its sign patterns; {one}'
  )


def answer(result) -> str:
  """The heading of the report: the answer in a few words."""
  noise = next(level for level in result.levels if level['label_noise'] == 1)
  done = noise['runs'] - noise['diverged']
  if not done:
    return 'Training on random labels ' + ('diverged' if noise['diverged'] else 'failed')
  if is_trivial(noise, result.settings):
    return 'Not shown: a constant guess fits these random labels too'
  if noise['fitted']:
    in_part = noise['fitted'] < noise['runs']
    runs = f' in {noise["fitted"]} of {noise["runs"]} runs' if in_part else ''
    diverged = f'; {noise["diverged"]} diverged' if noise['diverged'] else ''
    return f'It fits random labels{runs}{diverged}'
  if noise['best_accuracy'] < result.settings['fit_accuracy']:
    return 'No model can fit these random labels: equal inputs have different ones'
  return 'It did not fit random labels with these settings'
