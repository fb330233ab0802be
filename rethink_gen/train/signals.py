"""SIGTERM and SIGINT, answered once the state is saved."""

import contextlib
import os
import signal
import threading


class Interrupted(Exception):
  """A signal stopped the run after its state was saved; the same call continues it."""

  def __init__(self, signal_number):
    super().__init__(signal.Signals(signal_number).name)
    self.signal_number = signal_number


@contextlib.contextmanager
def stop_signals():
  """Yields a list that SIGTERM or SIGINT adds its number to; a second SIGINT kills.

  The first says so at once, for it is acted on only seconds later, or after an evaluation.
  """
  received = []
  in_place_of_the_bar = '\r\x1b[2K' if os.isatty(2) else ''

  def receive(number, _):
    received.append(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sentence = 'stops once its state is saved; Ctrl-C now ends it at once.'
    name = signal.Signals(number).name
    # Not by print, which fails where the signal came in the middle of another.
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
