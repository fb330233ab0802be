r"""Would this model fit random labels? The paper's randomization tests, of anybody's model.

  python -m rethink_gen.audit --data=my.npz --model=my_package.my_module:make_model
  python -m rethink_gen.audit --data=my.npz --estimator=sklearn.svm:SVC
  python -m rethink_gen.audit --data=digits --model=mlp --learning_rate=0.1

--data is an .npz file with x_train, y_train and perhaps x_test, y_test: examples along the
first axis, labels 0, 1, ... Without a test set a fifth is held out. It can also be digits,
or a TFDS data set such as cifar10. --model is MODULE:FUNCTION, where function(num_classes)
makes a Flax linen module or a pair (init, apply); or one of the package's own models, by
name. --estimator is MODULE:CLASS or MODULE:FUNCTION, which makes an object with fit and
predict when it is called without arguments.

The model is trained on the true labels, on labels with an increasing fraction replaced at
random (uniformly over the classes, or with --random_labels=shuffled by the labels of other
examples), and on inputs that are shuffled or replaced by noise, each with several seeds.
The folder --workdir, by default one in runs/audit that is named after data and model, gets
results.json, figure.png and report.html. The same command goes on where it stopped; more
seeds or levels run only what is new.

In Python: `rethink_gen.randomization_test(model, x_train, y_train, x_test, y_test)`.
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before all that is slow to import

import contextlib
import functools
import hashlib
import importlib
import json
import math
import numbers
import pathlib
import shutil
import time
import uuid
from typing import NamedTuple

import jax
import numpy as np
import optax
import pandas as pd
from absl import flags
from ml_collections import config_dict

from rethink_gen import (
  audit_report,
  command_line,
  learners,
  metrics,
  models,
  programs,
  randomizations,
  sgd,
  significance,
  train,
  workdirs,
)
from rethink_gen import config as config_lib
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity, rademacher

NOISE_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FIT_ACCURACY = 0.99
LEAST_STEPS, LEAST_EPOCHS = 3_000, 30  # by default as many epochs as make both
PERMUTATIONS = 9_999
SMALL = 200  # examples that show whether an estimator is linear
LATE = 0.8  # after this part of the training, what accuracy still gains is gained late


class Result(NamedTuple):
  """What a randomization test found; accuracies are fractions.

  Attributes:
    settings: what was trained on what, and how; of results.json.
    levels: a dict a setup, over its seeds; its fields are those of `measure`.
    rademacher: a dict, or None where training on random signs diverged; see
      `measure_signs`. The empirical Rademacher complexity is at least its mean, but for the
      chance of the draws.
    verdict: sentences, which say no more than the numbers.
    workdir: the folder that has report.html, results.json, figure.png and the runs.
  """

  settings: dict
  levels: list
  rademacher: dict | None
  verdict: list
  workdir: pathlib.Path

  @property
  def table(self):
    """The levels as a DataFrame."""
    return pd.DataFrame(self.levels).set_index('name')

  def __str__(self):
    return audit_report.text(self)


def randomization_test(
  model,
  x_train,
  y_train,
  x_test=None,
  y_test=None,
  *,
  optimizer=None,
  num_epochs=None,
  batch_size=None,
  noise_levels=NOISE_LEVELS,
  random_labels='uniform',
  seeds=3,
  fit_accuracy=FIT_ACCURACY,
  training_argument=None,
  workdir=None,
  progress=metrics.progress,
):
  """Whether a model fits random labels, and what else Section 2 of the paper asks.

  It is trained on the true labels; on labels of which some, and all, are random; on
  inputs whose positions are permuted, all alike and each in its own way, and on Gaussian
  inputs of the same mean and variance (`corruption.corrupt`); and on random signs, for the
  empirical Rademacher complexity of the functions sign(f_1(x) - f_0(x)), as
  `complexity.sign_fit` has it. Training stops at the first evaluation, of which there is
  one an epoch, with a training accuracy of `fit_accuracy`: then it fits.

  A position is a pixel of images (n, h, w, c) or uint8 (n, h, w), a step of sequences
  (n, steps, channels), a feature of vectors (n, d), whose Gaussian noise has the moments
  of each feature, and otherwise those of each channel. Images (n, c, h, w) of at most four
  channels and more than four pixels a side are known by that. Integers that are not uint8
  are taken for tokens, which have no Gaussian.

  Args:
    model: a Flax linen module; or a pair of pure
      functions, init(key, inputs) -> parameters and apply(parameters, inputs) -> logits;
      or an object with fit and predict, as of scikit-learn, which gets its inputs as rows,
      and whose random_state, if any, is the seed; or the name of a model of this package,
      or a config of it, trained as `train.run` does.
    x_train, x_test: arrays (n, ...). An estimator gets copies of their own type, uint8 as
      0 to 255. A network gets float32, within [0, 1] from uint8, or int32 from integers.
      Without a test set a fifth of the training examples is held out.
    y_train, y_test: integers (n,), the classes 0, 1, ..., each in y_train.
    optimizer: an optax transformation; by default Adam with learning rate 0.001, and for
      the package's models what their config says. It may ask for the loss, as
      optax.lbfgs() does. An estimator takes no optimizer, num_epochs or batch_size.
    num_epochs: at most so many; by default as make 3,000 steps, and at least 30, or what a
      config says.
    batch_size: by default 128, or less of less data, or what a config says.
    noise_levels: probabilities that a label is replaced by a random one; 0 and 1 are always
      among them.
    random_labels: 'uniform', each class as likely, or 'shuffled', the labels of other
      training examples, which keeps the frequencies of the classes.
    seeds: how many: 0, 1, ..., each of the training and of the corruption.
    fit_accuracy: the training accuracy that counts as a fit.
    training_argument: the name of the argument of a module's call, or of its field, that
      says whether it is being trained; by default one of `learners.TRAINING`.
    workdir: a folder for the runs and the report; by default one in runs/audit named
      after all that decides what training gives: the data, the settings, and the model
      with its code.
    progress: as for `train.run`; None: nothing is shown.

  Returns:
    A Result. Of runs that are finished in the folder nothing is run again. Where an
    estimator cannot be fitted to one of the setups the others stand, and the verdict says
    so.

  Raises:
    BadInput: for what cannot be tested, be it that the first fit fails or predicts no
      labels; no result was written then.
    train.Interrupted: after SIGTERM or SIGINT; the same call goes on.
  """
  dataset, held_out = randomizations.make_dataset(x_train, y_train, x_test, y_test)
  dataset = learners.adapt(model, dataset)
  config = make_config(model, dataset, num_epochs, batch_size, fit_accuracy)
  setups = randomizations.make_setups(noise_levels, dataset.x_train, random_labels)
  if not _is_count(seeds) or seeds < 1:
    raise BadInput(f'seeds is {seeds!r}, but it must be how many, 1 or more.')
  seeds, fit_accuracy = int(seeds), config.stop_at_train_accuracy
  randomizations.warn_of_layout(dataset.x_train)
  learner = learners.make(model, dataset, optimizer, config, training_argument)
  workdir = open_folder(workdir, learner, dataset, random_labels)
  with workdirs.only_writer(workdir):
    runs = run_all(learner, dataset, setups, seeds, workdir, progress or metrics.silence)
  *ordinary, signs = setups
  groups = significance.group_inputs(dataset.x_train)
  levels = [
    measure(setup, dataset, groups, runs[setup.name], fit_accuracy) for setup in ordinary
  ]
  compare(levels)
  correct(levels)
  settings = describe(learner, dataset, held_out, seeds) | {
    'random_labels': random_labels,
    'tests': sum(level['p_adjusted'] is not None for level in levels),
    'repeated_inputs': int((np.bincount(groups)[groups] > 1).sum()),
    'limits': audit_report.limits(model, learner.config, optimizer, dataset.num_classes),
  }
  result = Result(
    settings=settings,
    levels=levels,
    rademacher=measure_signs(learner, runs[signs.name], dataset, seeds),
    verdict=[],
    workdir=workdir,
  )
  verdict = [*describe_failures(setups, runs), *audit_report.verdict(result)]
  result = result._replace(verdict=verdict)
  audit_report.write(result, runs)
  return result


def _is_count(value):
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


# How it is trained, and where.


def make_config(model, dataset, num_epochs, batch_size, fit_accuracy):
  """The config of the loop; of the package's own models, theirs."""
  for name, value in (('num_epochs', num_epochs), ('batch_size', batch_size)):
    if learners.is_estimator(model) and value is not None:
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
      'share a batch; give at least one example for each.'
    )
  if batch_size is None and is_config:
    batch_size = config.batch_size
  elif batch_size is None:
    batch_size = min(config.batch_size, dataset.num_train) // devices * devices
  if num_epochs is None and is_config:
    num_epochs = config.num_epochs
  elif num_epochs is None and isinstance(batch_size, numbers.Integral) and batch_size > 0:
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
  train.check_batch(config, dataset.num_train)
  config.eval_every = 1
  return config


