"""The folder of an audit, which records its model, data and labels."""

import hashlib
import json
import os
import pathlib
import uuid

import numpy as np

from rethink_gen import config as config_lib
from rethink_gen import files
from rethink_gen.audit.adapters import Learner
from rethink_gen.data.sources import Dataset
from rethink_gen.errors import BadInput
from rethink_gen.train import workdirs


def open_folder(
  workdir: str | os.PathLike | None, learner: Learner, dataset: Dataset, random_labels: str
) -> pathlib.Path:
  """Opens or creates the folder of an audit; raises BadInput if it holds another audit."""
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
      'determined; choose another workdir, where everything is run again.'
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
  files.write_json(file, {'model': learner.name, 'digests': parts})
  return workdir


def _read_parts(file):
  """The digests from `identify` in a folder's audit.json; {} if they cannot be read."""
  try:
    return dict(json.loads(file.read_text())['digests'])
  except (OSError, ValueError, KeyError, TypeError):
    return {}


def identify(
  learner: Learner, dataset: Dataset, random_labels: str
) -> dict[str, str | None]:
  """{part: digest} of what determines the runs of an audit; None for unknown parts."""
  data = hashlib.blake2b(digest_size=8)
  for array in dataset[:4]:
    data.update(f'{array.dtype} {array.shape}'.encode())
    data.update(np.ascontiguousarray(array).data)
  fields = config_lib.changes(learner.config)
  own = {f: v for f, v in fields.items() if not f.startswith(('dataset.', 'corruption.'))}
  own |= {f: v for f, v in fields.items() if f == 'dataset.crop_size'}
  training = json.dumps(own, sort_keys=True) if learner.program else ''
  model = learner.digest and _blake2b(learner.digest, training)
  return {'model': model, 'data': data.hexdigest(), 'labels': random_labels}


def _blake2b(*texts):
  return hashlib.blake2b('\0'.join(texts).encode(), digest_size=8).hexdigest()
