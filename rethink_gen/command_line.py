"""What the programs of the package share: their messages and their exit statuses."""

import logging as standard_logging
import sys

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
    refuse(f'{workdir}: {reason}; once that is mended, the same command goes on.')


def refuse(sentence):
  print(f'error: {sentence}', file=sys.stderr)
  sys.exit(2)
