"""Are neural networks biased toward simple functions before any training?

Valle-Perez, Camargo & Louis (arXiv:1805.08522) sampled networks with random parameters on
seven Boolean inputs; Mingard et al. (arXiv:2006.15191) compared what SGD finds with what
random networks that fit the training set compute.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.theory import boolean_functions
from rethink_gen.theory.boolean_functions import Prior

TITLE = 'Simplicity bias: which Boolean functions random and trained networks compute'
ASKED = (
  'Are networks biased toward simple functions before any training? Which functions of '
  'seven Boolean inputs do networks with random parameters compute, and does SGD choose '
  'among the functions that fit some of the inputs as guessing parameters at random does?'
)
FOUND = (
  'The paper does not ask. Valle-Perez et al. (arXiv:1805.08522) found that the '
  'probability of a function falls with its complexity; Mingard et al. (arXiv:2006.15191) '
  'that SGD finds functions about as often as guessing does, to first order.'
)
COLUMNS = {
  'constant': Column('constant functions', '%', '.2f'),
  'distinct': Column('distinct functions', '', ',.0f'),
  'mean_complexity': Column('mean complexity', '', '.2f'),
  'complexity_error': Column('its standard error', '', '.2f'),
  'slope': Column('slope over the rank', '', '.2f'),
  'correlation': Column('correlation with complexity', '', '.2f'),
  'counted': Column('functions in it', '', ',.0f'),
  'target_complexity': Column("targets' complexity", '', '.1f'),
  'fitted': Column('networks that fit', '%', '.2f'),
  'error': Column('test error of SGD', '%', '.2f'),
  'error_error': Column('standard error over targets', '%', '.2f'),
  'guesses': Column('guesses that fit', '', ',.0f'),
  'guess_error': Column('test error of guessing', '%', '.2f'),
  'found': Column('functions of SGD that guessing found', '%', '.1f'),
  'rank_correlation': Column('rank correlation of frequencies', '', '.2f'),
  'rank_correlation_std': Column('standard deviation over targets', '', '.2f'),
  'targets_ranked': Column('targets in it', '', '.0f'),
}
LEAST = 5  # occurrences of a function whose probability is compared
GUESSES = 10  # random networks that must fit before their mean error is given
FEWEST_DOTS = 30  # of the panel that compares SGD with guessing
CAPTION = (
  'Top left: probability of a function against its rank among the functions that random '
  'networks compute, and Zipf’s law 1 / (r ln 2¹²⁸); the flat end is '
  'functions seen once. Top right: probability against '
  f'Lempel-Ziv complexity; functions that occurred at least {LEAST} times. Bottom left: '
  'how often SGD found a function that fits 32 of the 128 inputs, against how often it '
  'occurs among the random networks that fit them; one color per target; functions that '
  'either did not find are not drawn. Bottom right: training on 64 inputs, error on the '
  'other 64 against the complexity of the target, one dot per target; circles: guessing, '
  'where at least '
  f'{GUESSES} random networks fit.'
)
BASE = {
  'num_inputs': 7,
  'depth': 2,
  'width': 40,
  'activation': 'relu',
  'weight_std': 1.41,
  'bias_std': 0.1,
}
BASE_ROW = 'relu_2x40'
# row: (changes, note)
PRIORS: dict[str, tuple[dict[str, Any], str]] = {
  'relu_1x40': ({'depth': 1}, ''),
  'relu_5x40': ({'depth': 5}, ''),
  'relu_2x40_weights_4': ({'weight_std': 4.0}, 'weights 4 / sqrt(fan-in)'),
  'tanh_2x40': ({'activation': 'tanh'}, ''),
  'tanh_2x40_weights_4': (
    {'activation': 'tanh', 'weight_std': 4.0},
    'weights 4 / sqrt(fan-in)',
  ),
  # Last, because the rows that train share its random networks.
  BASE_ROW: ({}, 'standard deviations: weights 1.41 / sqrt(fan-in), biases 0.1'),
}
# row: (batch size, learning rate); at both rates every network of a first try on one target
# fitted within 60 epochs.
SGD = {'sgd_batch_8': (8, 0.1), 'sgd_batch_32': (32, 0.3)}
# As in Mingard et al.; the random networks that fit 64 inputs are too few to compare.
EXAMPLES = 32
# Share of the rarer value in a target. With less, SGD finds one function in nearly all
# runs; with twice as much, hardly any random network fits.
BALANCE = 1 / 16
FLIPS = (0.0, 0.05, 0.15, 0.5)
SCALES: dict[str, dict[str, Any]] = {
  'smoke': {'sampled': 4_000, 'guessed': 20_000, 'sgd': (2, 40), 'flipped': (3, 4)},
  'laptop': {
    'sampled': 10**6,
    'guessed': 10**6,
    'sgd': (5, 2_000),
    'flipped': (24, 20),
  },
  'full': {
    'sampled': 10**8,
    'guessed': 10**8,
    'sgd': (20, 10**5),
    'flipped': (200, 100),
  },
}
SAYS = {
  'smoke': 'A few thousand random networks: shows that everything runs, and no more.',
  'laptop': (
    'A million random networks per row; 2,000 networks trained on each of 5 targets per '
    'row of SGD, and 20 on each of 24 targets per row of flipped targets.'
  ),
  'full': 'A hundred million random networks per row.',
}
TARGETS = ('none', 'frequent', 'drawn')
DRAWN_AT_ONCE = 10_000


def rows(scale: str) -> list[Row]:
  sizes = SCALES[scale]

  def row(name, changes, note=''):
    return Row(name, 'simplicity_bias', BASE | changes, note=note)

  def trained(targets, num_examples, shape, batch_size=8, learning_rate=0.1, flips=0.0):
    return {
      'num_networks': sizes['guessed'],
      'targets': targets,
      'num_targets': shape[0],
      'num_trained': shape[1],
      'num_examples': num_examples,
      'flips': flips,
      'batch_size': batch_size,
      'learning_rate': learning_rate,
      'max_epochs': 2_000,
    }

  random = {'num_networks': sizes['sampled'], 'targets': 'none'}
  return [
    *(row(name, random | changes, note) for name, (changes, note) in PRIORS.items()),
    *(
      row(name, trained('frequent', EXAMPLES, sizes['sgd'], *rates), 'SGD beside guessing')
      for name, rates in SGD.items()
    ),
    *(
      row(
        f'flipped_{flips:.2f}',
        trained('drawn', 64, sizes['flipped'], flips=flips),
        f'targets of random networks, each value flipped with probability {flips}',
      )
      for flips in FLIPS
    ),
  ]


def check(settings: dict) -> None:
  """Raises BadInput for invalid settings."""
  boolean_functions.check_prior(_prior(settings))
  if settings['targets'] not in TARGETS:
    raise BadInput(
      f'targets is {settings["targets"]!r}, but it must be one of {", ".join(TARGETS)}.'
    )
  counts = ['num_networks']
  if settings['targets'] != 'none':
    counts += ['num_targets', 'num_trained', 'num_examples', 'batch_size', 'max_epochs']
    if not 0 <= settings['flips'] <= 0.5:
      raise BadInput(f'flips is {settings["flips"]}, but it must be from 0 to 0.5.')
    if not settings['learning_rate'] > 0:
      raise BadInput(
        f'learning_rate is {settings["learning_rate"]}, but it must be positive.'
      )
  for name in counts:
    if not isinstance(settings[name], int) or settings[name] < 1:
      raise BadInput(f'{name} is {settings[name]!r}, but it must be a positive integer.')
  if settings['targets'] == 'none':
    return
  if settings['num_examples'] >= 2 ** settings['num_inputs']:
    raise BadInput(
      f'num_examples is {settings["num_examples"]}, but it must be below '
      f'{2 ** settings["num_inputs"]}, the number of inputs, to leave some to test on.'
    )
  if settings['num_examples'] % settings['batch_size']:
    raise BadInput(
      f'batch_size is {settings["batch_size"]}, but it must divide num_examples, '
      f'{settings["num_examples"]}.'
    )


def expected_seconds(settings: dict) -> float:
  """Estimated seconds: 12 ns per random weight, milliseconds per trained network."""
  width, depth = settings['width'], settings['depth']
  weights = settings['num_inputs'] * width + max(0, depth - 1) * width**2
  seconds = 3 + 12e-9 * weights * settings['num_networks']
  if settings['targets'] == 'none':
    return seconds
  if settings['targets'] == 'drawn':  # shares the guesses of the rows before
    seconds = 6.0
  milliseconds = 3 + 30 * settings['flips']
  return seconds + milliseconds / 1e3 * settings['num_targets'] * settings['num_trained']


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Statistics of the functions of random networks, or of trained and guessed ones.

  Args:
    settings: those of a row, and the seed.
    folder: unused.
    say: say(line) shows progress.
  """
  del folder
  arguments = _prior(settings), settings.get('seed', 0), settings['num_networks']
  counts = count_functions(*arguments)
  say(f'{len(counts.counts):,} functions of {settings["num_networks"]:,} random networks')
  if settings['targets'] == 'none':
    return describe_prior(counts, *arguments)
  return compare(counts, settings)


