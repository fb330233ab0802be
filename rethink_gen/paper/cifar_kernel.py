"""Section 5: kernel machines on CIFAR-10, with pixels or random filters as features."""

from collections.abc import Iterator

from rethink_gen.paper import kernels
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs

check, compute = kernels.check, kernels.compute
expected_seconds, measure = kernels.expected_seconds, kernels.measure

TITLE = 'Kernel machines on CIFAR-10: pixels and random filters'
ASKED = (
  'How good is the minimum-norm solution on CIFAR-10, without augmentation or '
  'regularization, on pixels and on untrained features?'
)
FOUND = (
  'A Gaussian kernel on pixels has 46 % test error; the linear kernel on 32,000 random '
  'convolutional filters has 17 %, and 15 % with a ridge penalty.'
)
COLUMNS = kernels.COLUMNS | {'ridge': Column('best ridge', '', 'g')}
CAPTION = (
  'Left: test error against the number of random filters, without a ridge penalty (where '
  'there are enough filters to fit every example) and with the ridge λ that is best on '
  'held-out training examples. Middle: test error against λ. Right: the largest relative '
  'residual over classes against iterations at λ = 0. The filters are random training '
  'patches, whitened; the bandwidth for pixels is the best on a fifth of 10,000 training '
  'examples, after fitting the other four fifths. Held-out examples are not trained on; '
  'where none are held out, on pixels, λ is chosen on the test set itself, which makes its '
  'error and its p too small. p is from McNemar’s exact test on the test examples that '
  'exactly one of the two solutions gets wrong. A solution interpolates if it classifies '
  'every training example correctly at a relative residual of 1e-3 or less.'
)
SAYS = {
  'smoke': '500 handwritten digits.',
  'laptop': (
    'All of CIFAR-10 on pixels; up to 4,096 random filters on 10,000 images (2,000 of them '
    'held out), and 1,024 on all. Errors on fewer images are not comparable to the '
    "paper's."
  ),
  'full': 'All of CIFAR-10, and up to 32,000 random filters, as in the paper.',
}
RANDOM = {'features': 'convolutional', 'patch': 6, 'block': 128}
EXACT = [0.0, 0.001, 0.01, 0.1, 1.0]
# (examples, held out, filters, whether an exact fit is possible)
SCALES = {
  'smoke': ((500, 100, 16, False), (500, 100, 128, True)),
  'laptop': (
    (10_000, 2_000, 256, False),
    (10_000, 2_000, 1_024, False),
    (10_000, 2_000, 2_048, True),
    (10_000, 2_000, 4_096, True),
    (50_000, 2_000, 1_024, False),
  ),
  'full': (
    (50_000, 2_000, 1_024, False),
    (50_000, 2_000, 4_096, False),
    (50_000, 2_000, 8_000, True),
    (50_000, 2_000, 16_000, True),
    (50_000, 2_000, 32_000, True),
  ),
}


def rows(scale: str) -> list[Row]:
  common = kernels.COMMON | {'dataset': 'cifar10', 'num_test': 10_000}
  pixels = {
    'features': 'pixels',
    'num_train': 50_000,
    'bandwidths': [0.05, 0.02, 0.01, 0.005, 0.002],
    'ridges': EXACT,
  }
  if scale == 'smoke':
    common |= kernels.SMOKE
    pixels |= {'num_train': 500}
  paper = {'train_error': 0.0, 'test_error': 46.0}
  return [
    Row('pixels', 'cifar_kernel', common | pixels, paper),
    *(_random(common, *line) for line in SCALES[scale]),
  ]


def _random(common, examples, held_out, filters, exact):
  changes = RANDOM | {'num_train': examples, 'held_out': held_out, 'filters': filters}
  changes |= {'ridges': EXACT if exact else EXACT[1:]}
  paper = {}
  if filters == 32_000:
    paper = {'train_error': 0.0, 'test_error': 17.0, 'ridge_test_error': 15.0}
  return Row(
    f'filters_{filters}_of_{examples}',
    'cifar_kernel',
    common | changes,
    paper,
    f'trained on {examples - held_out:,} images',
  )


def draw(entries: list[dict], runs: Runs):
  figure, (number, error, residual) = drawing.subplots(1, 3, height=3.8)
  colors = (*drawing.PALETTE, 'black')
  for color, entry in zip(colors, entries, strict=False):
    for summary in kernels.summaries(runs, entry['name']):
      kernels.plot_path(error, summary, 'test_error', color, entry['name'])
      kernels.plot_residuals(residual, summary, color)
  random = [entry for entry in entries if 'filters' in entry['changes']]
  for examples in sorted({entry['changes']['num_train'] for entry in random}):
    for column, style in (('test_error', 'o--'), ('ridge_test_error', 'o-')):
      points = [
        (entry['changes']['filters'], entry['ours'][column])
        for entry in random
        if entry['changes']['num_train'] == examples and entry['ours'][column] is not None
      ]
      if points:
        kind = 'ridge' if column.startswith('ridge') else 'no ridge'
        number.plot(*zip(*points, strict=True), style, label=f'{examples:,} images, {kind}')
  number.set(xscale='log', xlabel='random filters', ylabel='test error (%)')
  number.xaxis.set_minor_formatter('')  # the labels would overlap
  drawing.legend(number, fontsize=6)
  error.set(ylabel='test error (%)')
  rows = error.get_legend_handles_labels()
  figure.legend(*rows, loc='outside lower center', ncols=3, frameon=False, fontsize=7)
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  for entry in entries:
    ours, name = entry['ours'], entry['name']
    if ours['test_error'] is not None:
      yield (
        f'{name}: without a ridge the training error is {ours["train_error"]:.2f} % and '
        f'the test error {ours["test_error"]:.2f} %, at a relative residual of '
        f'{ours["residual"]:.2e}'
        f'{"" if ours["interpolates"] else ", which does not count as interpolation"}.'
      )
    if ours['ridge_test_error'] is not None:
      p = ours['ridge_p_value']
      yield (
        f'{name}: with a ridge of {ours["ridge"]:g} the test error is '
        f'{ours["ridge_test_error"]:.2f} %'
        f'{"" if p is None else f" (p = {p:.2g} against no ridge)"}.'
      )
