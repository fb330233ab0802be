"""Section 2.2: which complexity measures tell true labels from random ones.

Networks are compared at the same training loss. After the same number of epochs, those on
random labels would be less far along, and norms and margins would differ for that reason
alone.
"""

import functools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen.data import corruption, preprocess, sources
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.theory import complexity
from rethink_gen.train import networks as networks_lib

TITLE = 'Section 2.2: complexity measures on true and on random labels'
ASKED = (
  'The same network, trained in the same way to the same training loss, generalizes on '
  'true labels; on random labels nothing could. Which complexity measures differ between '
  'the two, as one that explains generalization must?'
)
FOUND = (
  'Rademacher complexity, the VC dimension and uniform stability do not depend on the '
  'labels, so none can tell the two apart: a network that fits random labels has a '
  'Rademacher complexity near 1, which makes the bound vacuous.'
)
COLUMNS = {
  'true_labels': Column('true labels', '', '.4g'),
  'true_range': Column('range (true)', '', '.2g'),
  'random_labels': Column('random labels', '', '.4g'),
  'random_range': Column('range (random)', '', '.2g'),
  'change': Column('random minus true', '', '+.3g'),
  'change_error': Column('standard error', '', '.1g'),
  'separates': Column('separates them (1: yes)', '', '.0f'),
}
CAPTION = (
  'Each measure divided by its mean on true labels; a dot is a network, or a pair of '
  'networks whose samples differ in one example. Values that are not positive are not '
  'drawn. Networks are trained up to the first step at which the loss on the training set '
  'is at or below the target; a last step that ends more than 1 % below it is shortened. '
  'The table has the mean and the range (largest minus smallest), and the mean difference '
  'between networks with the same initialization and order of examples, with its standard '
  'error. A measure separates true from random labels if the two ranges do not overlap. If '
  'all ten values were independent draws from one distribution, this would happen for one '
  'measure in 126, and for at least one of nine in at most 7 % of such tables.'
)
# {measure: remark in the table}
MEASURES = {
  'train_loss': 'held equal: cross-entropy on the training set, in nats',
  'steps': 'gradient steps to this loss',
  'train_error': 'to be explained: fraction of the training set',
  'test_error': 'to be explained: fraction of the test set',
  'rademacher': 'agreement with random signs after training on them; ignores the labels',
  'rademacher_bound': 'on test minus training error, with two classes; 1 is vacuous',
  'vc_bound': 'of the class: larger sets are not labeled in every way; ignores the labels',
  'uniform_stability': 'largest change in a loss when one example is replaced',
  'average_stability': 'mean change over the test images',
  'margin': '5 % quantile over the training set',
  'normalized_margin': 'margin relative to spectral complexity and inputs',
  'spectral_product': 'product of the largest singular values',
  'spectral_complexity': "includes each layer's distance from initialization",
  'path_norm': '2-norm over all paths',
  'frobenius_norm': '2-norm of all parameters',
  'distance': '2-norm of the distance from initialization',
}
QUANTILE = 0.05  # of the margins; the minimum would depend on a single example
# Settings of the measurement; all others are fields of the networks' config.
OWN = ('measure', 'num_networks', 'confidence', 'train_loss')
NETWORK: dict[str, Any] = {
  'dataset.name': 'cifar10',
  'dataset.num_test': None,
  'model.name': 'mlp',
  'model.depth': 1,
  'model.width': 512,
  'num_epochs': 200,  # maximum; all are used on random signs, where only agreement counts
  'eval_every': 200,  # random signs are evaluated only at the end
  'train_loss': 0.01,  # low enough for every label to be fitted
}
SCALES: dict[str, dict[str, Any]] = {
  'smoke': {
    'dataset.name': 'digits',
    'dataset.num_train': 96,
    'dataset.num_test': 96,
    'batch_size': 32,
    'num_epochs': 200,
    'eval_every': 200,
    'train_loss': 0.1,
    'num_networks': 2,
  },
  'laptop': {'dataset.num_train': 2_000, 'num_networks': 5},
  'full': {'dataset.num_train': 49_000, 'model.depth': 3, 'num_networks': 5},
}
SAYS = {
  'smoke': (
    'An MLP 1x512 on 96 handwritten digits, two networks each for true and random labels, '
    'at a training loss of 0.1.'
  ),
  'laptop': (
    'An MLP 1x512 on 2,000 images of CIFAR-10, five networks each for true and random '
    'labels, at a training loss of 0.01.'
  ),
  'full': (
    'An MLP 3x512 on 49,000 images of CIFAR-10, five networks each for true and random '
    'labels, at a training loss of 0.01.'
  ),
}
EXAMPLES_PER_SECOND = 12_000  # when training on two cores


