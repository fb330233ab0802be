"""The loop of a run: train epochs, evaluate, record, save checkpoints, resume, stop."""

import contextlib
import functools
import math
import os
import pathlib
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import files, paths
from rethink_gen.data.sources import Dataset
from rethink_gen.data.streaming import Source
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

SECONDS_PER_CALL = 2.0  # target duration of a training call, between progress updates
SECONDS_PER_CHECKPOINT = 10.0  # a killed run loses at most this much work plus one epoch
REASONS = ('num_epochs', 'stop_at_train_accuracy', 'diverged')  # why a run ends


def run(
  config: config_dict.ConfigDict,
  workdir: str | os.PathLike,
  progress: Callable = progress_bar,
) -> dict:
  """Trains a run as its config says, or resumes it where it stopped.

  Args:
    config: a ConfigDict with the fields of `config.default`.
    workdir: the run's folder, created if needed. It gets config.json, data.json (the
      version of the training data), log.jsonl (a line per start and stop), metrics.jsonl
      (a line per evaluation), losses.npy and accuracies.npy (float32, one value per step),
      tensorboard/, checkpoints/, the files of `example_history` if the config asks for
      them and, once the run is complete, summary.json.
    progress: a progress display, with the interface of `progress.progress_bar`.

  Returns:
    The summary, a dict as in summary.json. A complete run is not repeated.

  Raises:
    BadInput: for an unusable config, data set or folder, before anything is written.
    Interrupted: after SIGTERM or SIGINT, with the state saved.
    OSError: if the folder becomes unwritable, for example because the disk is full.
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
    outcome = learn(config, dataset, workdir, started, progress)
    summary = summaries.summarize(config, dataset, labels_changed, *outcome)
    if multihost.is_primary():
      files.write_json(workdir / 'summary.json', summary)
  return summary


class Request(NamedTuple):
  """What a run's loop asks the owner of the compiled functions to do."""

  state: sgd.TrainState  # donated to the training call, which returns the next one
  task: str  # 'train', 'evaluate' or 'examine'
  stop: int = 0  # 'train': the step up to which to train, at most


