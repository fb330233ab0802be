"""What the programs of the package share: --config, messages and exit statuses.

0: done. 2: what the user can mend is wrong. 3: the run diverged (`main` alone). 128 and its
number: a signal. 1: anything else, which the same command may get over.
"""

import functools
import logging as standard_logging
import os
import pathlib
import re
import sys
import traceback

import jax
from absl import flags, logging

from rethink_gen import config as config_lib
from rethink_gen import interrupt, output, paths, train
from rethink_gen.data import sources
from rethink_gen.errors import BadInput

KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}


class _PathParser(flags.ArgumentParser):
  """Parses a flag that is a path, as `paths.local` takes it."""

  syntactic_help = 'a path'

  def parse(self, argument):
    return paths.local(argument)  # BadInput is a ValueError, as absl wants it


def define_path(name, default, help_string):
  """Defines a flag whose value is the text of a path on this machine, or None."""
  serializer = flags.ArgumentSerializer()
  return flags.DEFINE(_PathParser(), name, default, help_string, serializer=serializer)


def run(main, parse):
  """`output.run`, with the sentence of a BadInput that comes before `call`."""
  try:
    output.run(main, parse)
  except BadInput as error:  # before `call`
    refuse(error)


def setup():
  """Warnings in one line each, and compilations kept from one process to the next."""
  logging.set_verbosity(logging.WARNING)
  plain = standard_logging.Formatter('warning: %(message)s')
  logging.get_absl_handler().setFormatter(plain)
  # TFDS recommends OpenCV whenever it decodes images, which it does once a data set.
  logging.get_absl_logger().addFilter(lambda record: 'OpenCV' not in record.getMessage())
  jax.config.update('jax_compilation_cache_dir', str(sources.cache_folder() / 'xla'))
  # Programs that compile in less than a second too: a start has a dozen of them.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def call(function, workdir):
  """function(workdir), where whatever stops it is said in one sentence.

  Exits with 2 for what the user can mend, with 128 and the signal's number after one.
  """
  try:
    return function(workdir)
  except BadInput as error:  # of one process alone, say for an image that is damaged
    leave(error, 2)
  except train.Interrupted as error:
    output.say(f'{error}: saved; the same command resumes here.')
    sys.exit(128 + error.signal_number)
  except KeyboardInterrupt:
    output.say(interrupt.SENTENCE)
    sys.exit(130)
  except OSError as error:
    reason = error.strerror or error
    leave(f'{workdir}: {reason}; once that is mended, the same command resumes.', 2)
  except Exception as error:
    refuse_missing_platform()
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
      leave('there is not enough memory; take a smaller model, batch or data set.', 2)
    if is_alone():
      raise
    if not isinstance(error, jax.errors.JaxRuntimeError):
      traceback.print_exc()
    reason = ' '.join(str(error).split())[:120]
    leave(
      f'this process failed or has lost another ({reason}); the same command on all of '
      'them resumes from the last checkpoint.',
      1,
    )


def leave(sentence, status):
  """Exits at once: the other processes find out, and are not waited for."""
  output.say(f'error: {sentence}')
  if is_alone():
    sys.exit(status)
  sys.stdout.flush()
  os._exit(status)


def is_alone():
  """Whether this is the only process; asks no device, which may be missing."""
  return not jax.distributed.is_initialized() or jax.process_count() == 1


def refuse_missing_platform():
  """Exits where JAX has no device, because JAX_PLATFORMS asks for what is not there."""
  try:
    jax.devices()
  except Exception as error:  # RuntimeError, or AssertionError without a word
    reason = str(error).split(' (set ')[0]
    refuse(
      f'JAX cannot use the platform {jax.config.jax_platforms!r} that JAX_PLATFORMS asks '
      f'for{reason and f" ({sources.reason(reason)})"}; install JAX for it, for instance '
      "with pip install -e '.[cuda]', or unset JAX_PLATFORMS."
    )


def refuse(sentence):
  output.say(f'error: {sentence}')
  sys.exit(2)


