"""The figure."""

import math

import numpy as np

from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Runs
from rethink_gen.studies.double_descent.curves import (
  largest_rise,
  of_curve,
  own_size,
  row_name,
  samples_of,
)
from rethink_gen.studies.double_descent.least_squares import NOISES
from rethink_gen.theory import descent


def draw(entries: list[dict], runs: Runs):
  """Plots least squares above, networks below."""
  figure, axes = drawing.subplots(2, 3, height=6.2)
  draw_fourier(entries, *axes[0, :2])
  draw_closed_forms(entries, axes[0, 2])
  draw_network_widths(entries, axes[1, 0])
  draw_epochs(entries, runs, axes[1, 1])
  draw_samples(entries, axes[1, 2])
  titles = (
    *('Fourier features: error', 'Fourier features: norm', 'closed forms'),
    *('networks: width', 'networks: epochs', 'networks: examples'),
  )
  for axis, title in zip(axes.flat, titles, strict=True):
    axis.set_title(title, fontsize=9)
    drawing.legend(axis, fontsize=7)
  for axis in (axes[1, 0], axes[1, 2]):
    widths = sorted({width for line in axis.lines for width in line.get_xdata()})
    ticks = [width for width in widths if width > 1 and math.log2(width).is_integer()]
    axis.minorticks_off()
    axis.set_xticks(ticks, [f'{width:.0f}' for width in ticks])
  return figure


def _explain(axis, styles):
  """Adds {label: (form, fillstyle)} to the legend in gray."""
  for label, (form, fill) in styles.items():
    options = {'fillstyle': fill, 'color': 'gray', 'linewidth': 1, 'markersize': 3}
    axis.plot([], [], form, label=label, **options)


def _plot(axis, curve, column, form, **options):
  """A line through (width, mean) with bars of standard errors, where there are any."""
  widths = [width for width, _ in curve]
  values = [ours[column] for _, ours in curve]
  errors = [ours.get(f'{column}_se') for _, ours in curve]
  errors = None if None in errors else errors
  options = {'linewidth': 1, 'markersize': 3} | options
  axis.errorbar(widths, values, errors, fmt=form, **options)


def draw_fourier(entries: list[dict], axis, of_norm) -> None:
  for noise, color in zip(NOISES, drawing.PALETTE, strict=False):
    curve = of_curve(entries, 'fourier', noise)
    label = f'{100 * noise:.0f} % wrong labels'
    _plot(axis, curve, 'error', 'o-', color=color)
    _plot(axis, curve, 'ridge_error', 's--', color=color, fillstyle='none')
    _plot(of_norm, curve, 'norm', 'o-', color=color, label=label)
  _explain(axis, {'no ridge': ('o-', 'full'), 'best ridge': ('s--', 'none')})
  for each in (axis, of_norm):
    for _, ours in curve[:1]:
      each.axvline(ours['threshold'], color='black', linestyle=':', linewidth=1)
    each.set(xscale='log', xlabel='random Fourier features N')
  axis.set(ylabel='test error (%)', ylim=(0, 100))
  of_norm.set(ylabel='weight norm', yscale='log')


def draw_closed_forms(entries: list[dict], axis) -> None:
  names = {'isotropic': 'Gaussian inputs', 'relu': 'random ReLU features'}
  for (part, label), color in zip(names.items(), drawing.PALETTE, strict=False):
    own = next((e['changes'] for e in entries if e['changes']['part'] == part), None)
    if own is None:
      continue
    n, noise = own['num_train'], own['noise']
    curve = of_curve(entries, part, noise)
    relative = [(width / n, ours) for width, ours in curve]
    _plot(axis, relative, 'risk', 'o', color=color, label=label)
    for low, high in ((0.08, 0.97), (1.03, 9.0)):
      x = np.geomspace(low, high, 60)
      d = own.get('inputs')
      y = [
        descent.random_relu_risk(ratio * n / d, n / d, noise)
        if d
        else descent.isotropic_risk(n, ratio * n, noise)
        for ratio in x
      ]
      axis.plot(x, y, color=color, linewidth=1)
  axis.axvline(1, color='black', linestyle=':', linewidth=1)
  axis.set(xscale='log', yscale='log', xlabel='N / n', ylabel='excess squared risk')


def draw_network_widths(entries: list[dict], axis) -> None:
  for noise, color in ((0.0, drawing.PALETTE[0]), (0.2, drawing.PALETTE[2])):
    curve = of_curve(entries, 'network', noise)
    label = f'{100 * noise:.0f} % wrong labels'
    _plot(axis, curve, 'error', 'o-', color=color, label=label)
    _plot(axis, curve, 'stopped_error', 's--', color=color, fillstyle='none')
    _plot(axis, curve, 'train_error', ':', color=color)
  styles = {'test, to the end': ('o-', 'full'), 'test, stopped early': ('s--', 'none')}
  _explain(axis, styles | {'training, to the end': (':', 'full')})
  for _, ours in curve[:1]:
    axis.axvline(ours['threshold'], color='black', linestyle=':', linewidth=1)
  axis.set(xscale='log', xlabel='hidden units H', ylabel='error (%)', ylim=(0, 100))


def draw_epochs(entries: list[dict], runs: Runs, axis) -> None:
  """The narrowest network, the one at the end of the largest rise, and the widest."""
  curve = of_curve(entries, 'network', NOISES[-1])
  rise = largest_rise(curve, 'error')
  shown = {curve[0][0], rise.width, curve[-1][0]} if rise else set()
  count = own_size(entries, 'network')
  for width, color in zip(sorted(shown), drawing.PALETTE, strict=False):
    summary = runs[row_name('network', count, width, NOISES[-1]), 0].summary
    errors = 100 * np.array(summary['curve'])
    axis.plot(summary['epochs'], errors, color=color, linewidth=1, label=f'H = {width}')
  axis.set(xscale='log', xlabel='epochs', ylabel='test error (%)')


def draw_samples(entries: list[dict], axis) -> None:
  counts = samples_of(entries, 'network')
  for count, color in zip(counts, drawing.PALETTE, strict=False):
    curve = of_curve(entries, 'network', NOISES[-1], count)
    _plot(axis, curve, 'error', 'o-', color=color, label=f'n = {count:,}')
    for _, ours in curve[:1]:
      axis.axvline(ours['threshold'], color=color, linestyle=':', linewidth=1)
  axis.set(xscale='log', xlabel='hidden units H', ylabel='test error (%)')
