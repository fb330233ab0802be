"""Figure 1(b): how much longer corrupted labels take to fit; 1(c) shares the grid."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.signal

from rethink_gen.paper import scales
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Run, Runs

TITLE = 'Figure 1(b): how much longer corrupted labels take to fit'
ASKED = (
  'If each label is replaced by a random one with probability p, how does the time to fit '
  'the training set grow with p?'
)
FOUND = (
  'By a small constant factor: training takes at most about four times as long as on true '
  'labels (the paper gives curves but no numbers).'
)
COLUMNS = {
  'slowdown': Column('time to fit, relative to p = 0', '', '.2f'),
  'steps_to_fit': Column('steps to fit', '', ',.0f'),
}
SEEDS = {'laptop': 3, 'full': 3}
MODELS = ('inception', 'alexnet', 'mlp_1x512')
CONVERGED = 0.99  # on the whole training set; the paper's MLP ends at 99.34 % at p = 1
CAPTION = (
  'Convergence time is the step at which the accuracy on the whole training set reaches '
  f'{CONVERGED:.0%}; between evaluations it is interpolated with the accuracy on the '
  'batches. The plot shows its ratio to the time at p = 0 with the same seed, and the '
  'standard deviation over seeds. A run that never converges has no ratio; a triangle '
  'marks the lower bound given by its last step.'
)


def noise_levels(scale: str) -> tuple[float, ...]:
  """The probabilities p: the paper's eleven, or six at laptop scale."""
  step = 2 if scale == 'laptop' else 1
  return tuple(level / 10 for level in range(0, 11, step))


def rows(scale: str) -> list[Row]:
  return [_row(scale, model, noise) for model in MODELS for noise in noise_levels(scale)]


def _row(scale, model, noise):
  changes = scales.changes(scale, model) | {'stop_at_train_accuracy': CONVERGED}
  changes |= scales.noise_level(scale, model) | label_noise(noise)
  return Row(f'{model}_{noise:.1f}', model, changes)


def label_noise(noise: float) -> dict[str, Any]:
  """{field: value} for a noise level; empty at 0, which is a run on true labels."""
  if not noise:
    return {}
  return {'corruption.mode': 'partial_labels', 'corruption.label_noise': noise}


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  model, _ = split(name)
  steps = steps_to_fit(runs[name, seed])
  base = runs.get((f'{model}_0.0', seed))
  base_steps = base and steps_to_fit(base)
  slowdown = steps / base_steps if steps and base_steps else None
  return {'slowdown': slowdown, 'steps_to_fit': steps}


def steps_to_fit(run: Run, threshold: float = CONVERGED) -> int | None:
  """The step at which training accuracy reached a threshold, or None if it never did.

  Between the last evaluation below the threshold and the next one, the accuracy is that on
  the batches, smoothed over one epoch around each step, plus a correction that matches it
  to the two evaluations and is linear in between. Without batch accuracies, the step of the
  evaluation counts.
  """
  before = {'step': 0, 'train_accuracy': None}
  for record in run.records:
    if record['train_accuracy'] >= threshold:
      break
    before = record
  else:
    return None
  first, last = before['step'], record['step']
  batches = np.asarray(run.accuracies, np.float64)[:last]
  if len(batches) < last or not np.isfinite(batches).all():
    return last
  smooth = smoothed(batches, run.summary['steps_per_epoch'])
  # There is no evaluation before the first step; the first batches stand in for it.
  start = before['train_accuracy'] if first else smooth[0]
  steps = np.arange(first + 1, last + 1)
  shift = np.interp(
    steps,
    (first, last),
    (start - smooth[max(first - 1, 0)], record['train_accuracy'] - smooth[last - 1]),
  )
  # The tolerance is for rounding: the last step is at the threshold by definition.
  return int(steps[np.argmax(smooth[first:last] + shift >= threshold - 1e-9)])


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
  """Moving average over about `width` values, with a linear fit at both ends."""
  width = min(width, len(values))
  window = width - 1 + width % 2  # an odd number
  return scipy.signal.savgol_filter(values, window, polyorder=min(1, window - 1))


def split(name: str) -> tuple[str, float]:
  """(model, noise level) from a row's name."""
  model, _, noise = name.rpartition('_')
  return model, float(noise)


def draw(entries: list[dict], runs: Runs):
  figure, axis = drawing.subplots()
  plot(axis, entries, 'slowdown')
  for (name, seed), run in runs.items():
    model, noise = split(name)
    base = runs.get((f'{model}_0.0', seed))
    never = run.summary['status'] == 'complete' and steps_to_fit(run) is None
    if never and base and steps_to_fit(base):
      bound = run.summary['steps'] / steps_to_fit(base)
      axis.plot(noise, bound, '^', color=drawing.COLORS[model])
  axis.set(xlabel='label noise p', ylabel='convergence time / that at p = 0', ylim=0)
  drawing.legend(axis)
  return figure


def plot(axis, entries: list[dict], column: str) -> None:
  """Plots a column against the noise level, one line per model, with its spread."""
  for model in MODELS:
    points = [
      (split(entry['name'])[1], entry['ours'][column], entry['std'][column])
      for entry in entries
      if entry['config'] == model and entry['ours'][column] is not None
    ]
    if points:
      noise, values, spread = zip(*points, strict=True)
      axis.errorbar(
        noise,
        values,
        yerr=None if None in spread else spread,
        fmt='o-',
        capsize=2,
        color=drawing.COLORS[model],
        label=drawing.NAMES[model],
      )


def findings(entries: list[dict]) -> Iterator[str]:
  for model in MODELS:
    mine = {split(e['name'])[1]: e for e in entries if e['config'] == model}
    last = mine.get(1.0)
    if last and last['ours']['slowdown'] is not None:
      spread = last['std']['slowdown']
      seeds = '' if spread is None else f' ± {spread:.2f} ({len(last["seeds"])} seeds)'
      yield (
        f'{drawing.NAMES[model]}: fitting takes {last["ours"]["slowdown"]:.2f}{seeds} '
        f'times as long at p = 1 as at p = 0; {_trend(mine)}.'
      )
  never = [
    entry['name']
    for entry in entries
    if entry['status'] == 'complete' and entry['ours']['steps_to_fit'] is None
  ]
  if never:
    yield f'Not fitted by every seed within its epoch limit: {", ".join(never)}.'


def _trend(mine):
  """Says whether the time grows from each noise level to the next, given {noise: entry}."""
  levels = sorted(noise for noise, e in mine.items() if e['ours']['slowdown'] is not None)
  means = [mine[noise]['ours']['slowdown'] for noise in levels]
  falls = [
    f'{low} to {high}'
    for low, high, a, b in zip(levels, levels[1:], means, means[1:], strict=False)
    if b < a
  ]
  if not falls:
    return 'the mean grows from each noise level to the next'
  return f'the mean falls from {", ".join(falls)}'
