"""One look for all figures."""

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib import rc_context

# Told apart by colour-blind readers too (Okabe and Ito).
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
COLORS = dict(
  zip(
    ('inception', 'alexnet', 'mlp_1x512', 'mlp_3x512', 'inception_no_bn'),
    PALETTE,
    strict=False,
  )
)
NAMES = {
  'inception': 'Inception',
  'inception_no_bn': 'Inception without batch normalization',
  'alexnet': 'AlexNet',
  'mlp_1x512': 'MLP 1×512',
  'mlp_3x512': 'MLP 3×512',
}
STYLE = {
  'axes.axisbelow': True,
  'axes.grid': True,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.dpi': 130,
  'font.size': 9,
  'grid.color': '#dddddd',
  'lines.markersize': 4,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'rethink_gen',  # the same figure gives the same file
}
WIDTH = 8.0  # inches


def subplots(rows=1, columns=1, height=3.2, **options):
  """(figure, axes) as of matplotlib, without its global state."""
  with rc_context(STYLE):
    figure = matplotlib.figure.Figure(figsize=(WIDTH, height), layout='constrained')
    return figure, figure.subplots(rows, columns, **options)


def save(figure, path, **options):
  with rc_context(STYLE):
    figure.savefig(path, **options)


def legend(axis, **options):
  """A legend, where anything is drawn that wants one."""
  if axis.get_legend_handles_labels()[0]:
    axis.legend(frameon=False, **options)


def smooth(losses, interval):
  """(steps, losses) averaged over intervals of so many steps, at the intervals' ends."""
  interval = max(1, min(interval, len(losses)))
  count = len(losses) // interval
  means = np.asarray(losses[: count * interval]).reshape(count, interval).mean(1)
  return np.arange(1, count + 1) * interval, means
