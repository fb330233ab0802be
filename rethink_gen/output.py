"""Standard output of the programs, which may be closed, unread, full, or not UTF-8."""

import codecs
import contextlib
import io
import os
import signal
import sys

from absl import app

# What characters become where the encoding of the terminal lacks them; others become '?'.
SPELLED = {
  **{'\u2013': '-', '\u2026': '...', '\u00d7': 'x', '\u00b1': '+-', '\u2265': '>='},
  **{'\u03bb': 'lambda', '\u03b1': 'alpha', '\u00b2': '^2', '\u1d40': '^T'},
  **{'\u27e8': '<', '\u27e9': '>', '\u2019': "'"},
}


def _spell(error):
  """Handles an encoding error so that everything can be printed."""
  characters = error.object[error.start : error.end]
  if all('\udc80' <= c <= '\udcff' for c in characters):  # bytes of a path, as they were
    return characters.encode('ascii', 'surrogateescape'), error.end
  return ''.join(SPELLED.get(c, '?') for c in characters), error.end


codecs.register_error('rethink_gen.spell', _spell)


class _Output(io.FileIO):
  """Standard output, which ends the program where it cannot be written."""

  def write(self, content):
    try:
      return super().write(content)
    except OSError as error:
      # Python writes what is left once more as it ends.
      os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
      # SystemExit passes every `except Exception` between here and the end.
      if isinstance(error, BrokenPipeError):  # as after `| head -1`
        raise SystemExit(128 + signal.SIGPIPE) from None
      say(f'error: standard output cannot be written ({error.strerror}); redirect it.')
      raise SystemExit(2) from None


def open_streams():
  """Makes standard output and standard error what every program can print to.

  A stream that was closed before the start becomes os.devnull. Otherwise a failed write to
  standard output ends the program: with 141, as SIGPIPE would, where its reader has left,
  else with 2 and a sentence. Characters that the encoding lacks are spelled as in SPELLED.
  """
  if sys.stderr is None:
    sys.stderr = open(os.devnull, 'w', errors='replace')
  if sys.stdout is None:
    sys.stdout = open(os.devnull, 'w', errors='replace')
    return
  before = sys.stdout
  before.flush()
  sys.stdout = io.TextIOWrapper(
    io.BufferedWriter(_Output(before.fileno(), 'w', closefd=False)),
    before.encoding,
    'rethink_gen.spell',
    line_buffering=before.line_buffering or before.write_through,
  )


def run(main, parse):
  """absl's `app.run`, after `open_streams`, with all that was printed written at the end.

  Args:
    main: main(argv), with what `parse` leaves of the command line.
    parse: parse(argv) -> argv; exits where the flags cannot be used.
  """
  open_streams()
  try:
    app.run(main, flags_parser=parse)
  finally:
    sys.stdout.flush()


def say(sentence):
  """Prints the sentence on standard error, if that can be written."""
  with contextlib.suppress(OSError):
    print(sentence, file=sys.stderr, flush=True)
