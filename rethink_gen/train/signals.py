"""Stopping on SIGTERM and SIGINT, once the state is saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


class Interrupted(Exception):
  """A signal stopped the run after its state was saved; the same call resumes it."""

  def __init__(self, signal_number: int):
    super().__init__(signal.Signals(signal_number).name)
    self.signal_number = signal_number


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
  """Yields a list that SIGTERM or SIGINT adds its number to; a SIGINT after that kills.

  The first signal prints a message immediately, because it takes effect only seconds later,
  or after an evaluation. Outside the main thread the list stays empty.
  """
  received = []
  in_place_of_the_bar = '\r\x1b[2K' if os.isatty(2) else ''

  def receive(number, _):
    received.append(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sentence = 'stopping once the state is saved; press Ctrl-C to stop immediately.'
    name = signal.Signals(number).name
    # Not print, which fails if the signal arrived in the middle of another print.
    os.write(2, f'{in_place_of_the_bar}{name}: {sentence}\n'.encode())

  if threading.current_thread() is not threading.main_thread():
    yield received
    return
  before = {
    number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
