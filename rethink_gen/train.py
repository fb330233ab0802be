"""One run: data, epochs, evaluation, checkpoints, stop. The order of things is here."""

import contextlib
import math
import os
import pathlib
import signal
import statistics
import threading
import time
from typing import NamedTuple

import jax
import numpy as np

from rethink_gen import (
  checkpoint,
  distributed,
  examples,
  metrics,
  paths,
  programs,
  sgd,
  significance,
  workdirs,
)
from rethink_gen import config as config_lib
from rethink_gen.data import corruption, sources, streaming
from rethink_gen.errors import BadInput

SECONDS_PER_CALL = 2.0  # how long the device works before it is asked how far it is
SECONDS_PER_CHECKPOINT = 10.0  # at most so much is lost in a kill, and an epoch


class Interrupted(Exception):
  """A signal stopped the run after its state was saved; the same call continues it."""

  def __init__(self, signal_number):
    super().__init__(signal.Signals(signal_number).name)
    self.signal_number = signal_number


def run(config, workdir, progress=metrics.progress):
  """Trains as the config says, or goes on where this folder's run stopped.

  Args:
    config: a ConfigDict of the shape of `config.default`.
    workdir: the run's folder, made if needed. It gets config.json, data.json (which
      version of the data it is trained on), metrics.jsonl (a line per evaluation),
      losses.npy (float32, the loss of every step), tensorboard/, checkpoints/ and, when
      the run is complete, summary.json.
    progress: what shows how far the run is, with the interface of `metrics.progress`.

  Returns:
    The summary, a dict as in summary.json. A complete run is not run again.

  Raises:
    BadInput: for a config, data or folder that cannot be used; nothing was written then.
    Interrupted: after SIGTERM or SIGINT, with the state saved.
    OSError: when the folder cannot be written any more, say because the disk is full.
  """
  started = time.monotonic()
  workdir = pathlib.Path(paths.local(workdir)).absolute()
  config_lib.validate(config)
  summary = distributed.on_first(lambda: workdirs.read_summary(config, workdir))
  if summary:
    return summary
  dataset, labels_changed = distributed.together(lambda: load(config))
  with contextlib.ExitStack() as stack:
    distributed.on_first(lambda: workdirs.occupy(config, workdir, stack))
    state, records, status = learn(config, dataset, workdir, started, progress)
    summary = summarize(config, dataset, labels_changed, state, records, status)
    if distributed.is_first():
      metrics.write_json(workdir / 'summary.json', summary)
  return summary


def load(config):
  """What a config learns, and the share of training labels its corruption changed.

  Returns:
    (a Dataset, float), or (a streaming.Source, None), whose labels nobody has seen yet.
  """
  if config.dataset.streaming:
    source = streaming.open(config)
    check_batch(config, source.num_train)
    return source, None
  return corrupt(config, load_original(config))


def load_original(config):
  """The Dataset a config names, before its corruption and whole."""
  return sources.load(config.dataset.name, config.dataset.data_dir, config.dataset.path)


def corrupt(config, original):
  """(Dataset, share of labels changed): what the config makes of the data set."""
  for field, kind, available in (
    ('num_train', 'training', len(original.y_train)),
    ('num_test', 'test', len(original.y_test)),
  ):
    if (config.dataset[field] or 0) > available:
      raise BadInput(
        f'config.dataset.{field} is {config.dataset[field]}, but {config.dataset.name} has '
        f'{available} {kind} examples; take at most that many.'
      )
  noise = config.corruption
  dataset = corruption.corrupt(original, noise.mode, noise.seed, noise.label_noise)
  dataset = sources.first(dataset, config.dataset.num_train, config.dataset.num_test)
  changed = (dataset.y_train != original.y_train[: len(dataset.y_train)]).mean()
  check_data(config, dataset)
  return dataset, float(changed)


def check_data(config, dataset):
  """Raises BadInput where the config does not fit the data."""
  height, width = dataset.x_train.shape[1:3]
  crop_size = config.dataset.crop_size
  if crop_size is not None and crop_size > min(height, width):
    raise BadInput(
      f'config.dataset.crop_size is {crop_size}, larger than the images of '
      f'{height} x {width} pixels; take at most {min(height, width)}.'
    )
  check_batch(config, dataset.num_train)