def open_folder(workdir, learner, dataset, random_labels):
  """The folder of an audit, made if needed, which says whose it is."""
  parts = identify(learner, dataset, random_labels)
  known = parts['model'] is not None
  digest = _blake2b(*parts.values()) if known else uuid.uuid4().hex[:16]
  try:
    workdir = pathlib.Path(workdir or pathlib.Path('runs', 'audit', digest)).absolute()
  except TypeError as error:
    raise BadInput(f'workdir is {workdir!r}, but it must be a path.') from error
  workdirs.check_folder(workdir)
  file = workdir / 'audit.json'
  before = None
  if (
    any(path.is_file() for path in (workdir / 'runs').rglob('*'))
    or (workdir / 'results.json').exists()
  ):
    before = _read_parts(file)
  if before is not None and not known:
    raise BadInput(
      f'The folder {workdir} holds an audit, and whether it is of this model cannot be '
      'known; choose another workdir, where all is run again.'
    )
  if before is not None and before != parts:
    words = {
      'model': 'another model or training',
      'data': 'other data',
      'labels': 'random labels drawn in another way',
    }
    other = [words[name] for name, value in parts.items() if before.get(name) != value]
    raise BadInput(
      f'The folder {workdir} holds an audit of {" and of ".join(other)}; choose another '
      'workdir.'
    )
  workdir.mkdir(parents=True, exist_ok=True)
  metrics.write_json(file, {'model': learner.name, 'digests': parts})
  return workdir


