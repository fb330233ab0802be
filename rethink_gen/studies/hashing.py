"""Is classification just hashing? A table of hashes and labels against a network."""

import functools
import importlib
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from rethink_gen import models
from rethink_gen.data import corruption, preprocess, sources
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.theory import hashing

TITLE = 'Classification as hashing: what a table of hashes fits, and in how many bits'
ASKED = (
  'Labels are only a few bits per image, so is fitting them more than storing a hash of '
  'each training image with its label? How large is such a table, what does it know about '
  'new images, and how much larger is a network?'
)
FOUND = (
  'The paper gives no table. Its networks fit random labels, as a table of hashes does, '
  'with many more bits than the labels have; on true labels they also generalize, which a '
  'table of digests does not.'
)
COLUMNS = {
  'train_error': Column('training error', '%', '.2f'),
  'test_error': Column('test error, same hash', '%', '.2f'),
  'nearest_test_error': Column('test error, nearest hash', '%', '.2f'),
  'standard_error': Column('its standard error', '%', '.2f'),
  'bits_per_image': Column('bits per training image', '', ',.1f'),
  'megabits': Column('megabits', '', ',.3f'),
  'share_of_network': Column("share of the MLP 1x512's bits", '%', '.2f'),
}
CAPTION = (
  'Test error against the bits stored, looking up the same hash (or guessing the most '
  'common training label if it is not stored) and the stored hash that differs in the '
  'fewest bits. Hollow: digests; filled: signs of random projections; black: the networks '
  'of Table 1, with the errors in the paper.'
)
NETWORK = 'mlp_1x512'
# (training, test) errors of the network on CIFAR-10 in percent, from Table 1.
TABLE_1 = {'mlp_1x512': (0.0, 49.49), 'mlp_1x512_random': (0.66, 89.39)}
# row: (what is stored, bits of a hash, labels, note)
ROWS = {
  'digest_32': ('digest', 32, 'none', 'BLAKE2b of the bytes'),
  'digest_64': ('digest', 64, 'none', ''),
  'digest_64_random': ('digest', 64, 'random_labels', 'random labels'),
  'signs_16': ('signs', 16, 'none', 'sides of random hyperplanes'),
  'signs_64': ('signs', 64, 'none', ''),
  'signs_256': ('signs', 256, 'none', ''),
  'signs_1024': ('signs', 1024, 'none', ''),
  'signs_1024_random': ('signs', 1024, 'random_labels', 'random labels'),
  'theorem1': ('theorem1', None, 'none', '2n + d weights of 64 bits; with 32 it fits few'),
} | {
  name: (
    *(NETWORK, None, 'random_labels' if name.endswith('random') else 'none'),
    f"its bits; errors in the paper's Table 1 (CIFAR-10): {train_error} and {test_error} %",
  )
  for name, (train_error, test_error) in TABLE_1.items()
}
DATA = {'dataset.name': 'cifar10', 'dataset.num_train': None, 'dataset.num_test': None}
SCALES = {
  'smoke': {'dataset.name': 'digits', 'dataset.num_train': 96, 'dataset.num_test': 96},
  'laptop': {},
  'full': {},
}
SAYS = {
  'smoke': '96 handwritten digits.',
  'laptop': 'All of CIFAR-10.',
  'full': 'All of CIFAR-10.',
}
BITS_PER_PARAMETER = 32
# In float32, Theorem 1's network gets 1.75 % of 50,000 labels right (table of `theorem1`).
BITS_PER_WEIGHT_OF_THEOREM_1 = 64


def rows(scale: str) -> list[Row]:
  return [
    Row(
      name=name,
      config='hashing',
      changes=DATA
      | SCALES[scale]
      | {'stores': stores, 'bits': bits, 'corruption.mode': labels},
      note=note,
    )
    for name, (stores, bits, labels, note) in ROWS.items()
  ]


