"""Measures of a network's complexity, those of the class and those of what it learned.

Zhang et al. 2017, Section 2.2: Rademacher complexity, the VC dimension and uniform
stability do not look at the labels, so they cannot say why the same network generalizes
on true labels and not on random ones. Margins, norms of the weights and the distance from
the initialization do look at them. They grow while the training loss falls, so networks
are compared where their training loss is the same, not after as many epochs.

The norms are of fully connected networks. Training, outputs, Rademacher complexity and
stability are of any model of the package.
"""

import functools
import hashlib
import json
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rethink_gen import checkpoint, metrics, models, programs, train, workdirs
from rethink_gen import config as config_lib
from rethink_gen.data import preprocess
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput

BATCH = 1_000  # images whose outputs are computed at a time
TOLERANCE = 0.01  # how far below the training loss that was asked for, relative to it


class Network(NamedTuple):
  """A trained network of the package."""

  config: Any  # the ConfigDict it was trained with
  dataset: Dataset  # and the data, as they were given: with the labels it was to fit
  initial: Any  # parameters before the first step
  params: Any  # and after the last
  batch_stats: Any  # running statistics of batch normalization, or {}
  step: int  # of the last step


def train_network(config, dataset, folder, loss=None):
  """Trains a network on a Dataset; one that `folder` already holds is read instead.

  Args:
    config: a ConfigDict of the shape of `config.default`. What it says of the data set and
      its corruption is not looked at, but for the crop: `dataset` is what is learned.
    dataset: uint8 images and int32 labels, in memory.
    folder: where networks are kept, each in a folder named by a digest of its config, data
      and loss, so that nothing is trained twice and an interrupted training is resumed.
    loss: the mean cross-entropy over the training set, in nats, at which to stop, as
      `learn_to_loss` does; None: train config.num_epochs.

  Returns:
    A Network.

  Raises:
    BadInput: for a config or data that cannot be used, when training diverges, and when it
      does not come to the loss.
    train.Interrupted: after SIGTERM or SIGINT, with the state saved.
  """
  config_lib.validate(config)
  train.check_data(config, dataset)
  name = digest(config, dataset) + ('' if loss is None else f'-{loss:g}')
  workdir = pathlib.Path(folder).absolute() / name
  workdir.mkdir(parents=True, exist_ok=True)
  with workdirs.only_writer(workdir):
    metrics.write_json(workdir / 'config.json', config.to_dict())
    initial = jax.device_get(programs.build(config, dataset)[0].params)
    if loss is None:
      started = time.monotonic()
      state, _, status = train.learn(config, dataset, workdir, started, metrics.silence)
    else:
      state, status = learn_to_loss(config, dataset, workdir, loss)
  if status == 'diverged':
    raise BadInput(
      f'Training diverged at step {int(state.step):,}; take a smaller '
      'optimizer.learning_rate.'
    )
  params, batch_stats = jax.device_get((state.params, state.batch_stats))
  return Network(config, dataset, initial, params, batch_stats, int(state.step))