def _read_parts(file):
  """The digests of `identify` that a folder's audit.json has; {} where they are lost."""
  try:
    return dict(json.loads(file.read_text())['digests'])
  except (OSError, ValueError, KeyError, TypeError):
    return {}


def identify(learner, dataset, random_labels):
  """{part: digest} of what decides the runs of an audit; None for what is not known."""
  data = hashlib.blake2b(digest_size=8)
  for array in dataset[:4]:
    data.update(f'{array.dtype} {array.shape}'.encode())
    data.update(np.ascontiguousarray(array))
  fields = config_lib.changes(learner.config)
  own = {f: v for f, v in fields.items() if not f.startswith(('dataset.', 'corruption.'))}
  own |= {f: v for f, v in fields.items() if f == 'dataset.crop_size'}
  training = json.dumps(own, sort_keys=True) if learner.program else ''
  model = learner.digest and _blake2b(learner.digest, training)
  return {'model': model, 'data': data.hexdigest(), 'labels': random_labels}


def _blake2b(*texts):
  return hashlib.blake2b('\0'.join(texts).encode(), digest_size=8).hexdigest()


# The runs.


class Run(NamedTuple):
  """One training, as its folder has it."""

  summary: dict  # of `train.summarize`; of one that failed its status and reason alone
  records: list  # the evaluations; none of an estimator
  predictions: np.ndarray | None  # int64 (m,) of the test set, of signs of the training set