def _prior(settings):
  return Prior(*(settings[name] for name in Prior._fields))


@functools.lru_cache(maxsize=1)
def count_functions(prior: Prior, seed: int, num_networks: int) -> boolean_functions.Counts:
  """The functions of the first networks of a seed, most frequent first; cached."""
  chunks = (
    boolean_functions.sample(prior, seed, first, min(DRAWN_AT_ONCE, num_networks - first))
    for first in range(0, num_networks, DRAWN_AT_ONCE)
  )
  return boolean_functions.by_rank(boolean_functions.tally_all(chunks))


def describe_prior(
  counts: boolean_functions.Counts, prior: Prior, seed: int, num_networks: int
) -> dict:
  """Numbers and points of a row of random networks."""
  first = boolean_functions.sample(prior, seed, 0, min(DRAWN_AT_ONCE, num_networks))
  of_networks = boolean_functions.complexities(first)
  often = counts.counts >= LEAST
  probabilities = counts.counts / num_networks
  compared = boolean_functions.complexities(counts.functions[often])
  is_constant = (counts.functions == counts.functions[:, :1]).all(1) & np.isin(
    counts.functions[:, 0], (0, 255)
  )
  ranks = np.unique(np.geomspace(1, len(probabilities), 200).astype(int))
  # Where counts are below LEAST, the rank plot only shows how many networks were drawn.
  fit = ranks[ranks <= often.sum()]
  shown = _spread(often.sum(), 1_000)
  return {
    'constant': float(probabilities[is_constant].sum()),
    'distinct': len(probabilities),
    'mean_complexity': float(of_networks.mean()),
    'complexity_error': float(of_networks.std() / len(of_networks) ** 0.5),
    'slope': _slope(np.log(fit), np.log(probabilities[fit - 1])),
    'correlation': _correlation(compared, np.log2(probabilities[often])),
    'counted': int(often.sum()),
    'ranks': ranks.tolist(),
    'rank_probabilities': probabilities[ranks - 1].tolist(),
    'complexities': compared[shown].tolist(),
    'probabilities': probabilities[often][shown].tolist(),
  }


