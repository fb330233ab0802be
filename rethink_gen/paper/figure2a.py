"""Figure 2(a): early stopping on ImageNet, with and without regularizers."""

from collections.abc import Iterator

from rethink_gen.paper import figure2b, table2
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Row, Runs

TITLE = 'Figure 2(a): early stopping on ImageNet'
ASKED = (
  'How do training and test accuracy evolve while Inception V3 learns ImageNet, with all '
  'regularizers and with none? What could early stopping have gained?'
)
FOUND = (
  'Without regularizers the test accuracy peaks and then falls: early stopping would '
  'have kept 63.16 % instead of 59.80 %. With regularizers it ends at its best, 77.84 %.'
)
COLUMNS = figure2b.COLUMNS
NAMES = {
  'true_augmentation_dropout_decay': 'augmentation, dropout, weight decay',
  'true': 'no regularizer',
}
CAPTION = (
  'Top-1 accuracy on the whole training set (dashed) and the test set (solid); shaded: '
  'from the test accuracy up to its running maximum. The gain from early stopping is the '
  'best test accuracy of all evaluations minus the last. The best is chosen on the test '
  'set itself, which makes the gain optimistic.'
)
SAYS, measure = table2.SAYS, figure2b.measure


def rows(scale: str) -> list[Row]:
  """Two rows of Table 2, whose runs are reused here."""
  return [_row(row) for row in table2.rows(scale) if row.name in NAMES]


def _row(row):
  paper = {column: row.paper[column] for column in COLUMNS if column in row.paper}
  if 'best_test_accuracy' in paper:
    paper['early_stopping_gain'] = paper['best_test_accuracy'] - paper['test_accuracy']
  return Row(row.name, row.config, row.changes, paper)


def draw(entries: list[dict], runs: Runs):
  del entries
  return drawing.accuracy_curves(runs, NAMES)


def findings(entries: list[dict]) -> Iterator[str]:
  yield from figure2b.gains(entries, NAMES)
