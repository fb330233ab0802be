"""Compares the runs in a folder in a table.

Reads each run's config.json, metrics.jsonl and summary.json. A damaged run gets a row with
that status instead of ending the comparison.
"""

import collections
import os
import pathlib

import pandas as pd
import rich
import rich.text
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from rethink_gen import config as config_lib
from rethink_gen import paths
from rethink_gen.errors import BadInput
from rethink_gen.runs import opening
from rethink_gen.text import format_duration, format_percent

PARTS = ('summary.json', 'metrics.jsonl', 'losses.npy', 'checkpoints')
FIGURES = (
  *('status', 'epochs', 'train_accuracy', 'test_accuracy', 'generalization_gap'),
  *('steps_to_fit', 'seconds'),
)


def table(folder: str | os.PathLike) -> pd.DataFrame:
  """Compares the runs in and below a folder: a DataFrame with one row per run.

  Its index is the path of a run in the folder. Its columns are the config fields that
  differ, such as 'optimizer.learning_rate', then status (complete, diverged, unfinished,
  damaged), epochs, train_accuracy, test_accuracy, generalization_gap (all fractions, from
  the last evaluation), steps_to_fit and seconds. Checkpoints are not read.

  Raises:
    BadInput: there is no such folder, or no run in it.
  """
  return make_table(folder)[0]


def make_table(folder: str | os.PathLike) -> tuple[pd.DataFrame, dict[str, str]]:
  """(the DataFrame of `table`, {run: a sentence} for the damaged ones)."""
  folder = pathlib.Path(paths.local(folder))
  configs, rows, damaged = {}, {}, {}
  for path in _find(folder):
    name = str(path.relative_to(folder)) if path != folder else path.resolve().name
    try:
      configs[name] = config_lib.flatten(opening.read_config(path))
      rows[name] = _figures(path)
    except BadInput as error:
      configs.pop(name, None)
      rows[name], damaged[name] = {'status': 'damaged'}, str(error)
  if not rows:
    raise BadInput(
      f'There is no run in {folder}; give the folder of a run, or one that holds runs.'
    )
  differing = [
    field
    for field in config_lib.flatten(config_lib.default())
    if field not in config_lib.WITHOUT_EFFECT
    and len({config[field] for config in configs.values()}) > 1
  ]
  values = {
    field: [configs.get(name, {}).get(field) for name in rows] for field in differing
  } | {column: [row.get(column) for row in rows.values()] for column in FIGURES}
  columns = {name: pd.array(column, _type(column)) for name, column in values.items()}
  return pd.DataFrame(columns, pd.Index(rows, name='run')), damaged


def _type(values):
  """The dtype of a column; integers stay integers if other runs have no value."""
  kinds = {type(value) for value in values if value is not None}
  if kinds == {int}:
    return 'Int64'
  return 'float64' if kinds and kinds <= {int, float} else object


def _find(folder):
  """The folders of runs, sorted; anything inside the folder of a run is part of it.

  Runs of audits are skipped, because their models are not this package's. Links are
  followed; a run that several paths lead to is listed once, by the path without a link.
  """
  if not folder.is_dir():
    raise BadInput(f'There is no folder {folder}; give one that holds runs.')
  found = []
  for path, folders, files in _walk(folder):
    if 'audit.json' in files:
      folders.clear()
    elif any((path / part).exists() for part in PARTS) or 'config.json' in files:
      folders.clear()
      if _is_run(path):
        found.append(path)
  return sorted(found)


def _walk(folder):
  """os.walk that also follows links, after everything else, and visits a folder once."""
  seen, starts = set(), [folder]
  for start in starts:  # grows during the loop
    for path, folders, files in os.walk(start):
      path = pathlib.Path(path)
      if path.resolve() in seen:
        folders.clear()
        continue
      seen.add(path.resolve())
      yield path, folders, files
      starts += sorted(path / name for name in folders if (path / name).is_symlink())


def _is_run(path):
  """Whether a folder with some of a run's files holds a run, damaged or not."""
  if not (path / 'config.json').exists():
    return (path / 'checkpoints').exists() or (path / 'metrics.jsonl').exists()
  try:
    return opening.is_training(opening.read_json(path / 'config.json'))
  except BadInput:
    return any((path / part).exists() for part in PARTS)


def _figures(folder):
  """{column of FIGURES: value} for a run."""
  records, summary = opening.read_records(folder), opening.read_summary(folder)
  if summary:
    return {name: summary.get(name) for name in FIGURES}
  last = records[-1] if records else {}
  train_accuracy, test_accuracy = last.get('train_accuracy'), last.get('test_accuracy')
  return {
    'status': 'unfinished',
    'epochs': last.get('epoch', 0),
    'train_accuracy': train_accuracy,
    'test_accuracy': test_accuracy,
    'generalization_gap': train_accuracy - test_accuracy if records else None,
    'seconds': last.get('seconds'),
  }


def print_table(frame: pd.DataFrame, damaged: dict[str, str], console: Console) -> None:
  """Prints the table to a terminal, and a line for each damaged run.

  If the terminal is too narrow for one column per differing field, those that are not at
  their defaults are listed under the name of the run instead.
  """
  labels = _labels(column for column in frame if column not in FIGURES)
  wide = _columns(frame, labels)
  options = console.options.update(max_width=10_000)
  fits = Measurement.get(console, options, wide).maximum <= console.width
  console.print(wide if fits else _columns(_with_changes(frame, labels), {}))
  for name, sentence in damaged.items():
    console.print(f'{name}: {sentence}', highlight=False, markup=False, soft_wrap=True)


def _labels(fields):
  """{field: its last word, or its full name if other fields end in that word}."""
  words = {
    field: field.removesuffix('.name').split('.')[-1]
    for field in config_lib.flatten(config_lib.default())
  }
  count = collections.Counter(words.values())
  return {field: words[field] if count[words[field]] == 1 else field for field in fields}


def _with_changes(frame, labels):
  """The frame, with the fields that are not at their defaults in the names of the runs."""
  defaults = config_lib.flatten(config_lib.default())
  names = []
  for name, row in frame.astype(object).iterrows():
    changes = [
      f'{label}={row[field]}'
      for field, label in labels.items()
      if not pd.isna(row[field]) and row[field] != defaults[field]
    ]
    names.append('\n'.join(filter(None, (name, ' '.join(changes)))))
  return frame.set_index(pd.Index(names))


def _columns(frame, labels):
  """A rich Table of the frame, with one column for each of {field: label}."""
  padding = (0, 1, 0, 0) if labels else 0
  grid = Table(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
  grid.add_column('run', overflow='fold')
  for label in labels.values():
    grid.add_column(label.replace('_', '\n'), no_wrap=True)
  grid.add_column('status', no_wrap=True)
  for header in ('train', 'test', 'gap', 'steps\nto fit', 'time'):
    grid.add_column(header, justify='right', no_wrap=True)
  for name, row in frame.astype(object).iterrows():
    values = ['' if pd.isna(row[field]) else str(row[field]) for field in labels]
    grid.add_row(*map(rich.text.Text, (name, *values, *_cells(row))))
  return grid


def _cells(row):
  yield f'epoch {row.epochs}' if row.status == 'unfinished' else row.status
  for name in ('train_accuracy', 'test_accuracy', 'generalization_gap'):
    yield '' if pd.isna(row[name]) else format_percent(row[name])
  yield '' if pd.isna(row.steps_to_fit) else f'{row.steps_to_fit:,}'
  yield '' if pd.isna(row.seconds) else format_duration(row.seconds)
