"""Table 1: networks on CIFAR-10, with and without regularizers, and on random labels."""

from collections.abc import Iterator

from rethink_gen.paper import scales
from rethink_gen.reporting import differences, drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.text import format_range

TITLE = 'Table 1: the same networks learn and memorize CIFAR-10'
ASKED = (
  'Can the networks that generalize on CIFAR-10 also fit labels drawn at random, with the '
  'same optimizer and the same hyperparameters? And how much of their test accuracy do '
  'they owe to explicit regularization, here weight decay and random crops?'
)
FOUND = (
  'Every network fits the training set, with true or random labels, with or without '
  'regularization. The regularizers change the test accuracy by a few points; the gap '
  'between true and random labels is far larger.'
)
COLUMNS = {
  'train_accuracy': Column('training accuracy', '%', '.2f'),
  'test_accuracy': Column('test accuracy', '%', '.2f'),
}
# model, random crop, weight decay, random labels; training and test accuracy in percent
PAPER = (
  ('inception', True, True, False, 100.0, 89.05),
  ('inception', True, False, False, 100.0, 89.31),
  ('inception', False, True, False, 100.0, 86.03),
  ('inception', False, False, False, 100.0, 85.75),
  ('inception', False, False, True, 100.0, 9.78),
  ('inception_no_bn', False, True, False, 100.0, 83.00),
  ('inception_no_bn', False, False, False, 100.0, 82.00),
  ('inception_no_bn', False, False, True, 100.0, 10.12),
  ('alexnet', True, True, False, 99.90, 81.22),
  ('alexnet', True, False, False, 99.82, 79.66),
  ('alexnet', False, True, False, 100.0, 77.36),
  ('alexnet', False, False, False, 100.0, 76.07),
  ('alexnet', False, False, True, 99.82, 9.86),
  ('mlp_3x512', False, True, False, 100.0, 53.35),
  ('mlp_3x512', False, False, False, 100.0, 52.39),
  ('mlp_3x512', False, False, True, 100.0, 10.48),
  ('mlp_1x512', False, True, False, 99.80, 50.39),
  ('mlp_1x512', False, False, False, 100.0, 50.51),
  ('mlp_1x512', False, False, True, 99.34, 10.61),
)


def rows(scale: str) -> list[Row]:
  return [_row(scale, *line) for line in PAPER]


def _row(scale, model, crop, decay, random, train_accuracy, test_accuracy):
  config = f'{model}_random' if random else model
  changes = scales.changes(scale, config)
  if crop:
    changes['regularization.random_crop'] = True
  if decay:
    changes['regularization.weight_decay'] = scales.WEIGHT_DECAY
  paper = {'train_accuracy': train_accuracy, 'test_accuracy': test_accuracy}
  return Row(
    name=config + '_crop' * crop + '_decay' * decay,
    config=config,
    changes=changes,
    paper=scales.comparable(paper, {} if random else changes),
  )


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  return {column: 100 * summary[column] for column in COLUMNS}


def draw(entries: list[dict], runs: Runs):
  del runs
  labels = {column: f'{label} (%)' for column, (label, *_) in COLUMNS.items()}
  return drawing.beside_the_paper(entries, labels)


CAPTION = (
  'Open circles: the paper. Dots: ours, with the standard deviation if there are several '
  'seeds.'
)


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  measured = [entry for entry in entries if None not in entry['ours'].values()]
  random = [e['ours'] for e in measured if e['config'].endswith('_random')]
  true = [e['ours'] for e in measured if not e['config'].endswith('_random')]
  for labels, group in (('true', true), ('random', random)):
    if group:
      lowest = min(ours['train_accuracy'] for ours in group)
      # Less than 100 % is never rounded up to 100.00.
      at_least = '100 %' if lowest == 100 else f'{min(lowest, 99.99):.2f} % or more'
      span = format_range([ours['test_accuracy'] for ours in group])
      yield (
        f'On {labels} labels ({len(group)} rows) the training accuracy is {at_least} and '
        f'the test accuracy {span} %.'
      )
  values = {entry['name']: entry['values']['test_accuracy'] for entry in measured}
  for name in values:
    base = name.removesuffix('_decay')
    if name != base and base in values:
      gain = differences.paired(values[name], values[base])
      yield (
        f'Weight decay changes the test accuracy of {base} by '
        f'{differences.describe(gain, "points")}.'
      )
