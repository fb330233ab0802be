"""The summary of a finished run: the contents of summary.json, and the printed report."""

import os
import shutil
import statistics
import sys
import textwrap

import jax
from ml_collections import config_dict

from rethink_gen.data import corruption, sources
from rethink_gen.data.streaming import Source
from rethink_gen.text import format_duration, format_percent
from rethink_gen.theory import significance
from rethink_gen.train import metrics
from rethink_gen.train.sgd import TrainState

LEVEL = 0.05  # significance level of the tests behind `conclusion`


def print_summary(summary: dict, workdir: str | os.PathLike) -> None:
  """Prints the closing table and a sentence on what it means."""
  print()
  for name, value in _closing_rows(summary):
    print(f'  {name:<18}  {value}')
  text = conclusion(summary)
  dead = describe_dead(summary.get('dead_layers'))
  if sys.stdout.isatty():
    width = shutil.get_terminal_size().columns
    text, dead = textwrap.fill(text, width), textwrap.fill(dead, width)
  print('\n' + '\n'.join(filter(None, (text, dead, f'All files are in {workdir}.'))))


def _closing_rows(summary):
  corruption = summary['corruption']
  if summary['labels_changed']:
    corruption += f': {summary["labels_changed"]:.1%} of labels changed'
  fit = summary['steps_to_fit']
  yield 'model', f'{summary["model"]}, {summary["num_params"]:,} parameters'
  yield 'data set', f'{summary["dataset"]}, {summary["num_train"]:,} training examples'
  yield 'corruption', corruption
  yield 'training accuracy', format_percent(summary['train_accuracy'])
  yield 'test accuracy', format_percent(summary['test_accuracy'])
  yield 'chance', f'{format_percent(summary["chance_accuracy"])}, {_guess(summary)}'
  gap = summary['generalization_gap']
  yield 'generalization gap', 'none' if gap is None else f'{100 * gap:.2f} points'
  yield 'best test accuracy', format_percent(summary['best_test_accuracy'])
  if fit is not None:
    yield 'steps to fit', f'{fit:,} (epoch {fit // summary["steps_per_epoch"]})'
  yield 'steps', f'{summary["steps"]:,} in {format_duration(summary["seconds"])}'
  if summary['examples_per_second'] is not None:
    speed = f'{summary["examples_per_second"]:,.0f} examples/s'
    yield 'speed', f'{speed} on {summary["device"]}, {summary["precision"]}'


def describe_dead(layers: dict[str, float] | None) -> str:
  """A sentence on the layers that `metrics.dead_layers` found, or ''."""
  if not layers:
    return ''
  return (
    f'Dead: {list_layers(layers)} (ReLU units that no training example activates, which '
    'therefore no longer learn). Use a smaller config.optimizer.learning_rate or another '
    'config.model.initialization.'
  )


def list_layers(layers: dict[str, float]) -> str:
  """Formats {layer: fraction} as '59.38% of conv_2, 100.00% of linear_1'."""
  return ', '.join(f'{format_percent(share)} of {layer}' for layer, share in layers.items())


def conclusion(summary: dict) -> str:
  """A sentence on what the numbers show, and no more."""
  if summary['status'] == 'diverged':
    return (
      f'Diverged: the loss was no longer a finite number at step {summary["steps"]:,}. '
      'Use a smaller config.optimizer.learning_rate and another workdir.'
    )
  train, test = summary['train_accuracy'], summary['test_accuracy']
  chance = summary['chance_accuracy']
  noise = summary.get('label_noise', 0.0)  # missing in older summaries
  if corruption.effective_label_noise(summary['corruption'], noise) == 1:
    fitted = 'every one' if train == 1 else format_percent(train)
    return (
      f'The labels are random, and the network fits {fitted} of them; on the test set it '
      f'is right in {format_percent(test)} of cases, and a uniform guess in '
      f'{format_percent(chance)}.'
    )
  if not _is_above_chance(summary):
    return (
      f'On the test set the network is right in {format_percent(test)} of cases, which is '
      f'not shown to be better than {_guess(summary)}, {format_percent(chance)}.'
    )
  if summary['corruption'] == 'none':
    return (
      'The labels are true, and what was learned from them generalizes: the test '
      f'accuracy is {_points(test - chance)} chance ({_guess(summary)}) and '
      f'{_points(test - train)} the training accuracy.'
    )
  return (
    f'Despite the corruption ({summary["corruption"]}) the test accuracy is '
    f'{_points(test - chance)} chance ({_guess(summary)}).'
  )