def learn_to_loss(config, dataset, workdir, target):
  """Trains until the loss over the training set is at most `target`, and barely below it.

  Epochs are trained whole. The first that ends at or below the target is trained once more
  from its start, a step at a time, up to the first step that is at or below it. If that
  leads further below than TOLERANCE, the step is shortened.

  Args:
    config, dataset: as for `train_network`.
    workdir: an existing folder, for checkpoints. One at or below the target is the last.
    target: the loss, above 0.

  Returns:
    (state, status): the last State, and 'complete' or 'diverged'.

  Raises:
    BadInput: when config.num_epochs do not suffice, or nothing is to be trained.
    train.Interrupted: after SIGTERM or SIGINT, with the state saved.
  """
  with (
    train.stop_signals() as received,
    programs.matmul_precision(config),
    checkpoint.open_manager(workdir) as manager,
  ):
    state, train_to, _, examine = programs.build(config, dataset)

    def measure():
      return float(np.mean(examine(state).loss, dtype=float))

    state, saved = checkpoint.restore(manager, state), time.monotonic()
    epoch = len(state.losses)  # in steps
    last_step = epoch * config.num_epochs
    loss, before = measure(), None
    if loss <= target and not int(state.step):
      raise BadInput(
        f'The training loss is {loss:.4g} before the first step, at or below {target:g} '
        'already; take a smaller loss.'
      )
    while loss > target and int(state.step) < last_step:
      stopping, age = received[:1], time.monotonic() - saved  # a signal can come anywhere
      if stopping or train.is_checkpoint_due(config, int(state.step) // epoch, age):
        checkpoint.save(manager, state)
        saved = time.monotonic()
      if stopping:
        raise train.Interrupted(*stopping)
      before = jax.tree.map(jnp.copy, state)  # training uses up the state it is given
      state = train_to(state, int(state.step) + epoch)
      loss = measure()
    if not math.isfinite(loss):
      return state, 'diverged'
    if loss > target:
      raise BadInput(
        f'The training loss is {loss:.4g} after {config.num_epochs:,} epochs, not yet '
        f'{target:g}; take more epochs or a larger loss.'
      )
    if before is not None:
      state, loss = before, math.inf
      while loss > target:
        start = jax.tree.map(jnp.copy, state.params)
        state = train_to(state, int(state.step) + 1)
        loss = measure()
      end, shares = state.params, [0.0, 1.0]  # of the last step: too little, and enough
      while not (1 - TOLERANCE) * target <= loss <= target:
        share = sum(shares) / 2
        params = jax.tree.map(lambda a, b, share=share: a + share * (b - a), start, end)
        state = state._replace(params=params)
        loss = measure()
        shares[loss <= target] = share
      checkpoint.save(manager, state)
    return state, 'complete'


def digest(config, dataset):
  """A name for what training on this data with this config gives."""
  fields = config_lib.flatten(config)
  del fields['dataset.data_dir']
  found = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8)
  for array in dataset:
    found.update(str(np.shape(array)).encode())
    found.update(np.ascontiguousarray(array))
  return found.hexdigest()


def outputs(network, images):
  """float32 (n, classes): the network's outputs on uint8 images (n, h, w, c)."""
  config, dataset, _, params, batch_stats, _ = network
  return predict(config, dataset.num_classes, params, batch_stats, images)


def predict(config, num_classes, params, batch_stats, images):
  """float32 (n, classes): logits, as evaluation while training computes them.

  Args:
    config: the ConfigDict that the network was trained with.
    num_classes: of the data set.
    params, batch_stats: of the network.
    images: uint8 (n, h, w, c), or float32 on the same scale, as the data set has them; of
      a data set that is streamed, as they come out of it.
  """
  model = models.create(config, num_classes)
  crop_shape = None
  if not config.dataset.streaming:
    crop_shape = preprocess.crop_shape(*images.shape[1:3], config.dataset.crop_size)
  variables = {'params': params, 'batch_stats': batch_stats}
  with programs.matmul_precision(config):
    return in_batches(functools.partial(_forward, model, crop_shape, variables), images)


def in_batches(function, inputs):
  """What function(inputs) gives, computed for BATCH of the n inputs at a time: (n, ...)."""
  starts = range(0, len(inputs), BATCH)
  return np.concatenate([np.asarray(function(inputs[i : i + BATCH])) for i in starts])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(model, crop_shape, variables, images):
  """Logits of images that are cropped and standardized, or without crop only scaled."""
  if crop_shape is None:
    inputs = preprocess.scale(images)
  else:
    inputs = preprocess.preprocess(images, crop_shape)
  return model.apply(variables, inputs, train=False)


# What does not depend on the labels.


def random_signs(draws, count, seed):
  """int8 (draws, count) of -1 and +1, each as likely."""
  return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (draws, count))


def rademacher(fit, signs):
  """What the empirical Rademacher complexity of a class is the mean of, a value a draw.

  The complexity of the class H on x_1, ..., x_n (Section 2.2 of the paper) is
  R = E_s sup_{h in H} (1/n) sum_i s_i h(x_i) over uniformly random signs s. Where `fit`
  finds the supremum, the mean of what is returned is an unbiased estimate of R; where it
  is a training that need not find it, of a lower bound.

  Args:
    fit: fit(signs (n,)) -> (n,), the values on the sample of a function in H that agrees
      with the signs as well as it can.
    signs: (draws, n) of -1 and +1.

  Returns:
    float64 (draws,): (1/n) sum_i s_i h(x_i).
  """
  signs = np.asarray(signs)
  if signs.ndim != 2 or not signs.size or not np.isin(signs, (-1, 1)).all():
    raise BadInput(
      f'The signs are of shape {signs.shape}, but they must be -1 or +1, a row a draw, '
      'with at least one draw and one example.'
    )
  return np.array([np.mean(drawn * np.asarray(fit(drawn), float)) for drawn in signs])


