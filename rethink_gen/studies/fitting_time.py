"""Beyond the paper: finding wrong labels by how late their examples are fitted.

Arpit et al. (arXiv:1706.05394) showed that networks learn regular examples first, and
Toneva et al. (arXiv:1812.05159) that examples with wrong labels are forgotten more often.
"""

import functools
from collections.abc import Iterator

import numpy as np

from rethink_gen import config as config_lib
from rethink_gen.data import sources
from rethink_gen.paper import figure1b, scales
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Run, Runs
from rethink_gen.train import loading

TITLE = 'Fitting time: finding wrong labels by how late they are fitted'
ASKED = (
  'A network that fits corrupted labels fits the wrong ones too, but when? Does the epoch '
  'in which an example is fitted, or how often it is forgotten along the way, reveal which '
  'labels are wrong, without a single label that is known to be right?'
)
FOUND = (
  'The paper does not ask this. It finds that corrupted labels take longer to fit (figure '
  '1(b)), and that networks still use whatever signal is left in the labels (figure 1(c)).'
)
MODEL = 'mlp_1x512'
NOISE_LEVELS = (0.1, 0.4, 0.8)
NUM_EPOCHS = 80  # as for random labels, of which the MLP fits 99 % by then (RESULTS.md)
# {ranking: its name in legends and sentences}; it puts the most suspicious examples last.
RANKINGS = {
  'first_fitted': 'first fit',
  'last_fitted': 'last fit',
  'forgotten': 'times forgotten',
}
COLUMNS = {'wrong_labels': Column('wrong labels', '%', '.2f')} | {
  f'{ranking}_{column}': Column(f'{name}: {label}', '%', '.2f')
  for column, label in (
    ('average_precision', 'average precision'),
    ('precision', 'precision at recall 1/2'),
  )
  for ranking, name in RANKINGS.items()
}
CAPTION = (
  'Training examples are ranked by suspicion: those that were fitted last, or forgotten '
  'most often, come first. Precision is the fraction of wrong labels among the examples '
  'taken so far, recall the fraction of all wrong labels that are among them; dots mark '
  'where half are found. Dotted: the fraction of labels that are wrong, the precision of '
  'guessing. First fit is the first epoch after which the network predicts the label of an '
  'example, last fit the epoch from which it keeps doing so; an example without one counts '
  'as fitted after all others. An example that was never right counts as forgotten most '
  'often, as in arXiv:1812.05159. A redrawn label that came out unchanged is not wrong.'
)
OF_CIFAR10 = f'The MLP 1×512 on all of CIFAR-10, {NUM_EPOCHS} epochs.'
SAYS = {'smoke': scales.SAYS['smoke'], 'laptop': OF_CIFAR10, 'full': OF_CIFAR10}


def rows(scale: str) -> list[Row]:
  return [_row(scale, noise) for noise in NOISE_LEVELS]


def _row(scale, noise):
  changes = {'num_epochs': NUM_EPOCHS} | scales.changes(scale, MODEL)
  changes |= {'record_examples': True} | figure1b.label_noise(noise)
  return Row(f'{MODEL}_{noise:.1f}', MODEL, changes)


def find_wrong(run: Run) -> np.ndarray:
  """bool (n,): which training labels of a run the corruption changed."""
  config = config_lib.default()
  config.update(run.config)
  original = _load(config.dataset.name, config.dataset.data_dir, config.dataset.path)
  learned, _ = loading.corrupt(config, original)
  return learned.y_train != original.y_train[: learned.num_train]


@functools.lru_cache(maxsize=1)
def _load(*data_set):
  return sources.load(*data_set)


def suspicion(examples: dict[str, np.ndarray], ranking: str) -> np.ndarray:
  """Scores (n,): higher for examples that were fitted later or forgotten more often.

  Examples that were never fitted, or for `last_fitted` are wrong at the end, tie for the
  highest score.

  Args:
    examples: from `example_history.summarize`.
    ranking: one of RANKINGS.
  """
  values = examples[ranking]
  fitted = examples['right'] if ranking == 'last_fitted' else examples['first_fitted'] > 0
  return np.where(fitted, values, values[fitted].max(initial=0) + 1)


def curve(
  run: Run, wrong: np.ndarray, ranking: str
) -> tuple[np.ndarray, np.ndarray, float]:
  """(precision, recall, average precision) as fractions, with recall falling to 0.

  The average precision is the mean of the precisions at which the wrong labels, given by
  `find_wrong`, are found.
  """
  from sklearn import metrics  # slow to import

  scores = suspicion(run.examples, ranking)
  precision, recall, _ = metrics.precision_recall_curve(wrong, scores)
  return precision, recall, metrics.average_precision_score(wrong, scores)


def half(precision: np.ndarray, recall: np.ndarray) -> tuple[float, float]:
  """(recall, precision) where at least half of the wrong labels are first found."""
  place = np.flatnonzero(recall >= 0.5)[-1]
  return recall[place], precision[place]


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  run = runs[name, seed]
  wrong = find_wrong(run)
  measured = {'wrong_labels': 100 * wrong.mean()}
  for ranking in RANKINGS if wrong.any() else ():
    precision, recall, average = curve(run, wrong, ranking)
    measured[f'{ranking}_average_precision'] = 100 * average
    measured[f'{ranking}_precision'] = 100 * half(precision, recall)[1]
  return measured


def draw(entries: list[dict], runs: Runs):
  """Precision against recall: one panel per noise level, one line per ranking and seed."""
  figure, axes = drawing.subplots(1, len(entries), sharey=True, squeeze=False)
  for axis, entry in zip(axes[0], entries, strict=True):
    noise = figure1b.split(entry['name'])[1]
    axis.set(title=f'label noise p = {noise}', xlabel='recall (%)')
    axis.set(xlim=(-3, 103), ylim=(0, 101))
    wrong = entry['ours']['wrong_labels']
    if wrong is not None:
      axis.axhline(wrong, linestyle=':', color='gray')
    for (name, seed), run in runs.items():
      if name == entry['name'] and run.examples and wrong:
        _draw_run(axis, run, labeled=seed == 0)
  axes[0, 0].set_ylabel('precision (%)')
  drawing.legend(axes[0, 0])
  return figure


def _draw_run(axis, run, labeled):
  wrong = find_wrong(run)
  for color, (ranking, label) in zip(drawing.PALETTE, RANKINGS.items(), strict=False):
    precision, recall, _ = curve(run, wrong, ranking)
    found = recall > 0  # at recall 0 precision is undefined; scikit-learn sets it to 1
    percent = 100 * recall[found], 100 * precision[found]
    shown = label if labeled else None
    axis.plot(*percent, drawstyle='steps-post', color=color, linewidth=1, label=shown)
    axis.plot(*(100 * np.array(half(precision, recall))), 'o', color=color)


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  for entry in entries:
    ours, noise = entry['ours'], figure1b.split(entry['name'])[1]
    averages = {ranking: ours[f'{ranking}_average_precision'] for ranking in RANKINGS}
    if None not in averages.values():
      best = max(averages, key=averages.get)
      others = ', '.join(
        f'{name} {averages[ranking]:.1f} %'
        for ranking, name in RANKINGS.items()
        if ranking != best
      )
      yield (
        f'At p = {noise}, where {ours["wrong_labels"]:.1f} % of the labels are wrong, '
        f'{RANKINGS[best]} has the highest average precision of the three rankings, '
        f'{averages[best]:.1f} % ({others}); it finds half of the wrong labels at a '
        f'precision of {ours[f"{best}_precision"]:.1f} %.'
      )