def check(settings: dict) -> None:
  """Raises BadInput for invalid settings."""
  stores, bits = settings.get('stores'), settings.get('bits')
  accepted = ('digest', 'signs', 'theorem1', NETWORK)
  if stores not in accepted:
    raise BadInput(f'stores is {stores!r}, but it must be one of {", ".join(accepted)}.')
  if stores in ('digest', 'signs'):
    hashing.check_bits(bits, 512 if stores == 'digest' else 2**16)
  elif bits is not None:
    raise BadInput(f'bits is {bits!r}, but a network has no hash; set it to None.')
  if settings.get('corruption.mode') not in ('none', 'random_labels'):
    raise BadInput(
      f'corruption.mode is {settings.get("corruption.mode")!r}, but it must be none or '
      'random_labels.'
    )
  dataset = read(settings.get('dataset.name'))
  for split, labels in (('train', dataset.y_train), ('test', dataset.y_test)):
    count = settings.get(f'dataset.num_{split}')
    if count is not None and not 1 <= count <= len(labels):
      raise BadInput(
        f'dataset.num_{split} is {count}, but it must be from 1 to {len(labels):,}, or '
        'None for all.'
      )


def expected_seconds(settings: dict) -> float:
  """Estimated seconds to compare every test hash with every stored one, bit by bit."""
  small = settings['dataset.num_train'] is not None
  return 2 if small or settings['stores'] in ('theorem1', NETWORK) else 10


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """{column: fraction or number}, without the columns that a row does not have.

  Args:
    settings: those of a row, and the seed of random labels and random hyperplanes.
    folder: unused, because nothing takes longer than seconds.
    say: say(line) shows progress.
  """
  del folder
  dataset = load(settings)
  network_bits = BITS_PER_PARAMETER * num_parameters(dataset)
  if settings['stores'] == NETWORK:
    computed = {'bits': network_bits}
  elif settings['stores'] == 'theorem1':
    weights = 2 * len(dataset.y_train) + dataset.x_train[0].size
    computed = {'bits': BITS_PER_WEIGHT_OF_THEOREM_1 * weights}
  else:
    computed = of_table(settings, dataset, say)
  return computed | {'num_train': len(dataset.y_train), 'network_bits': network_bits}


def load(settings: dict) -> sources.Dataset:
  """The Dataset of a row, with random training labels if the row asks for them."""
  seed = settings.get('seed', 0)
  original = read(settings['dataset.name'])
  dataset = corruption.corrupt(original, settings['corruption.mode'], seed)
  counts = settings['dataset.num_train'], settings['dataset.num_test']
  return sources.first(dataset, *counts)


@functools.lru_cache(maxsize=1)
def read(name: str) -> sources.Dataset:
  """`sources.load`, cached for all rows."""
  return sources.load(name)


def num_parameters(dataset: sources.Dataset) -> int:
  """Number of parameters of the MLP 1x512 for these images and classes."""
  config = importlib.import_module(f'configs.{NETWORK}').get_config()
  crop_shape = preprocess.crop_shape(*dataset.x_train.shape[1:3])
  images = np.zeros((1, *crop_shape, dataset.x_train.shape[3]), np.float32)
  model = models.create(config, dataset.num_classes)
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
  return sum(leaf.size for leaf in jax.tree.leaves(variables))