def rows(scale: str) -> list[Row]:
  return [
    Row(
      name=measure,
      config='complexity',
      changes=NETWORK | {'confidence': 0.95} | SCALES[scale] | {'measure': measure},
      # Section 2.2: "we expect" it to be about 1.
      paper={c: 1.0 for c in ('true_labels', 'random_labels') if measure == 'rademacher'},
      note=note,
    )
    for measure, note in MEASURES.items()
  ]


def check(settings: dict) -> None:
  """Raises BadInput for invalid settings, or for a data set that is too small."""
  measure, networks = settings.get('measure'), settings.get('num_networks')
  if measure not in MEASURES:
    raise BadInput(f'measure is {measure!r}, but it must be one of {", ".join(MEASURES)}.')
  if not isinstance(networks, int) or networks < 2:
    raise BadInput(f'num_networks is {networks!r}, but a range needs 2 or more.')
  if not 0 < (settings.get('train_loss') or 0) < math.inf:
    raise BadInput(
      f'train_loss is {settings.get("train_loss")!r}, but it must be a positive number.'
    )
  if not 0 < settings.get('confidence', 0) < 1:
    raise BadInput(
      f'confidence is {settings.get("confidence")!r}, but it must be a probability above 0 '
      'and below 1.'
    )
  unknown = (
    settings.keys() - {'seed', *OWN} - config_lib.flatten(config_lib.default()).keys()
  )
  if unknown:
    raise BadInput(f'{", ".join(sorted(unknown))} is not a config field; leave it out.')
  config = make_config(settings, 'none', 0)
  config_lib.validate(config)
  if config.model.name != 'mlp' or config.model.depth == 0:
    raise BadInput(
      f'model.name is {config.model.name!r} with model.depth {config.model.depth}, but the '
      'norms are defined for fully connected networks with hidden layers; use mlp.'
    )
  dataset = read(config.dataset.name, config.dataset.path)
  most = len(dataset.y_train) - networks
  if not 1 <= (config.dataset.num_train or 0) <= most:
    raise BadInput(
      f'dataset.num_train is {config.dataset.num_train}, but it must be from 1 to '
      f'{most:,}: the data set has {len(dataset.y_train):,} training examples, and '
      f'{networks} must be left over as replacements.'
    )
  if (config.dataset.num_test or 0) > len(dataset.y_test):
    raise BadInput(
      f'dataset.num_test is {config.dataset.num_test}, but the data set has '
      f'{len(dataset.y_test):,} test examples; take at most that many.'
    )


def expected_seconds(settings: dict) -> float:
  """Estimated seconds, mostly to train the networks that this measure is first to need."""
  networks = {'train_loss': 2, 'rademacher': 1, 'uniform_stability': 2}
  trained = networks.get(settings['measure'], 0) * settings['num_networks']
  examples = settings['dataset.num_train'] * settings['num_epochs']
  return 5 + trained * (3 + examples / EXAMPLES_PER_SECOND)


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """Computes one measure for networks trained on true labels and on random labels.

  The networks are stored next to `folder`, named by what they learned, where the other
  measures find them.

  Args:
    settings: those of a row, and the seed.
    folder: an existing folder.
    say: say(line) shows progress.

  Returns:
    {column: number} for COLUMNS, and the lists true_values and random_values, whose values
    at the same position share initialization and order of examples.
  """
  measure = settings['measure']
  networks = folder.parent / 'networks'
  if measure in ('rademacher', 'rademacher_bound', 'vc_bound'):
    true = random = of_class(measure, settings, networks, say)
  else:
    of_labels = of_pairs if measure.endswith('stability') else of_networks
    true, random = (
      of_labels(measure, settings, mode, networks, say)
      for mode in ('none', 'random_labels')
    )
  changes = np.subtract(random, true)
  deviation = np.std(changes, ddof=1) if len(changes) > 1 else 0.0
  return {
    'true_labels': float(np.mean(true)),
    'true_range': max(true) - min(true),
    'random_labels': float(np.mean(random)),
    'random_range': max(random) - min(random),
    'change': float(np.mean(changes)),
    'change_error': float(deviation / len(changes) ** 0.5),
    'separates': float(max(true) < min(random) or max(random) < min(true)),
    'true_values': true,
    'random_values': random,
  }


def make_config(settings: dict, mode: str, number: int) -> config_dict.ConfigDict:
  """The config of network `number` for this seed, with labels corrupted by `mode`."""
  config = config_lib.default()
  fields = {field: settings[field] for field in settings if field not in OWN}
  config.update_from_flattened_dict(fields | {'corruption.mode': mode})
  config.seed = settings.get('seed', 0) * settings['num_networks'] + number
  config.corruption.seed = config.seed
  return config


