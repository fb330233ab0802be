"""Guess and check: do random networks that happen to fit a few images generalize?"""

import functools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.text import format_list
from rethink_gen.theory import guessing, significance

TITLE = 'Guess and check: how random networks that fit a few images generalize'
ASKED = (
  'Are minima that generalize simply more common than those that overfit? If so, networks '
  'drawn at random until one fits the training images generalize as well, though nothing '
  'trained them.'
)
FOUND = (
  'The paper does not ask. Chiang et al. (ICLR 2023) conclude that gradient-based '
  'optimization is not necessary for generalization. Peleg & Hein (arXiv:2407.03848) find '
  'that width helps networks trained with SGD and not random networks that fit, and that '
  'depth hurts both alike.'
)
COLUMNS = {
  'draws': Column('draws per training set', '', ',.0f'),
  'fits': Column('random networks that fit', '', ',.0f'),
  'fit_probability': Column('probability of fitting', '', '.2e'),
  'fit_low': Column('from', '', '.2e'),
  'fit_high': Column('to', '', '.2e'),
  'guess_accuracy': Column('test accuracy, random', '%', '.1f'),
  'guess_interval': Column('±', '', '.1f'),
  'above_chance': Column('above chance', '%', '.1f'),
  'sgd_accuracy': Column('test accuracy, SGD', '%', '.1f'),
  'sgd_interval': Column('±', '', '.1f'),
  'sgd_reached': Column('SGD at the loss', '%', '.1f'),
  'guess_loss': Column('loss, random', '', '.4f'),
  'sgd_loss': Column('loss, SGD', '', '.4f'),
  'pairs': Column('pairs at the same loss', '', ',.0f'),
  'pairs_change': Column('SGD minus random in these', '', '+.1f'),
  'pairs_interval': Column('±', '', '.1f'),
  'guess_change': Column('random, minus reference', '', '+.1f'),
  'guess_change_interval': Column('±', '', '.1f'),
  'sgd_change': Column('SGD, minus reference', '', '+.1f'),
  'sgd_change_interval': Column('±', '', '.1f'),
}
CAPTION = (
  'Left and middle: mean test accuracy of random networks that fit all n training images '
  'and of networks that SGD trains until they fit and their normalized loss is no higher, '
  'for hidden layers × width. Chance: always guessing the most common class. Bars are 95 % '
  'intervals of the mean over training sets; all rows with the same n have the same '
  'training sets. Right: the probability that a random network fits, with exact 95 % '
  'intervals for these training sets. In the table, pairs are at the same loss if the '
  'losses differ by at most a tenth of how far they are below log 2; the last columns '
  'compare wider networks and uniform weights with width_8, deeper ones with width_32, and '
  'rate_128 with rate_8, on the same training sets.'
)
DIGITS = (0, 7)  # as in Peleg & Hein
# {shape: (hidden layers, width, initialization, learning rate, label in the figure)}
# Peleg & Hein's rate for networks initialized like these is 0.01. Its last steps take the
# loss further below that of the random networks than those of 0.001 do.
SHAPES = {
  'width_8': (1, 8, 'gaussian', 0.001, '1 × 8'),
  'width_32': (1, 32, 'gaussian', 0.001, '1 × 32'),
  'width_128': (1, 128, 'gaussian', 0.001, '1 × 128'),
  'depth_2': (2, 32, 'gaussian', 0.001, '2 × 32'),
  'depth_4': (4, 32, 'gaussian', 0.001, '4 × 32'),
  'uniform': (1, 8, 'uniform', 0.001, '1 × 8, uniform'),
  'rate_8': (1, 8, 'gaussian', 0.01, '1 × 8, rate 0.01'),
  'rate_128': (1, 128, 'gaussian', 0.01, '1 × 128, rate 0.01'),
}
# {shape: the one that it is compared with}
REFERENCES = {
  'width_32': 'width_8',
  'width_128': 'width_8',
  'depth_2': 'width_32',
  'depth_4': 'width_32',
  'uniform': 'width_8',
  'rate_8': 'width_8',
  'rate_128': 'rate_8',
}
PANELS = (
  ('width_8', 'width_32', 'width_128'),
  ('width_32', 'depth_2', 'depth_4', 'uniform'),
)
NOTES = {
  'depth': '{} hidden layers of 32 units',
  'uniform': 'one hidden layer, uniform weights',
  'width': 'one hidden layer',
  'rate': 'one hidden layer, SGD with a learning rate of 0.01',
}
# Pairs of a random and a trained network have the same loss if the losses differ by at most
# this fraction of how far the random one's is below log 2, the loss of zero outputs.
SAME_LOSS = 0.1
# {scale: {shape: numbers of training images}}
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
  'smoke': {'width_8': (2, 4, 32), 'width_32': (4,), 'depth_2': (4,), 'uniform': (4,)},
  'laptop': {
    'width_8': (2, 4, 8, 16, 32),
    **dict.fromkeys(('width_32', 'width_128'), (2, 4, 8, 16)),
    **dict.fromkeys(('depth_2', 'depth_4', 'uniform'), (4, 8)),
    **dict.fromkeys(('rate_8', 'rate_128'), (8,)),
  },
  'full': dict.fromkeys(SHAPES, (2, 4, 8, 16, 32)),
}
SCALES: dict[str, dict[str, Any]] = {
  'smoke': {
    'dataset.name': 'digits',
    'samples': 3,
    'kept': 8,
    'max_draws': 2_000,
    'max_steps': 500,
  },
  'laptop': {
    'dataset.name': 'mnist',
    'samples': 10,
    'kept': 40,
    'max_draws': 2_000_000,
    'max_steps': 5_000,
  },
  'full': {
    'dataset.name': 'mnist',
    'samples': 20,
    'kept': 100,
    'max_draws': 1_000_000_000,
    'max_steps': 20_000,
  },
}
SAYS = {
  'smoke': 'Handwritten digits 0 and 7, 3 training sets, about 8 random networks for each.',
  'laptop': (
    'MNIST, digits 0 and 7, 10 training sets, at least about 40 random networks for each.'
  ),
  'full': (
    'MNIST, digits 0 and 7, 20 training sets, at least about 100 random networks for each, '
    'up to 32 training images.'
  ),
}
CONFIDENCE = 0.95
# The draws needed are estimated from the draws that give this many fits, or, if that takes
# longer, from this fraction of max_draws. They are not among the draws that count.
PILOT_FITS, PILOT_SHARE, PILOT_STEP = 10, 1 / 16, 2_048
PILOT, GUESS, START, BATCHES = range(4)  # purposes of keys
WEIGHTS_PER_SECOND = 4e7  # drawn on two cores