def check_batch(config, num_train):
  if config.batch_size > num_train:
    raise BadInput(
      f'config.batch_size is {config.batch_size}, but there are only {num_train} training '
      'examples; take a smaller batch or more data.'
    )
  config_lib.check_steps(config, num_train)


class Request(NamedTuple):
  """What the loop of a run asks of those who have the compiled functions."""

  state: sgd.State  # given away in training: the answer is what the loop goes on with
  task: str  # 'train', 'evaluate' or 'examine'
  stop: int = 0  # the step up to which to train, or less far


def learn(config, dataset, workdir, started, progress, program=None):
  """Trains on a Dataset that is in memory, or a streaming.Source.

  Args:
    config, workdir, started, progress: as for `fit`.
    dataset: already corrupted and cut.
    program: as for `programs.build`.

  Returns:
    What `fit` returns.
  """
  with stop_signals() as received, programs.matmul_precision(config):
    state, train_to, evaluate, examine = programs.build(config, dataset, program)
    tasks = {
      'train': lambda request: train_to(request.state, request.stop),
      'evaluate': lambda request: evaluate(request.state),
      'examine': lambda request: examine(request.state),
    }
    loop = fit(config, state, workdir, started, progress, received)
    with contextlib.closing(loop):
      answer = None
      while True:
        try:
          request = loop.send(answer)
        except StopIteration as end:
          return end.value
        answer = tasks[request.task](request)


