"""Where a run's numbers go: the terminal, metrics.jsonl, TensorBoard, summary.json."""

import contextlib
import io
import json
import math
import os
import pathlib
import shutil
import sys
import textwrap
import time

import numpy as np
import rich.console
import rich.progress
import rich.table

from rethink_gen import significance

LEVEL = 0.05  # of the test behind the words of `conclusion`

# Columns of the progress bar besides what it says: 4 of the bar, 8 of the time left, 4 of
# 'left', 4 between them.
REST_OF_BAR = 20


def write_json(path, content):
  """Writes the file whole or not at all; numbers that are not finite become null."""
  write_bytes(path, (json.dumps(_finite(content), indent=2) + '\n').encode())


def write_bytes(path, content):
  """Writes the file whole or not at all."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)  # there only if something above failed


def append_record(workdir, record):
  """One line for one evaluation; on the disk before this returns."""
  with open(pathlib.Path(workdir) / 'metrics.jsonl', 'a') as file:
    file.write(json.dumps(_finite(record)) + '\n')
    file.flush()
    os.fsync(file.fileno())


def resume_records(workdir, step):
  """The records up to a step; those after it, and a torn last line, leave the file."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  kept = [record for record in read_records(workdir) if record['step'] <= step]
  kept_text = ''.join(json.dumps(record) + '\n' for record in kept)
  if path.exists() and kept_text != path.read_text():
    write_bytes(path, kept_text.encode())
  return kept