def run_all(learner, dataset, setups, seeds, workdir, progress):
  """{setup name: [Run of each seed]}; what the folder has is not run again.

  A setup whose fit fails is a Run with the status failed, which the folder does not keep;
  where there is no other run it raises BadInput.
  """
  program = learner.program
  steps = program.steps_per_epoch * learner.config.num_epochs if program else 1
  jobs = [(setup, seed) for seed in range(seeds) for setup in setups]
  folders = [workdir / 'runs' / setup.name / f'seed_{seed}' for setup, seed in jobs]
  runs = {setup.name: [] for setup in setups}
  first = sum((folder / 'summary.json').exists() for folder in folders)
  with progress(len(jobs) * steps, first * steps) as (update, say):
    done = first
    for (setup, seed), folder in zip(jobs, folders, strict=True):
      new = not (folder / 'summary.json').exists()
      if new:
        folder.mkdir(parents=True, exist_ok=True)
        shown = _part(update, done * steps, f'{setup.name}, seed {seed}')
        done += 1
        try:
          run(learner, dataset, setup, seed, folder, shown)
        except BadInput as error:
          if not any(folder.iterdir()):
            folder.rmdir()
          if not any(runs.values()):
            raise
          found = Run({'status': 'failed', 'reason': str(error)}, [], None)
      if not new or folder.exists():
        found = read_run(folder)
      runs[setup.name].append(found)
      if new:
        say(f'{done}/{len(jobs)}  {_line(setup, seed, found)}', done * steps)
  return runs


def _line(setup, seed, run):
  summary = run.summary
  if summary['status'] == 'failed':
    return f'{setup.name:<16}  seed {seed}  failed: {summary["reason"]}'
  line = f'{setup.name:<16}  seed {seed}  {metrics.duration(summary["seconds"]):>6}'
  if summary['status'] == 'diverged':
    return f'{line}  diverged'
  accuracy = metrics.percent(summary['train_accuracy'])
  return f'{line}  train {accuracy}  test {metrics.percent(summary["test_accuracy"])}'


def _part(update, done, description):
  """Progress of a run within that of all; its own lines are not shown."""

  @contextlib.contextmanager
  def progress(*_):
    def show(step, _, loss, accuracy):
      update(done + step, description, loss, accuracy)

    yield show, lambda *_: None

  return progress


def read_run(folder):
  """The Run of a folder."""
  try:
    summary = json.loads((folder / 'summary.json').read_text())
    predictions = None
    if summary['status'] != 'diverged':
      predictions = np.load(folder / 'predictions.npy')
  except (OSError, ValueError, EOFError) as error:
    raise BadInput(
      f'The run in {folder} is damaged; delete this folder and it is run again.'
    ) from error
  return Run(summary, metrics.read_records(folder), predictions)


def run(learner, dataset, setup, seed, folder, progress):
  """Trains once, and leaves summary.json and predictions.npy, and no parameters."""
  started = time.monotonic()
  data = randomizations.randomize(dataset, setup, seed)
  changed = float((data.y_train != dataset.y_train).mean())
  config = learner.config.copy_and_resolve_references()
  is_signs = setup.mode == 'random_signs'
  config.update({'seed': seed})
  config.corruption.update({'mode': setup.mode, 'seed': seed})
  config.corruption.label_noise = setup.label_noise
  config.dataset.name, config.model.name = 'audit', learner.name
  looked_at = data.x_train if is_signs else data.x_test
  if is_signs:
    config.stop_at_train_accuracy = 1.0  # the supremum is looked for, not a threshold
  if learner.program:
    outcome = train.learn(config, data, folder, started, progress, learner.program)
    summary = train.summarize(config, data, changed, *outcome)
    state, _, status = outcome
    if status == 'complete':
      logits = outputs(learner, state, looked_at)
      predictions = (logits[:, :2] if is_signs else logits).argmax(-1)
  else:
    classes = 2 if is_signs else data.num_classes
    fitted = learners.fit_estimator(learner.estimator, data.x_train, data.y_train, seed)
    found = [learners.predict(fitted, x, classes) for x in (data.x_train, data.x_test)]
    predictions = found[0] if is_signs else found[1]
    summary = summarize_estimator(data, setup, changed, found, seed, started)
  if summary['status'] == 'complete':
    np.save(folder / 'predictions.npy', predictions)
  metrics.write_json(folder / 'summary.json', summary)  # the last: now it is complete
  shutil.rmtree(folder / 'checkpoints', ignore_errors=True)


def outputs(learner, state, inputs):
  """float32 (n, classes): logits of a trained State."""
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  forward = functools.partial(learners.forward, learner.program, variables)
  with programs.matmul_precision(learner.config):
    return complexity.in_batches(forward, inputs)