def rows(scale: str) -> list[Row]:
  return [
    Row(
      name=f'{shape}_n{count}',
      config='volume',
      changes=SCALES[scale]
      | {
        'num_train': count,
        'depth': depth,
        'width': width,
        'initialization': initialization,
        'learning_rate': rate,
      },
      note=NOTES[shape.split('_')[0]].format(depth),
    )
    for shape, counts in SIZES[scale].items()
    for depth, width, initialization, rate, _ in [SHAPES[shape]]
    for count in counts
  ]


def check(settings: dict) -> None:
  """Raises BadInput for invalid settings."""
  least = {'num_train': 2, 'depth': 1, 'width': 1, 'samples': 2, 'kept': 1}
  for name, lowest in (least | {'max_draws': 1, 'max_steps': 1}).items():
    value = settings.get(name)
    if not isinstance(value, int) or value < lowest:
      raise BadInput(f'{name} is {value!r}, but it must be an integer of {lowest} or more.')
  if settings['max_draws'] > 2**32:
    raise BadInput(
      f'max_draws is {settings["max_draws"]:,}, but it must be at most '
      f'{2**32:,}, the number of indices.'
    )
  if not 0 < settings.get('learning_rate', 0) < math.inf:
    raise BadInput(
      f'learning_rate is {settings.get("learning_rate")!r}, but it must be positive.'
    )
  initialization = settings.get('initialization')
  if initialization not in guessing.INITIALIZATIONS:
    raise BadInput(
      f'initialization is {initialization!r}, but it must be one of '
      f'{", ".join(guessing.INITIALIZATIONS)}.'
    )
  most = 2 * min(np.bincount(load(settings['dataset.name'])[1] > 0).tolist())
  if settings['num_train'] % 2 or settings['num_train'] > most:
    raise BadInput(
      f'num_train is {settings["num_train"]}, but it must be even, half for each digit, '
      f'and at most {most:,}.'
    )


def expected_seconds(settings: dict) -> float:
  """Estimated seconds, with a guess at the probability of fitting."""
  count, width = settings['num_train'], settings['width']
  seen = count if settings['initialization'] == 'gaussian' else 784
  weights = width * (seen + 1 + width * (settings['depth'] - 1))
  draws = min(settings['max_draws'], 4 * settings['kept'] * 2 ** (0.75 * count))
  return 5 + settings['samples'] * (0.5 + draws * weights / WEIGHTS_PER_SECOND)


