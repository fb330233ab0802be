"""Paths given by the user: one rule for every flag, field, argument and variable."""

import os
import pathlib
import re

from rethink_gen.errors import BadInput


def local(path: str | os.PathLike) -> str:
  """The path as text, with ~ and ~user replaced by the home folder.

  Raises:
    BadInput: for an empty path, an address such as gs://bucket/run, and an unknown home
      folder.
  """
  text = os.fspath(path)
  if not text:
    raise BadInput('a path is empty; give one, or omit it for the default')
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', text):
    raise BadInput(
      f'{text} is an address, but only folders and files on this machine can be used; '
      'mount the storage (on TPU VMs a Filestore share, or a bucket with gcsfuse) and give '
      'the path where it is mounted'
    )
  if not text.startswith('~'):
    return text
  expanded = os.path.expanduser(text)
  if expanded == text or (text[1:2] in ('', '/') and os.environ.get('HOME') == ''):
    raise BadInput(
      f'the home folder in {text} cannot be determined; set HOME, or give the full path'
    )
  return expanded


def cache_folder() -> pathlib.Path:
  """The folder that keeps decoded data and compiled programs between runs."""
  own = os.environ.get('RETHINK_GEN_CACHE')
  shared = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  try:
    return pathlib.Path(local(own or os.path.join(shared, 'rethink_gen')))
  except BadInput as error:
    raise BadInput(
      f'there is no folder for compiled programs: {error}, or set '
      'RETHINK_GEN_CACHE to a folder'
    ) from None
