"""Atomic writing of files."""

import json
import math
import os
import pathlib


def write_json(path: str | os.PathLike, content: dict) -> None:
  """Writes a JSON file whole or not at all; non-finite numbers become null."""
  write_bytes(path, (json.dumps(replace_nonfinite(content), indent=2) + '\n').encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
  """Writes a file whole or not at all."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)  # exists only if something above failed


def replace_nonfinite(content):
  """Replaces floats that JSON cannot represent with None, in nested dicts."""
  if isinstance(content, dict):
    return {key: replace_nonfinite(value) for key, value in content.items()}
  if isinstance(content, float) and not math.isfinite(content):
    return None
  return content
