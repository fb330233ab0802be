"""What the study `infinite_width` computes: accuracies of kernels, and trained networks.

A row's settings name one of four parts, each with a function below: 'accuracy', 'labels',
'curves' or 'features'.
"""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from rethink_gen import memory
from rethink_gen.data import corruption, sources
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.models.mlp import MLP, PARAMETRIZATIONS
from rethink_gen.theory import gram_matrix, interpolation, preconditioning
from rethink_gen.theory import infinite_width as theory

RIDGE = 1e-6  # times the mean of the kernel's diagonal
MOST_DIRECT = 10_000  # training examples up to which the kernel is factorized in float64
SOLVER = {'tolerance': 1e-3, 'max_iterations': 300}
LANDMARKS = 2_000
CLASSES = (0, 1)
LABELS = ('true', 'random', 'worst')  # of `training_curves`
WIDTH, LEARNING_RATE, MOMENTUM, BATCH_SIZE = 512, 0.005, 0.9, 50
TESTED = 200  # images on which features are compared
INITIALIZE, ORDER = range(2)  # purposes of keys
# {part: {field: least integer}}
LEAST = {
  'accuracy': {'num_train': 2, 'num_test': 1, 'draws': 1, 'depth': 0},
  'labels': {'num_train': 10, 'draws': 1, 'max_epochs': 1},
  'curves': {'num_train': 2, 'width': 2, 'steps': 1},
  'features': {'num_train': 1, 'networks': 1, 'depth': 1, 'base_width': 1, 'steps': 1},
}


def check(settings: dict) -> None:
  """Raises BadInput for invalid settings, or a kernel matrix that memory cannot hold."""
  part = settings.get('part')
  if part not in LEAST:
    raise BadInput(f'part is {part!r}, but it must be one of {", ".join(LEAST)}.')
  for name, least in LEAST[part].items():
    value = settings.get(name)
    if not isinstance(value, int) or value < least:
      raise BadInput(f'{name} is {value!r}, but it must be an integer of {least} or more.')
  for name, accepted in (
    ('mode', corruption.CORRUPTIONS),
    ('labels', LABELS),
    ('parametrization', PARAMETRIZATIONS),
  ):
    if name in settings and settings[name] not in accepted:
      raise BadInput(
        f'{name} is {settings[name]!r}, but it must be one of {", ".join(accepted)}.'
      )
  for name in ('weight_variance', 'bias_variance', 'learning_rate', 'label_noise'):
    low, high = 0, 1 if name == 'label_noise' else math.inf
    if name in settings and not low <= settings[name] <= high:
      raise BadInput(f'{name} is {settings[name]}, but it must be from {low} to {high}.')
  _check_widths(settings)
  _check_data(settings)


def _check_widths(settings):
  if settings['part'] == 'curves' and settings['width'] % 2:
    raise BadInput(f'width is {settings["width"]}, but it must be even.')
  widths = settings.get('widths', [1, 2])
  valid = all(isinstance(width, int) and width > 0 for width in widths)
  if not valid or len(set(widths)) < 2:
    raise BadInput(f'widths is {widths}, but it must have two or more positive integers.')


def _check_data(settings):
  """Raises BadInput if there are too few examples, or too many for the memory."""
  count, part = settings['num_train'], settings['part']
  of_two = part in ('labels', 'curves')
  load = two_classes if of_two else sources.load
  dataset = load(settings['dataset'])
  if count > dataset.num_train:
    raise BadInput(
      f'num_train is {count}, but {settings["dataset"]} has {dataset.num_train} training '
      f'examples{" of the first two classes" if of_two else ""}; take at most that many.'
    )
  dimensions = math.prod(dataset.x_train.shape[1:])
  if part == 'accuracy' and count > MOST_DIRECT:
    sizes = min(settings['num_test'], dataset.num_test), dimensions
    interpolation.check_memory(count, *sizes, LANDMARKS)
  elif part == 'accuracy':
    needed = bytes_needed(count, dimensions)
    free = memory.bytes_free()
    if needed > free:
      raise BadInput(
        f'The kernel matrices of {count:,} training examples need about '
        f'{needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} GiB are free; use a '
        'smaller num_train.'
      )


def bytes_needed(count: int, dimensions: int) -> int:
  """Peak memory of `solve_directly` for `count` training examples."""
  return 8 * (5 * count**2 + 3 * theory.BLOCK * count + 4 * count * dimensions)