def _spread(count, most):
  """At most `most` positions below `count`, denser at the start."""
  if count <= most:
    return np.arange(count)
  return np.unique(np.geomspace(1, count, most).astype(int) - 1)


def _correlation(one, other):
  """The correlation, or None over fewer than ten points or where it is undefined."""
  if len(one) < 10 or not np.std(one) or not np.std(other):
    return None
  return float(np.corrcoef(one, other)[0, 1])


def _slope(x, y):
  return float(np.polyfit(x, y, 1)[0]) if len(x) >= 10 else None


def choose_targets(
  counts: boolean_functions.Counts, settings: dict, generator: np.random.Generator
) -> np.ndarray:
  """bool (t, 2^n): the targets of a row.

  'frequent': the most frequent functions with both values on BALANCE of the inputs or more.
  'drawn': those of new random networks, without constants, then flipped.
  """
  number = settings['num_targets']
  if settings['targets'] == 'frequent':
    candidates = counts.functions[:100_000]
    least = BALANCE
  else:
    first, more = settings['num_networks'], 20 * number
    candidates = boolean_functions.sample(
      _prior(settings), settings.get('seed', 0), first, more
    )
    least = 1e-9
  tables = np.unpackbits(candidates, axis=1).astype(bool)
  share = tables.mean(1)
  tables = tables[(share >= least) & (share <= 1 - least)][:number]
  if len(tables) < number:
    raise BadInput(
      f'Only {len(tables)} of {len(candidates):,} functions of random networks can be '
      f'targets, but num_targets is {number}; use a smaller bias_std or fewer targets.'
    )
  return tables ^ (generator.random(tables.shape) < settings['flips'])