def _guess(summary):
  """Names the guess that chance_accuracy stands for; in older summaries a uniform one."""
  constant = summary.get('constant_accuracy')
  if constant is None or constant < summary['chance_accuracy']:
    return 'a uniform guess'
  return 'the most frequent class of the training labels'


def _is_above_chance(summary):
  """Whether the test accuracy is significantly above both guesses, at LEVEL.

  A summary does not say which examples are right, so McNemar's test against the constant
  guess assumes the least overlap that the two accuracies allow.
  """
  count, constant = summary['num_test'], summary.get('constant_accuracy')
  right = round(summary['test_accuracy'] * count)
  chance = summary['chance_accuracy']
  p = significance.better_than_guessing(right, count, chance)
  if constant is not None:
    p = max(p, significance.better_than_at_most(right, round(constant * count), count))
  return p <= LEVEL


def _points(difference):
  """Formats a difference of two fractions: '3.50 percentage points above'."""
  side = 'above' if difference >= 0 else 'below'
  return f'{abs(difference) * 100:.2f} percentage points {side}'


def summarize(
  config: config_dict.ConfigDict,
  dataset: sources.Dataset | Source,
  labels_changed: float | None,
  state: TrainState,
  records: list[dict],
  stopped_by: str,
) -> dict:
  """The contents of summary.json; accuracies are fractions, None if never evaluated.

  dead_units is the fraction of ReLU units that no training example activates, None for a
  model that does not report it; dead_layers, {layer: fraction}, has the layers that are
  mostly dead. constant_accuracy and chance_accuracy are from `guesses`.
  """
  last = records[-1] if records else {}
  train, test = last.get('train_accuracy'), last.get('test_accuracy')
  threshold = config.stop_at_train_accuracy
  fitted = (
    record['step']
    for record in records
    if threshold is not None and record['train_accuracy'] >= threshold
  )
  speeds = [s for record in records if (s := record['examples_per_second'])]
  top5 = {name: value for name, value in last.items() if name.endswith('top5_accuracy')}
  return {
    'status': 'diverged' if stopped_by == 'diverged' else 'complete',
    'stopped_by': stopped_by,  # one of loop.REASONS
    'model': config.model.name,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    'dataset': config.dataset.name,
    'num_classes': dataset.num_classes,
    'corruption': config.corruption.mode,
    'label_noise': config.corruption.label_noise,
    'labels_changed': labels_changed,
    'num_train': dataset.num_train,
    'num_test': dataset.num_test,
    'epochs': int(state.step) // len(state.losses),
    'steps': int(state.step),
    'steps_per_epoch': len(state.losses),
    'train_loss': last.get('train_loss'),
    'test_loss': last.get('test_loss'),
    'train_accuracy': train,
    'test_accuracy': test,
    **top5,  # only when streaming
    **guesses(config, dataset),
    'generalization_gap': train - test if records else None,
    'best_test_accuracy': max((r['test_accuracy'] for r in records), default=None),
    'steps_to_fit': next(fitted, None),
    'dead_units': last.get('dead_units'),
    'dead_layers': metrics.dead_layers(last),
    'seconds': last.get('seconds', 0.0),
    'examples_per_second': statistics.median(speeds) if speeds else None,
    'device': describe_device(),
    'precision': config.precision,
    'jax_version': jax.__version__,
    'seed': config.seed,
  }


def guesses(
  config: config_dict.ConfigDict, dataset: sources.Dataset | Source
) -> dict[str, float | None]:
  """The test accuracies of guesses that ignore the images, for a summary.

  constant_accuracy is that of always predicting the most frequent training label. It is
  None for streamed data sets, whose labels are not in memory, and if all labels are drawn
  uniformly, when a class is most frequent only by chance. chance_accuracy is the better of
  it and a uniform guess, 1 / classes.
  """
  noise = config.corruption
  is_uniform = corruption.effective_label_noise(noise.mode, noise.label_noise) == 1
  constant = None
  if isinstance(dataset, sources.Dataset) and not is_uniform:
    constant = significance.constant_accuracy(
      dataset.y_train, dataset.y_test, dataset.num_classes
    )
  return {
    'constant_accuracy': constant,
    'chance_accuracy': max(constant or 0.0, 1 / dataset.num_classes),
  }


def describe_device() -> str:
  """Hardware description for summaries: '1 x NVIDIA H100', '1 x cpu (2 cores)'."""
  kind = jax.devices()[0].device_kind
  cores = f' ({os.cpu_count()} cores)' if kind == 'cpu' else ''
  return f'{jax.device_count()} x {kind}{cores}'
