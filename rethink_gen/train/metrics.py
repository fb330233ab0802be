"""The files in which a run records its course, and reading them back.

metrics.jsonl has one line per evaluation, log.jsonl one per start, restore, save or stop,
losses.npy and accuracies.npy one value per step; tensorboard/ repeats the evaluations.
"""

import contextlib
import datetime
import io
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from rethink_gen import files
from rethink_gen.text import format_duration, format_percent


def append_record(workdir: str | os.PathLike, record: dict) -> None:
  """Appends an evaluation to metrics.jsonl; it is on disk when this returns."""
  with open(pathlib.Path(workdir) / 'metrics.jsonl', 'a') as file:
    file.write(json.dumps(files.replace_nonfinite(record)) + '\n')
    file.flush()
    os.fsync(file.fileno())


def log_event(workdir: str | os.PathLike, event: str, step: int, **details) -> None:
  """Appends a line to log.jsonl: a start, restore, save or stop, with the time in UTC."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  line = {'time': now, 'event': event, 'step': step, **details}
  with open(pathlib.Path(workdir) / 'log.jsonl', 'a') as file:
    file.write(json.dumps(line) + '\n')


def resume_records(workdir: str | os.PathLike, step: int) -> list[dict]:
  """The records up to a step; deletes later ones and an incomplete last line."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  kept = [record for record in read_records(workdir) if record['step'] <= step]
  kept_text = ''.join(json.dumps(record) + '\n' for record in kept)
  if path.exists() and kept_text != path.read_text():
    files.write_bytes(path, kept_text.encode())
  return kept


def read_records(workdir: str | os.PathLike) -> list[dict]:
  """The evaluations of a run, one dict each; empty before the first."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  records = []
  for line in path.read_text().splitlines() if path.exists() else ():
    with contextlib.suppress(json.JSONDecodeError):  # an incomplete last line
      records.append(json.loads(line))
  return records


# Recorded for every training batch, float32 (steps,): its mean loss, and the fraction of
# its examples classified correctly.
OF_STEPS = ('losses', 'accuracies')


def write_steps(workdir: str | os.PathLike, name: str, values: np.ndarray) -> None:
  """Writes NAME.npy, float32 (steps,), for a name in OF_STEPS."""
  content = io.BytesIO()
  np.save(content, values)
  files.write_bytes(pathlib.Path(workdir) / f'{name}.npy', content.getvalue())


def read_steps(workdir: str | os.PathLike, name: str) -> np.ndarray:
  """Reads what `write_steps` wrote last; empty if that cannot be read."""
  try:
    return np.load(pathlib.Path(workdir) / f'{name}.npy')
  except (OSError, ValueError, EOFError):
    return np.zeros(0, np.float32)


@contextlib.contextmanager
def tensorboard(workdir: str | os.PathLike, step: int) -> Iterator[Callable]:
  """Yields write(record), and hides what an interrupted run wrote after `step`."""
  # Slow to import if PyTorch is installed, because it imports that too.
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

  # TensorBoard drops the events of older files from this step on.
  start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
  add(step=step + 1, session_log=start)
  try:
    yield write
  finally:
    writer.close()


def format_record(record: dict, num_epochs: int) -> str:
  """Formats an evaluation as one line."""
  return (
    f'epoch {record["epoch"]:>{len(str(num_epochs))}}/{num_epochs}'
    f'  loss {record["train_loss"]:.4f}'
    f'  train {format_percent(record["train_accuracy"])}'
    f'  test {format_percent(record["test_accuracy"])}'
    f'  {format_duration(record["seconds"])}'
  )


def dead_layers(record: dict) -> dict[str, float]:
  """{layer: fraction of its ReLU units that are dead}, for layers with more than half."""
  shares = {k.removeprefix('dead_units/'): v for k, v in record.items() if '/' in k}
  return {layer: share for layer, share in shares.items() if share > 0.5}