def summarize_estimator(data, setup, changed, predictions, seed, started):
  """The fields of `train.summarize` that an estimator has.

  predictions are those of the training and of the test examples.
  """
  train_accuracy, test_accuracy = (
    float((own == labels).mean())
    for own, labels in zip(predictions, (data.y_train, data.y_test), strict=True)
  )
  return {
    'status': 'complete',
    'corruption': setup.mode,
    'label_noise': setup.label_noise,
    'labels_changed': changed,
    'train_accuracy': train_accuracy,
    'test_accuracy': test_accuracy,
    'steps_to_fit': None,
    'num_params': None,
    'seconds': time.monotonic() - started,
    'device': train.device(),
    'seed': seed,
  }


# What the runs say.


def describe_failures(setups, runs):
  """A sentence for each setup of which a run failed."""
  for setup in setups:
    own = [run.summary for run in runs[setup.name]]
    reasons = [summary['reason'] for summary in own if summary['status'] == 'failed']
    if reasons:
      yield (
        f'Failed: {len(reasons)} of {len(own)} runs of the setup {setup.name}, which are '
        f'left out of what follows. {reasons[0]}'
      )


def measure(setup, dataset, groups, runs, fit_accuracy):
  """One setup over its seeds: a dict, less what `compare` and `correct` add.

  Means and ranges are over the runs that did not diverge. p_value is the larger of
  p_permutation, of `significance.permutation_test`, and p_constant, of
  `significance.better_than` the constant guess: both nulls have to be rejected before the
  test accuracy is called above chance. gained_late is what training accuracy gained in the
  last fifth. train_chance is the training accuracy of the best constant guess, and
  best_accuracy the highest that a function of the inputs can have where some of them are
  equal, both means over seeds of the labels that were trained on; best_accuracy is None for
  inputs that each run changes, which are hardly ever equal.

  Args:
    groups: int (n,), which training inputs are equal, as of `significance.group_inputs`.
  """
  failed = [run for run in runs if run.summary['status'] == 'failed']
  runs = [run for run in runs if run.summary['status'] != 'failed']
  done = [run for run in runs if run.summary['status'] == 'complete']
  fitted = [run.summary['train_accuracy'] >= fit_accuracy for run in done]
  level = {
    'name': setup.name,
    'label_noise': setup.label_noise,
    'runs': len(runs),
    'diverged': len(runs) - len(done),
    'failed': len(failed),
    'fitted': sum(fitted),
    'labels_changed': _mean([run.summary['labels_changed'] for run in runs]),
    'steps_to_fit': [run.summary['steps_to_fit'] for run in runs],
    'steps': [run.summary.get('steps') for run in runs],
    'gained_late': _mean([late(run.records) for run in done if run.records]),
    **dict.fromkeys(('best_accuracy', 'p_value', 'p_permutation', 'p_constant')),
  }
  labels = [dataset.y_train for _ in runs]
  if setup.mode in randomizations.LABELS.values():
    labels = [
      randomizations.randomize(dataset, setup, seed).y_train for seed in range(len(runs))
    ]
  level['train_chance'] = _mean([significance.largest_share(own) for own in labels])
  if setup.mode not in ('random_pixels', 'gaussian'):
    level['best_accuracy'] = _mean(
      [significance.best_accuracy(groups, own) for own in labels]
    )
  for split in ('train', 'test'):
    values = [run.summary[f'{split}_accuracy'] for run in done]
    level[f'{split}_accuracy'] = _mean(values)
    level[f'{split}_accuracy_range'] = [min(values), max(values)] if values else None
  if done:
    level['generalization_gap'] = level['train_accuracy'] - level['test_accuracy']
    predictions = np.stack([run.predictions for run in done])
    guess = significance.constant_guess(
      dataset.y_train, dataset.y_test, dataset.num_classes
    )
    level['p_permutation'] = significance.permutation_test(
      predictions, dataset.y_test, PERMUTATIONS
    )
    level['p_constant'] = significance.better_than(
      predictions == dataset.y_test, dataset.y_test == guess
    )
    level['p_value'] = max(level['p_permutation'], level['p_constant'])
  else:
    level['generalization_gap'] = None
  return level


def _mean(values):
  return float(np.mean(values)) if values else None


