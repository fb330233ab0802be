"""Figure 2(b): the small Inception with and without batch normalization."""

from collections.abc import Iterator
from typing import Any

from rethink_gen.paper import scales, table1
from rethink_gen.reporting import differences, drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs

TITLE = 'Figure 2(b): batch normalization as a regularizer, and early stopping'
ASKED = (
  'Batch normalization is not designed as a regularizer: does it regularize anyway? And '
  'would early stopping have gained test accuracy?'
)
FOUND = (
  'With batch normalization the accuracy curves are smoother and the test accuracy ends 3 '
  'to 4 points higher. On CIFAR-10 early stopping would have gained nothing.'
)
SEEDS = {'laptop': 3, 'full': 3}
COLUMNS = {
  'train_accuracy': Column('training accuracy', '%', '.2f'),
  'test_accuracy': Column('test accuracy', '%', '.2f'),
  'best_test_accuracy': Column('best test accuracy', '%', '.2f'),
  'early_stopping_gain': Column('gain from early stopping', 'points', '+.2f'),
}
MODELS = ('inception', 'inception_no_bn')
CAPTION = (
  'Both networks have the same learning rate, batches, epochs and initialization. Accuracy '
  'on the whole training set (dashed) and the test set (solid), one line per seed; shaded: '
  'from the test accuracy up to its running maximum. The gain from early stopping is the '
  'best test accuracy of all epochs minus that of the last. The best is chosen on the test '
  'set itself, which makes the gain optimistic.'
)


def rows(scale: str) -> list[Row]:
  paper = {row.name: row.paper for row in table1.rows(scale)}
  return [
    Row(
      model,
      model,
      scales.changes(scale, model) | curve(scale),
      paper[model],
    )
    for model in MODELS
  ]


def curve(scale: str) -> dict[str, Any]:
  """Evaluates after every epoch; at laptop scale as in Table 1, to share its runs."""
  return {} if scale == 'laptop' else {'eval_every': 1}


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  best, last = summary['best_test_accuracy'], summary['test_accuracy']
  return {
    'train_accuracy': 100 * summary['train_accuracy'],
    'test_accuracy': 100 * last,
    'best_test_accuracy': 100 * best,
    'early_stopping_gain': 100 * (best - last),
  }


def draw(entries: list[dict], runs: Runs):
  del entries
  return drawing.accuracy_curves(runs, {name: drawing.NAMES[name] for name in MODELS})


def gains(entries: list[dict], names: dict[str, str]) -> Iterator[str]:
  """One sentence per row on the gain from early stopping; names: {row: label}."""
  for entry in entries:
    if (gain := entry['ours']['early_stopping_gain']) is not None:
      name = names[entry['name']]
      yield f'{name}: early stopping would have gained {gain:z.2f} points.'


def findings(entries: list[dict]) -> Iterator[str]:
  yield from gains(entries, drawing.NAMES)
  values = {entry['name']: entry['values']['test_accuracy'] for entry in entries}
  difference = differences.paired(*(values.get(name, {}) for name in MODELS))
  if difference:
    yield (
      'Batch normalization changes the final test accuracy by '
      f'{differences.describe(difference, "points")}.'
    )
