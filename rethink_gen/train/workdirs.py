"""The folder of a run: who may write to it, and which run may resume in it."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator

from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import files, paths
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.train import checkpoint

DATA = 'data.json'  # the data that the run is trained on; missing in older runs


def read_summary(config: config_dict.ConfigDict, workdir: pathlib.Path) -> dict | None:
  """The summary of this config's run in this folder, or None if it is not complete."""
  check_workdir(config, workdir)
  if not (workdir / 'summary.json').exists():
    return None
  try:
    return json.loads((workdir / 'summary.json').read_text())
  except ValueError as error:
    raise BadInput(
      f'{workdir}/summary.json is damaged; delete it and rerun the command to rewrite it.'
    ) from error


def occupy(
  config: config_dict.ConfigDict, workdir: pathlib.Path, stack: contextlib.ExitStack
) -> None:
  """Creates the folder, locks it until the stack unwinds, and writes config and data."""
  make_folder(workdir, '--workdir')
  stack.enter_context(only_writer(workdir))
  version = _data_version(config)
  if version is not None:
    data = {'name': config.dataset.name, 'path': config.dataset.path, 'version': version}
    files.write_json(workdir / DATA, data)
  files.write_json(workdir / 'config.json', config.to_dict())


def make_folder(folder: pathlib.Path, flag: str) -> None:
  """Creates the folder given by a flag; raises BadInput if that fails."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise BadInput(
      f'The folder {folder} cannot be created ({error.strerror}); choose another {flag}.'
    ) from error


@contextlib.contextmanager
def only_writer(workdir: pathlib.Path) -> Iterator[None]:
  """Locks the folder; raises BadInput if another process is using it."""
  descriptor = os.open(workdir, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until closed or killed
  except BlockingIOError as error:
    os.close(descriptor)
    raise BadInput(
      f'Another process is using {workdir}; wait for it or choose another --workdir.'
    ) from error
  try:
    yield
  finally:
    os.close(descriptor)


def check_folder(workdir: pathlib.Path) -> None:
  """Raises BadInput unless this is a writable folder, or could become one."""
  checkpoint.check_folder(workdir)
  existing = next(path for path in (workdir, *workdir.parents) if path.exists())
  if not existing.is_dir():
    raise BadInput(
      f'The workdir {workdir} cannot be a folder because {existing} is a file; choose '
      'another --workdir.'
    )
  if not os.access(existing, os.W_OK):
    raise BadInput(f'The folder {existing} is not writable; choose another --workdir.')


def check_workdir(config: config_dict.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises BadInput unless this config may start or resume in this folder."""
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


def check_data(config: config_dict.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises BadInput if this folder's run was trained on different data than there are now.

  Nothing is compared if the data are not on this machine, or if the run comes from an older
  version of this package, which did not record the version of its data.
  """
  then, now = _read_data(workdir).get('version'), _data_version(config)
  if then is None or now is None or then == now:
    return
  name = config.dataset.path or config.dataset.name
  raise BadInput(
    f'The run in {workdir} was trained on different data than {name} holds now (version '
    f'{then} then, {now} now); provide the old data, or choose another --workdir.'
  )


def _read_data(workdir):
  """The contents of DATA, {} if the file does not exist."""
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
  """The stored config, with the path of its data as `config` spells it if it is the same.

  The digest in DATA identifies a file's contents wherever it is stored; without one, the
  paths must match.
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