def read_records(workdir):
  """The evaluations of a run, one dict each; none before the first."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  records = []
  for line in path.read_text().splitlines() if path.exists() else ():
    with contextlib.suppress(json.JSONDecodeError):  # a torn last line
      records.append(json.loads(line))
  return records


# What is recorded of every batch as it was trained on, float32 (steps,): its mean loss, and
# the share of its examples that were classified right.
OF_STEPS = ('losses', 'accuracies')


def write_steps(workdir, name, values):
  """NAME.npy: float32 (steps,), one of OF_STEPS."""
  content = io.BytesIO()
  np.save(content, values)
  write_bytes(pathlib.Path(workdir) / f'{name}.npy', content.getvalue())


def read_steps(workdir, name):
  """What `write_steps` wrote last, or nothing where that cannot be read."""
  try:
    return np.load(pathlib.Path(workdir) / f'{name}.npy')
  except (OSError, ValueError, EOFError):
    return np.zeros(0, np.float32)


def _finite(content):
  """The same, with None for every float that JSON has no word for."""
  if isinstance(content, dict):
    return {key: _finite(value) for key, value in content.items()}
  if isinstance(content, float) and not math.isfinite(content):
    return None
  return content


@contextlib.contextmanager
def tensorboard(workdir, step):
  """Yields write(record); what an interrupted run had written after `step` is hidden."""
  # Slow to import where PyTorch is installed, which it imports too.
  from tensorboardX import event_file_writer
  from tensorboardX.proto import event_pb2, summary_pb2

  folder = pathlib.Path(workdir) / 'tensorboard'
  folder.mkdir(exist_ok=True)
  # Not tensorboardX's SummaryWriter: on a full disk its thread dies, and writing hangs.
  writer = event_file_writer.EventsWriter(str(folder / 'events'))

  def add(**content):
    writer.write_event(event_pb2.Event(wall_time=time.time(), **content))

  def write(record):
    values = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in record.items()
      if name != 'step'
    ]
    add(step=record['step'], summary=summary_pb2.Summary(value=values))
    writer.flush()

  # TensorBoard drops what older files hold from this step on.
  start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
  add(step=step + 1, session_log=start)
  try:
    yield write
  finally:
    writer.close()


@contextlib.contextmanager
def progress(total_steps, first_step, title=''):
  """Yields update(step, epoch, loss, accuracy) and say(line, step): a bar, or lines.

  The time left is to the last step; a run that stops at a training accuracy ends sooner.
  With a title, which says what is running, nothing but the bar is shown.
  """
  console = rich.console.Console(soft_wrap=True, highlight=False)
  if not console.is_terminal:
    started = time.monotonic()

    def say(line, step=None):
      if title:
        return
      if step and step > first_step:
        pace = (time.monotonic() - started) / (step - first_step)
        line += f'  at most {duration(pace * (total_steps - step))} left'
      print(line, flush=True)

    yield (lambda *_: None), say
    return

  whole = rich.table.Column(no_wrap=True)  # where the bar yields, figures do not
  count = '' if title else '{task.completed:,}/{task.total:,} steps'
  columns = (
    '{task.description}',
    rich.progress.BarColumn(bar_width=None),
    count + '{task.fields[figures]}',
    rich.progress.TimeRemainingColumn(compact=True, table_column=whole),
    'left',
  )
  with rich.progress.Progress(
    *columns, console=console, transient=True, expand=True
  ) as bar:
    task = bar.add_task('', total=total_steps, figures='')
    count_width = len(count and f'{total_steps:,}/{total_steps:,} steps')

    def show(step, description, figures):
      # Rich would cut all columns alike, the time left too.
      room = console.width - len(description) - count_width - REST_OF_BAR
      if len(figures) + min(len(title), 16) > room:
        figures = ''
      shown = shorten(title, max(room - len(figures) - 2, 0))
      description = '  '.join(filter(None, (shown, description)))
      bar.update(task, completed=step, description=description, figures=figures)

    def update(step, description, loss, accuracy):
      show(step, description, f'  loss {loss:.4f}  train {accuracy:.2%} ')

    show(first_step, 'compiling', '')
    yield update, lambda line, step=None: None if title else bar.console.print(line)


def shorten(text, width):
  """The text, or its beginning and an ellipsis; at least this."""
  return text if len(text) <= width else text[: max(width - 1, 0)] + '…'


@contextlib.contextmanager
def silence(*_):
  """Progress that nobody sees, with the interface of `progress`."""
  yield (lambda *_: None), (lambda *_: None)


def describe(record, num_epochs):
  """One evaluation in one line."""
  return (
    f'epoch {record["epoch"]:>{len(str(num_epochs))}}/{num_epochs}'
    f'  loss {record["train_loss"]:.4f}'
    f'  train {percent(record["train_accuracy"])}'
    f'  test {percent(record["test_accuracy"])}'
    f'  {duration(record["seconds"])}'
  )


def duration(seconds):
  """Seconds as a person would say them: 48 s, 3 min 5 s, 2 h 10 min."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 3600:
    return f'{seconds // 60} min {seconds % 60} s'
  return f'{seconds // 3600} h {seconds % 3600 // 60} min'


def print_summary(summary, workdir):
  """The closing table, and in a line what it means."""
  print()
  for name, value in _closing_rows(summary):
    print(f'  {name:<18}  {value}')
  text = conclusion(summary)
  dead = describe_dead(summary.get('dead_layers'))
  if sys.stdout.isatty():
    width = shutil.get_terminal_size().columns
    text, dead = textwrap.fill(text, width), textwrap.fill(dead, width)
  print('\n' + '\n'.join(filter(None, (text, dead, f'All of it is in {workdir}.'))))


def _closing_rows(summary):
  corruption = summary['corruption']
  if summary['labels_changed']:
    corruption += f': {summary["labels_changed"]:.1%} of labels changed'
  fit = summary['steps_to_fit']
  yield 'model', f'{summary["model"]}, {summary["num_params"]:,} parameters'
  yield 'data set', f'{summary["dataset"]}, {summary["num_train"]:,} training examples'
  yield 'corruption', corruption
  yield 'training accuracy', percent(summary['train_accuracy'])
  yield 'test accuracy', percent(summary['test_accuracy'])
  yield 'chance', f'{percent(summary["chance_accuracy"])}, {_guess(summary)}'
  gap = summary['generalization_gap']
  yield 'generalization gap', 'none' if gap is None else f'{100 * gap:.2f} points'
  yield 'best test accuracy', percent(summary['best_test_accuracy'])
  if fit is not None:
    yield 'steps to fit', f'{fit:,} (epoch {fit // summary["steps_per_epoch"]})'
  yield 'steps', f'{summary["steps"]:,} in {duration(summary["seconds"])}'
  if summary['examples_per_second'] is not None:
    speed = f'{summary["examples_per_second"]:,.0f} examples/s'
    yield 'speed', f'{speed} on {summary["device"]}, {summary["precision"]}'