def sign_fit(config, images, folder):
  """fit(signs) as `rademacher` wants it: a two-class network trained on the signs.

  The class is that of the functions x -> sign(f_1(x) - f_0(x)) of the config's model.

  Args:
    config, folder: as for `train_network`.
    images: uint8 (n, h, w, c), the sample.
  """

  def fit(signs):
    labels = (signs > 0).astype(np.int32)
    # Nothing is held out of a Rademacher complexity: the sample is the test set too.
    network = train_network(config, Dataset(images, labels, images, labels, 2), folder)
    return 2 * outputs(network, images).argmax(-1) - 1

  return fit


def rademacher_bound(complexity, count, confidence):
  """How far test error may exceed training error, as Rademacher complexity has it.

  With probability `confidence` over samples of `count` examples every h in a class of
  functions with values -1 and +1 has test error <= training error + R
  + 3 sqrt(log(2 / (1 - confidence)) / (2 count)) (Bartlett & Mendelson 2002; Mohri,
  Rostamizadeh & Talwalkar, Foundations of Machine Learning, Theorem 3.5). A class that
  fits random signs has R = 1, and an error below 1 needs no proof: the bound is vacuous.
  """
  return complexity + 3 * math.sqrt(math.log(2 / (1 - confidence)) / (2 * count))


def vc_bound(widths):
  """An upper bound on the VC dimension of the fully connected ReLU networks.

  It is about the class of all networks of these widths, whatever their parameters: no set
  of more inputs is labelled in every way by them. It says nothing of the network that
  training finds, and not that a set of this size exists.

  Bartlett, Harvey, Liaw & Mehrabian (arXiv:1703.02930), Theorem 7 with ReLU's two linear
  pieces: L + S log2(4 e R log2(2 e R)), which is O(W L log W), where W parameters lie in L
  layers, S is the sum over i of the parameters in layers 1 to i, and R the sum of i times
  the units of layer i. No constant is left open; theirs are taken. Their lower bound, of
  the order of W L log(W / L), is about existence: for enough layers and parameters there
  is some ReLU network with such a VC dimension. It says nothing of a given network, and
  so not how loose this bound is for it.

  Args:
    widths: inputs, units of each hidden layer. The output is one unit, whose sign is the
      class; two outputs that are compared are the same functions.

  Raises:
    BadInput: unless there are an input, at least one hidden layer and a unit in each.
  """
  if len(widths) < 2 or min(widths) < 1:
    raise BadInput(
      f'The widths are {widths}, but there must be inputs and at least one hidden layer, '
      'none of them empty.'
    )
  sizes = [*widths, 1]
  parameters = [(n + 1) * m for n, m in zip(sizes, sizes[1:], strict=False)]
  up_to = sum(np.cumsum(parameters).tolist())
  units = sum(i * m for i, m in enumerate(sizes[1:], 1))
  inner = 2 * math.e * units
  return len(parameters) + up_to * math.log2(2 * inner * math.log2(inner))


def replace_one(dataset, index, image, label):
  """The Dataset with another training example in place of one."""
  x_train, y_train = dataset.x_train.copy(), dataset.y_train.copy()
  x_train[index], y_train[index] = image, label
  return dataset._replace(x_train=x_train, y_train=y_train)


def loss_changes(before, after):
  """How much the loss at each input changes, at the label where it changes most.

  The loss of label y is 1 - p_y, of the softmax p of the outputs, so it lies in [0, 1]. An
  algorithm A is beta-uniformly stable if |loss(A(S), z) - loss(A(S'), z)| <= beta for all
  examples z = (x, y) and all samples S and S' that differ in one example (Bousquet &
  Elisseeff 2002, Definition 6, has S' one example short; replacing one is at most twice
  that). The supremum is over samples with random labels too, so beta is one number for
  true labels and for random ones. The largest change in a trial is a lower bound of it;
  the mean over fresh inputs is an average stability, which may depend on the labels.

  Args:
    before, after: (n, classes), outputs of networks trained with and without the
      replacement.

  Returns:
    float64 (n,), within [0, 1].
  """
  return np.abs(_softmax(before) - _softmax(after)).max(-1)


