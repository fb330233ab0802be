"""Reports an audit: a table for the terminal, results.json, figure.png, report.html."""

import pathlib

import numpy as np

from rethink_gen import files
from rethink_gen.audit import randomizations, verdicts
from rethink_gen.reporting import drawing, pages, tables

NONE = '-'  # a cell without a number; ASCII, for any terminal


def text(result) -> str:
  """The table, the complexity and the verdict, for a terminal."""
  header, lines = table(result)
  rademacher = verdicts.complexity_sentence(result)
  return '\n'.join(
    [
      tables.to_markdown(header, lines),
      *filter(None, [rademacher]),
      *result.verdict,
      f'\nThe report is in {result.workdir}/report.html',
    ]
  )


def table(result) -> tuple[list[str], list[list[str]]]:
  """(header, lines) of text."""
  header = ['', 'fits', 'training accuracy', 'test accuracy', 'gap (points)']
  header += ['p', 'p, corrected']
  steps = not result.settings['is_estimator']
  if steps:
    header += ['steps to fit', 'times true labels']
  lines = []
  for level in result.levels:
    done = level['runs'] - level['diverged']
    line = [verdicts.label(level), f'{level["fitted"]} of {done}']
    if done:
      line += [
        verdicts.percent_range(level, 'train'),
        verdicts.percent_range(level, 'test'),
      ]
      line += [f'{100 * level["generalization_gap"]:.1f}', f'{level["p_value"]:.2g}']
      corrected = level['p_adjusted']
      line.append(NONE if corrected is None else f'{corrected:.2g}')
    else:
      line += 5 * ['diverged' if level['diverged'] else 'failed']
    if steps:
      fitted = [s for s in level['steps_to_fit'] if s is not None]
      line.append(f'{np.median(fitted):,.0f}' if len(fitted) == level['runs'] else NONE)
      line.append(_times(level))
    lines.append(line)
  return header, lines


def _times(level):
  if level['times_longer'] is not None:
    return f'{level["times_longer"]:.1f}'
  if level['longer_than'] is not None:
    return f'> {level["longer_than"]:.1f}'
  return NONE


def draw(result, runs):
  """Plots learning curves or accuracies, error against noise, and time to fit or gap."""
  figure, (left, middle, right) = drawing.subplots(1, 3, height=3.8)
  inputs = [x for x in result.levels if randomizations.changes_inputs(x['name'])]
  noisy = [level for level in result.levels if level not in inputs]
  shown = [noisy[0], noisy[-1]]
  shown += inputs
  if result.settings['is_estimator']:
    _draw_accuracies(left, shown)
  else:
    _draw_curves(left, shown, runs)
    below = {'loc': 'outside lower center', 'ncols': 3, 'frameon': False}
    figure.legend(*left.get_legend_handles_labels(), fontsize=7, **below)
  noise = [level['label_noise'] for level in noisy]
  for split, style in (('train', 'o--'), ('test', 'o-')):
    errors = [_error(level, split) for level in noisy]
    name = 'training' if split == 'train' else 'test'
    middle.plot(noise, errors, style, color=drawing.PALETTE[0], label=name)
    ranges = [level[f'{split}_accuracy_range'] or [np.nan, np.nan] for level in noisy]
    low, high = (100 - 100 * np.array(ranges).T)[::-1]
    middle.fill_between(noise, low, high, color=drawing.PALETTE[0], alpha=0.2, linewidth=0)
  chance = 100 - 100 * result.settings['chance_accuracy']
  middle.axhline(chance, color='black', linewidth=0.8, linestyle=':', label='chance')
  middle.set(xlabel='probability of a random label', ylabel='error (%)', ylim=(-2, 102))
  drawing.legend(middle, fontsize=7)
  if result.settings['is_estimator']:
    gaps = [100 * level['generalization_gap'] for level in noisy]
    right.plot(noise, gaps, 'o-', color=drawing.PALETTE[0])
    right.set(ylabel='generalization gap (points)')
  else:
    _draw_times(right, noisy)
  right.set(xlabel='probability of a random label')
  return figure


def _error(level, split):
  accuracy = level[f'{split}_accuracy']
  return np.nan if accuracy is None else 100 - 100 * accuracy


def _draw_curves(axis, levels, runs):
  for level, color in zip(levels, drawing.PALETTE, strict=False):
    name = verdicts.label(level)
    for run in runs[level['name']]:
      steps = [record['step'] for record in run.records]
      accuracy = [100 * record['train_accuracy'] for record in run.records]
      marker = 'o' if run.summary['steps_to_fit'] is not None else None
      axis.plot(
        steps,
        accuracy,
        color=color,
        label=name,
        linewidth=1,
        marker=marker,
        markevery=[-1],
        markersize=3,
      )
      name = None
  axis.set(xlabel='steps', ylabel='training accuracy (%)', ylim=(0, 102))
  if axis.dataLim.x1 > 0:  # a run that diverged immediately has no evaluation
    axis.set_xscale('log')


def _draw_accuracies(axis, levels):
  """Plots training accuracies as dots and test accuracies as crosses."""
  places = np.arange(len(levels))
  for split, style in (('train', 'o'), ('test', 'x')):
    values = [100 - _error(level, split) for level in levels]
    name = 'training' if split == 'train' else 'test'
    axis.plot(values, places, style, color=drawing.PALETTE[0], label=name)
  axis.set_yticks(places, [verdicts.label(level).replace(', ', ',\n') for level in levels])
  axis.invert_yaxis()
  axis.set(xlabel='accuracy (%)', xlim=(-3, 103))
  drawing.legend(axis, fontsize=7)


def _draw_times(axis, levels):
  noise = [level['label_noise'] for level in levels]
  times = [level['times_longer'] or np.nan for level in levels]
  axis.plot(noise, times, 'o-', color=drawing.PALETTE[0], label='fitted')
  above = [level['longer_than'] or np.nan for level in levels]
  if np.isfinite(above).any():
    axis.plot(noise, above, '^', color=drawing.PALETTE[1], label='not fitted: lower bound')
    drawing.legend(axis, fontsize=7)
  axis.set(ylabel='steps to fit, true labels = 1', ylim=0, xlim=(-0.03, 1.03))


def write(result, runs) -> None:
  """Writes results.json, figure.png and report.html to the audit's folder."""
  png = pages.image(draw(result, runs), 'png')
  files.write_bytes(result.workdir / 'figure.png', png)
  results = result._asdict() | {'workdir': str(result.workdir)}
  files.write_json(result.workdir / 'results.json', results)
  pages.write(result.workdir / 'report.html', render(result, png))


def render(result, png: bytes) -> str:
  """The text of report.html."""
  header, lines = table(result)
  return pages.render(
    pathlib.Path(__file__).with_name('report.html'),
    result=result,
    settings=result.settings,
    answer=verdicts.answer(result),
    complexity=verdicts.complexity_sentence(result),
    chance=verdicts.chance_sentence(result.settings),
    drawn=verdicts.DRAWN[result.settings['random_labels']],
    linear=bool(result.rademacher and result.rademacher['dimension']),
    level=verdicts.LEVEL,
    header=header,
    lines=lines,
    figure=pages.data_uri(png, 'png'),
  )
