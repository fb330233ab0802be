"""What the programs of the package share: their messages and their exit statuses."""

import logging as standard_logging
import os
import sys
import traceback

import jax
from absl import logging

from rethink_gen import train
from rethink_gen.data import sources
from rethink_gen.errors import BadInput


def prepare():
  """Warnings in one line each, and compilations kept from one process to the next."""
  logging.set_verbosity(logging.WARNING)
  plain = standard_logging.Formatter('warning: %(message)s')
  logging.get_absl_handler().setFormatter(plain)
  # TFDS recommends OpenCV whenever it decodes images, which it does once a data set.
  logging.get_absl_logger().addFilter(lambda record: 'OpenCV' not in record.getMessage())
  jax.config.update('jax_compilation_cache_dir', str(sources.cache_folder() / 'xla'))


def call(function, workdir):
  """function(workdir), where whatever stops it is said in one sentence.

  Exits with 2 for what the user can mend, with 128 and the signal's number after one.
  """
  try:
    return function(workdir)
  except BadInput as error:
    refuse(error)
  except train.Interrupted as error:
    print(f'{error}: saved; the same command goes on from here.', file=sys.stderr)
    sys.exit(128 + error.signal_number)
  except KeyboardInterrupt:
    print('SIGINT: the same command goes on from what is saved.', file=sys.stderr)
    sys.exit(130)
  except OSError as error:
    reason = error.strerror or error
    leave(f'{workdir}: {reason}; once that is mended, the same command goes on.', 2)
  except Exception as error:
    if jax.process_count() == 1:
      raise
    if not isinstance(error, jax.errors.JaxRuntimeError):
      traceback.print_exc()
    reason = ' '.join(str(error).split())[:120]
    leave(
      f'this process failed or has lost another ({reason}); the same command on all of '
      'them goes on from the last checkpoint.',
      1,
    )


def leave(sentence, status):
  """Exits at once: the other processes find out, and are not waited for."""
  print(f'error: {sentence}', file=sys.stderr, flush=True)
  if jax.process_count() == 1:
    sys.exit(status)
  sys.stdout.flush()
  os._exit(status)


def refuse(sentence):
  print(f'error: {sentence}', file=sys.stderr)
  sys.exit(2)