def dead_layers(record):
  """{layer: share of its ReLU units that are dead} where that is more than half."""
  shares = {k.removeprefix('dead_units/'): v for k, v in record.items() if '/' in k}
  return {layer: share for layer, share in shares.items() if share > 0.5}


def describe_dead(layers):
  """A sentence on what `dead_layers` found, or ''."""
  if not layers:
    return ''
  return (
    f'Dead: {list_layers(layers)} (ReLU units that no training example activates, and that '
    'therefore no longer learn). Take a smaller config.optimizer.learning_rate or another '
    'config.model.initialization.'
  )


def list_layers(layers):
  """'59.38% of conv_2, 100.00% of linear_1' of {layer: share}."""
  return ', '.join(f'{percent(share)} of {layer}' for layer, share in layers.items())


def percent(fraction):
  """'99.98%'; what is not quite all is not rounded to 100.00%."""
  if fraction is None:
    return 'none'
  return f'{1 if fraction == 1 else min(fraction, 0.9999):.2%}'


def span(values):
  """'18.75 to 21.00', from the least to the greatest; '18.75' where that says it."""
  ends = [f'{end:.2f}' for end in (min(values), max(values))]
  return ' to '.join(dict.fromkeys(ends))


def conclusion(summary):
  """What the numbers say, and no more."""
  if summary['status'] == 'diverged':
    return (
      f'Diverged: the loss was no longer a finite number at step {summary["steps"]:,}. '
      'Take a smaller config.optimizer.learning_rate and another workdir.'
    )
  train, test = summary['train_accuracy'], summary['test_accuracy']
  chance = summary['chance_accuracy']
  if summary['corruption'] == 'random_labels' or summary.get('label_noise') == 1:
    fitted = 'every one' if train == 1 else percent(train)
    return (
      f'The labels are random, and the network has fitted {fitted} of them; on the test '
      f'set it is right in {percent(test)} of cases, and a uniform guess in '
      f'{percent(chance)}.'
    )
  if not _is_above_chance(summary):
    return (
      f'On the test set the network is right in {percent(test)} of cases, which is not '
      f'shown to be better than {_guess(summary)}, {percent(chance)}.'
    )
  if summary['corruption'] == 'none':
    return (
      'The labels are true, and what was learned from them carries over: the test '
      f'accuracy is {_points(test - chance)} chance ({_guess(summary)}) and '
      f'{_points(test - train)} the training accuracy.'
    )
  return (
    f'Despite the corruption ({summary["corruption"]}) the test accuracy is '
    f'{_points(test - chance)} chance ({_guess(summary)}).'
  )


def _guess(summary):
  """What chance is in a summary, in words; those of older runs have a uniform guess."""
  constant = summary.get('constant_accuracy')
  if constant is None or constant < summary['chance_accuracy']:
    return 'a uniform guess'
  return 'the most frequent class of the training labels'


def _is_above_chance(summary):
  """Whether the test accuracy is above that of both guesses, by tests at LEVEL.

  Which examples are right is not in a summary, so McNemar's test against the constant
  guess assumes the least overlap that the two accuracies allow.
  """
  count, constant = summary['num_test'], summary.get('constant_accuracy')
  right = round(summary['test_accuracy'] * count)
  chance = summary['chance_accuracy']
  p = significance.better_than_guessing(right, count, chance)
  if constant is not None:
    p = max(p, significance.better_than_at_most(right, round(constant * count), count))
  return p <= LEVEL


def _points(difference):
  """A difference of two fractions: '3.50 percentage points above'."""
  side = 'above' if difference >= 0 else 'below'
  return f'{abs(difference) * 100:.2f} percentage points {side}'