def expected_seconds(settings: dict) -> float:
  """Estimated seconds on two CPU cores."""
  part, count = settings['part'], settings['num_train']
  pixels = {'digits': 64, 'mnist': 784}.get(settings['dataset'], 3072)
  if part == 'accuracy':
    entries = count * (count + settings['num_test'])
    solving = 4e-11 * count**3 if count <= MOST_DIRECT else 3e-7 * count**2
    return 2 + settings['draws'] * (entries * (5e-8 + pixels * 4e-11) + solving)
  if part == 'labels':
    return 2 + settings['draws'] * count * (1e-9 * count**2 + pixels * 512 * 12e-11 * 15)
  if part == 'curves':
    return 2 + settings['steps'] * count**2 * settings['width'] * 1e-10
  sizes = [width * (pixels + width) for width in settings['widths']]
  steps = count * settings['steps'] + 500
  return 2 * len(sizes) + settings['networks'] * steps * sum(sizes) * 2e-10


def standardize(images: np.ndarray) -> np.ndarray:
  """float64 (n, d), each image minus its mean and divided by its standard deviation."""
  x = images.reshape(len(images), -1).astype(np.float64)
  return scale(x - x.mean(1, keepdims=True))


def scale(images: np.ndarray) -> np.ndarray:
  """float64 (n, d): images divided by the root mean square of their pixels, so x.x = d."""
  x = images.reshape(len(images), -1).astype(np.float64)
  return x / np.maximum(np.sqrt((x**2).mean(1, keepdims=True)), 1e-12)


def draw_examples(dataset: Dataset, count: int, seed: int, number: int) -> Dataset:
  """A Dataset with `count` random training examples."""
  chosen = np.random.default_rng((seed, number)).permutation(len(dataset.y_train))[:count]
  return dataset._replace(x_train=dataset.x_train[chosen], y_train=dataset.y_train[chosen])


@functools.lru_cache(maxsize=1)
def two_classes(name: str) -> Dataset:
  """The Dataset of the first two classes, cached for all rows."""
  dataset = sources.load(name)
  train, test = (np.isin(y, CLASSES) for y in (dataset.y_train, dataset.y_test))
  return Dataset(
    dataset.x_train[train],
    dataset.y_train[train],
    dataset.x_test[test],
    dataset.y_test[test],
    len(CLASSES),
  )


def kernel_accuracies(settings: dict, say: Callable) -> dict:
  """{'nngp', 'ntk'}: for each draw, the test accuracy of regression on the labels."""
  dataset = sources.load(settings['dataset'])
  dataset = sources.first(dataset, num_test=settings['num_test'])
  architecture = theory.Architecture(
    *(settings[name] for name in theory.Architecture._fields)
  )
  found: dict[str, list[float]] = {'nngp': [], 'ntk': []}
  for number in range(settings['draws']):
    data = draw_examples(dataset, settings['num_train'], settings['seed'], number)
    x, x_test = scale(data.x_train), scale(data.x_test)
    targets = np.eye(data.num_classes)[data.y_train].T - 1 / data.num_classes
    tables = theory.correlation_table(architecture)
    solve = solve_directly if len(x) <= MOST_DIRECT else solve_iteratively
    for name, values in zip(found, solve(x, x_test, targets, tables, say), strict=True):
      found[name].append(float(np.mean(values.argmax(0) == data.y_test)))
      say(f'draw {number + 1}, {name}: {100 * found[name][-1]:.2f} % right')
  return found


def solve_directly(
  x: np.ndarray, x_test: np.ndarray, targets: np.ndarray, tables: np.ndarray, say: Callable
) -> np.ndarray:
  """float64 (k, classes, m): the predictions of the kernels of k tables, in float64."""
  matrices = theory.kernels_by_table(x, x, tables)
  say('the kernels of the training images are computed')
  alphas = [
    interpolation.direct(matrix, targets, RIDGE * table[0])
    for matrix, table in zip(matrices, tables, strict=True)
  ]
  del matrices
  say('their systems are solved')
  parts = [
    np.stack(alphas) @ theory.kernels_by_table(part, x, tables).swapaxes(1, 2)
    for part in np.array_split(x_test, math.ceil(len(x_test) / theory.BLOCK))
  ]
  return np.concatenate(parts, 2)