def learn(
  config: config_dict.ConfigDict,
  dataset: Dataset | Source,
  workdir: pathlib.Path,
  started: float,
  progress: Callable,
  program: compiled.Program | None = None,
) -> tuple[sgd.TrainState, list[dict], str]:
  """Trains on an in-memory Dataset or a streaming.Source.

  Args:
    config, workdir, started, progress: as for `fit`.
    dataset: already corrupted and truncated.
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


def fit(
  config: config_dict.ConfigDict,
  state: sgd.TrainState,
  workdir: pathlib.Path,
  started: float,
  progress: Callable,
  received: list[int],
) -> Generator[Request, Any, tuple[sgd.TrainState, list[dict], str]]:
  """The loop: restore, then train an epoch, evaluate and save, until done.

  It is a generator of Requests, so that whoever answers them can train many runs at once.

  Args:
    config: as for `run`.
    state: the TrainState before the first step.
    workdir: an existing folder.
    started: the time.monotonic() from which the records count their seconds.
    progress: as for `run`.
    received: the list of signals that `signals.stop_signals` yields.

  Yields:
    Requests, each answered with the result of the matching function of `compiled.build`.

  Returns:
    (state, records, stopped_by): the final TrainState, all evaluations, and one of REASONS.
  """
  steps_per_epoch = len(state.losses)
  last_step = steps_per_epoch * config.num_epochs
  with contextlib.ExitStack() as stack:
    manager = stack.enter_context(checkpoint.open_manager(workdir))
    state = checkpoint.restore(manager, state)
    step = int(state.step)
    history = resume_history(config, workdir, step, steps_per_epoch)
    started -= history.records[-1]['seconds'] if history.records else 0
    write_events = log = lambda *_, **__: None
    if multihost.is_primary():
      write_events = stack.enter_context(metrics.tensorboard(workdir, step))
      log = functools.partial(metrics.log_event, workdir)
    show = progress if multihost.is_primary() else no_progress
    update, say = stack.enter_context(show(last_step, step))
    log('restore' if step else 'start', step, device=summaries.describe_device())
    if step:
      say(f'Resuming from step {step:,} of {last_step:,}.')

    state = yield Request(state, 'train', step)  # compiles without taking a step
    seconds_per_step, saved = math.inf, time.monotonic()
    while True:
      epoch, rest = divmod(step, steps_per_epoch)
      epoch_ended = step > 0 and rest == 0
      loss, accuracy = running(config, state)
      diverged = not math.isfinite(loss)
      # A run that stopped between an epoch and its evaluation catches up here.
      is_recorded = bool(history.records) and history.records[-1]['step'] == step
      if (
        epoch_ended and not diverged and not is_recorded and is_due(config, epoch, accuracy)
      ):
        measured = yield Request(state, 'evaluate')
        diverged = not math.isfinite(measured['train_loss'])
        record = {
          'step': step,
          'epoch': epoch,
          **measured,
          'running_loss': loss,
          'running_accuracy': accuracy,
          'examples_per_second': config.batch_size / seconds_per_step,
          'seconds': time.monotonic() - started,
        }
        if not diverged:
          if multihost.is_primary():  # first, so that no checkpoint is ahead of its record
            metrics.append_record(workdir, record)
          history.records.append(record)
          write_events(record)
          say(metrics.format_record(record, config.num_epochs), step)
      if config.record_examples and epoch_ended and len(history.fitted) < epoch:
        found = yield Request(state, 'examine')
        history.fitted.append(example_history.pack(found.right))
      stopped_by = stop_reason(config, history.records, step, last_step, diverged)
      age = time.monotonic() - saved
      due = epoch_ended and is_checkpoint_due(config, epoch, age)
      agreed, stopping = multihost.agree(int(due), received)
      save = bool(agreed or stopping or stopped_by) and not diverged
      if save or diverged:  # before the checkpoint, like the records
        write_history(workdir, history, step)
      if save:
        checkpoint.save(manager, state)
        saved = time.monotonic()
        log('save', step)
      if stopped_by and not diverged and config.record_examples:
        found = yield Request(state, 'examine')
        if multihost.is_primary():
          example_history.write(workdir, history.fitted, found)
      if stopped_by:
        log('stop', step, stopped_by=stopped_by)
        return state, history.records, stopped_by
      if stopping:
        interrupted = signals.Interrupted(stopping)
        log('stop', step, stopped_by=str(interrupted))
        raise interrupted
      state, seconds_per_step = yield from train_epoch(
        config, state, seconds_per_step, update, received
      )
      before, step = step, int(state.step)
      taken = slice(rest, rest + step - before)
      history.steps['losses'][before:step] = np.asarray(state.losses)[taken]
      history.steps['accuracies'][before:step] = (
        np.asarray(state.correct)[taken] / config.batch_size
      )


class History(NamedTuple):
  """What a run has recorded so far, updated in place while it trains."""

  records: list[dict]  # the evaluations
  # {name in metrics.OF_STEPS: float32 (last_step,)}, NaN for future steps
  steps: dict[str, np.ndarray]
  fitted: list[np.ndarray]  # one row of packed bits per epoch, if config.record_examples


def resume_history(
  config: config_dict.ConfigDict, workdir: pathlib.Path, step: int, steps_per_epoch: int
) -> History:
  """The History of a run saved at `step`; empty for a new run."""
  records = multihost.on_primary(lambda: metrics.resume_records(workdir, step))
  last_step = steps_per_epoch * config.num_epochs
  steps = {name: np.full(last_step, np.nan, np.float32) for name in metrics.OF_STEPS}
  for name, values in steps.items():
    recorded = metrics.read_steps(workdir, name)[:step]
    values[: len(recorded)] = recorded
  fitted = []
  if config.record_examples:
    fitted = example_history.read_fitted(workdir, step // steps_per_epoch)
  return History(records, steps, fitted)


def write_history(workdir: pathlib.Path, history: History, step: int) -> None:
  """Writes a History, except its records, from the primary process."""
  if not multihost.is_primary():
    return
  for name, values in history.steps.items():
    metrics.write_steps(workdir, name, values[:step])
  if history.fitted:
    example_history.write_fitted(workdir, history.fitted)


def train_epoch(
  config: config_dict.ConfigDict,
  state: sgd.TrainState,
  seconds_per_step: float,
  update: Callable,
  received: list[int],
) -> Generator[Request, sgd.TrainState, tuple[sgd.TrainState, float]]:
  """Trains to the end of the epoch, or until a signal arrives or the loss is not finite.

  Requests take about SECONDS_PER_CALL each; while the speed is unknown, a request is a
  single step. On a GPU they are whole multiples of `sgd.chunk_of`. Returns the TrainState
  and this epoch's seconds per step.
  """
  steps_per_epoch = len(state.losses)
  chunk = sgd.chunk_of(steps_per_epoch)
  first = step = int(state.step)
  end = (step // steps_per_epoch + 1) * steps_per_epoch
  epoch = f'epoch {end // steps_per_epoch}/{config.num_epochs}'
  started = time.monotonic()
  loss = 0.0
  while step < end and math.isfinite(loss):
    steps = max(1, int(SECONDS_PER_CALL / seconds_per_step))
    steps = math.ceil(steps / chunk) * chunk
    steps, stopping = multihost.agree(steps, received)
    if stopping:
      break
    state = yield Request(state, 'train', min(end, step + steps))
    step = int(state.step)
    loss, accuracy = running(config, state)
    seconds_per_step = (time.monotonic() - started) / (step - first)
    update(step, epoch, loss, accuracy)
  return state, seconds_per_step


def running(config: config_dict.ConfigDict, state: sgd.TrainState) -> tuple[float, float]:
  """Mean loss and accuracy over the epoch's batches so far, each as it was trained on.

  For a stacked state (see `vmapped`), the mean is over its runs as well.
  """
  count = (int(state.step) - 1) % len(state.losses) + 1
  losses, correct = jax.device_get((state.losses, state.correct))
  return (
    float(losses[..., :count].mean()),
    float(correct[..., :count].mean() / config.batch_size),
  )


def is_due(config: config_dict.ConfigDict, epoch: int, running_accuracy: float) -> bool:
  """Whether to evaluate: every `eval_every` epochs, at the end, and if the run may stop."""
  threshold = config.stop_at_train_accuracy
  return (
    epoch % config.eval_every == 0
    or epoch == config.num_epochs
    or (threshold is not None and running_accuracy >= threshold)
  )


def is_checkpoint_due(config: config_dict.ConfigDict, epoch: int, age: float) -> bool:
  """Whether to save at the end of an epoch, `age` seconds after the last checkpoint."""
  if config.checkpoint_every is None:
    return age >= SECONDS_PER_CHECKPOINT
  return epoch % config.checkpoint_every == 0


def stop_reason(
  config: config_dict.ConfigDict,
  records: list[dict],
  step: int,
  last_step: int,
  diverged: bool,
) -> str | None:
  """Which of REASONS ends the run at this step, or None."""
  if diverged:
    return 'diverged'
  if step >= last_step:
    return 'num_epochs'
  threshold = config.stop_at_train_accuracy
  fitted = threshold is not None and bool(records) and records[-1]['step'] == step
  if fitted and records[-1]['train_accuracy'] >= threshold:
    return 'stop_at_train_accuracy'
  return None
