"""Handles Ctrl-C in programs from their first line on; imports nothing slow."""

import os
import signal

SENTENCE = 'SIGINT: the same command resumes from what was saved.'


def leave_at_once() -> None:
  """Makes Ctrl-C print SENTENCE and exit with 130, whatever the program is doing.

  Programs call this before they import jax, which takes two seconds: a KeyboardInterrupt
  would show a traceback, or be lost in jax's garbage-collector callback.
  """
  signal.signal(signal.SIGINT, _leave)


def _leave(*_):
  os.write(2, f'{SENTENCE}\n'.encode())
  os._exit(130)