def solve_iteratively(
  x: np.ndarray, x_test: np.ndarray, targets: np.ndarray, tables: np.ndarray, say: Callable
) -> Iterator[np.ndarray]:
  """The same by conjugate gradients, with half of one matrix at a time, in float32.

  In float32 only the part of a kernel above its value m at correlation 0 is resolved, so
  K = m 11' + K', where K' is positive definite too, and the systems are those of K'. With
  A = K'^-1 Y, B = K'^-1 1 and c = m 1'A / (1 + m 1'B), the solution is A - B c.
  """
  order = preconditioning.coherent_order(x.astype(np.float32))
  marks = preconditioning.spread_landmarks(gram_matrix.make_layout(len(x)), LANDMARKS)
  extended = np.concatenate([targets[:, order], np.ones((1, len(x)))]).astype(np.float32)
  for table in tables:
    constant = np.interp((len(table) - 1) / math.sqrt(2), np.arange(len(table)), table)
    height = table[0] - constant
    gram = theory.wide_gram(x[order], x_test, (table - constant) / height, marks)
    rank_part = preconditioning.low_rank(gram, marks)
    gram = gram._replace(landmarks=())
    alpha, history = interpolation.solve(gram, rank_part, extended, RIDGE, SOLVER)
    say(f'{len(history)} iterations, relative residual {history[-1]["residual"]:.1e}')
    values = np.asarray(interpolation.predict(gram.tests, alpha))[:, : len(x_test)]
    sums = constant / height * alpha.sum(1, dtype=float)
    shares = sums[:-1, None] / (1 + sums[-1])
    yield values[:-1] + shares * (1 - values[-1])


