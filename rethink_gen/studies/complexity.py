"""Section 2.2: which measures of complexity tell true labels from random ones.

Networks are compared where they have the same training loss. After as many epochs those
on random labels would be less far, and norms and margins would differ for that alone.
"""

import functools
import math

import numpy as np

from rethink_gen import config as config_lib
from rethink_gen.data import corruption, preprocess, sources
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row
from rethink_gen.theory import complexity
from rethink_gen.train import networks as networks_lib

TITLE = 'Section 2.2: measures of complexity on true and on random labels'
ASKED = (
  'The same network, trained in the same way to the same training loss, generalizes on '
  'true labels, and on random ones nothing could. Which measures of complexity differ '
  'between the two, as one that explains generalization must?'
)
FOUND = (
  'Rademacher complexity, the VC dimension and uniform stability do not depend on the '
  'labels, so none can tell the two apart: a network that fits random labels has a '
  'Rademacher complexity near 1, and its bound says nothing.'
)
COLUMNS = {
  'true_labels': Column('true labels', '', '.4g'),
  'true_range': Column('range', '', '.2g'),
  'random_labels': Column('random labels', '', '.4g'),
  'random_range': Column('its range', '', '.2g'),
  'change': Column('random less true', '', '+.3g'),
  'change_error': Column('standard error', '', '.1g'),
  'separates': Column('separates them (1: yes)', '', '.0f'),
}
CAPTION = (
  'Each measure over its mean on true labels; a dot is a network, or a pair of networks '
  'whose samples differ in one example. What is not positive is not drawn. Networks are '
  'trained up to the first step at which the loss over the training set is at or below the '
  'one that is given; a last step that leads more than 1 % below it is shortened. In the '
  'table: the mean and the range, '
  'largest less smallest; the mean difference between networks of one initialization and '
  'order of examples, with its standard error. A measure separates true from random labels '
  'if the two ranges do not meet. If all ten values were independent draws from one '
  'distribution, this would happen to one measure in 126, and to at least one of nine in '
  'at most 7 % of such tables.'
)
# The measures that are looked for in a row, in the words of the table's remark.
MEASURES = {
  'train_loss': 'what is held equal: cross-entropy over the training set, in nats',
  'steps': 'gradient steps that it took to come to this loss',
  'train_error': 'what is to be explained: share of the training set',
  'test_error': 'what is to be explained: share of the test set',
  'rademacher': 'agreement with random signs after training on them; does not see labels',
  'rademacher_bound': 'on test less training error, with two classes; 1 is vacuous',
  'vc_bound': 'of the class: no more inputs are labeled in every way; sees no labels',
  'uniform_stability': 'largest change of a loss when one example is replaced',
  'average_stability': 'the mean change over the test images',
  'margin': 'its 5 % quantile over the training set',
  'normalized_margin': 'margin over spectral complexity and inputs',
  'spectral_product': 'product of the largest singular values',
  'spectral_complexity': 'with the distance of each layer from its start',
  'path_norm': '2-norm over all paths',
  'frobenius_norm': '2-norm of all parameters',
  'distance': '2-norm of what training moved',
}
QUANTILE = 0.05  # of the margins: the smallest of all hangs on a single example
# Settings that are of the measurement; all others are fields of the networks' config.
OWN = ('measure', 'num_networks', 'confidence', 'train_loss')
NETWORK = {
  'dataset.name': 'cifar10',
  'dataset.num_test': None,
  'model.name': 'mlp',
  'model.depth': 1,
  'model.width': 512,
  'num_epochs': 200,  # at most; on random signs, where only the agreement counts, all
  'eval_every': 200,  # those are looked at when they have ended
  'train_loss': 0.01,  # every label is fitted there
}
SCALES = {
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
    'An MLP 1x512 on 96 handwritten digits, two networks a kind, at a training loss of 0.1.'
  ),
  'laptop': (
    'An MLP 1x512 on 2,000 images of CIFAR-10, five networks a kind, at a training loss of '
    '0.01.'
  ),
  'full': (
    'An MLP 3x512 on 49,000 images of CIFAR-10, five networks a kind, at a training loss '
    'of 0.01.'
  ),
}
EXAMPLES_PER_SECOND = 12_000  # in training, on two cores


