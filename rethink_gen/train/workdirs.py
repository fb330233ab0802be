"""The folder of a run: who may write in it, and which run may go on there."""

import contextlib
import fcntl
import json
import os

from rethink_gen import config as config_lib
from rethink_gen import files, paths
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.train import checkpoint

DATA = 'data.json'  # which data the run is trained on; runs of older versions lack it


def read_summary(config, workdir):
  """The summary of the complete run of this config in this folder, or None."""
  check_workdir(config, workdir)
  if not (workdir / 'summary.json').exists():
    return None
  try:
    return json.loads((workdir / 'summary.json').read_text())
  except ValueError as error:
    raise BadInput(
      f'{workdir}/summary.json is damaged; delete it and the same command writes it.'
    ) from error


def occupy(config, workdir, stack):
  """Makes the folder this process's own until the stack unwinds."""
  make_folder(workdir, '--workdir')
  stack.enter_context(only_writer(workdir))
  version = _data_version(config)
  if version is not None:
    data = {'name': config.dataset.name, 'path': config.dataset.path, 'version': version}
    files.write_json(workdir / DATA, data)
  files.write_json(workdir / 'config.json', config.to_dict())


def make_folder(folder, flag):
  """Makes a folder that the flag names; raises BadInput where it cannot be made."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise BadInput(
      f'The folder {folder} cannot be made ({error.strerror}); choose another {flag}.'
    ) from error


@contextlib.contextmanager
def only_writer(workdir):
  """Raises BadInput when another process is at work in this folder."""
  descriptor = os.open(workdir, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until closed, or killed
  except BlockingIOError as error:
    os.close(descriptor)
    raise BadInput(
      f'Another process is at work in {workdir}; wait for it or choose another --workdir.'
    ) from error
  try:
    yield
  finally:
    os.close(descriptor)


def check_folder(workdir):
  """Raises BadInput unless this is, or can be made, a folder to write in."""
  checkpoint.check_folder(workdir)
  existing = next(path for path in (workdir, *workdir.parents) if path.exists())
  if not existing.is_dir():
    raise BadInput(
      f'The workdir {workdir} cannot be a folder because {existing} is a file; choose '
      'another --workdir.'
    )
  if not os.access(existing, os.W_OK):
    raise BadInput(f'The folder {existing} is not writable; choose another --workdir.')


def check_workdir(config, workdir):
  """Raises BadInput unless this config may start or go on in this folder."""
  check_folder(workdir)
  if (workdir / 'config.json').exists():
    try:
      stored = json.loads((workdir / 'config.json').read_text())
      different = config_lib.differences(config, _with_path(config, stored, workdir))
    except (ValueError, AttributeError) as error:  # not JSON, or not an object
      raise BadInput(
        f'{workdir}/config.json is damaged, so what ran there is unknown; choose another '
        '--workdir.'
      ) from error
    if different:
      raise BadInput(
        f'The folder {workdir} holds a run with another config ({"; ".join(different)}); '
        'choose another --workdir or the same config.'
      )
    check_data(config, workdir)
  elif any(
    (workdir / name).exists() for name in ('summary.json', 'metrics.jsonl', 'checkpoints')
  ):
    raise BadInput(
      f'The folder {workdir} holds parts of a run but no config.json; choose another '
      '--workdir.'
    )


def check_data(config, workdir):
  """Raises BadInput where this folder's run was trained on other data than are there now.

  Data that are not on this machine are not compared, nor those of a run that an older
  version of this package made, which did not write down what they were.
  """
  then, now = _read_data(workdir).get('version'), _data_version(config)
  if then is None or now is None or then == now:
    return
  name = config.dataset.path or config.dataset.name
  raise BadInput(
    f'The run in {workdir} was trained on other data than {name} holds now (version {then} '
    f'then, {now} now); give the data it was trained on, or choose another --workdir.'
  )


def _read_data(workdir):
  """What DATA says, {} where there is none."""
  path = workdir / DATA
  if not path.exists():
    return {}
  try:
    return dict(json.loads(path.read_bytes()))
  except (ValueError, TypeError) as error:
    raise BadInput(
      f'{path} is damaged, so what the run was trained on is unknown; choose another '
      '--workdir.'
    ) from error


def _data_version(config):
  data = config.dataset
  return sources.version(data.name, data.data_dir, data.path)


def _with_path(config, stored, workdir):
  """A stored config with the path of the data as the config spells it, if it is the same.

  The digest says what a file holds, wherever it lies. Without one its path must do.
  """
  data, path = stored.get('dataset', {}), config.dataset.path
  if not data.get('path') or not path:
    return stored
  same_file = os.path.realpath(paths.local(data['path'])) == os.path.realpath(
    paths.local(path)
  )
  if same_file or _read_data(workdir):
    return stored | {'dataset': data | {'path': path}}
  return stored