def load(
  settings: dict, mode: str, number: int
) -> tuple[config_dict.ConfigDict, sources.Dataset, tuple[np.ndarray, int]]:
  """(config, Dataset, spare): `spare` is an (image, label) from outside the sample."""
  config = make_config(settings, mode, number)
  original = read(config.dataset.name, config.dataset.path)
  dataset = corruption.corrupt(original, mode, config.corruption.seed)
  sample = sources.first(dataset, config.dataset.num_train, config.dataset.num_test)
  spare = config.dataset.num_train + number
  return config, sample, (dataset.x_train[spare], dataset.y_train[spare])


@functools.lru_cache(maxsize=1)
def read(name: str, path: str | None) -> sources.Dataset:
  """`sources.load`, cached for all rows."""
  return sources.load(name, path=path)


def of_class(
  measure: str, settings: dict, networks: pathlib.Path, say: Callable
) -> list[float]:
  """[value]: a measure of the class of networks, whatever was learned."""
  config, dataset, _ = load(settings, 'none', 0)
  count, draws = len(dataset.y_train), settings['num_networks']
  if measure == 'vc_bound':
    _, height, width, channels = dataset.x_train.shape
    crop = preprocess.crop_shape(height, width, config.dataset.crop_size)
    inputs = crop[0] * crop[1] * channels
    return [complexity.vc_bound([inputs] + [config.model.width] * config.model.depth)]
  fit = networks_lib.sign_fit(config, dataset.x_train, networks)
  signs = complexity.random_signs(draws, count, config.seed)
  values = []
  for number, drawn in enumerate(signs, 1):
    values += complexity.rademacher(fit, drawn[None]).tolist()
    say(f'random signs {number}/{draws}: agreement {values[-1]:.4f}')
  if measure == 'rademacher':
    return values
  mean = float(np.mean(values))
  return [complexity.rademacher_bound(mean, count, settings['confidence'])]


def of_pairs(
  measure: str, settings: dict, mode: str, networks: pathlib.Path, say: Callable
) -> list[float]:
  """One value per pair of networks, trained with an example or with its replacement.

  The number of the pair is the index of the example. Both networks share initialization
  and order of examples, and are trained to the same training loss.
  """
  values = []
  for number in range(settings['num_networks']):
    config, dataset, spare = load(settings, mode, number)
    replaced = complexity.replace_one(dataset, number, *spare)
    images = dataset.x_test
    if measure == 'uniform_stability':  # any input counts
      images = np.concatenate([images, dataset.x_train, spare[0][None]])
    before, after = (
      networks_lib.outputs(
        networks_lib.train_network(config, data, networks, settings['train_loss']), images
      )
      for data in (dataset, replaced)
    )
    changes = complexity.loss_changes(before, after)
    largest = measure == 'uniform_stability'
    values.append(float(changes.max() if largest else changes.mean()))
    say(f'{mode}, pair {number + 1}/{settings["num_networks"]}: {values[-1]:.4g}')
  return values


def of_networks(
  measure: str, settings: dict, mode: str, networks: pathlib.Path, say: Callable
) -> list[float]:
  """One value per network, with its own initialization, order and any random labels."""
  values = []
  for number in range(settings['num_networks']):
    config, dataset, _ = load(settings, mode, number)
    network = networks_lib.train_network(config, dataset, networks, settings['train_loss'])
    values.append(float(OF_NETWORK[measure](network)))
    say(f'{mode}, network {number + 1}/{settings["num_networks"]}: {values[-1]:.4g}')
  return values


def train_loss(network: networks_lib.Network) -> float:
  """The mean cross-entropy on the training set, in nats."""
  outputs = networks_lib.outputs(network, network.dataset.x_train).astype(float)
  largest = outputs.max(-1, keepdims=True)
  logarithms = np.log(np.exp(outputs - largest).sum(-1)) + largest[:, 0]
  return np.mean(logarithms - outputs[np.arange(len(outputs)), network.dataset.y_train])


def error(network: networks_lib.Network, split: str) -> float:
  """The fraction of a split, 'train' or 'test', that is misclassified."""
  images, labels = (getattr(network.dataset, f'{name}_{split}') for name in 'xy')
  return np.mean(networks_lib.outputs(network, images).argmax(-1) != labels)


def margin(network: networks_lib.Network) -> float:
  outputs = networks_lib.outputs(network, network.dataset.x_train)
  return np.quantile(complexity.margins(outputs, network.dataset.y_train), QUANTILE)


