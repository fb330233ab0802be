"""Figure 1(a): training loss of Inception on five kinds of data."""

from collections.abc import Iterator

import numpy as np

from rethink_gen.paper import scales
from rethink_gen.reporting import differences, drawing
from rethink_gen.reporting.artifacts import Column, Row, Run, Runs

TITLE = 'Figure 1(a): Inception fits anything'
ASKED = (
  'How does training proceed when the labels are random, or the images are: with pixels '
  'shuffled by one permutation for all, by a different one for each, or replaced by '
  'Gaussian noise?'
)
FOUND = (
  'The loss falls to zero in all five cases, without a change to the learning-rate '
  'schedule. True labels come first, then shuffled pixels, then random pixels and Gaussian '
  'noise, and random labels last. The paper gives curves but no numbers; an independent '
  'reproduction at full scale reports a loss of at most 0.1 after 4,000 steps (true '
  'labels), 5,600 (shuffled pixels), 8,800 (Gaussian), 11,900 (random pixels) and 16,600 '
  '(random labels), and of at most 0.01 about 1,100 to 1,700 steps later.'
)
SEEDS = {'laptop': 3, 'full': 3}
COLUMNS = {
  'steps_to_loss_0.1': Column('steps to loss 0.1', '', ',.0f'),
  'steps_to_loss_0.01': Column('steps to loss 0.01', '', ',.0f'),
  'final_loss': Column('final loss', '', '.4f'),
}
LABELS = {
  'inception': 'true labels',
  'inception_shuffled_pixels': 'shuffled pixels',
  'inception_gaussian': 'Gaussian',
  'inception_random_pixels': 'random pixels',
  'inception_random': 'random labels',
}
CAPTION = (
  'Loss on the training batches against steps; each point is the mean over the interval '
  'given on the axis. Left: as in the paper. Right: on a logarithmic scale, to show how '
  'close to zero it gets. A curve ends with its run; at laptop scale, once all training '
  'images are classified correctly.'
)


def rows(scale: str) -> list[Row]:
  until = scales.INCEPTION_UNTIL_IT_FITS if scale == 'laptop' else {}
  return [Row(config, config, scales.changes(scale, config) | until) for config in LABELS]


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  steps, losses = _curve(runs[name, seed])

  def first_step(threshold):
    below = np.flatnonzero(losses <= threshold)
    return int(steps[below[0]]) if below.size else None

  return {
    'steps_to_loss_0.1': first_step(0.1),
    'steps_to_loss_0.01': first_step(0.01),
    'final_loss': float(losses[-1]),
  }


def interval(run: Run) -> int:
  """Number of steps over which the loss is averaged: 101 for 25,350 steps, at least 8."""
  return max(8, run.summary['steps'] // 250)


def _curve(run):
  return drawing.smooth(run.losses, interval(run))


def draw(entries: list[dict], runs: Runs):
  figure, axes = drawing.subplots(1, 2)
  colors = dict(zip(LABELS, drawing.PALETTE, strict=False))
  for (name, seed), run in runs.items():
    steps, losses = _curve(run)
    for axis in axes:
      label = LABELS[name] if seed == 0 else None
      axis.plot(steps, losses, color=colors[name], label=label, linewidth=1.2)
  intervals = {interval(run) for run in runs.values()}
  every = f'mean over {" or ".join(map(str, sorted(intervals)))} steps'
  axes[0].set(xlabel='steps', ylabel=f'training loss, {every}', ylim=(0, 3))
  axes[1].set(xlabel='steps', yscale='log')
  drawing.legend(axes[0])
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  yield from _order(entries)
  values = {entry['name']: entry['values']['steps_to_loss_0.1'] for entry in entries}
  for before, after in zip(LABELS, list(LABELS)[1:], strict=False):
    later = differences.paired(values.get(after, {}), values.get(before, {}))
    if later and later.error is not None:
      yield (
        f'In the paper the loss falls later on {LABELS[after]} than on {LABELS[before]}; '
        f'here it reached 0.1 later by {differences.describe(later, "steps")}.'
      )


def _order(entries):
  reached = {
    LABELS[entry['name']]: steps
    for entry in entries
    if (steps := entry['ours']['steps_to_loss_0.1']) is not None
  }
  order = ', '.join(
    f'{name} ({reached[name]:,.0f})' for name in sorted(reached, key=reached.get)
  )
  yield f'Order in which the loss reached 0.1, with the steps: {order or "none did"}.'
  missing = [LABELS[e['name']] for e in entries if LABELS[e['name']] not in reached]
  if missing:
    yield f'Not reached by every seed by the end of the run: {", ".join(missing)}.'