@functools.lru_cache(maxsize=1)
def load(name: str) -> tuple[np.ndarray, ...]:
  """(x_train, signs_train, x_test, signs_test) of the two digits.

  Images are float32 (n, d), minus the mean of the training pixels and divided by their
  standard deviation; signs are float32 (n,), -1 for the first digit and +1 for the second.
  """
  dataset = sources.load(name)
  arrays = []
  for images, labels in (
    (dataset.x_train, dataset.y_train),
    (dataset.x_test, dataset.y_test),
  ):
    chosen = np.isin(labels, DIGITS)
    x = images[chosen].reshape(chosen.sum(), -1).astype(np.float32)
    arrays += [x, np.where(labels[chosen] == DIGITS[1], 1, -1).astype(np.float32)]
  mean, deviation = arrays[0].mean(), arrays[0].std()
  return tuple((a - mean) / deviation if a.ndim == 2 else a for a in arrays)


def training_set(
  x: np.ndarray, signs: np.ndarray, count: int, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
  """(x, signs) of `count` random images, half of each sign; smaller sets are in larger."""
  random = np.random.default_rng((seed, number))
  of_sign = [random.permutation(np.flatnonzero(signs == sign)) for sign in (-1, 1)]
  chosen = np.concatenate([own[: count // 2] for own in of_sign])
  return x[chosen], signs[chosen]


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Draws networks, trains as many, and compares them on the test images.

  Returns:
    'draws': per training set, as estimated from a pilot. If that is above max_draws,
    nothing else. Otherwise lists with a number per training set: 'fits', and for the first
    `kept` networks that fit and as many trained ones their mean accuracies and losses;
    'reached', how many trained networks got to their loss, of `compared`; 'above_chance',
    how many random ones are better than `chance`; 'pairs', how many trained networks have
    the same loss as their random one, and 'pairs_change', their mean accuracy minus that of
    the random ones.
  """
  del folder
  seed, initialization = settings['seed'], settings['initialization']
  x_train, signs_train, x_test, signs_test = load(settings['dataset.name'])
  sizes = (x_train.shape[1], *[settings['width']] * settings['depth'], 1)
  samples, keys = [], []
  for number in range(settings['samples']):
    own = training_set(x_train, signs_train, settings['num_train'], seed, number)
    samples.append(guessing.make_sample(*own, initialization))
    of_set = jax.random.fold_in(jax.random.key(seed), number)
    keys.append([jax.random.fold_in(of_set, purpose) for purpose in range(4)])
  needed = [
    draws_needed(key[PILOT], sample, sizes, settings)
    for key, sample in zip(keys, samples, strict=True)
  ]
  draws = max(needed)
  say(f'about {draws:,} draws are needed for each of {len(samples)} training sets')
  if draws > settings['max_draws']:
    say(f'left out, because max_draws is {settings["max_draws"]:,}')
    return {'draws': draws}
  classes = [(signs > 0).astype(int) for signs in (signs_train, signs_test)]
  chance = significance.constant_accuracy(np.array([0, 1]), classes[1], 2)
  results = []
  for key, sample in zip(keys, samples, strict=True):
    results.append(
      compare(key, sample, sizes, settings, draws, jnp.array(x_test), signs_test, chance)
    )
    say(
      f'training set {len(results)}/{len(samples)}: {results[-1]["fits"]:,} fit, '
      f'{100 * results[-1]["guess_accuracy"]:.1f} % right, SGD '
      f'{100 * results[-1]["sgd_accuracy"]:.1f} %'
    )
  columns = {name: [result[name] for result in results] for name in results[0]}
  return {'draws': draws, 'chance': chance} | columns


def draws_needed(
  key: jax.Array, sample: guessing.Sample, sizes: tuple[int, ...], settings: dict
) -> int:
  """Estimated draws until `kept` networks fit; a lower estimate if none fits the pilot."""
  fits = drawn = 0
  while fits < PILOT_FITS and drawn < PILOT_SHARE * settings['max_draws']:
    fits += len(
      guessing.find(key, sample, sizes, settings['initialization'], PILOT_STEP, drawn)
    )
    drawn += PILOT_STEP
  return math.ceil(settings['kept'] * drawn / max(fits, 1))


def compare(
  key: list[jax.Array],
  sample: guessing.Sample,
  sizes: tuple[int, ...],
  settings: dict,
  draws: int,
  x_test: jax.Array,
  signs_test: np.ndarray,
  chance: float,
) -> dict[str, float | None]:
  """Random and trained networks on one training set, each pair at the same loss."""
  initialization = settings['initialization']
  found = guessing.find(key[GUESS], sample, sizes, initialization, draws)
  kept = found[: settings['kept']]
  if not len(kept):
    raise BadInput(
      f'None of {draws:,} random networks fits a training set of {settings["num_train"]} '
      'images; set a larger kept.'
    )
  # Padded, so that all training sets share the compiled programs.
  indices = np.resize(kept, settings['kept'])
  shape = sample, sizes, initialization
  guesses = guessing.networks(key[GUESS], indices, *shape)
  start = guessing.networks(key[START], np.arange(len(indices)), *shape)
  targets = guessing.normalized_losses(guesses, sample.x, sample.signs)
  trained, arrived, _ = guessing.train(
    *(key[BATCHES], start, sample.x, sample.signs, targets),
    *(settings['learning_rate'], settings['max_steps']),
  )
  reached = np.asarray(arrived)[: len(kept)]
  guess, sgd = (
    np.asarray(guessing.accuracies(own, x_test, signs_test), float)[: len(kept)]
    for own in (guesses, trained)
  )
  loss, sgd_loss = (
    np.asarray(own, float)[: len(kept)]
    for own in (targets, guessing.normalized_losses(trained, sample.x, sample.signs))
  )
  same = reached & (np.abs(sgd_loss - loss) <= SAME_LOSS * (math.log(2) - loss))
  if not reached.any():
    raise BadInput(
      f'SGD reached the loss of a random network in none of {len(kept)} trainings of '
      f'{settings["max_steps"]:,} steps; set a larger max_steps.'
    )
  return {
    'fits': len(found),
    'compared': len(kept),
    'reached': int(reached.sum()),
    'above_chance': int((guess > chance).sum()),
    'guess_accuracy': float(guess.mean()),
    'sgd_accuracy': float(sgd[reached].mean()),
    'guess_loss': float(loss.mean()),
    'sgd_loss': float(sgd_loss[reached].mean()),
    'pairs': int(same.sum()),
    'pairs_change': float((sgd - guess)[same].mean()) if same.any() else None,
  }


def interval(values: np.ndarray) -> float:
  """Half the 95 % confidence interval of a mean, from Student's t; values (k,), k >= 2."""
  from scipy import special  # slow to import

  quantile = special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)
  return float(quantile * np.std(values, ddof=1) / len(values) ** 0.5)


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  if 'fits' not in summary:  # it needs too many draws
    return {'draws': summary['draws']}
  fits, draws = sum(summary['fits']), summary['draws'] * len(summary['fits'])
  low, high = guessing.clopper_pearson(fits, draws, CONFIDENCE)
  compared = sum(summary['compared'])
  measured = {
    'draws': summary['draws'],
    'fits': fits,
    'fit_probability': fits / draws,
    'fit_low': low,
    'fit_high': high,
    'above_chance': 100 * sum(summary['above_chance']) / compared,
    'sgd_reached': 100 * sum(summary['reached']) / compared,
    'guess_loss': float(np.mean(summary['guess_loss'])),
    'sgd_loss': float(np.mean(summary['sgd_loss'])),
  }
  changes = [100 * value for value in summary['pairs_change'] if value is not None]
  measured['pairs'] = sum(summary['pairs'])
  if len(changes) > 1:
    measured['pairs_change'] = float(np.mean(changes))
    measured['pairs_interval'] = interval(np.array(changes))
  shape, _, count = name.rpartition('_n')
  reference = runs.get((f'{REFERENCES.get(shape)}_n{count}', seed))
  for kind in ('guess', 'sgd'):
    accuracies = 100 * np.array(summary[f'{kind}_accuracy'])
    measured[f'{kind}_accuracy'] = float(accuracies.mean())
    measured[f'{kind}_interval'] = interval(accuracies)
    if reference and 'fits' in reference.summary:
      changes = accuracies - 100 * np.array(reference.summary[f'{kind}_accuracy'])
      measured[f'{kind}_change'] = float(changes.mean())
      measured[f'{kind}_change_interval'] = interval(changes)
  return measured


def of_shape(entries: list[dict], shape: str) -> list[dict]:
  """The computed entries of a shape, in order of n."""
  return [
    entry
    for entry in entries
    if entry['name'].startswith(f'{shape}_n') and entry['ours']['fits'] is not None
  ]


def draw(entries: list[dict], runs: Runs):
  """Plots accuracies by width, by depth and initialization, and probabilities."""
  figure, axes = drawing.subplots(1, 3, height=3.6)
  colors = dict(zip(SHAPES, drawing.PALETTE, strict=False))
  chances = [run.summary['chance'] for run in runs.values() if 'chance' in run.summary]
  for axis, shapes in zip(axes, (*PANELS, tuple(colors)), strict=True):
    counts = []
    for place, shape in enumerate(shapes):
      own = of_shape(entries, shape)
      if not own:
        continue
      ours, label = [entry['ours'] for entry in own], SHAPES[shape][-1]
      sizes = np.array([entry['changes']['num_train'] for entry in own])
      counts = sorted({*counts, *sizes.tolist()})
      shifted = sizes * 1.05 ** (place - (len(shapes) - 1) / 2)  # so that bars stay apart
      if axis is axes[2]:
        middle = np.array([own['fit_probability'] for own in ours])
        low, high = (
          np.array([own[f'fit_{end}'] for own in ours]) for end in ('low', 'high')
        )
        errors = np.stack([middle - low, high - middle])
        axis.errorbar(shifted, middle, errors, fmt='o', color=colors[shape], markersize=3)
        continue
      for kind, style, fill in (('guess', 'o-', 'full'), ('sgd', 's--', 'none')):
        axis.errorbar(
          shifted,
          [own[f'{kind}_accuracy'] for own in ours],
          [own[f'{kind}_interval'] for own in ours],
          fmt=style,
          fillstyle=fill,
          color=colors[shape],
          linewidth=1,
          label=label if kind == 'guess' else None,
        )
    axis.set(xscale='log', xlabel='training images n')
    axis.minorticks_off()
    axis.set_xticks(counts, counts)
    if counts and axis is axes[2]:
      axis.plot(counts, 0.5 ** np.array(counts), ':', color='black', label='$2^{-n}$')
      drawing.legend(axis, loc='lower left')
    elif chances:
      axis.axhline(100 * np.mean(chances), linestyle=':', color='black')
  titles = 'width', 'depth and initialization', 'probability of fitting'
  for axis, title in zip(axes, titles, strict=True):
    axis.set_title(title, fontsize=9)
  for axis in axes[:2]:
    axis.set(ylabel='test accuracy (%)', ylim=(45, 100))
    for label, style, fill in (('random', 'o-', 'full'), ('SGD', 's--', 'none')):
      axis.plot([], [], style, fillstyle=fill, color='gray', linewidth=1, label=label)
    if chances:
      axis.plot([], [], ':', color='black', label='chance')
    drawing.legend(axis, loc='upper left', fontsize=8)
  axes[2].set(yscale='log')
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  for shape, (depth, width, initialization, rate, _) in SHAPES.items():
    own = of_shape(entries, shape)
    if not own:
      continue
    ours = [entry['ours'] for entry in own]
    sizes = format_list(entry['changes']['num_train'] for entry in own)
    guess, sgd = (
      format_list(
        f'{o[f"{kind}_accuracy"]:.1f} ± {o[f"{kind}_interval"]:.1f}' for o in ours
      )
      for kind in ('guess', 'sgd')
    )
    above = format_list(f'{o["above_chance"]:.0f}' for o in ours)
    yield (
      f'{depth} hidden layer{"s" * (depth > 1)} of {width}, {initialization} weights: '
      f'random networks that fit n = {sizes} images have a test accuracy of {guess} %, '
      f'networks trained with SGD (learning rate {rate}) until they fit and have no '
      f'higher loss {sgd} % (95 % intervals over training sets). {above} % of these '
      'random networks are better than chance.'
    )
    last = ours[-1]
    yield (
      f'At n = {own[-1]["changes"]["num_train"]}, {last["fits"]:,.0f} of '
      f'{last["draws"] * own[-1]["changes"]["samples"]:,.0f} such networks fit, a '
      f'probability of {last["fit_probability"]:.2e} (95 % interval {last["fit_low"]:.2e} '
      f'to {last["fit_high"]:.2e}, for these training sets).'
    )
    if last['pairs_change'] is not None:
      yield (
        f'There, in the {last["pairs"]:,.0f} pairs of a random and a trained network with '
        f'the same loss, training changes test accuracy by {last["pairs_change"]:+.1f} ± '
        f'{last["pairs_interval"]:.1f} points.'
      )
    if last['guess_change'] is not None:
      yield (
        f'Compared with {REFERENCES[shape]}, on the same training sets, '
        f'test accuracy changes by {last["guess_change"]:+.1f} ± '
        f'{last["guess_change_interval"]:.1f} points for random networks and by '
        f'{last["sgd_change"]:+.1f} ± {last["sgd_change_interval"]:.1f} points for SGD.'
      )
  for entry in entries:
    if entry['ours']['draws'] is not None and entry['ours']['fits'] is None:
      yield (
        f'{entry["name"]} is left out: it needs an estimated {entry["ours"]["draws"]:,.0f} '
        'draws per training set or more, and max_draws is '
        f'{entry["changes"]["max_draws"]:,}.'
      )