def late(records):
  """What training accuracy gained in the last fifth of the steps."""
  early = [r for r in records if r['step'] <= LATE * records[-1]['step']] or records[:1]
  return records[-1]['train_accuracy'] - early[-1]['train_accuracy']


def compare(levels):
  """Adds to each level how many times as many steps as true labels it takes to fit.

  times_longer is the median over seeds and times_longer_range their range, where every seed
  fitted; else longer_than is the least that the steps taken allow to say.
  """
  true = levels[0]['steps_to_fit']
  for level in levels:
    level |= dict.fromkeys(('times_longer', 'times_longer_range', 'longer_than'))
    if None in true or level['diverged']:
      continue
    if None not in level['steps_to_fit']:
      pairs = zip(level['steps_to_fit'], true, strict=True)
      times = [own / fit for own, fit in pairs]
      level['times_longer'] = float(np.median(times))
      level['times_longer_range'] = [min(times), max(times)]
    else:
      pairs = zip(level['steps_to_fit'], level['steps'], true, strict=True)
      level['longer_than'] = min((own or steps) / fit for own, steps, fit in pairs)


def correct(levels):
  """Adds p_adjusted to the levels whose test accuracy the verdict compares with chance.

  These are the true labels and the changed inputs; p_adjusted is their p_value, corrected
  for the number of these tests by Holm's method. It is None for other levels.
  """
  claimed = [
    level for level in levels if level['label_noise'] == 0 and level['p_value'] is not None
  ]
  adjusted = significance.holm([level['p_value'] for level in claimed])
  for level in levels:
    level['p_adjusted'] = None
  for level, p in zip(claimed, adjusted, strict=True):
    level['p_adjusted'] = float(p)


def measure_signs(learner, runs, dataset, seeds):
  """Result.rademacher: bounds of the complexity, from draws of random signs.

  Returns:
    None where a run diverged, else a dict. mean, min and max over the draws are of the
    agreement of the signs with the best function that was found, (1/n) sum_i s_i h(x_i);
    own_mean is of the trained models alone. The class is that of the functions the model
    can be trained to; where they are linear it is that of all linear classifiers of the
    inputs, a space of `dimension`, with an upper_bound. For others both are None.
  """
  if any(run.summary['status'] != 'complete' for run in runs):
    return None
  signs = np.stack([randomizations.signs_of(dataset, seed) for seed in range(seeds)])
  fits = iter(runs)
  own = complexity.rademacher(lambda _: 2 * next(fits).predictions - 1, signs)
  agreements, dimension, upper_bound = own, None, None
  inputs = linear_inputs(learner, dataset)
  if inputs is not None:
    space = rademacher.basis(inputs)
    dimension = space.shape[1]
    upper_bound = rademacher.upper_bound(*space.shape)
    agreements = np.maximum(own, [rademacher.fit_signs(space, s)[1] for s in signs])
  return {
    'mean': float(agreements.mean()),
    'min': float(agreements.min()),
    'max': float(agreements.max()),
    'draws': seeds,
    'own_mean': float(own.mean()),
    'dimension': dimension,
    'upper_bound': upper_bound,
  }


def linear_inputs(learner, dataset):
  """The training inputs as rows (n, d) where the model's outputs are linear in them.

  Returns:
    An array, or None where they are not, or where the inputs are tokens, or too large for
    `rademacher.basis` to take a minute.
  """
  x = dataset.x_train
  if learner.program and x.dtype == np.int32:
    return None
  if learner.program:
    outputs, inputs = _perturbed(learner), learner.program.prepare
  else:
    # In floating point: sums of inputs must not wrap around.
    outputs, inputs = _fitted(learner, dataset), lambda x: learners.rows(x).astype(float)
  rows, columns = len(x), math.prod(inputs(x[:1]).shape[1:]) + 1
  too_large = rows * columns * min(rows, columns) > rademacher.LARGEST
  if outputs is None or too_large or not rademacher.is_linear(outputs, inputs(x[:SMALL])):
    return None
  return np.asarray(complexity.in_batches(inputs, x)).reshape(rows, -1)