def rows(scale):
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


def check(settings):
  """Raises BadInput for settings that no data could make right, and for too little data."""
  measure, networks = settings.get('measure'), settings.get('num_networks')
  if measure not in MEASURES:
    raise BadInput(f'measure is {measure!r}, but it must be one of {", ".join(MEASURES)}.')
  if not isinstance(networks, int) or networks < 2:
    raise BadInput(f'num_networks is {networks!r}, but a range takes 2 or more.')
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
    raise BadInput(f'{", ".join(sorted(unknown))} is no field of a config.')
  config = make_config(settings, 'none', 0)
  config_lib.validate(config)
  if config.model.name != 'mlp' or config.model.depth == 0:
    raise BadInput(
      f'model.name is {config.model.name!r} with model.depth {config.model.depth}, but the '
      'norms are those of fully connected networks with hidden layers; take mlp.'
    )
  dataset = read(config.dataset.name, config.dataset.path)
  most = len(dataset.y_train) - networks
  if not 1 <= (config.dataset.num_train or 0) <= most:
    raise BadInput(
      f'dataset.num_train is {config.dataset.num_train}, but it must be from 1 to '
      f'{most:,}: the data set has {len(dataset.y_train):,} training examples, and '
      f'{networks} are left to replace others.'
    )
  if (config.dataset.num_test or 0) > len(dataset.y_test):
    raise BadInput(
      f'dataset.num_test is {config.dataset.num_test}, but the data set has '
      f'{len(dataset.y_test):,} test examples; take at most that many.'
    )


def expected_seconds(settings):
  """Mostly the training of the networks that this measure is the first to ask for."""
  networks = {'train_loss': 2, 'rademacher': 1, 'uniform_stability': 2}
  trained = networks.get(settings['measure'], 0) * settings['num_networks']
  examples = settings['dataset.num_train'] * settings['num_epochs']
  return 5 + trained * (3 + examples / EXAMPLES_PER_SECOND)


def compute(settings, folder, say):
  """One measure, of networks trained on true labels and of others on random labels.

  The networks lie beside `folder`, named by what they learned, where the other measures
  find them.

  Args:
    settings: those of a row, and the seed.
    folder: a folder that is there.
    say: say(line) shows progress.

  Returns:
    {column: number} of COLUMNS, and true_values and random_values, a list each, in which
    values of the same place are of one initialization and order of examples.
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


def make_config(settings, mode, number):
  """The config of network `number` for this seed, with labels corrupted by `mode`."""
  config = config_lib.default()
  fields = {field: settings[field] for field in settings if field not in OWN}
  config.update_from_flattened_dict(fields | {'corruption.mode': mode})
  config.seed = settings.get('seed', 0) * settings['num_networks'] + number
  config.corruption.seed = config.seed
  return config


def load(settings, mode, number):
  """(config, Dataset, spare): `spare` is an example (image, label) beside the sample."""
  config = make_config(settings, mode, number)
  original = read(config.dataset.name, config.dataset.path)
  dataset = corruption.corrupt(original, mode, config.corruption.seed)
  sample = sources.first(dataset, config.dataset.num_train, config.dataset.num_test)
  spare = config.dataset.num_train + number
  return config, sample, (dataset.x_train[spare], dataset.y_train[spare])


@functools.lru_cache(maxsize=1)
def read(name, path):
  """`sources.load`, once for all rows."""
  return sources.load(name, path=path)


def of_class(measure, settings, networks, say):
  """[value]: a measure of the networks that could be, whatever was learned."""
  config, dataset, _ = load(settings, 'none', 0)
  count, draws = len(dataset.y_train), settings['num_networks']
  if measure == 'vc_bound':
    crop = preprocess.crop_shape(*dataset.x_train.shape[1:3], config.dataset.crop_size)
    inputs = crop[0] * crop[1] * dataset.x_train.shape[3]
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


def of_pairs(measure, settings, mode, networks, say):
  """[value a pair]: networks trained with one example, and with another in its place.

  The number of the pair is the index of the example. Initialization and order of examples
  are the same for both, and both are trained to the same training loss.
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


