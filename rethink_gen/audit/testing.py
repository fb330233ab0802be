"""`randomization_test`: the paper's randomization tests as a function, and its Result."""

import math
import numbers
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
import optax
import pandas as pd
from ml_collections import config_dict
from numpy.typing import ArrayLike

from rethink_gen import config as config_lib
from rethink_gen import models
from rethink_gen.audit import (
  adapters,
  estimators,
  randomizations,
  report,
  statistics,
  trainings,
  verdicts,
)
from rethink_gen.audit import folders as folders_lib
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.progress import no_progress, progress_bar
from rethink_gen.theory import significance
from rethink_gen.train import loading, workdirs

NOISE_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FIT_ACCURACY = 0.99
LEAST_STEPS, LEAST_EPOCHS = 3_000, 30  # the default number of epochs is enough for both


class Result(NamedTuple):
  """The result of a randomization test; accuracies are fractions.

  Attributes:
    settings: what was trained on which data, and how, as in results.json.
    levels: one dict per setup, over its seeds, with the fields of `statistics.measure`.
    rademacher: a dict from `statistics.measure_signs`, or None if training on random signs
      diverged. Up to the chance of the draws, the empirical Rademacher complexity is at
      least its mean.
    verdict: sentences that say no more than the numbers.
    workdir: the folder with report.html, results.json, figure.png and the runs.
  """

  settings: dict
  levels: list[dict]
  rademacher: dict | None
  verdict: list[str]
  workdir: pathlib.Path

  @property
  def table(self) -> pd.DataFrame:
    """The levels as a DataFrame."""
    return pd.DataFrame(self.levels).set_index('name')

  def __str__(self):
    return report.text(self)


def randomization_test(
  model,
  x_train: ArrayLike,
  y_train: ArrayLike,
  x_test: ArrayLike | None = None,
  y_test: ArrayLike | None = None,
  *,
  optimizer: optax.GradientTransformation | optax.MultiSteps | None = None,
  num_epochs: int | None = None,
  batch_size: int | None = None,
  noise_levels: Iterable[float] = NOISE_LEVELS,
  random_labels: str = 'uniform',
  seeds: int = 3,
  fit_accuracy: float = FIT_ACCURACY,
  training_argument: str | None = None,
  workdir: str | os.PathLike | None = None,
  progress: Callable | None = progress_bar,
) -> Result:
  """Tests whether a model fits random labels, as in Section 2 of the paper.

  The model is trained on the true labels; on partly and on fully random labels; on inputs
  whose positions are permuted, in the same way for all or differently for each, and on
  Gaussian inputs of the same mean and variance (`corruption.corrupt`); and on random signs,
  for the empirical Rademacher complexity of the functions sign(f_1(x) - f_0(x)), as in
  `networks.sign_fit`. Training stops at the first evaluation, once per epoch, with a
  training accuracy of `fit_accuracy` or more: this counts as a fit.

  A position is a pixel of images (n, h, w, c) or uint8 (n, h, w), a step of sequences
  (n, steps, channels), or a feature of vectors (n, d). Gaussian noise has the moments of
  each feature for vectors, and otherwise those of each channel. Images (n, c, h, w) are
  recognized by at most four channels and more than four pixels per side. Integers other
  than uint8 are treated as tokens, which have no Gaussian counterpart.

  Args:
    model: a Flax linen module; or a pair of pure functions, init(key, inputs) -> parameters
      and apply(parameters, inputs) -> logits; or an object with fit and predict, such as
      one from scikit-learn, which gets its inputs as rows and the seed as its random_state,
      if it has one; or the name of one of the package's models, or a config for one,
      trained as by `train.run`.
    x_train, x_test: arrays (n, ...). An estimator gets copies of the same dtype, uint8 as
      0 to 255. A network gets float32, scaled to [0, 1] from uint8, or int32 for integers.
      Without a test set, a fifth of the training examples is held out.
    y_train, y_test: integers (n,), the classes 0, 1, ..., all of which occur in y_train.
    optimizer: an optax transformation; by default Adam with learning rate 0.001, or for the
      package's models what their config says. It may use the loss, as optax.lbfgs() does.
      An estimator takes no optimizer, num_epochs or batch_size.
    num_epochs: maximum number of epochs; by default enough for 3,000 steps, but at least
      30, or what a config says.
    batch_size: by default 128, fewer if the training set is smaller, or what a config says.
    noise_levels: probabilities that a label is replaced by a random one; 0 and 1 are always
      included.
    random_labels: 'uniform', with every class equally likely, or 'shuffled', the labels of
      other training examples, which preserves class frequencies.
    seeds: the number of seeds, 0, 1, ..., each used for training and for the corruption.
    fit_accuracy: the training accuracy that counts as a fit.
    training_argument: the name of the argument of a module's call, or of its field, that
      says whether it is being trained; by default one of `flax_modules.TRAINING`.
    workdir: a folder for the runs and the report; by default one in runs/audit named after
      everything that determines the result: the data, the settings, and the model with its
      code.
    progress: as for `train.run`; None: nothing is shown.

  Returns:
    A Result. Finished runs in the folder are not repeated. If an estimator cannot be fitted
    to one of the setups, the others remain valid, and the verdict says so.

  Raises:
    BadInput: if the test cannot be done, also if the first fit fails or does not predict
      labels; no result has been written then.
    train.Interrupted: after SIGTERM or SIGINT; the same call resumes.
  """
  dataset, held_out = randomizations.make_dataset(x_train, y_train, x_test, y_test)
  dataset = adapters.adapt(model, dataset)
  config = make_config(model, dataset, num_epochs, batch_size, fit_accuracy)
  setups = randomizations.make_setups(noise_levels, dataset.x_train, random_labels)
  if not _is_count(seeds) or seeds < 1:
    raise BadInput(f'seeds is {seeds!r}, but it must be a number of seeds, 1 or more.')
  seeds, fit_accuracy = int(seeds), config.stop_at_train_accuracy
  randomizations.warn_of_layout(dataset.x_train)
  learner = adapters.make_learner(model, dataset, optimizer, config, training_argument)
  workdir = folders_lib.open_folder(workdir, learner, dataset, random_labels)
  with workdirs.only_writer(workdir):
    runs = trainings.run_all(
      learner, dataset, setups, seeds, workdir, progress or no_progress
    )
  *ordinary, signs = setups
  groups = significance.group_inputs(dataset.x_train)
  levels = [
    statistics.measure(setup, dataset, groups, runs[setup.name], fit_accuracy)
    for setup in ordinary
  ]
  statistics.compare(levels)
  statistics.correct(levels)
  settings = statistics.describe_settings(learner, dataset, held_out, seeds) | {
    'random_labels': random_labels,
    'tests': sum(level['p_adjusted'] is not None for level in levels),
    'repeated_inputs': int((np.bincount(groups)[groups] > 1).sum()),
    'limits': verdicts.limits(model, learner.config, optimizer, dataset.num_classes),
  }
  result = Result(
    settings=settings,
    levels=levels,
    rademacher=statistics.measure_signs(learner, runs[signs.name], dataset, seeds),
    verdict=[],
    workdir=workdir,
  )
  verdict = [*statistics.describe_failures(setups, runs), *verdicts.verdict(result)]
  result = result._replace(verdict=verdict)
  report.write(result, runs)
  return result


