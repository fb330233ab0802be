"""Table 2: Inception V3 on ImageNet, on true and random labels and without regularizers."""

from collections.abc import Iterator

from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.text import format_range

TITLE = 'Table 2: Inception V3 learns and memorizes ImageNet'
ASKED = (
  'A network learns a million images in a thousand classes with all of its regularizers: '
  'augmentation, dropout, weight decay. How much of its test accuracy remains without '
  'them, and does it fit a million random labels too?'
)
FOUND = (
  'Without any regularizer the top-1 test accuracy falls from 77.84 to 59.80 %, far above '
  'chance; early stopping would have kept 63.16 %. On random labels the network reaches '
  '95.20 % training accuracy, with hyperparameters tuned for true labels, and 0.1 % test '
  'accuracy.'
)
COLUMNS = {
  'train_accuracy': Column('training, top-1', '%', '.2f'),
  'train_top5_accuracy': Column('training, top-5', '%', '.2f'),
  'test_accuracy': Column('test, top-1', '%', '.2f'),
  'test_top5_accuracy': Column('test, top-5', '%', '.2f'),
  'best_test_accuracy': Column('best test, top-1', '%', '.2f'),
  'best_test_top5_accuracy': Column('best test, top-5', '%', '.2f'),
}
CAPTION = (
  'Top-1 accuracies. Open circles: the paper. Dots: ours. The best test accuracy is the '
  'maximum over all evaluations, chosen on the test set itself.'
)
SAYS = {
  'smoke': (
    'Smoke scale: 16 generated images of colored shapes, 75 pixels wide, one epoch. This '
    'shows that everything runs, but says nothing about the question.'
  ),
  'laptop': (
    'Laptop scale: 200 generated images of colored shapes in ten classes, 75 pixels wide. '
    'This is not ImageNet, and no number is comparable to the paper; it shows whether the '
    'network learns and memorizes when trained through the same code as on ImageNet.'
  ),
  'full': 'Full scale: ImageNet at 299 x 299 pixels, as in the paper.',
}
REGULARIZED, PLAIN, RANDOM = (
  f'imagenet_inception_v3{variant}' for variant in ('_regularized', '', '_random')
)
WEIGHT_DECAY = {'regularization.weight_decay': 0.00004}
DROPOUT = {'regularization.dropout_rate': 0.2}
NO_DROPOUT, NO_WEIGHT_DECAY = (dict.fromkeys(one, 0.0) for one in (DROPOUT, WEIGHT_DECAY))
# row: (config, changes, the paper's numbers in the order of COLUMNS)
ROWS = {
  'true_augmentation_dropout_decay': (REGULARIZED, {}, (92.18, 99.21, 77.84, 93.92)),
  'true_augmentation': (
    REGULARIZED,
    NO_DROPOUT | NO_WEIGHT_DECAY,
    (92.33, 99.17, 72.95, 90.43),
  ),
  'true_decay': (PLAIN, WEIGHT_DECAY, (90.60, 100.0, 67.18, 86.44, 72.57, 91.31)),
  'true': (PLAIN, {}, (99.53, 100.0, 59.80, 80.38, 63.16, 84.49)),
  'random_dropout_decay': (
    RANDOM,
    DROPOUT | WEIGHT_DECAY,
    (91.18, 97.95, 0.09, 0.49),
  ),
  'random_decay': (RANDOM, WEIGHT_DECAY, (87.81, 96.15, 0.12, 0.50)),
  'random': (RANDOM, {}, (95.20, 99.14, 0.11, 0.56)),
}
GENERATED = {
  'dataset.name': 'generated_images',
  'dataset.crop_size': 75,
  'optimizer.learning_rate': 0.05,
  'optimizer.warmup_steps': 0,
  'precision': 'float32',
}
SCALES = {
  'smoke': GENERATED
  | {
    'dataset.num_train': 16,
    'dataset.num_test': 16,
    'batch_size': 8,
    'num_epochs': 1,
    'eval_every': 1,
    'model.repeats': '1 1 1',  # compiles faster
  },
  'laptop': GENERATED
  | {
    'dataset.num_train': 200,
    'dataset.num_test': 200,
    'batch_size': 20,
    'num_epochs': 30,
    'eval_every': 5,
  },
  'full': {},
}


def rows(scale: str) -> list[Row]:
  return [
    Row(name, config, changes | SCALES[scale], dict(zip(COLUMNS, paper, strict=False)))
    for name, (config, changes, paper) in ROWS.items()
  ]


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  records = runs[name, seed].records
  numbers = {
    f'best_{column}': max(record[column] for record in records)
    for column in ('test_accuracy', 'test_top5_accuracy')
  } | records[-1]
  return {column: 100 * numbers[column] for column in COLUMNS}


def draw(entries: list[dict], runs: Runs):
  del runs
  labels = {c: f'{COLUMNS[c][0]} (%)' for c in ('train_accuracy', 'test_accuracy')}
  return drawing.beside_the_paper(entries, labels)


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  ours = {e['name']: e['ours'] for e in entries if e['ours']['test_accuracy'] is not None}
  if {'true', 'true_augmentation_dropout_decay'} <= ours.keys():
    with_all, without = ours['true_augmentation_dropout_decay'], ours['true']
    yield (
      f'Without regularizers the test accuracy is {without["test_accuracy"]:.2f} %, with '
      f'all of them {with_all["test_accuracy"]:.2f} %; without them the best evaluation, '
      'chosen on the test set, is '
      f'{without["best_test_accuracy"] - without["test_accuracy"]:.2f} points better than '
      'the last.'
    )
  random = [numbers for name, numbers in ours.items() if name.startswith('random')]
  if random:
    span = format_range([numbers['train_accuracy'] for numbers in random])
    yield (
      f'On random labels ({len(random)} rows) the training accuracy is {span} % and the '
      'test accuracy at most '
      f'{max(numbers["test_accuracy"] for numbers in random):.2f} %.'
    )