def normalized_margin(network: networks_lib.Network) -> float:
  spectral = complexity.spectral_complexity(network.params, network.initial)
  images, crop_size = network.dataset.x_train, network.config.dataset.crop_size
  height, width = images.shape[1:3]
  crop_shape = preprocess.crop_shape(height, width, crop_size)
  inputs = preprocess.preprocess(images, crop_shape)
  return complexity.normalized(margin(network), spectral, inputs)


OF_NETWORK = {
  'train_loss': train_loss,
  'steps': lambda network: network.step,
  'train_error': lambda network: error(network, 'train'),
  'test_error': lambda network: error(network, 'test'),
  'margin': margin,
  'normalized_margin': normalized_margin,
  'spectral_product': lambda network: np.prod(complexity.spectral_norms(network.params)),
  'spectral_complexity': lambda network: complexity.spectral_complexity(
    network.params, network.initial
  ),
  'path_norm': lambda network: complexity.path_norm(network.params),
  'frobenius_norm': lambda network: complexity.frobenius_norm(network.params),
  'distance': lambda network: complexity.distance(network.params, network.initial),
}


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  return {column: summary[column] for column in COLUMNS}


def draw(entries: list[dict], runs: Runs):
  """Plots each network's value of each measure, divided by the mean on true labels."""
  figure, axis = drawing.subplots(height=0.28 * len(entries) + 1)
  scaled = 'linear'  # until there is a positive value
  for height, entry in enumerate(entries):
    scale = entry['ours']['true_labels']
    for seed in entry['seeds'] if scale else ():
      summary = runs[entry['name'], seed].summary
      for labels, color, shift in (('true', 0, -0.15), ('random', 1, 0.15)):
        values = np.array(summary[f'{labels}_values']) / scale
        style = {'color': drawing.PALETTE[color], 'alpha': 0.7, 'linestyle': 'none'}
        axis.plot(values, np.full(len(values), height + shift), 'o', **style)
        scaled = 'log' if (values > 0).any() else scaled
  for color, labels in enumerate(('true labels', 'random labels')):
    axis.plot([], [], 'o', color=drawing.PALETTE[color], label=labels)
  axis.set_yticks(range(len(entries)), [entry['name'] for entry in entries])
  limits = len(entries) - 0.5, -0.5
  axis.set(xscale=scaled, xlabel='value / mean on true labels', ylim=limits)
  drawing.legend(axis)
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  ours = {e['name']: e['ours'] for e in entries if e['ours']['separates'] is not None}
  settings = {entry['name']: entry['changes'] for entry in entries}
  if 'rademacher_bound' in ours:
    bound = ours['rademacher_bound']['true_labels']
    verdict = 'says nothing, since no error exceeds 1' if bound >= 1 else 'is below 1'
    yield (
      f'The Rademacher bound on test minus training error is {bound:.2f}, whatever the '
      f'labels: it {verdict}.'
    )
  if 'vc_bound' in ours:
    count = settings['vc_bound']['dataset.num_train']
    times = ours['vc_bound']['true_labels'] / count
    yield (
      'No set of inputs larger than the VC bound is labeled in every way by networks of '
      f'this architecture. It is {times:,.0f} times the number of training examples, so it '
      'does not bound the error, and it is the same for every network of the class.'
    )
  if 'uniform_stability' in ours:
    count = settings['uniform_stability']['dataset.num_train']
    numbers = ours['uniform_stability']
    largest = max(numbers['true_labels'], numbers['random_labels'])
    yield (
      f'Replacing one example of {count:,} changes some loss by {largest:.2f} (mean over '
      'pairs, for the labels where it is larger); a bound needs far less than '
      f'1/sqrt(n) = {count**-0.5:.3f}.'
    )
  if 'normalized_margin' in ours and ours['normalized_margin']['true_labels'] > 0:
    lowest = 1 / ours['normalized_margin']['true_labels']
    yield (
      'The leading term of the margin bound without its constants and logarithms, 1 over '
      f'the normalized margin, is {lowest:,.0f} on true labels; a bound of 1 or more is '
      'vacuous.'
    )
  outcomes = ('train_loss', 'steps', 'train_error', 'test_error')
  for separates, words in ((1, 'Separate'), (0, 'Do not separate')):
    ratios = [
      f'{name} ({numbers["random_labels"] / (numbers["true_labels"] or np.nan):.2f})'
      for name, numbers in ours.items()
      if (numbers['separates'] == 1) == bool(separates) and name not in outcomes
    ]
    if ratios:
      yield (
        f'{words} true from random labels (in parentheses: random divided by true): '
        f'{", ".join(ratios)}.'
      )