def _softmax(logits):
  exponentials = np.exp(np.float64(logits) - np.max(logits, -1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


# What depends on the labels, through the network that was trained on them.


def layers(params):
  """[(kernel (inputs, units), bias (units,))] from input to output, float64.

  Raises:
    BadInput: unless the parameters are of fully connected layers alone.
  """
  names = sorted(params, key=lambda name: int(name.rpartition('_')[2]))
  if any(
    set(params[n]) != {'kernel', 'bias'} or params[n]['kernel'].ndim != 2 for n in names
  ):
    raise BadInput(
      'The norms are those of fully connected layers, and this network has others '
      f'({", ".join(names)}); take config.model.name mlp.'
    )
  return [
    (np.asarray(params[n]['kernel'], float), np.asarray(params[n]['bias'], float))
    for n in names
  ]


def spectral_norms(params):
  """[largest singular value of each kernel]; their product bounds the Lipschitz constant.

  Bartlett, Foster & Telgarsky (arXiv:1706.08498), Section 1, for ReLU networks.
  """
  return [float(np.linalg.norm(kernel, 2)) for kernel, _ in layers(params)]


def spectral_complexity(params, initial):
  """R_A of arXiv:1706.08498, equation (1.2), with the initial weights as reference.

  (prod_i |A_i|) (sum_i (|A_i - M_i|_{2,1} / |A_i|)^{2/3})^{3/2}, where A_i are kernels, M_i
  what they were at the start, |.| the spectral norm and |.|_{2,1} the sum over units of the
  2-norm of their incoming weights. As there, biases are left out.
  """
  norms = spectral_norms(params)
  moved = [
    np.linalg.norm(kernel - start, axis=0).sum()
    for (kernel, _), (start, _) in zip(layers(params), layers(initial), strict=True)
  ]
  ratios = [(m / norm) ** (2 / 3) for m, norm in zip(moved, norms, strict=True)]
  return float(math.prod(norms) * sum(ratios) ** 1.5)


def path_norm(params):
  """sqrt of the sum over all paths of the product of their squared weights.

  Neyshabur, Tomioka & Srebro (arXiv:1503.00036), phi_2: a path leads from an input, or
  from a bias as from a unit that is always 1, to an output. As a forward pass of ones
  through the squared weights.
  """
  first, *_ = layers(params)
  sums = np.ones(len(first[0]))
  for kernel, bias in layers(params):
    sums = sums @ kernel**2 + bias**2
  return float(np.sqrt(sums.sum()))


def frobenius_norm(params):
  """sqrt of the sum of all squared parameters, of any model."""
  return float(
    np.sqrt(sum(np.sum(np.square(leaf, dtype=float)) for leaf in jax.tree.leaves(params)))
  )


def distance(params, initial):
  """The Frobenius norm of all that training moved (arXiv:1901.01672 measures it so)."""
  return frobenius_norm(jax.tree.map(np.subtract, params, initial))


def margins(logits, labels):
  """float64 (n,): f(x)_y - max_{j != y} f(x)_j; negative where the label is not fitted.

  Args:
    logits: (n, classes).
    labels: int (n,).
  """
  others = np.array(logits, float)
  of_label = others[np.arange(len(labels)), labels]
  others[np.arange(len(labels)), labels] = -np.inf
  return of_label - others.max(-1)


def normalized(margin, complexity, inputs):
  """A margin over |X| R_A / n (arXiv:1706.08498, Section 2).

  Their bound on test error is of the order of 1 over this, plus the share of training
  examples with a smaller margin.

  Args:
    margin: of the outputs.
    complexity: R_A, as `spectral_complexity` gives it.
    inputs: (n, h, w, c), as the network sees them; |X| is their Frobenius norm.
  """
  return margin * len(inputs) / (float(np.linalg.norm(inputs)) * complexity)