def parse_flags(argv):
  """absl's flags from the command line, a fault of theirs in one sentence; the rest."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    refuse(f'{error}; --help shows what there is.')


def refuse_rest(rest):
  """Exits where something on the command line, after the program's name, is no flag."""
  if rest[1:]:
    refuse(f'{rest[1]!r} is not a flag; flags begin with --, and --help shows them.')


def parse(argv, config):
  """absl's flags from the command line, every fault of theirs in one sentence.

  For the programs that take a config file and overrides of its fields.

  Args:
    argv: the command line; overrides with the value None are taken out of it.
    config: the flag --config, as `config_flags.DEFINE_config_file` returns it.

  Returns:
    What is left of argv: the program's name.
  """
  fields = config_lib.flatten(config_lib.default())
  for argument in argv[1:]:
    override = re.match(r'--(?:no)?config\.([\w.]*)', argument)
    if override and override[1] not in fields:
      refuse(f'config.{override[1]} is not a field; the fields are {", ".join(fields)}.')
  # ml_collections takes None for text, or refuses it; and it reads the same list again.
  unset = [found for a in argv if (found := re.fullmatch(r'--config\.([\w.]+)=None', a))]
  for field in (found[1] for found in unset):
    if fields[field] is not None:
      refuse(f'config.{field} cannot be None; its default is {fields[field]!r}.')
  argv[:] = [a for a in argv if a not in {found[0] for found in unset}]
  try:
    rest = flags.FLAGS(argv)
    if config.value is None:
      refuse('--config is missing; give a file, such as --config=configs/quickstart.py.')
    # Only now does a file that did not load say so.
    config.value.update_from_flattened_dict({found[1]: None for found in unset})
  except flags.IllegalFlagValueError as error:
    if not str(error).startswith('flag --config'):
      refuse(f'{error}; --help shows what there is.')
    refuse(_bad_value(str(error)))
  except flags.Error as error:
    refuse(f'{error}; --help shows what there is.')
  except Exception as error:  # The config file is code: anything may come out of it.
    refuse(_bad_config(str(error)))
  refuse_rest(rest)
  return rest


def parse_change(text):
  """(field, value) of FIELD=VALUE, the value of the field's type; raises BadInput."""
  field, _, value = text.partition('=')
  fields = config_lib.flatten(config_lib.default())
  if field not in fields or '=' not in text:
    raise BadInput(
      f'--set is {text!r}, but it must be FIELD=VALUE with one of the fields '
      f'{", ".join(fields)}.'
    )
  if value == 'None' and fields[field] is None:
    return field, None
  kind = _kind(field)
  try:
    return field, {'true': True, 'false': False}[value.lower()] if kind is bool else kind(
      value
    )
  except (KeyError, ValueError):
    raise BadInput(_bad_value(f'flag --config.{field}={value}: ')) from None


def _kind(field):
  *parents, name = field.split('.')
  return functools.reduce(getattr, parents, config_lib.default()).get_type(name)


def _bad_value(message):
  """What to say of absl's 'flag --config.FIELD=VALUE: reason'."""
  found = re.match(r'flag --config\.([\w.]+)=(.*?): ', message)
  if not found:
    return _bad_config(message)
  field, value = found.groups()
  kind = KINDS[_kind(field)]
  _, words = config_lib.ACCEPTED.get(field, (None, None))
  accepted = ', '.join(filter(None, (kind, words)))
  return f'config.{field} is {value!r}, but it must be {accepted}.'


def _bad_config(message):
  """What to say when the config file does not load."""
  missing = re.search(r"No such file or directory: '(.*?)'", message)
  if missing:
    files = sorted(path.stem for path in pathlib.Path('configs').glob('[a-z]*.py'))
    names = f'; configs/ holds {", ".join(files)}' if files else ''
    return f'there is no config file {missing[1]}{names}.'
  found = re.search(r'config=(.*?):(.*?): [\s\S]*get_config\(\) takes 0 pos', message)
  if found:
    return f'{found[1]} takes no argument; leave out :{found[2]}.'
  last = [line.strip() for line in message.splitlines() if line.strip()][-1]
  return f'the config file does not load ({last}).'