def compare(counts: boolean_functions.Counts, settings: dict) -> dict:
  """Trains on some inputs of each target, and compares with random networks that fit."""
  seed = settings.get('seed', 0)
  generator = np.random.default_rng(seed)
  targets = choose_targets(counts, settings, generator)
  trained_on, each = settings['num_examples'], settings['num_trained']
  order = np.argsort(generator.random(targets.shape), axis=1)
  if settings['targets'] == 'frequent':
    for target, places in zip(targets, order, strict=True):
      while len(set(target[places[:trained_on]].tolist())) < 2:  # both values
        generator.shuffle(places)
  examples, others = order[:, :trained_on], order[:, trained_on:]
  fitted = boolean_functions.fit(
    _prior(settings),
    seed,
    np.repeat(targets, each, axis=0),
    np.repeat(examples, each, axis=0),
    settings['batch_size'],
    settings['learning_rate'],
    settings['max_epochs'],
  )
  found = [
    _compare_one(counts, *arguments)
    for arguments in zip(
      targets,
      examples,
      others,
      fitted.functions.reshape(len(targets), each, -1),
      fitted.epochs.reshape(len(targets), each),
      strict=True,
    )
  ]
  names = ('complexity', 'fitted', 'error', 'guesses', 'guess_error', 'found')
  per_target = {name: [one[name] for one in found] for name in names}
  result: dict[str, Any] = {'per_target': per_target}
  if settings['targets'] == 'frequent':
    per_target['rank_correlation'] = [one['rank_correlation'] for one in found]
    result['frequencies'] = [one['frequencies'] for one in found]
  return result


def _compare_one(counts, target, examples, others, functions, epochs):
  """What SGD and guessing found on the examples of one target."""
  from scipy import stats  # slow to import

  packed = np.packbits(target)
  functions = functions[epochs >= 0]
  mine = boolean_functions.tally(functions)
  fits = boolean_functions.agree(counts.functions, packed, examples)
  guessed = boolean_functions.Counts(counts.functions[fits], counts.counts[fits])
  guesses = int(guessed.counts.sum())
  of_sgd = {
    key.tobytes(): count for key, count in zip(mine.functions, mine.counts, strict=True)
  }
  sgd = np.array([of_sgd.get(key.tobytes(), 0) for key in guessed.functions], int)
  often = guessed.counts >= LEAST
  correlation = None
  if often.sum() >= 10 and sgd[often].any():
    correlation = float(stats.spearmanr(guessed.counts[often], sgd[often]).statistic)
  drawn = np.flatnonzero(sgd)[:300]  # of the most frequent in guessing
  trained = max(1, len(functions))

  def error(table, weights):
    wrong = np.unpackbits(table, axis=1)[:, others] != target[others]
    return float(np.average(wrong.mean(1), weights=weights)) if len(table) else None

  return {
    'complexity': boolean_functions.lz_complexity(boolean_functions.as_text(packed)),
    'fitted': float((epochs >= 0).mean()),
    'error': error(mine.functions, mine.counts),
    'guesses': guesses,
    'guess_error': error(*guessed) if guesses >= GUESSES else None,
    'found': float(sgd.sum() / trained),
    'rank_correlation': correlation,
    'frequencies': [
      (guessed.counts[drawn] / max(1, guesses)).tolist(),
      (sgd[drawn] / trained).tolist(),
    ],
  }


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  if 'per_target' not in summary:
    return {
      column: summary[column] * (100 if COLUMNS[column].unit == '%' else 1)
      for column in COLUMNS
      if summary.get(column) is not None
    }
  values = {
    key: np.array([value for value in numbers if value is not None], float)
    for key, numbers in summary['per_target'].items()
  }
  measured = {
    'target_complexity': values['complexity'].mean(),
    'guesses': values['guesses'].mean(),
  }
  for column in ('fitted', 'error', 'found'):
    if len(values[column]):
      measured[column] = 100 * values[column].mean()
  if len(values['error']) > 1:
    spread = values['error'].std(ddof=1) / len(values['error']) ** 0.5
    measured['error_error'] = 100 * spread
  # Only if every target has enough guesses: a mean over the easy ones would not compare.
  if len(values['guess_error']) == len(values['complexity']):
    measured['guess_error'] = 100 * values['guess_error'].mean()
  correlations = values.get('rank_correlation', np.array([]))
  if len(correlations):
    measured['rank_correlation'] = correlations.mean()
    measured['targets_ranked'] = len(correlations)
  if len(correlations) > 1:
    measured['rank_correlation_std'] = correlations.std(ddof=1)
  return {column: float(value) for column, value in measured.items()}


def draw(entries: list[dict], runs: Runs):
  figure, axes = drawing.subplots(2, 2, height=6.6)
  summaries = {name: run.summary for (name, seed), run in runs.items() if seed == 0}
  names = [entry['name'] for entry in entries if entry['name'] in summaries]
  _draw_priors(axes[0], {n: summaries[n] for n in names if n in PRIORS})
  _draw_sgd(axes[1, 0], {n: summaries[n] for n in names if n in SGD})
  _draw_errors(axes[1, 1], {n: summaries[n] for n in names if n.startswith('flipped')})
  return figure