def fit(config, state, workdir, started, progress, received):
  """The loop: restore, then train an epoch, evaluate and save, until done.

  A generator of Requests: so whoever answers them can train many runs at once.

  Args:
    config: as for `run`.
    state: the State before the first step.
    workdir: a folder that is there.
    started: time.monotonic() from which the records count their seconds.
    progress: as for `run`.
    received: the list of signals that `stop_signals` yields.

  Yields:
    Requests, each answered by what `programs.build` says of its task.

  Returns:
    (state, records, status): the last State, the evaluations from the first on, and
    'complete' or 'diverged'.
  """
  steps_per_epoch = len(state.losses)
  last_step = steps_per_epoch * config.num_epochs
  first = distributed.is_first()
  with contextlib.ExitStack() as stack:
    manager = stack.enter_context(checkpoint.open_manager(workdir))
    state = checkpoint.restore(manager, state)
    step = int(state.step)
    records = distributed.on_first(lambda: metrics.resume_records(workdir, step))
    steps = resume_steps(workdir, step, last_step)
    fitted = []
    if config.record_examples:
      fitted = examples.read_fitted(workdir, step // steps_per_epoch)
    started -= records[-1]['seconds'] if records else 0
    if first:
      write_events = stack.enter_context(metrics.tensorboard(workdir, step))
    show = progress if first else metrics.silence
    update, say = stack.enter_context(show(last_step, step))
    if step:
      say(f'Going on from step {step:,} of {last_step:,}.')

    state = yield Request(state, 'train', step)  # compiles, and takes no step
    seconds_per_step = math.inf
    saved = time.monotonic()
    while True:
      epoch, rest = divmod(step, steps_per_epoch)
      epoch_ended = step > 0 and rest == 0
      loss, accuracy = running(config, state)
      diverged = not math.isfinite(loss)
      # A run stopped between an epoch and its evaluation makes up for it here.
      recorded = bool(records) and records[-1]['step'] == step
      due = not diverged and epoch_ended and is_due(config, epoch, accuracy)
      if due and not recorded:
        measured = yield Request(state, 'evaluate')
        diverged = not math.isfinite(measured['train_loss'])
      if due and not recorded and not diverged:
        record = {
          'step': step,
          'epoch': epoch,
          **measured,
          'running_loss': loss,
          'running_accuracy': accuracy,
          'examples_per_second': config.batch_size / seconds_per_step,
          'seconds': time.monotonic() - started,
        }
        if first:  # before the checkpoint, which must not be ahead of the records
          metrics.append_record(workdir, record)
          write_events(record)
        records.append(record)
        say(metrics.describe(record, config.num_epochs), step)
      if config.record_examples and epoch_ended and len(fitted) < epoch:
        fitted.append(examples.pack((yield Request(state, 'examine')).right))
      finished = is_finished(config, records, step, last_step)
      age = time.monotonic() - saved
      save = epoch_ended and is_checkpoint_due(config, epoch, age)
      save, stopping = distributed.agree(int(save), received)
      save = save or stopping or finished
      if first and (save or diverged):  # before the checkpoint, as the records
        for name, values in steps.items():
          metrics.write_steps(workdir, name, values[:step])
        if config.record_examples:
          examples.write_fitted(workdir, fitted)
      if diverged:
        return state, records, 'diverged'
      if save:
        checkpoint.save(manager, state)
        saved = time.monotonic()
      if finished:
        if config.record_examples:
          found = yield Request(state, 'examine')
          if first:
            examples.write(workdir, fitted, found)
        return state, records, 'complete'
      if stopping:
        raise Interrupted(stopping)
      state, seconds_per_step = yield from train_epoch(
        config, state, seconds_per_step, update, received
      )
      before, step = step, int(state.step)
      taken = slice(rest, rest + step - before)
      steps['losses'][before:step] = np.asarray(state.losses)[taken]
      steps['accuracies'][before:step] = (
        np.asarray(state.correct)[taken] / config.batch_size
      )


def resume_steps(workdir, step, last_step):
  """{name: float32 (last_step,)} of metrics.OF_STEPS: recorded up to `step`, then NaN."""
  steps = {name: np.full(last_step, np.nan, np.float32) for name in metrics.OF_STEPS}
  for name, values in steps.items():
    recorded = metrics.read_steps(workdir, name)[:step]
    values[: len(recorded)] = recorded
  return steps


def train_epoch(config, state, seconds_per_step, update, received):
  """On to the end of the epoch, or until a signal is received or the loss is not finite.

  In requests of about SECONDS_PER_CALL: the first, of unknown speed, is a single step.
  Returns the State and the seconds that a step of this epoch took.
  """
  steps_per_epoch = len(state.losses)
  first = step = int(state.step)
  end = (step // steps_per_epoch + 1) * steps_per_epoch
  epoch = f'epoch {end // steps_per_epoch}/{config.num_epochs}'
  started = time.monotonic()
  loss = 0.0
  while step < end and math.isfinite(loss):
    steps = max(1, int(SECONDS_PER_CALL / seconds_per_step))
    steps, stopping = distributed.agree(steps, received)
    if stopping:
      break
    state = yield Request(state, 'train', min(end, step + steps))
    step = int(state.step)
    loss, accuracy = running(config, state)
    seconds_per_step = (time.monotonic() - started) / (step - first)
    update(step, epoch, loss, accuracy)
  return state, seconds_per_step


def running(config, state):
  """Mean loss and accuracy over the batches of the epoch so far, as they were trained.

  Of a stacked state (of `together`) over its runs too.
  """
  count = (int(state.step) - 1) % len(state.losses) + 1
  losses, correct = jax.device_get((state.losses, state.correct))
  return (
    float(losses[..., :count].mean()),
    float(correct[..., :count].mean() / config.batch_size),
  )


def is_due(config, epoch, running_accuracy):
  """Whether to evaluate: as often as the config says, at the end, and when it may stop."""
  threshold = config.stop_at_train_accuracy
  return (
    epoch % config.eval_every == 0
    or epoch == config.num_epochs
    or (threshold is not None and running_accuracy >= threshold)
  )


def is_checkpoint_due(config, epoch, age):
  """Whether to save at an epoch's end, the last checkpoint being so many seconds old."""
  if config.checkpoint_every is None:
    return age >= SECONDS_PER_CHECKPOINT
  return epoch % config.checkpoint_every == 0


def is_finished(config, records, step, last_step):
  """Whether the last step is taken, or the last evaluation, at this step, may stop it."""
  threshold = config.stop_at_train_accuracy
  return step >= last_step or (
    threshold is not None
    and bool(records)
    and records[-1]['step'] == step
    and records[-1]['train_accuracy'] >= threshold
  )


@contextlib.contextmanager
def stop_signals():
  """Yields a list that SIGTERM or SIGINT adds its number to; a second SIGINT kills.

  The first says so at once, for it is acted on only seconds later, or after an evaluation.
  """
  received = []
  in_place_of_the_bar = '\r\x1b[2K' if os.isatty(2) else ''

  def receive(number, _):
    received.append(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sentence = 'stops once its state is saved; Ctrl-C now ends it at once.'
    name = signal.Signals(number).name
    # Not by print, which fails where the signal came in the middle of another.
    os.write(2, f'{in_place_of_the_bar}{name}: {sentence}\n'.encode())

  if threading.current_thread() is not threading.main_thread():
    yield received
    return
  before = {
    number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def summarize(config, dataset, labels_changed, state, records, status):
  """What summary.json says; accuracies are fractions, None where never evaluated.

  dead_units is the share of ReLU units that no training example activates, None for a model
  that does not tell; dead_layers, {layer: share}, has the layers that are mostly dead.
  constant_accuracy and chance_accuracy are those of `guesses`.
  """
  last = records[-1] if records else {}
  train, test = last.get('train_accuracy'), last.get('test_accuracy')
  threshold = config.stop_at_train_accuracy
  fitted = (
    record['step']
    for record in records
    if threshold is not None and record['train_accuracy'] >= threshold
  )
  speeds = [s for record in records if (s := record['examples_per_second'])]
  top5 = {name: value for name, value in last.items() if name.endswith('top5_accuracy')}
  return {
    'status': status,
    'model': config.model.name,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    'dataset': config.dataset.name,
    'num_classes': dataset.num_classes,
    'corruption': config.corruption.mode,
    'label_noise': config.corruption.label_noise,
    'labels_changed': labels_changed,
    'num_train': dataset.num_train,
    'num_test': dataset.num_test,
    'epochs': int(state.step) // len(state.losses),
    'steps': int(state.step),
    'steps_per_epoch': len(state.losses),
    'train_loss': last.get('train_loss'),
    'test_loss': last.get('test_loss'),
    'train_accuracy': train,
    'test_accuracy': test,
    **top5,  # where images are streamed
    **guesses(config, dataset),
    'generalization_gap': train - test if records else None,
    'best_test_accuracy': max((r['test_accuracy'] for r in records), default=None),
    'steps_to_fit': next(fitted, None),
    'dead_units': last.get('dead_units'),
    'dead_layers': metrics.dead_layers(last),
    'seconds': last.get('seconds', 0.0),
    'examples_per_second': statistics.median(speeds) if speeds else None,
    'device': device(),
    'precision': config.precision,
    'jax_version': jax.__version__,
    'seed': config.seed,
  }


def guesses(config, dataset):
  """The test accuracies of guesses that do not look at the images, for a summary.

  constant_accuracy is that of always naming the most frequent training label. It is None
  for data sets that are streamed, whose labels are not in memory, and where all labels are
  drawn uniformly, which makes no class the most frequent but by luck. chance_accuracy is
  the better of it and a uniform guess, 1 / classes.
  """
  noise = config.corruption
  is_uniform = noise.mode == 'random_labels' or noise.label_noise == 1
  constant = None
  if isinstance(dataset, sources.Dataset) and not is_uniform:
    constant = significance.constant_accuracy(
      dataset.y_train, dataset.y_test, dataset.num_classes
    )
  return {
    'constant_accuracy': constant,
    'chance_accuracy': max(constant or 0.0, 1 / dataset.num_classes),
  }


def device():
  """What computes, for the summaries: '1 x NVIDIA H100', '1 x cpu (2 cores)'."""
  kind = jax.devices()[0].device_kind
  cores = f' ({os.cpu_count()} cores)' if kind == 'cpu' else ''
  return f'{jax.device_count()} x {kind}{cores}'
