"""Double descent of a convolutional network, width by width (arXiv:1912.02292)."""

from collections.abc import Iterator

from rethink_gen.paper import scales
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs

TITLE = 'Double descent of a convolutional network'
ASKED = (
  'As a five-layer convolutional network gets wider, does its test error rise where it '
  'just fits its training labels, and fall again beyond?'
)
FOUND = (
  'The paper does not ask. Nakkiran et al. (arXiv:1912.02292) find that with label noise '
  'it does: the test error peaks at the width that just fits the training set.'
)
COLUMNS = {
  'width': Column('width', '', '.0f'),
  'train_error': Column('training error', '%', '.2f'),
  'test_error': Column('test error, at the end', '%', '.2f'),
  'best_error': Column('lowest test error while training', '%', '.2f'),
}
SEEDS = {'laptop': 3}
CAPTION = (
  'Error at the end of training (solid) and on the training labels, wrong ones included '
  '(dotted), against the channels of the first convolution; bars are standard deviations '
  'over seeds. Dashed: the lowest test error of any evaluation, chosen on the test set '
  'itself, which shows what early stopping could gain at most.'
)
NOISES = (0.0, 0.1, 0.2)  # fractions of wrong labels
WIDTHS = {
  'smoke': (1, 4),
  'laptop': (1, 2, 3, 4, 6, 8, 12, 16),
  'full': (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64),
}
LAPTOP = {
  'dataset.num_train': 1_000,
  'dataset.num_test': 2_000,
  'dataset.crop_size': 16,
  'batch_size': 50,
  'num_epochs': 300,
}
CHANGES: dict[str, dict] = {
  'smoke': scales.DIGITS | {'dataset.crop_size': 8},
  'laptop': LAPTOP,
  'full': {},
}
SAYS = {
  'smoke': scales.SAYS['smoke'],
  'laptop': (
    'Laptop scale: 1,000 images of CIFAR-10, of which the middle 16 x 16 pixels are seen, '
    '300 epochs in batches of 50.'
  ),
  'full': 'Full scale: all of CIFAR-10, 500,000 steps at batch size 128, no augmentation.',
}


def rows(scale: str) -> list[Row]:
  noises = (NOISES[0], NOISES[-1]) if scale != 'full' else NOISES
  return [_row(scale, noise, width) for noise in noises for width in WIDTHS[scale]]


def _row(scale, noise, width):
  # A label that is drawn anew from ten classes is wrong in nine of ten cases.
  drawn = noise * 10 / 9
  labels = {'corruption.mode': 'partial_labels' if noise else 'none'}
  labels['corruption.label_noise'] = drawn
  name = f'noise{100 * noise:.0f}_w{width}'
  return Row(name, 'cnn', CHANGES[scale] | labels | {'model.width': width})


def split(name: str) -> tuple[int, int]:
  """(percent of wrong labels, width) from a row's name."""
  noise, _, width = name.removeprefix('noise').partition('_w')
  return int(noise), int(width)


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  records = runs[name, seed].records
  accuracies = [record['test_accuracy'] for record in records]
  return {
    'width': split(name)[1],
    'train_error': 100 * (1 - records[-1]['train_accuracy']),
    'test_error': 100 * (1 - accuracies[-1]),
    'best_error': 100 * (1 - max(accuracies)),
  }


def curves(entries: list[dict]) -> dict[int, list[dict]]:
  """{percent of wrong labels: finished entries, narrowest first}."""
  found: dict[int, list[dict]] = {}
  for entry in entries:
    if entry['status'] == 'complete':
      found.setdefault(split(entry['name'])[0], []).append(entry)
  return {
    noise: sorted(own, key=lambda e: split(e['name'])[1]) for noise, own in found.items()
  }


def draw(entries: list[dict], runs: Runs):
  figure, axis = drawing.subplots()
  styles = {'test_error': 'o-', 'best_error': 's--', 'train_error': ':'}
  for (noise, own), color in zip(curves(entries).items(), drawing.PALETTE, strict=False):
    for column, style in styles.items():
      spread = [entry['std'][column] for entry in own]
      axis.errorbar(
        [split(entry['name'])[1] for entry in own],
        [entry['ours'][column] for entry in own],
        yerr=None if None in spread else spread,
        fmt=style,
        color=color,
        linewidth=1,
        label=f'{noise} % wrong labels' if column == 'test_error' else None,
      )
  widths = sorted({split(entry['name'])[1] for entry in entries})
  axis.set(xscale='log', xlabel='width k', ylabel='error (%)', ylim=(0, 100))
  axis.minorticks_off()
  axis.set_xticks(widths, [str(width) for width in widths])
  drawing.legend(axis)
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  for noise, own in curves(entries).items():
    pairs = [(low, high) for i, high in enumerate(own) for low in own[:i]]
    if not pairs:
      continue

    def rise(pair):
      return pair[1]['ours']['test_error'] - pair[0]['ours']['test_error']

    low, high = max(pairs, key=rise)
    places = [f'width {split(entry["name"])[1]}' for entry in (low, high)]
    said = f'With {noise} % wrong labels, the test error '
    if rise((low, high)) <= 0:
      yield f'{said}falls from each width to the next.'
      continue
    spreads = [entry['std']['test_error'] for entry in (low, high)]
    seeds = len(high['seeds'])
    if None in spreads:
      error = ', one run each'
    else:
      error = f' ± {(sum(s**2 for s in spreads) / seeds) ** 0.5:.1f}'
    yield (
      f'{said}rises most from {places[0]} to {places[1]}, by {rise((low, high)):.1f}{error}'
      f' points; the training error is {high["ours"]["train_error"]:.1f} % there. At width '
      f'{split(own[-1]["name"])[1]} it is {own[-1]["ours"]["test_error"]:.1f} %.'
    )
