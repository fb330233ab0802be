"""The statistics of an audit: accuracies, times to fit, p-values and complexity."""

import math
from collections.abc import Iterator

import jax
import numpy as np

from rethink_gen.audit import adapters, estimators, randomizations
from rethink_gen.audit.trainings import Training
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity, rademacher, significance
from rethink_gen.train import compiled, networks, summaries

KEEPS_EQUAL = ('shuffled_pixels',)  # modes that keep equal inputs equal
PERMUTATIONS = 9_999
SMALL = 200  # examples used to test whether an estimator is linear
LATE = 0.8  # accuracy gained after this fraction of training counts as gained late


def describe_failures(
  setups: list[randomizations.Setup], runs: dict[str, list[Training]]
) -> Iterator[str]:
  """One sentence for each setup with failed runs."""
  for setup in setups:
    own = [run.summary for run in runs[setup.name]]
    reasons = [summary['reason'] for summary in own if summary['status'] == 'failed']
    if reasons:
      yield (
        f'Failed: {len(reasons)} of {len(own)} runs of the setup {setup.name}, which are '
        f'excluded below. {reasons[0]}'
      )


def measure(
  setup: randomizations.Setup,
  dataset: Dataset,
  groups: np.ndarray,
  runs: list[Training],
  fit_accuracy: float,
) -> dict:
  """The statistics of one setup over its seeds, except what `compare` and `correct` add.

  Means and ranges are over the runs that did not diverge. p_value is the larger of
  p_permutation (`significance.permutation_test`) and p_constant
  (`significance.better_than` the constant guess): both null hypotheses must be rejected
  before the test accuracy is called above chance. gained_late is the training accuracy
  gained in the last fifth. train_chance is the training accuracy of the best constant
  guess, and best_accuracy the highest that a function of the inputs can reach if some of
  them are equal; both are means over seeds, for the labels that were trained on.
  best_accuracy is None for inputs that each run changes, which are hardly ever equal.

  Args:
    groups: int (n,), which training inputs are equal, from `significance.group_inputs`.
  """
  failed = [run for run in runs if run.summary['status'] == 'failed']
  runs = [run for run in runs if run.summary['status'] != 'failed']
  done = [run for run in runs if run.summary['status'] == 'complete']
  fitted = [run.summary['train_accuracy'] >= fit_accuracy for run in done]
  level = {
    'name': setup.name,
    'label_noise': setup.label_noise,
    'runs': len(runs),
    'diverged': len(runs) - len(done),
    'failed': len(failed),
    'fitted': sum(fitted),
    'labels_changed': _mean([run.summary['labels_changed'] for run in runs]),
    'steps_to_fit': [run.summary['steps_to_fit'] for run in runs],
    'steps': [run.summary.get('steps') for run in runs],
    'gained_late': _mean([late(run.records) for run in done if run.records]),
    **dict.fromkeys(('best_accuracy', 'p_value', 'p_permutation', 'p_constant')),
  }
  labels = [dataset.y_train for _ in runs]
  if setup.mode in randomizations.LABELS.values():
    labels = [
      randomizations.randomize(dataset, setup, seed).y_train for seed in range(len(runs))
    ]
  level['train_chance'] = _mean([significance.largest_share(own) for own in labels])
  if not randomizations.changes_inputs(setup.mode) or setup.mode in KEEPS_EQUAL:
    level['best_accuracy'] = _mean(
      [significance.best_accuracy(groups, own) for own in labels]
    )
  for split in ('train', 'test'):
    values = [run.summary[f'{split}_accuracy'] for run in done]
    level[f'{split}_accuracy'] = _mean(values)
    level[f'{split}_accuracy_range'] = [min(values), max(values)] if values else None
  if done:
    level['generalization_gap'] = level['train_accuracy'] - level['test_accuracy']
    predictions = np.stack([run.predictions for run in done])
    guess = significance.constant_guess(
      dataset.y_train, dataset.y_test, dataset.num_classes
    )
    level['p_permutation'] = significance.permutation_test(
      predictions, dataset.y_test, PERMUTATIONS
    )
    level['p_constant'] = significance.better_than(
      predictions == dataset.y_test, dataset.y_test == guess
    )
    level['p_value'] = max(level['p_permutation'], level['p_constant'])
  else:
    level['generalization_gap'] = None
  return level


def _mean(values):
  return float(np.mean(values)) if values else None


def late(records: list[dict]) -> float:
  """The training accuracy gained in the last fifth of the steps."""
  early = [r for r in records if r['step'] <= LATE * records[-1]['step']] or records[:1]
  return records[-1]['train_accuracy'] - early[-1]['train_accuracy']


def compare(levels: list[dict]) -> None:
  """Adds to each level its steps to fit, as a multiple of those for true labels.

  times_longer is the median over seeds and times_longer_range their range, if every seed
  fitted; otherwise longer_than is the lower bound that the steps taken imply.
  """
  true = levels[0]['steps_to_fit']
  for level in levels:
    level |= dict.fromkeys(('times_longer', 'times_longer_range', 'longer_than'))
    if None in true or level['diverged']:
      continue
    if None not in level['steps_to_fit']:
      pairs = zip(level['steps_to_fit'], true, strict=True)
      times = [own / fit for own, fit in pairs]
      level['times_longer'] = float(np.median(times))
      level['times_longer_range'] = [min(times), max(times)]
    else:
      triples = zip(level['steps_to_fit'], level['steps'], true, strict=True)
      level['longer_than'] = min((own or steps) / fit for own, steps, fit in triples)