def _is_count(value):
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def make_config(
  model,
  dataset: Dataset,
  num_epochs,
  batch_size,
  fit_accuracy,
) -> config_dict.ConfigDict:
  """The config of the training loop; for the package's own models, it is theirs."""
  for name, value in (('num_epochs', num_epochs), ('batch_size', batch_size)):
    if estimators.is_estimator(model) and value is not None:
      raise BadInput(
        f'{name} is {value!r}, but {type(model).__name__} is fitted by its own method fit; '
        f'leave {name} out.'
      )
  is_config = isinstance(model, config_dict.ConfigDict)
  config = model.copy_and_resolve_references() if is_config else config_lib.default()
  if isinstance(model, str):
    if model not in models.MODELS:
      raise BadInput(
        f'There is no model {model!r}; the package has {", ".join(models.MODELS)}.'
      )
    config.model.name = model
  devices = jax.device_count()
  if dataset.num_train < devices:
    raise BadInput(
      f'There are {dataset.num_train} training examples and {devices} devices, which '
      'share a batch; give at least one example per device.'
    )
  if batch_size is None and is_config:
    batch_size = config.batch_size
  elif batch_size is None:
    batch_size = min(config.batch_size, dataset.num_train) // devices * devices
  if num_epochs is None and is_config:
    num_epochs = config.num_epochs
  elif num_epochs is None and _is_count(batch_size) and batch_size > 0:
    steps_per_epoch = max(1, dataset.num_train // batch_size)
    num_epochs = max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch))
  given = {
    'batch_size': batch_size,
    'num_epochs': num_epochs,
    'stop_at_train_accuracy': fit_accuracy,
  }
  for field, value in given.items():
    accepts, words = config_lib.ACCEPTED[field]
    name = 'fit_accuracy' if field == 'stop_at_train_accuracy' else field
    is_kind = (
      isinstance(value, numbers.Real) if name == 'fit_accuracy' else _is_count(value)
    )
    if not is_kind or not accepts(value):
      raise BadInput(f'{name} is {value!r}, but it must be {words}.')
    config[field] = float(value) if name == 'fit_accuracy' else int(value)
  if config.batch_size % devices:
    raise BadInput(
      f'batch_size is {config.batch_size}, but it must be a multiple of the {devices} '
      'devices that share each batch.'
    )
  loading.check_batch(config, dataset.num_train)
  config.eval_every = 1
  return config
