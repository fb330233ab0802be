"""The runs that are there: a table that compares them, and one opened to look into.

  python -m rethink_gen.runs runs
  python -m rethink_gen.runs runs/quickstart --export=quickstart.npz
  python -m rethink_gen.runs runs/quickstart --export=quickstart.safetensors

The first lists the runs in a folder and below it, finished or not, with the fields of
their configs in which they differ. --export writes the parameters of one run, under names
such as params/Dense_0/kernel. In Python, `runs.table(folder)` is the same table and
`runs.open(folder)` one run, whatever machine it ran on.

Nothing here writes into the folder of a run.
"""

import collections
import functools
import io
import json
import os
import pathlib
import re
from typing import Any, NamedTuple

import flax
import jax
import numpy as np
import pandas as pd
import rich
import rich.text
from ml_collections import config_dict
from rich import box
from rich.measure import Measurement
from rich.table import Table

from rethink_gen import (
  checkpoint,
  command_line,
  examples,
  metrics,
  models,
  paths,
  programs,
  sgd,
  train,
  workdirs,
)
from rethink_gen import config as config_lib
from rethink_gen.data import preprocess, sources
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity

EXPORT = command_line.define_path(
  'export', None, 'A file that gets the parameters of the run, .npz or .safetensors.'
)
PARTS = ('summary.json', 'metrics.jsonl', 'losses.npy', 'checkpoints')
FIGURES = (
  *('status', 'epochs', 'train_accuracy', 'test_accuracy', 'generalization_gap'),
  *('steps_to_fit', 'seconds'),
)


class Run(NamedTuple):
  """A run as its folder has it; of one that is under way, as it was when it was opened.

  Attributes:
    folder: pathlib.Path.
    config: ConfigDict; where the data lies on this machine can be set in its
      dataset.data_dir and dataset.path.
    metrics: DataFrame, a row for every evaluation; empty before the first.
    losses: float32 (steps,), the mean loss of every batch; NaN where it was lost.
    summary: dict, as `train.summarize` gives it, or None while the run is not finished.
    step: of the checkpoint that the parameters are of; 0 where there is none.
    params: nested dicts of float32 arrays, or None before the first checkpoint.
    batch_stats: the same, running statistics of batch normalization, {} without it.
  """

  folder: pathlib.Path
  config: config_dict.ConfigDict
  metrics: pd.DataFrame
  losses: np.ndarray
  summary: dict | None
  step: int
  params: Any
  batch_stats: Any

  def __repr__(self):
    status = self.summary['status'] if self.summary else 'unfinished'
    return f'Run({str(self.folder)!r}, step {self.step:,}, {status})'

  @property
  def num_classes(self):
    _check_has_params(self)
    layers = sum(bool(re.fullmatch(r'Dense_\d+', name)) for name in self.params)
    return len(self.params[f'Dense_{layers - 1}']['bias'])

  def dataset(self):
    """The data as they were learned, corrupted: a Dataset, or a streaming.Source.

    Raises:
      BadInput: where the data are not on this machine, or others are there now;
        `config.dataset` says where.
    """
    workdirs.check_data(self.config, self.folder)
    return train.load(self.config)[0]

  @property
  def examples(self):
    """What became of every training example: a DataFrame, or None where not recorded.

    Its columns are those of `rethink_gen.examples.summarize`, and `label`, the label that
    was learned, where the data are on this machine. Read from the disk each time.

    Raises:
      BadInput: where examples.npz is damaged, or not of these data.
    """
    found = examples.read(self.folder)
    if found is None:
      return None
    frame = pd.DataFrame(found)
    try:
      labels = self.dataset().y_train
    except BadInput:
      return frame
    if len(labels) != len(frame):
      reason = f'it has {len(frame):,} examples, the data {len(labels):,}'
      raise _damaged(self.folder / examples.EXAMPLES, reason)
    return frame.assign(label=labels)

  def initial_params(self):
    """The parameters before the first step, made anew from the seed as training does.

    Raises:
      BadInput: before the first checkpoint, or where the size of the images is only known
        from data that are not on this machine.
    """
    model = models.create(self.config, self.num_classes)
    *height_width, channels = self._image_shape()
    crop_shape = preprocess.crop_shape(*height_width, self.config.dataset.crop_size)
    transformation = sgd.optimizer(self.config, sgd.rates(self.config))
    initialise = sgd.make_initialise(
      model, transformation, (*crop_shape, channels), steps_per_epoch=1
    )
    with programs.matmul_precision(self.config):
      return jax.device_get(initialise(jax.random.key(self.config.seed)).params)

  def _image_shape(self):
    """(h, w, c) of the images as stored, or as streamed."""
    data = self.config.dataset
    if data.streaming:
      return data.crop_size, data.crop_size, 3
    if data.name in sources.SIZES:
      return sources.SIZES[data.name][2]
    return self.dataset().x_train.shape[1:]

  def predict(self, images):
    """Logits of images, float32 (n, classes), as evaluation while training computes them.

    Args:
      images: uint8 (n, h, w, c), or float32 on the same scale, of the size that the data
        set has; of a data set that is streamed, of that of the network's input.

    Raises:
      BadInput: before the first checkpoint, or for images of another kind or size.
    """
    num_classes, images = self.num_classes, np.asarray(images)
    fits = images.ndim == 4 and len(images) and images.dtype in (np.uint8, np.float32)
    sentence = (
      f'The images have the shape {images.shape} and are {images.dtype}, but they must be '
      f'uint8 (n, h, w, c), in the size of those that {self.folder} was trained on.'
    )
    if not fits:
      raise BadInput(sentence)
    try:
      return complexity.predict(
        self.config, num_classes, self.params, self.batch_stats, images
      )
    except (TypeError, ValueError, flax.errors.FlaxError) as error:  # of shapes
      raise BadInput(sentence) from error


