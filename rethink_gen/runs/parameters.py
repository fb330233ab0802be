"""Exports the parameters of a run to a file for other programs."""

import io
import json
import os
import pathlib

import jax
import numpy as np

from rethink_gen import files as files_lib
from rethink_gen import paths
from rethink_gen.errors import BadInput
from rethink_gen.runs import opening


def export(run: opening.Run, path: str | os.PathLike) -> None:
  """Writes the parameters and running statistics of a `Run` to a new file.

  Args:
    run: a Run, from `open`.
    path: ends in .npz or .safetensors. Arrays are named like params/Dense_0/kernel and
      batch_stats/...; safetensors also gets the config and the step, as metadata.

  Raises:
    BadInput: the ending is another, the file exists, its folder or the package safetensors
      is missing, or the run has no checkpoint.
  """
  path = pathlib.Path(paths.local(path))
  if path.suffix not in WRITERS:
    raise BadInput(f'--export is {str(path)!r}, but it must end in .npz or .safetensors.')
  if path.exists():
    raise BadInput(f'{path} already exists; choose another --export or delete it.')
  if not path.parent.is_dir():
    raise BadInput(f'There is no folder {path.parent}; make it or choose another --export.')
  opening.check_has_params(run)
  tree = {'params': run.params, 'batch_stats': run.batch_stats}
  arrays = {
    jax.tree_util.keystr(keys, simple=True, separator='/'): np.asarray(leaf, order='C')
    for keys, leaf in jax.tree.leaves_with_path(tree)
  }
  files_lib.write_bytes(path, WRITERS[path.suffix](run, arrays))


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
      'Writing a .safetensors file needs the package safetensors: pip install '
      'safetensors, or export to .npz.'
    ) from None
  config = json.dumps(run.config.to_dict())
  return safetensors.save(arrays, {'step': str(run.step), 'config': config})


WRITERS = {'.npz': _npz, '.safetensors': _safetensors}
