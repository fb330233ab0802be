"""Figure 2(b): the small Inception with and without batch normalization."""

import numpy as np

from rethink_gen.paper import drawing, scales, table1
from rethink_gen.paper.grid import Row

TITLE = 'Figure 2(b): batch normalization as a regularizer, and early stopping'
ASKED = (
  'Batch normalization is not made to regularize: does it, all the same? And would '
  'stopping early have gained test accuracy?'
)
FOUND = (
  'With batch normalization the accuracy curves are smoother and the test accuracy ends 3 '
  'to 4 points higher. On CIFAR-10 early stopping would have gained nothing.'
)
COLUMNS = {
  'train_accuracy': ('training accuracy', '%', '.2f'),
  'test_accuracy': ('test accuracy', '%', '.2f'),
  'best_test_accuracy': ('best test accuracy', '%', '.2f'),
  'early_stopping_gain': ('gain by early stopping', 'points', '+.2f'),
}
MODELS = ('inception', 'inception_no_bn')
CAPTION = (
  'Accuracy on the whole training set (dashed) and the test set (solid) after each epoch '
  '(at laptop scale every fourth); '
  'shaded: from the test accuracy up to its running best. The gain by early stopping is '
  'the best test accuracy of all epochs less that of the last. The best is chosen on the '
  'test set itself, and so flatters.'
)


def rows(scale):
  paper = {row.name: row.paper for row in table1.rows(scale)}
  return [
    Row(
      model,
      model,
      scales.changes(scale, model) | scales.accuracy_curve(scale),
      paper[model],
    )
    for model in MODELS
  ]


def measure(runs, name, seed):
  summary = runs[name, seed].summary
  best, last = summary['best_test_accuracy'], summary['test_accuracy']
  return {
    'train_accuracy': 100 * summary['train_accuracy'],
    'test_accuracy': 100 * last,
    'best_test_accuracy': 100 * best,
    'early_stopping_gain': 100 * (best - last),
  }


def draw(entries, runs):
  figure, axis = drawing.subplots(height=3.8)
  for (name, seed), run in runs.items():
    color = drawing.COLORS[name]
    epochs = [record['epoch'] for record in run.records]
    train, test = (
      100 * np.array([record[f'{split}_accuracy'] for record in run.records])
      for split in ('train', 'test')
    )
    label = drawing.NAMES[name] if seed == 0 else None
    axis.plot(epochs, train, '--', color=color, linewidth=1)
    axis.plot(epochs, test, color=color, label=label)
    axis.fill_between(epochs, test, np.maximum.accumulate(test), color=color, alpha=0.3)
  axis.set(xlabel='epochs', ylabel='accuracy (%)', ylim=(0, 101))
  drawing.legend(axis, loc='lower right')
  return figure


def findings(entries):
  ours = {entry['name']: entry['ours'] for entry in entries}
  for name, numbers in ours.items():
    if (gain := numbers['early_stopping_gain']) is not None:
      yield f'{drawing.NAMES[name]}: early stopping would have gained {gain:.2f} points.'
  ends = [ours[name]['test_accuracy'] for name in MODELS if name in ours]
  if len(ends) == 2 and None not in ends:
    side = 'above' if ends[0] >= ends[1] else 'below'
    yield (
      f'With batch normalization the test accuracy ends {abs(ends[0] - ends[1]):.2f} '
      f'points {side} where it ends without.'
    )
