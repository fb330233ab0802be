"""Section 5: a Gaussian kernel machine that fits MNIST without any regularization."""

import math
from collections.abc import Iterator

from rethink_gen.paper import kernels
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Row, Runs

check, compute = kernels.check, kernels.compute
expected_seconds, measure = kernels.expected_seconds, kernels.measure

TITLE = 'Kernel machines on MNIST: every example fitted, without regularization'
ASKED = (
  'A kernel machine has as many coefficients as there are examples, and one linear system '
  'fits them all. Does the minimum-norm solution generalize without any regularization? '
  'And does a smaller norm mean a better model?'
)
FOUND = (
  'It does: 1.2 % test error on raw pixels, 0.6 % on Gabor wavelets, and a ridge penalty '
  'does not help. But the wavelets have the larger norm, 390 versus 220: of these two '
  'models, the one with the smaller norm is not the better one.'
)
COLUMNS = kernels.COLUMNS
CAPTION = (
  'Left and middle: test error and norm sqrt(αᵀKα), over all classes, against the ridge λ '
  'in (K + λI) α = Y, where Y is 1 for the class and 0 for the others. Right: the largest '
  'relative residual over classes against iterations at λ = 0. A solution interpolates if '
  'it classifies every training example correctly at a relative residual of 1e-3 or less. '
  'The best ridge is chosen on the test set itself, which makes its error and its p too '
  'small. p is from McNemar’s exact test on the test examples that exactly one of the two '
  'solutions gets wrong.'
)
SAYS = {
  'smoke': '500 handwritten digits.',
  'laptop': 'All of MNIST, as in the paper.',
  'full': 'All of MNIST, as in the paper.',
}
GABOR = {
  'features': 'gabor',
  'wavelengths': [4.0, 6.0, 9.0],
  'orientations': 8,
  'window': 6,
  'stride': 3,
}


def rows(scale: str) -> list[Row]:
  data = {'dataset': 'mnist', 'num_train': 60_000, 'num_test': 10_000}
  pixels, wavelets = {'features': 'pixels', 'bandwidths': [0.02]}, GABOR
  if scale == 'smoke':
    data = kernels.SMOKE
    wavelets = GABOR | {'wavelengths': [3.0, 5.0], 'window': 3, 'stride': 2}
  wavelets = wavelets | {'bandwidths': [32.0, 16.0, 8.0, 4.0]}
  return [
    Row(
      'pixels',
      'mnist_kernel',
      kernels.COMMON | data | pixels,
      {'train_error': 0.0, 'test_error': 1.2, 'norm': 220.0},
      "the kernel from the first author's script, exp(-0.02 |x - x'|²)",
    ),
    Row(
      'gabor',
      'mnist_kernel',
      kernels.COMMON | data | wavelets,
      {'train_error': 0.0, 'test_error': 0.6, 'norm': 390.0},
      'the paper does not say which wavelets',
    ),
  ]


def draw(entries: list[dict], runs: Runs):
  figure, (error, norm, residual) = drawing.subplots(1, 3)
  for color, entry in zip(drawing.PALETTE, entries, strict=False):
    for summary in kernels.summaries(runs, entry['name']):
      kernels.plot_path(error, summary, 'test_error', color, entry['name'])
      kernels.plot_path(norm, summary, 'norm', color, entry['name'])
      kernels.plot_residuals(residual, summary, color)
  error.set(ylabel='test error (%)', ylim=0)
  norm.set(ylabel='norm', ylim=0)
  drawing.legend(error)
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  ours = {e['name']: e['ours'] for e in entries if e['ours']['test_error'] is not None}
  for name, numbers in ours.items():
    yield (
      f'{name}: without a ridge the training error is {numbers["train_error"]:.2f} %, the '
      f'test error {numbers["test_error"]:.2f} % and the norm {numbers["norm"]:,.0f}, at a '
      f'relative residual of {numbers["residual"]:.2e}'
      f'{"" if numbers["interpolates"] else ", which does not count as interpolation"}.'
    )
    if numbers['ridge_test_error'] is not None:
      change = numbers['ridge_test_error'] - numbers['test_error']
      p = numbers['ridge_p_value']
      yield (
        f'{name}: the best ridge of the path, chosen on the test set, changes the test '
        f'error by {change:+z.2f} points{"" if p is None else f" (p = {p:.2g})"}.'
      )
  if {'pixels', 'gabor'} <= ours.keys():
    pixels, gabor = ours['pixels'], ours['gabor']
    side = 'larger' if gabor['norm'] > pixels['norm'] else 'smaller'
    change = gabor['test_error'] - pixels['test_error']
    error = math.hypot(gabor['standard_error'], pixels['standard_error'])
    yield (
      f'The wavelets change the test error by {change:+z.2f} points (standard error '
      f'{error:.2f}, as if on two independent test sets) and have the {side} norm.'
    )