def open(folder):
  """One run, of which nothing is changed: the `Run` in a folder.

  A newest checkpoint that is damaged is left as it is, with a warning, and the one before
  it is read.

  Raises:
    BadInput: when there is no run in the folder, or a part of it is damaged.
  """
  folder = pathlib.Path(paths.local(folder))
  config = _read_config(folder)
  records, losses, summary = _read_records(folder), _read_losses(folder), _summary(folder)

  def complete(fields):
    transformation = sgd.optimizer(config, sgd.rates(config))
    optimizer_state = jax.eval_shape(transformation.init, fields['params'])
    return sgd.State(**fields | {'opt_state': optimizer_state})

  state = checkpoint.look(folder, complete)
  step, params, batch_stats = 0, None, None
  if state is not None:
    step, params, batch_stats = int(state.step), state.params, state.batch_stats
  return Run(
    folder, config, pd.DataFrame(records), losses, summary, step, params, batch_stats
  )


def _read_config(folder):
  """The ConfigDict of the run in a folder; fields that came later have their defaults."""
  if not (folder / 'config.json').is_file():
    raise BadInput(
      f'{folder} is not the folder of a run: it has no config.json; give one that '
      'rethink_gen.main or rethink_gen.reproduce has made.'
    )
  stored = _read_json(folder / 'config.json')
  if not _is_training(stored):
    raise BadInput(
      f'{folder}/config.json is not that of a training run; give a folder that '
      'rethink_gen.main has made.'
    )
  config = config_lib.default()
  unknown = config_lib.flatten(stored).keys() - config_lib.flatten(config).keys()
  if unknown:
    raise BadInput(
      f'{folder}/config.json has fields that this version of rethink_gen does not know '
      f'({", ".join(sorted(unknown))}); take the version that made the run.'
    )
  try:
    config.update_from_flattened_dict(config_lib.BEFORE | config_lib.flatten(stored))
  except (TypeError, ValueError) as error:
    raise _damaged(folder / 'config.json', error) from None
  return config


