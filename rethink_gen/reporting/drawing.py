"""The style and shared plots of all figures; matplotlib is imported on first use."""

import numpy as np

from rethink_gen.reporting.artifacts import Runs

# Distinguishable by color-blind readers (Okabe and Ito).
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
STYLE: dict = {
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


def subplots(rows: int = 1, columns: int = 1, height: float = 3.2, **options):
  """(figure, axes), as from matplotlib.pyplot but without its global state."""
  import matplotlib.figure

  with matplotlib.rc_context(STYLE):
    figure = matplotlib.figure.Figure(figsize=(WIDTH, height), layout='constrained')
    return figure, figure.subplots(rows, columns, **options)


def save(figure, path, **options) -> None:
  import matplotlib

  with matplotlib.rc_context(STYLE):
    figure.savefig(path, **options)


def legend(axis, **options) -> None:
  """Adds a legend if anything drawn has a label."""
  if axis.get_legend_handles_labels()[0]:
    axis.legend(frameon=False, **options)


def beside_the_paper(entries: list[dict], columns: dict[str, str]):
  """A panel per {column: label}, a line per row; open circles: the paper, dots: ours."""
  height = 0.28 * len(entries) + 1.2
  figure, axes = subplots(1, len(columns), height=height, sharey=True, squeeze=False)
  for axis, (column, label) in zip(axes[0], columns.items(), strict=True):
    for line, entry in enumerate(entries):
      paper, ours = entry['paper'].get(column), entry['ours'][column]
      if paper is not None:
        axis.plot(paper, line, 'o', color='black', fillstyle='none', markersize=7)
      if ours is not None:
        color = COLORS.get(entry['config'].removesuffix('_random'), PALETTE[0])
        axis.errorbar(ours, line, xerr=entry['std'][column], fmt='o', color=color)
      if paper is not None and ours is not None:
        axis.plot([paper, ours], [line, line], color=color, linewidth=1)
    axis.set(xlabel=label, xlim=(-3, 103))
    axis.grid(axis='x')
  axes[0, 0].set_yticks(range(len(entries)), [entry['name'] for entry in entries])
  axes[0, 0].invert_yaxis()
  return figure


def accuracy_curves(runs: Runs, names: dict[str, str]):
  """Training and test accuracy against epochs for {(row, seed): Run}, one color per row.

  The gap from the test accuracy up to its running maximum is shaded; names: {row: label}.
  """
  figure, axis = subplots(height=3.8)
  colors = dict(zip(names, PALETTE, strict=False))
  for (name, seed), run in runs.items():
    epochs = [record['epoch'] for record in run.records]
    train, test = (
      100 * np.array([record[f'{split}_accuracy'] for record in run.records])
      for split in ('train', 'test')
    )
    color, label = colors[name], names[name] if seed == 0 else None
    axis.plot(epochs, train, '--', color=color, linewidth=1)
    axis.plot(epochs, test, color=color, label=label)
    axis.fill_between(epochs, test, np.maximum.accumulate(test), color=color, alpha=0.3)
  axis.set(xlabel='epochs', ylabel='accuracy (%)', ylim=(0, 101))
  legend(axis, loc='lower right')
  return figure


def smooth(losses: np.ndarray, interval: int) -> tuple[np.ndarray, np.ndarray]:
  """(steps, losses): means over intervals of `interval` steps, and where those end."""
  interval = max(1, min(interval, len(losses)))
  count = len(losses) // interval
  means = np.asarray(losses[: count * interval]).reshape(count, interval).mean(1)
  return np.arange(1, count + 1) * interval, means
