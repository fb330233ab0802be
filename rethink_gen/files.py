"""Files written whole or not at all."""

import json
import math
import os
import pathlib


def write_json(path, content):
  """Writes the file whole or not at all; numbers that are not finite become null."""
  write_bytes(path, (json.dumps(replace_nonfinite(content), indent=2) + '\n').encode())


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


def replace_nonfinite(content):
  """The same, with None for every float that JSON has no word for."""
  if isinstance(content, dict):
    return {key: replace_nonfinite(value) for key, value in content.items()}
  if isinstance(content, float) and not math.isfinite(content):
    return None
  return content