def _read_json(path):
  """The object in a JSON file; raises BadInput where it is none."""
  try:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
      raise ValueError('it is not an object')
  except ValueError as error:  # of JSON or of Unicode
    raise _damaged(path, error) from None
  return content


def _is_training(stored):
  """Whether a config.json is of training, and not of what an artefact computes itself."""
  return all(isinstance(stored.get(part), dict) for part in ('model', 'optimizer'))


def _damaged(path, error):
  reason = ' '.join(str(error).split())[:100]
  return BadInput(f'{path} is damaged ({reason}); copy the run anew from where it ran.')


def _read_records(folder):
  path = folder / 'metrics.jsonl'
  try:
    records = metrics.read_records(folder)
  except ValueError as error:  # not text
    raise _damaged(path, error) from None
  if not all(isinstance(record, dict) and 'step' in record for record in records):
    raise _damaged(path, 'a line is not that of an evaluation')
  return records


def _read_losses(folder):
  path = folder / 'losses.npy'
  if not path.exists():
    return np.zeros(0, np.float32)
  try:
    return np.load(path, allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise _damaged(path, error) from None


def _summary(folder):
  path = folder / 'summary.json'
  if not path.exists():
    return None
  summary = _read_json(path)
  if 'status' not in summary:
    raise _damaged(path, 'it has no status')
  return summary


def table(folder):
  """The runs in a folder and below it, compared: a DataFrame with a row for each.

  Its index is the path of a run in the folder. Its columns are the fields of the configs
  that differ, such as 'optimizer.learning_rate', then status (complete, diverged,
  unfinished, damaged), epochs, train_accuracy, test_accuracy, generalization_gap (all
  fractions, of the last evaluation), steps_to_fit and seconds. Checkpoints are not read.

  Raises:
    BadInput: when there is no folder, or no run in it.
  """
  return _table(folder)[0]


def _table(folder):
  """(the DataFrame of `table`, {run: a sentence} of those that are damaged)."""
  folder = pathlib.Path(paths.local(folder))
  configs, rows, damaged = {}, {}, {}
  for path in _find(folder):
    name = str(path.relative_to(folder)) if path != folder else path.resolve().name
    try:
      configs[name] = config_lib.flatten(_read_config(path))
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
  """That of a column: a whole number stays one where other runs have none."""
  kinds = {type(value) for value in values if value is not None}
  if kinds == {int}:
    return 'Int64'
  return 'float64' if kinds and kinds <= {int, float} else object


def _find(folder):
  """The folders of runs, in order; what lies in the folder of a run is part of it.

  An audit's runs are of a model that is not of this package, and are passed over. Links are
  followed; a run that several paths lead to is listed once, by the one without a link.
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
  """os.walk through links too, each folder once; links come after all that is no link."""
  seen, starts = set(), [folder]
  for start in starts:  # which grows meanwhile
    for path, folders, files in os.walk(start):
      path = pathlib.Path(path)
      if path.resolve() in seen:
        folders.clear()
        continue
      seen.add(path.resolve())
      yield path, folders, files
      starts += sorted(path / name for name in folders if (path / name).is_symlink())


def _is_run(path):
  """Whether there is a run, damaged or not, in a folder that has some file of one."""
  if not (path / 'config.json').exists():
    return (path / 'checkpoints').exists() or (path / 'metrics.jsonl').exists()
  try:
    return _is_training(_read_json(path / 'config.json'))
  except BadInput:
    return any((path / part).exists() for part in PARTS)


def _figures(folder):
  """{column of FIGURES: value} of a run."""
  records, summary = _read_records(folder), _summary(folder)
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


def print_table(frame, damaged, console):
  """The table for a terminal, and a line for each damaged run.

  Where it is too narrow for a column for each field that differs, those that are not at
  their defaults stand under the name of the run.
  """
  labels = _labels(column for column in frame if column not in FIGURES)
  wide = _columns(frame, labels)
  options = console.options.update(max_width=10_000)
  fits = Measurement.get(console, options, wide).maximum <= console.width
  console.print(wide if fits else _columns(_with_changes(frame, labels), {}))
  for name, sentence in damaged.items():
    console.print(f'{name}: {sentence}', highlight=False, markup=False, soft_wrap=True)


def _labels(fields):
  """{field: its last word, or the whole of it where other fields end in that word}."""
  words = {
    field: field.removesuffix('.name').split('.')[-1]
    for field in config_lib.flatten(config_lib.default())
  }
  count = collections.Counter(words.values())
  return {field: words[field] if count[words[field]] == 1 else field for field in fields}


def _with_changes(frame, labels):
  """The frame with what is not at its default in the names of the runs."""
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
  """A rich Table of the frame, with a column for each of {field: label}."""
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
    yield '' if pd.isna(row[name]) else metrics.percent(row[name])
  yield '' if pd.isna(row.steps_to_fit) else f'{row.steps_to_fit:,}'
  yield '' if pd.isna(row.seconds) else metrics.duration(row.seconds)


def export(run, path):
  """Writes the parameters and running statistics of a `Run` into a new file.

  Args:
    run: as `open` gives it.
    path: ends in .npz or .safetensors. The arrays are called as params/Dense_0/kernel and
      batch_stats/...; safetensors also gets the config and the step, as metadata.

  Raises:
    BadInput: for another ending, a file that is there, or a run without a checkpoint.
  """
  path = pathlib.Path(paths.local(path))
  if path.suffix not in WRITERS:
    raise BadInput(f'--export is {str(path)!r}, but it must end in .npz or .safetensors.')
  if path.exists():
    raise BadInput(f'{path} is there already; choose another --export or delete it.')
  if not path.parent.is_dir():
    raise BadInput(f'There is no folder {path.parent}; make it or choose another --export.')
  _check_has_params(run)
  tree = {'params': run.params, 'batch_stats': run.batch_stats}
  arrays = {
    jax.tree_util.keystr(keys, simple=True, separator='/'): np.asarray(leaf, order='C')
    for keys, leaf in jax.tree.leaves_with_path(tree)
  }
  metrics.write_bytes(path, WRITERS[path.suffix](run, arrays))


def _check_has_params(run):
  if run.params is None:
    raise BadInput(
      f'The run in {run.folder} has no checkpoint, so its parameters are not known; it '
      'stopped before the first one, or was copied without it.'
    )


def _npz(run, arrays):
  del run
  content = io.BytesIO()
  np.savez(content, **arrays)
  return content.getvalue()


def _safetensors(run, arrays):
  try:
    from safetensors import numpy as safetensors
  except ImportError:
    raise BadInput(
      'For a .safetensors file the package safetensors must be there: pip install '
      'safetensors, or export to .npz.'
    ) from None
  config = json.dumps(run.config.to_dict())
  return safetensors.save(arrays, {'step': str(run.step), 'config': config})


WRITERS = {'.npz': _npz, '.safetensors': _safetensors}


def main(argv):
  command_line.prepare()
  if EXPORT.value is None:
    command_line.call(list_runs, argv[1])
  else:
    command_line.call(functools.partial(export_run, path=EXPORT.value), argv[1])


def list_runs(folder):
  print_table(*_table(folder), rich.get_console())


def export_run(folder, path):
  run = open(folder)
  export(run, path)
  print(f'The parameters of step {run.step:,} are in {path}.')


def parse(argv):
  """absl's flags and the folder from the command line, every fault in one sentence."""
  rest = command_line.parse_flags(argv)
  if len(rest) != 2:
    command_line.refuse(
      'Give one folder, as in python -m rethink_gen.runs runs; --help shows what there is.'
    )
  return rest


if __name__ == '__main__':
  command_line.run(main, parse)