def _perturbed(learner):
  """outputs(inputs) of a Program's model with random parameters, none of them zero."""
  state = programs.functions(learner.program)[0](jax.random.key(0))
  leaves, structure = jax.tree.flatten(state.params)
  keys = jax.random.split(jax.random.key(1), max(1, len(leaves)))
  moved = [
    leaf + jax.random.normal(key, leaf.shape, leaf.dtype)
    for leaf, key in zip(leaves, keys, strict=False)
  ]
  variables = {'params': structure.unflatten(moved), 'batch_stats': state.batch_stats}

  def outputs(inputs):
    with programs.matmul_precision(learner.config):
      return learner.program.model.apply(variables, inputs, train=False)

  return outputs


def _fitted(learner, dataset):
  """The decision function of an estimator that a few examples are fitted with, or None."""
  if not hasattr(learner.estimator, 'decision_function'):
    return None
  labels = (randomizations.signs_of(dataset, 0)[:SMALL] > 0).astype(np.int32)
  try:
    fitted = learners.fit_estimator(learner.estimator, dataset.x_train[:SMALL], labels, 0)
  except BadInput:  # it needs more examples; whether it is linear stays open
    return None
  return fitted.decision_function


def describe(learner, dataset, held_out, seeds):
  """Result.settings."""
  config = learner.config
  positions, _, channels = randomizations.layout(dataset.x_train, 'random_pixels')
  _, y_train, _, y_test, num_classes = dataset
  settings = {
    'model': learner.name,
    'num_train': dataset.num_train,
    'num_test': dataset.num_test,
    'held_out': held_out,
    'input_shape': list(dataset.x_train.shape[1:]),
    'input_type': str(dataset.x_train.dtype),
    'positions': positions,
    'channels': channels,
    'num_classes': dataset.num_classes,
    'chance_accuracy': significance.chance(y_train, y_test, num_classes),
    'constant_guess': significance.constant_guess(y_train, y_test, num_classes),
    'constant_accuracy': significance.constant_accuracy(y_train, y_test, num_classes),
    'seeds': seeds,
    'fit_accuracy': config.stop_at_train_accuracy,
    'permutations': PERMUTATIONS,
    'is_estimator': learner.program is None,
    'device': train.device(),
    'jax_version': jax.__version__,
  }
  if learner.program:
    settings |= {
      'num_epochs': config.num_epochs,
      'batch_size': config.batch_size,
      'steps': learner.program.steps_per_epoch * config.num_epochs,
    }
  return settings


# The command.


def define_flags():
  """Here and not on import: who imports this module may have flags of such names."""
  command_line.define_path(
    'data', 'digits', 'An .npz file with x_train, y_train, or digits, or a TFDS data set.'
  )
  flags.DEFINE_string(
    'model',
    None,
    'MODULE:FUNCTION, where function(num_classes) makes a Flax module or (init, apply), or '
    f"one of the package's own: {', '.join(models.MODELS)}.",
  )
  flags.DEFINE_string(
    'estimator', None, 'MODULE:CLASS of scikit-learn or like it, such as sklearn.svm:SVC.'
  )
  flags.DEFINE_float(
    'learning_rate', None, "Adam's, by default 0.001; of the package's models their SGD's."
  )
  flags.DEFINE_integer(
    'epochs', None, 'At most so many; by default as make 3,000 steps, and at least 30.'
  )
  flags.DEFINE_integer('batch_size', None, 'Examples; by default 128, or less of less.')
  flags.DEFINE_integer('num_train', None, 'The first so many examples; by default all.')
  flags.DEFINE_string(
    'training_argument',
    None,
    "The argument of a Flax module's call that says whether it is being trained, if its "
    f'name is none of {", ".join(learners.TRAINING)}.',
  )
  flags.DEFINE_integer('seeds', 3, 'How many seeds.')
  flags.DEFINE_list(
    'noise_levels',
    [f'{level:g}' for level in NOISE_LEVELS],
    'Probabilities that a label is replaced by a random one; 0 and 1 are always included.',
  )
  flags.DEFINE_enum(
    'random_labels',
    'uniform',
    list(randomizations.LABELS),
    'Random labels are drawn uniformly over the classes, or are the shuffled true ones.',
  )
  flags.DEFINE_float('fit_accuracy', FIT_ACCURACY, 'The training accuracy that is a fit.')
  command_line.define_path(
    'workdir', None, 'The folder of runs and report; by default one in runs/audit.'
  )


