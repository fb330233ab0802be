"""Double descent of a convolutional network, width by width (arXiv:1912.02292)."""

from collections.abc import Iterator

from rethink_gen.paper import figure1b, scales
from rethink_gen.reporting import differences, drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.studies.double_descent.curves import largest_rise

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
  'laptop': (1, 2, 3, 4, 5, 6, 8, 10),
  'full': (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64),
}
LAPTOP = {
  'dataset.num_train': 2_000,
  'dataset.num_test': 5_000,
  'dataset.crop_size': 16,
  'batch_size': 50,
  'num_epochs': 150,
  'eval_every': 15,
}
CHANGES: dict[str, dict] = {
  'smoke': scales.DIGITS | {'dataset.crop_size': 8},
  'laptop': LAPTOP,
  'full': {},
}
SAYS = {
  'smoke': scales.SAYS['smoke'],
  'laptop': (
    'Laptop scale: 2,000 images of CIFAR-10, of which the middle 16 x 16 pixels are seen, '
    '150 epochs in batches of 50.'
  ),
  'full': 'Full scale: all of CIFAR-10, 500,000 steps at batch size 128, no augmentation.',
}


def rows(scale: str) -> list[Row]:
  noises = (NOISES[0], NOISES[-1]) if scale != 'full' else NOISES
  return [_row(scale, noise, width) for noise in noises for width in WIDTHS[scale]]


def _row(scale, noise, width):
  # A redrawn label comes from all ten classes, so it is wrong in nine of ten cases.
  labels = figure1b.label_noise(noise * 10 / 9)
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
    found = {split(entry['name'])[1]: entry for entry in own}
    # The error of the difference is taken over seeds below, since widths share their data.
    errors = [
      (width, {'error': entry['ours']['test_error'], 'error_se': 0.0})
      for width, entry in found.items()
    ]
    rise = largest_rise(errors, 'error')
    if rise is None:
      continue
    said = f'With {noise} % wrong labels, the test error '
    if rise.size <= 0:
      yield f'{said}rises from no width to a larger one.'
      continue
    pair = (found[width]['values']['test_error'] for width in (rise.width, rise.low))
    larger = differences.paired(*pair)
    assert larger is not None  # both widths are finished
    widest, last = errors[-1]
    yield (
      f'{said}rises most from width {rise.low} to width {rise.width}, by '
      f'{differences.describe(larger, "points")}; the training error is '
      f'{found[rise.width]["ours"]["train_error"]:.1f} % there. The test error at width '
      f'{widest} is {last["error"]:.1f} %.'
    )
