"""Two-layer networks of all widths, trained in one program."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from rethink_gen.studies.double_descent import examples
from rethink_gen.theory import descent

_trained: dict[str, dict] = {}  # the last result of `train`


def train(settings: dict, say: Callable) -> dict[str, np.ndarray]:
  """Trains networks of all widths on several samples, in one program.

  Returns:
    'epochs' (t,), and after that many of them 'test', 'train', 'held' (t, seeds, widths),
    fractions of images misclassified, and 'loss', the cross-entropy on the test images;
    'threshold', the width with as many parameters as outputs on the training set. The last
    result is cached for the rows of other widths.
  """
  key = repr(sorted(settings.items()))
  if key in _trained:
    return _trained[key]
  _trained.clear()
  widths = tuple(settings['widths'])
  splits, d, classes = prepare(settings)
  seeds = [(settings['seed'], number) for number in range(settings['seeds'])]
  training = descent.start(seeds, widths, d, classes)
  epochs = np.unique(np.geomspace(1, settings['epochs'], 25).round().astype(int))
  records: dict[str, list] = {'test': [], 'train': [], 'held': [], 'loss': []}
  for before, after in zip((0, *epochs), epochs, strict=False):
    rates = after - before, settings['learning_rate'], settings['batch_size']
    training = descent.train(training, widths, *splits['train'], *rates)
    for name, split in splits.items():
      errors, losses = descent.evaluate(training.networks, widths, *split)
      records[name].append(np.asarray(errors, float))
      if name == 'test':
        records['loss'].append(np.asarray(losses, float))
    mean = 100 * records['train'][-1].mean()
    say(f'epoch {after}/{epochs[-1]}: training error {mean:.2f} % over all widths')
  outputs = settings['num_train'] * classes
  _trained[key] = {n: np.stack(v) for n, v in records.items()} | {
    'epochs': epochs,
    # d H + H hidden parameters and H k + k last ones.
    'threshold': (outputs - classes) / (d + 1 + classes),
  }
  return _trained[key]


def prepare(settings: dict) -> tuple[dict[str, tuple], int, int]:
  """({split: (x (s, n, d), labels (s, n))}, d, classes) for s seeds.

  Images are averaged over squares of `pooled` pixels per side, and standardized by the mean
  and deviation over all training images.
  """
  dataset, seeds = examples.load(settings['dataset']), settings['seeds']
  side = settings['pooled']

  def pool(images):
    count, height, width, channels = images.shape
    parts = images.reshape(count, height // side, side, width // side, side, channels)
    return parts.mean((2, 4)).reshape(count, -1)

  images, x_test = pool(dataset.x_train), pool(dataset.x_test)
  mean, deviation = images.mean(), images.std()
  splits: dict[str, list] = {'train': [], 'held': [], 'test': []}
  for number in range(seeds):
    seed = settings['seed'], number
    parts = examples.draw(dataset, settings['num_train'], settings['held_out'], seed)
    labels = examples.noisy(dataset, settings['noise'], seed)
    for name, own in zip(splits, parts, strict=False):
      splits[name].append((images[own], labels[own]))
    splits['test'].append((x_test, dataset.y_test))
  arrays = {
    name: (
      jnp.asarray((np.stack([x for x, _ in each]) - mean) / deviation, jnp.float32),
      jnp.asarray(np.stack([y for _, y in each])),
    )
    for name, each in splits.items()
  }
  return arrays, images.shape[1], dataset.num_classes


def describe(records: dict[str, np.ndarray], place: int) -> dict:
  """{column: [value per seed]} of the width at this place.

  When to stop, and where the error is highest after that, is decided by the mean error on
  held-out training images, so that no choice depends on the test images.
  """
  test, train, held, loss = (
    records[name][:, :, place] for name in ('test', 'train', 'held', 'loss')
  )
  best = int(held.mean(1).argmin())
  worst = best + int(held.mean(1)[best:].argmax())
  return {
    'error': test[-1].tolist(),
    'train_error': train[-1].tolist(),
    'stopped_error': test[best].tolist(),
    'longer': (test[-1] - test[best]).tolist(),
    'fall': (test[worst] - test[-1]).tolist(),
    'loss': loss[-1].tolist(),
    'epochs': records['epochs'].tolist(),
    'curve': test.mean(1).tolist(),
  }
