"""One run: data, epochs, evaluation, checkpoints, stop. The order of things is here."""

import contextlib
import math
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from rethink_gen import config as config_lib
from rethink_gen import files, paths
from rethink_gen.progress import no_progress, progress_bar
from rethink_gen.train import (
  checkpoint,
  compiled,
  example_history,
  loading,
  metrics,
  multihost,
  sgd,
  signals,
  summaries,
  workdirs,
)

SECONDS_PER_CALL = 2.0  # how long the device works before it is asked how far it is
SECONDS_PER_CHECKPOINT = 10.0  # at most so much is lost in a kill, and an epoch


def run(config, workdir, progress=progress_bar):
  """Trains as the config says, or goes on where this folder's run stopped.

  Args:
    config: a ConfigDict of the shape of `config.default`.
    workdir: the run's folder, made if needed. It gets config.json, data.json (which
      version of the data it is trained on), metrics.jsonl (a line per evaluation),
      losses.npy (float32, the loss of every step), tensorboard/, checkpoints/ and, when
      the run is complete, summary.json.
    progress: what shows how far the run is, with the interface of `progress.progress_bar`.

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
  summary = multihost.on_primary(lambda: workdirs.read_summary(config, workdir))
  if summary:
    return summary
  dataset, labels_changed = multihost.on_all(lambda: loading.load(config))
  with contextlib.ExitStack() as stack:
    multihost.on_primary(lambda: workdirs.occupy(config, workdir, stack))
    state, records, status = learn(config, dataset, workdir, started, progress)
    summary = summaries.summarize(config, dataset, labels_changed, state, records, status)
    if multihost.is_primary():
      files.write_json(workdir / 'summary.json', summary)
  return summary


class Request(NamedTuple):
  """What the loop of a run asks of those who have the compiled functions."""

  state: sgd.TrainState  # given away in training: the answer is what the loop goes on with
  task: str  # 'train', 'evaluate' or 'examine'
  stop: int = 0  # the step up to which to train, or less far


def learn(config, dataset, workdir, started, progress, program=None):
  """Trains on a Dataset that is in memory, or a streaming.Source.

  Args:
    config, workdir, started, progress: as for `fit`.
    dataset: already corrupted and cut.
    program: as for `compiled.build`.

  Returns:
    What `fit` returns.
  """
  with signals.stop_signals() as received, compiled.matmul_precision(config):
    state, train_to, evaluate, examine = compiled.build(config, dataset, program)
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
    Requests, each answered by what `compiled.build` says of its task.

  Returns:
    (state, records, status): the last State, the evaluations from the first on, and
    'complete' or 'diverged'.
  """
  steps_per_epoch = len(state.losses)
  last_step = steps_per_epoch * config.num_epochs
  first = multihost.is_primary()
  with contextlib.ExitStack() as stack:
    manager = stack.enter_context(checkpoint.open_manager(workdir))
    state = checkpoint.restore(manager, state)
    step = int(state.step)
    records = multihost.on_primary(lambda: metrics.resume_records(workdir, step))
    steps = resume_steps(workdir, step, last_step)
    fitted = []
    if config.record_examples:
      fitted = example_history.read_fitted(workdir, step // steps_per_epoch)
    started -= records[-1]['seconds'] if records else 0
    if first:
      write_events = stack.enter_context(metrics.tensorboard(workdir, step))
    show = progress if first else no_progress
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
        say(metrics.format_record(record, config.num_epochs), step)
      if config.record_examples and epoch_ended and len(fitted) < epoch:
        fitted.append(example_history.pack((yield Request(state, 'examine')).right))
      finished = is_finished(config, records, step, last_step)
      age = time.monotonic() - saved
      save = epoch_ended and is_checkpoint_due(config, epoch, age)
      save, stopping = multihost.agree(int(save), received)
      save = save or stopping or finished
      if first and (save or diverged):  # before the checkpoint, as the records
        for name, values in steps.items():
          metrics.write_steps(workdir, name, values[:step])
        if config.record_examples:
          example_history.write_fitted(workdir, fitted)
      if diverged:
        return state, records, 'diverged'
      if save:
        checkpoint.save(manager, state)
        saved = time.monotonic()
      if finished:
        if config.record_examples:
          found = yield Request(state, 'examine')
          if first:
            example_history.write(workdir, fitted, found)
        return state, records, 'complete'
      if stopping:
        raise signals.Interrupted(stopping)
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
    steps, stopping = multihost.agree(steps, received)
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