def main(_):
  command_line.prepare()
  given = flags.FLAGS
  workdir = given.workdir or pathlib.Path('runs', 'audit')
  result = command_line.call(functools.partial(_audit, given), workdir)
  print(f'\n{result}')


def _audit(given, _):
  if given.estimator:
    for flag in ('learning_rate', 'epochs', 'batch_size', 'training_argument'):
      if given[flag].value is not None:
        raise BadInput(
          f'--{flag} is {given[flag].value}, but an estimator is fitted by its own method '
          f'fit; leave --{flag} out.'
        )
  x_train, y_train, x_test, y_test = read_data(given.data)
  x_train, y_train, classes = first(x_train, y_train, given.num_train)
  optimizer = None
  if given.learning_rate is not None and not 0 < given.learning_rate < math.inf:
    raise BadInput(
      f'--learning_rate is {given.learning_rate}, but it must be a positive finite number.'
    )
  if given.estimator:
    model = _imported('--estimator', given.estimator)
  elif ':' in given.model:
    model = _imported('--model', given.model, classes)
    if given.learning_rate is not None:
      optimizer = optax.adam(given.learning_rate)
  else:
    model = given.model
    if given.learning_rate is not None and model in models.MODELS:
      optimizer = sgd.optimizer(config_lib.default(), sgd.Rates(given.learning_rate, 0.0))
  return randomization_test(
    model,
    x_train,
    y_train,
    x_test,
    y_test,
    optimizer=optimizer,
    num_epochs=given.epochs,
    batch_size=given.batch_size,
    noise_levels=given.noise_levels,
    random_labels=given.random_labels,
    seeds=given.seeds,
    fit_accuracy=given.fit_accuracy,
    training_argument=given.training_argument,
    workdir=given.workdir,
  )


def first(x, y, count):
  """(x, y, classes): the first `count` training examples, or all, and how many classes.

  Raises:
    BadInput: for more than there are, or where some classes come later.
  """
  classes = np.unique(y)
  if count is None:
    return x, y, len(classes)
  if not 1 <= count <= len(y):
    raise BadInput(
      f'--num_train is {count}, but there are {len(y):,} training examples; take from 1 to '
      'that many.'
    )
  missing = np.setdiff1d(classes, y[:count])
  if len(missing):
    raise BadInput(
      f'--num_train={count} takes the first {count:,} examples, and among them are only '
      f'{len(classes) - len(missing)} of {len(classes)} classes; take more, or shuffle the '
      'examples in the file if they are sorted by class.'
    )
  return x[:count], y[:count], len(classes)


def read_data(name):
  """(x_train, y_train, x_test, y_test) of a file or of a data set's name."""
  if not name.endswith('.npz'):
    return sources.load(name)[:4]
  arrays = sources.read_npz(name)
  if missing := [key for key in sources.KEYS[:2] if key not in arrays]:
    raise BadInput(
      f'{name} has no array {", ".join(missing)}; it must hold x_train and y_train, and '
      'may hold x_test and y_test.'
    )
  return tuple(arrays.get(key) for key in sources.KEYS)


def _imported(flag, path, *arguments):
  """What the function or class MODULE:NAME makes of the arguments."""
  module, _, name = path.partition(':')
  try:
    return getattr(importlib.import_module(module), name)(*arguments)
  except Exception as error:  # It is anybody's code: anything may come out of it.
    raise BadInput(
      f'{flag}={path} does not give a model ({type(error).__name__}: '
      f'{sources.reason(error)}); give MODULE:NAME of what can be imported and called.'
    ) from error


def parse(argv):
  """absl's flags from the command line, every fault of theirs in one sentence."""
  define_flags()
  rest = command_line.parse_flags(argv)
  command_line.refuse_rest(rest)
  if bool(flags.FLAGS.model) == bool(flags.FLAGS.estimator):
    command_line.refuse(
      'Give one of --model and --estimator, such as --model=mlp or '
      '--estimator=sklearn.svm:SVC; --help shows what there is.'
    )
  return rest


if __name__ == '__main__':
  command_line.run(main, parse)
