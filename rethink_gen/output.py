"""Standard output for programs: it may be closed, unread, on a full disk, or not UTF-8."""

import codecs
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from absl import app

# Replacements for characters that the terminal's encoding lacks; others become '?'.
SPELLED = {
  **{'\u2013': '-', '\u2026': '...', '\u00d7': 'x', '\u00b1': '+-', '\u2265': '>='},
  **{'\u03bb': 'lambda', '\u03b1': 'alpha', '\u00b2': '^2', '\u1d40': '^T'},
  **{'\u27e8': '<', '\u27e9': '>', '\u2019': "'"},
}


def _spell(error):
  """Handles an encoding error so that everything can be printed."""
  characters = error.object[error.start : error.end]
  if all('\udc80' <= c <= '\udcff' for c in characters):  # raw bytes of a path
    return characters.encode('ascii', 'surrogateescape'), error.end
  return ''.join(SPELLED.get(c, '?') for c in characters), error.end


codecs.register_error('rethink_gen.spell', _spell)


class _Output(io.FileIO):
  """Standard output that ends the program if it cannot be written."""

  def write(self, content):
    try:
      return super().write(content)
    except OSError as error:
      # Python tries to write the rest again at exit.
      os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
      # SystemExit passes through every `except Exception` on the way out.
      if isinstance(error, BrokenPipeError):  # as after `| head -1`
        raise SystemExit(128 + signal.SIGPIPE) from None
      say(f'error: standard output cannot be written ({error.strerror}); redirect it.')
      raise SystemExit(2) from None


def open_streams() -> None:
  """Makes standard output and standard error safe to print to.

  A stream that was closed before the start becomes os.devnull. Otherwise a failed write to
  standard output ends the program: with 141, as SIGPIPE would, if its reader is gone, else
  with 2 and a one-sentence message. Characters that the encoding lacks are replaced as in
  SPELLED.
  """
  if sys.stderr is None:
    sys.stderr = open(os.devnull, 'w', errors='replace')
  if sys.stdout is None:
    sys.stdout = open(os.devnull, 'w', errors='replace')
    return
  before: Any = sys.stdout  # a TextIOWrapper, or what a test has put in its place
  before.flush()
  sys.stdout = io.TextIOWrapper(
    io.BufferedWriter(_Output(before.fileno(), 'w', closefd=False)),
    before.encoding,
    'rethink_gen.spell',
    line_buffering=before.line_buffering or before.write_through,
  )


def run(main: Callable, parse: Callable) -> None:
  """absl's `app.run` after `open_streams`; flushes standard output at the end.

  Args:
    main: main(argv), with the arguments that `parse` returns.
    parse: parse(argv) -> remaining argv; exits if the flags are invalid.
  """
  open_streams()
  try:
    app.run(main, flags_parser=parse)
  finally:
    sys.stdout.flush()


def say(sentence: str) -> None:
  """Prints the sentence to standard error, if that can be written."""
  with contextlib.suppress(OSError):
    print(sentence, file=sys.stderr, flush=True)