def _draw_priors(axes, summaries):
  by_rank, by_complexity = axes
  for color, (name, summary) in zip(drawing.PALETTE, summaries.items(), strict=False):
    label = name.replace('_', ' ')
    by_rank.plot(summary['ranks'], summary['rank_probabilities'], color=color, label=label)
    if name in (BASE_ROW, 'tanh_2x40_weights_4'):
      points = summary['complexities'], summary['probabilities']
      by_complexity.plot(*points, '.', color=color, label=label, alpha=0.5)
  if summaries:
    ranks = np.geomspace(1, max(max(s['ranks']) for s in summaries.values()), 50)
    law = boolean_functions.zipf(ranks, 2 ** BASE['num_inputs'])
    by_rank.plot(ranks, law, '--', color='black', linewidth=1, label='Zipf’s law')
  by_rank.set(xscale='log', yscale='log', xlabel='rank', ylabel='probability')
  by_complexity.set(yscale='log', xlabel='complexity K', ylabel='probability')
  drawing.legend(by_rank, fontsize=7)
  drawing.legend(by_complexity, fontsize=7)


def _draw_sgd(axis, summaries):
  """One dot per function that both SGD and guessing found, if there are enough of them."""
  found = [pair for s in list(summaries.values())[:1] for pair in s['frequencies']]
  if sum(len(guessed) for guessed, _ in found) < FEWEST_DOTS:
    axis.set_axis_off()
    words = 'SGD and guessing: too few functions\nfound by both to compare at this scale'
    axis.text(0.5, 0.5, words, ha='center', va='center', transform=axis.transAxes)
    return
  for summary in list(summaries.values())[:1]:
    for color, (guessed, sgd) in zip(drawing.PALETTE, summary['frequencies'], strict=False):
      axis.plot(guessed, sgd, '.', color=color, alpha=0.6)
  axis.axline((1, 1), slope=1, color='gray', linestyle=':')
  axis.set(xscale='log', yscale='log', xlim=(1e-4, 1.2), ylim=(1e-4, 1.2))
  axis.set(xlabel='share of guesses that fit', ylabel='share of trained networks')


def _draw_errors(axis, summaries):
  for color, (name, summary) in zip(drawing.PALETTE, summaries.items(), strict=False):
    of = summary['per_target']
    label = f'{100 * float(name.rpartition("_")[2]):.0f} % flipped'
    errors = [np.array(of[key], float) * 100 for key in ('error', 'guess_error')]
    axis.plot(of['complexity'], errors[0], '.', color=color, label=label)
    axis.plot(of['complexity'], errors[1], 'o', color=color, fillstyle='none')
  axis.axhline(50, color='gray', linestyle=':')
  axis.set(xlabel='complexity K of the target', ylabel='test error (%)', ylim=(0, 70))
  drawing.legend(axis, fontsize=7)


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  for entry in entries:
    ours, name = entry['ours'], entry['name']
    if ours['mean_complexity'] is not None and ours['correlation'] is not None:
      yield (
        f'{name}: {ours["constant"]:.2f} % of {entry["changes"]["num_networks"]:,} random '
        f'networks are constant, and the mean complexity is {ours["mean_complexity"]:.2f} '
        f'(standard error {ours["complexity_error"]:.2f}); over the '
        f'{ours["counted"]:,.0f} functions that occurred at least {LEAST} times, the '
        f'correlation of log probability and complexity is {ours["correlation"]:.2f}, and '
        f'the slope of log probability over log rank {ours["slope"]:.2f}.'
      )
    elif ours['rank_correlation'] is not None:
      spread = _and_std(ours['rank_correlation_std'])
      yield (
        f'{name}: over the {ours["targets_ranked"]:.0f} targets where guessing found at '
        f'least ten functions {LEAST} times, the frequencies of functions in SGD and in '
        f'guessing have a mean rank correlation of {ours["rank_correlation"]:.2f}{spread}.'
      )
      yield _errors(entry)
    elif ours['error'] is not None:
      yield _errors(entry)


def _errors(entry):
  """The sentence on the test errors of a row."""
  ours = entry['ours']
  guessing = ours['guess_error']
  return (
    f'{entry["name"]}: targets with a mean complexity of {ours["target_complexity"]:.1f} '
    f'have a test error of {ours["error"]:.2f} % with SGD (standard error '
    f'{ours["error_error"] or 0:.2f} over {entry["changes"]["num_targets"]} targets)'
    + ('.' if guessing is None else f', and {guessing:.2f} % with guessing.')
  )


def _and_std(std):
  return '' if std is None else f' (standard deviation {std:.2f})'