def label_measures(settings: dict, say: Callable) -> dict:
  """For each draw, what the kernel says of the labels, and what training a network takes.

  Returns:
    Lists with a number per draw: 'measure'; 'top', the share of |y|^2 in the tenth of the
    eigenvectors with the largest eigenvalues; 'test_error', a fraction, of a network that
    fits all training labels; 'epochs' until it does.
  """
  found: dict[str, list] = {'measure': [], 'top': [], 'test_error': [], 'epochs': []}
  original = two_classes(settings['dataset'])
  for number in range(settings['draws']):
    data = draw_examples(original, settings['num_train'], settings['seed'], number)
    arguments = settings['mode'], settings['seed'] + number, settings['label_noise']
    data = corruption.corrupt(data, *arguments)
    x, x_test = standardize(data.x_train), standardize(data.x_test)
    spectrum = spectrum_of(x, 2.0 * data.y_train - 1)
    shares = spectrum.projections**2 / len(x)
    found['measure'].append(theory.label_measure(spectrum))
    found['top'].append(float(shares[-(len(x) // 10) :].sum()))
    error, epochs, fits = fit_network(
      jax.random.fold_in(jax.random.key(settings['seed']), number),
      *(jnp.float32(x), jnp.asarray(data.y_train), jnp.float32(x_test)),
      *(jnp.asarray(data.y_test), settings['max_epochs']),
    )
    found['test_error'].append(float(error) if fits else None)
    found['epochs'].append(int(epochs) if fits else None)
    say(
      f'draw {number + 1}: measure {found["measure"][-1]:.2f}, test error '
      f'{100 * error:.1f} %, {int(epochs)} epochs'
    )
  return found


def spectrum_of(x: np.ndarray, labels: np.ndarray) -> theory.Spectrum:
  """The Spectrum of `first_layer_kernel` for inputs scaled to norm 1, and labels (n,)."""
  matrix = theory.first_layer_kernel(x / x.shape[1] ** 0.5)
  values, vectors = np.linalg.eigh(matrix)
  return theory.Spectrum(values, vectors.T @ labels)


@functools.partial(jax.jit, static_argnames='max_epochs')
def fit_network(key, x, labels, x_test, labels_test, max_epochs):
  """(test error, epochs, fits): an MLP of one hidden layer, trained until it fits.

  Cross-entropy, SGD with momentum, constant learning rate; both layers are trained.

  Args:
    key: PRNG key of the initialization and the order of examples.
    x, x_test: float32 (n, d) and (m, d).
    labels, labels_test: int (n,) and (m,), 0 or 1.
    max_epochs: the most, whether the labels are fitted by then or not.
  """
  model = MLP(len(CLASSES), width=WIDTH)
  tx = optax.sgd(LEARNING_RATE, MOMENTUM)
  keys = [jax.random.fold_in(key, purpose) for purpose in (INITIALIZE, ORDER)]
  size = min(BATCH_SIZE, len(x))

  def outputs(params, inputs):
    return model.apply({'params': params}, inputs, train=False)

  def loss(params, batch):
    losses = optax.softmax_cross_entropy_with_integer_labels(
      outputs(params, x[batch]), labels[batch]
    )
    return losses.mean()

  def step(state, batch):
    params, momentum = state
    updates, momentum = tx.update(jax.grad(loss)(params, batch), momentum)
    return (optax.apply_updates(params, updates), momentum), None

  def epoch(state):
    trained, number, _ = state
    order = jax.random.permutation(jax.random.fold_in(keys[1], number), len(x))
    batches = order[: len(x) // size * size].reshape(-1, size)
    trained, _ = jax.lax.scan(step, trained, batches)
    right = (outputs(trained[0], x).argmax(1) == labels).all()
    return trained, number + 1, right

  def is_unfinished(state):
    return ~state[2] & (state[1] < max_epochs)

  params = model.init(keys[0], x[:1], train=False)['params']
  start = (params, tx.init(params)), 0, jnp.array(False)
  (params, _), epochs, right = jax.lax.while_loop(is_unfinished, epoch, start)
  wrong = jnp.mean(outputs(params, x_test).argmax(1) != labels_test)
  return wrong, epochs, right


def training_curves(settings: dict, say: Callable) -> dict:
  """|y - u(k)|^2 / |y|^2 as predicted and as measured in a wide network, at some steps.

  The learning rate is 1 / the largest eigenvalue. Labels: 'true'; 'random', fair signs;
  'worst', the eigenvector of the smallest eigenvalue, as long as the others.

  Returns:
    'steps', 'predicted', 'measured': lists; 'measure'; 'condition', of the kernel matrix.
  """
  seed, count = settings['seed'], settings['num_train']
  data = draw_examples(two_classes(settings['dataset']), count, seed, 0)
  x = standardize(data.x_train)
  x /= x.shape[1] ** 0.5
  values, vectors = np.linalg.eigh(theory.first_layer_kernel(x))
  labels = {
    'true': 2.0 * data.y_train - 1,
    'random': np.random.default_rng((seed, 1)).choice([-1.0, 1.0], count),
    'worst': math.sqrt(count) * vectors[:, 0],
  }[settings['labels']]
  spectrum = theory.Spectrum(values, vectors.T @ labels)
  rate = 1 / values[-1]
  steps = np.unique(np.geomspace(1, settings['steps'], 60).astype(int))
  steps = np.concatenate([[0], steps])
  measured = theory.measured_losses(
    jax.random.key(seed),
    *(jnp.float32(x), jnp.float32(labels)),
    *(settings['width'], float(rate), settings['steps']),
  )
  measured = np.asarray(measured, float)[steps] / count
  predicted = theory.predicted_losses(spectrum, rate, steps) / count
  say(f'{settings["labels"]}: {measured[-1]:.3f} measured, {predicted[-1]:.3f} predicted')
  return {
    'steps': steps.tolist(),
    'measured': measured.tolist(),
    'predicted': predicted.tolist(),
    'measure': theory.label_measure(spectrum),
    'condition': float(values[-1] / values[0]),
  }


def feature_changes(settings: dict, say: Callable) -> dict:
  """How far training moves the last hidden layer, for each width and network.

  Returns:
    'changes', 'losses': for each network a list over widths: the root mean square over
    units and test images of h(T) - h(0), and the training loss at the end, in nats.
  """
  dataset = sources.load(settings['dataset'])
  data = draw_examples(dataset, settings['num_train'], settings['seed'], 0)
  x, x_test = (
    jnp.float32(standardize(part)) for part in (data.x_train, data.x_test[:TESTED])
  )
  arrays = x, jnp.asarray(data.y_train), x_test
  changes, losses = [], []
  for number in range(settings['networks']):
    key = jax.random.fold_in(jax.random.key(settings['seed']), number)
    found = []
    for width in settings['widths']:
      model = MLP(
        data.num_classes,
        depth=settings['depth'],
        width=width,
        parametrization=settings['parametrization'],
        base_width=settings['base_width'],
      )
      found.append(move(model, key, *arrays, settings['learning_rate'], settings['steps']))
    changes.append([float(change) for change, _ in found])
    losses.append([float(loss) for _, loss in found])
    say(f'network {number + 1}: ' + ', '.join(f'{change:.3g}' for change in changes[-1]))
  return {'changes': changes, 'losses': losses}


@functools.partial(jax.jit, static_argnames=('model', 'steps'))
def move(model, key, x, labels, x_test, learning_rate, steps):
  """(change of the last hidden layer, training loss) after steps of full-batch descent."""

  def loss(params):
    logits = model.apply({'params': params}, x, train=False)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  def step(params, _):
    gradient = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient), None

  def hidden(params):
    _, kept = model.apply(
      {'params': params},
      x_test,
      train=False,
      capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
    )
    return kept['intermediates'][f'Dropout_{model.depth - 1}']['__call__'][0]

  start = model.init(key, x[:1], train=False)['params']
  end, _ = jax.lax.scan(step, start, None, steps)
  change = jnp.sqrt(jnp.mean((hidden(end) - hidden(start)) ** 2))
  return change, loss(end)