def of_table(settings: dict, dataset: sources.Dataset, say: Callable) -> dict:
  """The errors of the table, as fractions, and its size in bits."""
  if settings['stores'] == 'digest':
    train, test = (
      hashing.digest_hash(images, settings['bits'])
      for images in (dataset.x_train, dataset.x_test)
    )
  else:
    center = dataset.x_train.mean(0)
    projections = hashing.random_projections(
      center.size, settings['bits'], settings.get('seed', 0)
    )
    train, test = (
      hashing.sign_hash(images, center, projections)
      for images in (dataset.x_train, dataset.x_test)
    )
  table = hashing.store(train, dataset.y_train, dataset.num_classes)
  say(f'{len(table.labels):,} distinct hashes of {len(train):,} images')
  guess = hashing.most_common(dataset.y_train, dataset.num_classes)
  fitted = hashing.look_up(table, train, guess)
  by_hash = hashing.look_up(table, test, guess)
  by_nearest = hashing.look_up_nearest(table, test)
  return {
    'train_error': float(np.mean(fitted != dataset.y_train)),
    'test_error': float(np.mean(by_hash != dataset.y_test)),
    'nearest_test_error': float(np.mean(by_nearest != dataset.y_test)),
    'num_test': len(dataset.y_test),
    'entries': len(table.labels),
    'bits': hashing.stored_bits(table),
  }


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  summary = runs[name, seed].summary
  errors = ('train_error', 'test_error', 'nearest_test_error')
  measured = {error: 100 * summary[error] for error in errors if error in summary}
  if 'nearest_test_error' in summary:
    error = summary['nearest_test_error']
    measured['standard_error'] = 100 * (error * (1 - error) / summary['num_test']) ** 0.5
  return measured | {
    'bits_per_image': summary['bits'] / summary['num_train'],
    'megabits': summary['bits'] / 1e6,
    'share_of_network': 100 * summary['bits'] / summary['network_bits'],
  }


def draw(entries: list[dict], runs: Runs):
  """Plots test error against megabits, on true and on random labels."""
  figure, axis = drawing.subplots()
  styles = {
    'test_error': ('o', 'same hash'),
    'nearest_test_error': ('^', 'nearest hash'),
  }
  for entry in entries:
    ours, random = entry['ours'], entry['changes']['corruption.mode'] != 'none'
    for column, (marker, _) in styles.items():
      if ours[column] is not None:
        fill = 'none' if entry['changes']['stores'] == 'digest' else 'full'
        style = {'color': drawing.PALETTE[random], 'fillstyle': fill, 'markersize': 6}
        axis.plot(ours['megabits'], ours[column], marker, **style)
    on_cifar10 = entry['changes']['dataset.name'] == 'cifar10'
    if entry['name'] in TABLE_1 and on_cifar10 and ours['megabits'] is not None:
      place = ours['megabits'], TABLE_1[entry['name']][1]
      axis.plot(*place, 'o', color='black', fillstyle='none', markersize=7)
      beside = {'textcoords': 'offset points', 'ha': 'right', 'va': 'top'}
      axis.annotate(entry['name'], place, (5, -7), **beside)
  for marker, label in styles.values():
    for color, labels in enumerate(('true', 'random')):
      axis.plot(
        [], [], marker, color=drawing.PALETTE[color], label=f'{label}, {labels} labels'
      )
  axis.set(xscale='log', xlabel='megabits stored', ylabel='test error (%)', ylim=(0, 100))
  drawing.legend(axis, loc='upper left', bbox_to_anchor=(1, 1))
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  ours = {e['name']: e['ours'] for e in entries if e['ours']['megabits'] is not None}
  for name in ('digest_64', 'digest_64_random'):
    if name in ours:
      numbers = ours[name]
      yield (
        f'{name}: training error {numbers["train_error"]:.2f} %, test error '
        f'{numbers["test_error"]:.2f} %, with {numbers["bits_per_image"]:.0f} bits per '
        f'image, {numbers["share_of_network"]:.2f} % of the bits of the MLP 1x512.'
      )
  signs = {n: o for n, o in ours.items() if n.startswith('signs') and 'random' not in n}
  if signs:
    best = min(signs, key=lambda name: signs[name]['nearest_test_error'])
    yield (
      f'Of the hashes that preserve angles, {best} has the lowest nearest-hash test error, '
      f'{signs[best]["nearest_test_error"]:.2f} %, with a standard error of '
      f'{signs[best]["standard_error"]:.2f} over test images and for one draw of '
      'hyperplanes. The nearest hash is roughly that of the image at the smallest angle.'
    )