def correct(levels: list[dict]) -> None:
  """Adds p_adjusted to the levels whose test accuracy the verdict compares with chance.

  These are the true labels and the changed inputs; p_adjusted is their p_value, corrected
  for the number of these tests by Holm's method, and None for other levels.
  """
  claimed = [
    level for level in levels if level['label_noise'] == 0 and level['p_value'] is not None
  ]
  adjusted = significance.holm([level['p_value'] for level in claimed])
  for level in levels:
    level['p_adjusted'] = None
  for level, p in zip(claimed, adjusted, strict=True):
    level['p_adjusted'] = float(p)


def measure_signs(
  learner: adapters.Learner, runs: list[Training], dataset: Dataset, seeds: int
) -> dict | None:
  """Result.rademacher: bounds on the complexity, from draws of random signs.

  Returns:
    None if a run diverged, else a dict. mean, min and max are over the draws, for the
    agreement (1/n) sum_i s_i h(x_i) of the signs with the best function found; own_mean is
    for the trained models only. The class consists of the functions that training can
    reach; if they are linear, it is all linear classifiers of the inputs, a space of
    `dimension` dimensions with an `upper_bound`. For other models both are None.
  """
  if any(run.summary['status'] != 'complete' for run in runs):
    return None
  signs = np.stack([randomizations.signs_of(dataset, seed) for seed in range(seeds)])
  fits = iter(runs)
  own = complexity.rademacher(lambda _: 2 * next(fits).predictions - 1, signs)
  agreements, dimension, upper_bound = own, None, None
  inputs = linear_inputs(learner, dataset)
  if inputs is not None:
    space = rademacher.basis(inputs)
    dimension = space.shape[1]
    upper_bound = rademacher.upper_bound(*space.shape)
    agreements = np.maximum(own, [rademacher.fit_signs(space, s)[1] for s in signs])
  return {
    'mean': float(agreements.mean()),
    'min': float(agreements.min()),
    'max': float(agreements.max()),
    'draws': seeds,
    'own_mean': float(own.mean()),
    'dimension': dimension,
    'upper_bound': upper_bound,
  }


def linear_inputs(learner: adapters.Learner, dataset: Dataset) -> np.ndarray | None:
  """The training inputs as rows (n, d), if the model's outputs are linear in them.

  Returns:
    An array, or None if the outputs are not linear, the inputs are tokens, or they are too
    large for `rademacher.basis` to finish within a minute.
  """
  x = dataset.x_train
  if learner.program and x.dtype == np.int32:
    return None
  if learner.program:
    outputs, inputs = _perturbed(learner), learner.program.to_inputs
  else:
    # In floating point, so that sums of inputs do not wrap around.
    outputs, inputs = _fitted(learner, dataset), lambda x: estimators.rows(x).astype(float)
  rows, columns = len(x), math.prod(inputs(x[:1]).shape[1:]) + 1
  too_large = rows * columns * min(rows, columns) > rademacher.LARGEST
  if outputs is None or too_large or not rademacher.is_linear(outputs, inputs(x[:SMALL])):
    return None
  return np.asarray(networks.in_batches(inputs, x)).reshape(rows, -1)


def _perturbed(learner):
  """outputs(inputs) of a Program's model with random, nonzero parameters."""
  state = compiled.compile_program(learner.program)[0](jax.random.key(0))
  leaves, structure = jax.tree.flatten(state.params)
  keys = jax.random.split(jax.random.key(1), max(1, len(leaves)))
  moved = [
    leaf + jax.random.normal(key, leaf.shape, leaf.dtype)
    for leaf, key in zip(leaves, keys, strict=False)
  ]
  variables = {'params': structure.unflatten(moved), 'batch_stats': state.batch_stats}

  def outputs(inputs):
    with compiled.matmul_precision(learner.config):
      return learner.program.model.apply(variables, inputs, train=False)

  return outputs


def _fitted(learner, dataset):
  """The decision function of an estimator fitted to a few examples, or None."""
  if not hasattr(learner.estimator, 'decision_function'):
    return None
  labels = (randomizations.signs_of(dataset, 0)[:SMALL] > 0).astype(np.int32)
  try:
    fitted = estimators.fit(learner.estimator, dataset.x_train[:SMALL], labels, 0)
  except BadInput:  # it needs more examples, so linearity is unknown
    return None
  return fitted.decision_function


def describe_settings(
  learner: adapters.Learner, dataset: Dataset, held_out: bool, seeds: int
) -> dict:
  """Result.settings, except what `randomization_test` adds."""
  config = learner.config
  positions, _, channels = randomizations.layout(dataset.x_train, 'random_pixels')
  _, y_train, _, y_test, num_classes = dataset
  settings = {
    'model': learner.name,
    'num_train': dataset.num_train,
    'num_test': dataset.num_test,
    'held_out': held_out,
    'input_shape': list(dataset.x_train.shape[1:]),
    'input_type': str(dataset.x_train.dtype),
    'positions': positions,
    'channels': channels,
    'num_classes': dataset.num_classes,
    'chance_accuracy': significance.chance(y_train, y_test, num_classes),
    'constant_guess': significance.constant_guess(y_train, y_test, num_classes),
    'constant_accuracy': significance.constant_accuracy(y_train, y_test, num_classes),
    'seeds': seeds,
    'fit_accuracy': config.stop_at_train_accuracy,
    'permutations': PERMUTATIONS,
    'is_estimator': learner.program is None,
    'device': summaries.describe_device(),
    'jax_version': jax.__version__,
  }
  if learner.program:
    settings |= {
      'num_epochs': config.num_epochs,
      'batch_size': config.batch_size,
      'steps': learner.program.steps_per_epoch * config.num_epochs,
    }
  return settings