def of_networks(measure, settings, mode, networks, say):
  """[value a network], each on its own initialization, order and labels if random."""
  values = []
  for number in range(settings['num_networks']):
    config, dataset, _ = load(settings, mode, number)
    network = networks_lib.train_network(config, dataset, networks, settings['train_loss'])
    values.append(float(OF_NETWORK[measure](network)))
    say(f'{mode}, network {number + 1}/{settings["num_networks"]}: {values[-1]:.4g}')
  return values


def train_loss(network):
  """The mean cross-entropy over the training set, in nats."""
  outputs = networks_lib.outputs(network, network.dataset.x_train).astype(float)
  largest = outputs.max(-1, keepdims=True)
  logarithms = np.log(np.exp(outputs - largest).sum(-1)) + largest[:, 0]
  return np.mean(logarithms - outputs[np.arange(len(outputs)), network.dataset.y_train])


def error(network, split):
  """The share of a split, 'train' or 'test', that is not classified as it is labeled."""
  images, labels = (getattr(network.dataset, f'{name}_{split}') for name in 'xy')
  return np.mean(networks_lib.outputs(network, images).argmax(-1) != labels)


def margin(network):
  outputs = networks_lib.outputs(network, network.dataset.x_train)
  return np.quantile(complexity.margins(outputs, network.dataset.y_train), QUANTILE)


def normalized_margin(network):
  spectral = complexity.spectral_complexity(network.params, network.initial)
  images, crop_size = network.dataset.x_train, network.config.dataset.crop_size
  crop_shape = preprocess.crop_shape(*images.shape[1:3], crop_size)
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


def measure(runs, name, seed):
  summary = runs[name, seed].summary
  return {column: summary[column] for column in COLUMNS}


def draw(entries, runs):
  """Every network's value of every measure, over the mean on true labels."""
  figure, axis = drawing.subplots(height=0.28 * len(entries) + 1)
  scaled = 'linear'  # until there is something that a logarithm can show
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


def findings(entries):
  """What the numbers say, a sentence each."""
  ours = {e['name']: e['ours'] for e in entries if e['ours']['separates'] is not None}
  settings = {entry['name']: entry['changes'] for entry in entries}
  if 'rademacher_bound' in ours:
    bound = ours['rademacher_bound']['true_labels']
    verdict = 'says nothing, since no error exceeds 1' if bound >= 1 else 'is below 1'
    yield (
      f'The Rademacher bound on test less training error is {bound:.2f}, whatever the '
      f'labels: it {verdict}.'
    )
  if 'vc_bound' in ours:
    count = settings['vc_bound']['dataset.num_train']
    times = ours['vc_bound']['true_labels'] / count
    yield (
      'No set of more inputs than the VC bound is labeled in every way by the networks of '
      f'this architecture. It is {times:,.0f} times the number of training examples, so it '
      'bounds no error, and it is the same for every network of the class.'
    )
  if 'uniform_stability' in ours:
    count = settings['uniform_stability']['dataset.num_train']
    numbers = ours['uniform_stability']
    largest = max(numbers['true_labels'], numbers['random_labels'])
    yield (
      f'One example of {count:,} replaced changes some loss by {largest:.2f}, the mean '
      'over the pairs, on the labels where it is larger; a bound needs far less than '
      f'1/sqrt(n) = {count**-0.5:.3f}.'
    )
  if 'normalized_margin' in ours and ours['normalized_margin']['true_labels'] > 0:
    lowest = 1 / ours['normalized_margin']['true_labels']
    yield (
      'The leading term of the margin bound without its constants and logarithms, 1 over '
      f'the normalized margin, is {lowest:,.0f} on true labels; a bound of 1 or more says '
      'nothing.'
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
        f'{words} true from random labels (in brackets random over true): '
        f'{", ".join(ratios)}.'
      )
