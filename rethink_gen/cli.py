"""What the command-line programs share: --config, messages and exit statuses.

0: done. 2: a user error (bad config, missing data, full disk). 3: the run diverged (only
`main`). 128 plus its number: a signal. 1: anything else; the same command may succeed when
repeated.
"""

import functools
import logging as standard_logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import flags, logging

from rethink_gen import config as config_lib
from rethink_gen import errors, interrupt, output, paths, train
from rethink_gen.errors import BadInput

KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}


class _PathParser(flags.ArgumentParser):
  """Parses the value of a flag with `paths.local`."""

  syntactic_help = 'a path'

  def parse(self, argument):
    return paths.local(argument)  # BadInput is a ValueError, as absl expects


def define_path(name: str, default: str | None, help_string: str) -> flags.FlagHolder:
  """Defines a flag whose value is a path on this machine, as text, or None."""
  serializer = flags.ArgumentSerializer()
  return flags.DEFINE(_PathParser(), name, default, help_string, serializer=serializer)


def run(main: Callable, parse: Callable) -> None:
  """`output.run`, which also reports a BadInput raised before `call`."""
  try:
    output.run(main, parse)
  except BadInput as error:  # before `call`
    refuse(str(error))


def setup() -> None:
  """Prints warnings as one line each, and caches compilations across processes."""
  logging.set_verbosity(logging.WARNING)
  plain = standard_logging.Formatter('warning: %(message)s')
  logging.get_absl_handler().setFormatter(plain)
  # TFDS recommends OpenCV whenever it decodes images, which it does once per data set.
  logging.get_absl_logger().addFilter(lambda record: 'OpenCV' not in record.getMessage())
  jax.config.update('jax_compilation_cache_dir', str(paths.cache_folder() / 'xla'))
  # Also for functions that compile in under a second: each start has a dozen of them.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def call(function: Callable, workdir: str | os.PathLike):
  """Calls function(workdir) and reports whatever stops it in one sentence.

  Exits with 2 for a user error, and with 128 plus its number after a signal.
  """
  try:
    return function(workdir)
  except BadInput as error:  # possibly in only one process, such as for a damaged image
    leave(str(error), 2)
  except train.Interrupted as error:
    output.say(f'{error}: saved; the same command resumes here.')
    sys.exit(128 + error.signal_number)
  except KeyboardInterrupt:
    output.say(interrupt.SENTENCE)
    sys.exit(130)
  except OSError as error:
    reason = error.strerror or error
    leave(f'{workdir}: {reason}; once that is fixed, the same command resumes.', 2)
  except Exception as error:
    refuse_missing_platform()
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
      leave('there is not enough memory; use a smaller model, batch or data set.', 2)
    if is_alone():
      raise
    if not isinstance(error, jax.errors.JaxRuntimeError):
      traceback.print_exc()
    reason = ' '.join(str(error).split())[:120]
    leave(
      f'this process failed or lost another one ({reason}); the same command on all of '
      'them resumes from the last checkpoint.',
      1,
    )


def leave(sentence: str, status: int) -> NoReturn:
  """Exits without waiting for the other processes, which will notice."""
  output.say(f'error: {sentence}')
  if is_alone():
    sys.exit(status)
  sys.stdout.flush()
  os._exit(status)


def is_alone() -> bool:
  """Whether this is the only process; works without a device."""
  return not jax.distributed.is_initialized() or jax.process_count() == 1


def refuse_missing_platform() -> None:
  """Exits if JAX has no device because the platform in JAX_PLATFORMS is missing."""
  try:
    jax.devices()
  except Exception as error:  # RuntimeError, or AssertionError without a message
    reason = str(error).split(' (set ')[0]
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    refuse(
      f'JAX cannot use the platform {platforms!r} that JAX_PLATFORMS asks '
      f'for{reason and f" ({errors.reason(reason)})"}; install JAX for it, for example '
      "with pip install -e '.[cuda]', or unset JAX_PLATFORMS."
    )


def refuse(sentence: str) -> NoReturn:
  output.say(f'error: {sentence}')
  sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses absl's flags and returns the rest; reports an invalid flag in one sentence."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    refuse(f'{error}; --help lists the flags.')


def refuse_rest(rest: list[str]) -> None:
  """Exits if anything on the command line after the program's name is not a flag."""
  if rest[1:]:
    refuse(f'{rest[1]!r} is not a flag; flags begin with --, and --help lists them.')


def parse(argv: list[str], config: flags.FlagHolder) -> list[str]:
  """Parses absl's flags, and reports an invalid one in one sentence.

  For programs that take a config file and overrides of its fields.

  Args:
    argv: the command line; overrides with the value None are removed from it.
    config: the flag --config, as returned by `config_flags.DEFINE_config_file`.

  Returns:
    The rest of argv: the program's name.
  """
  fields = config_lib.flatten(config_lib.default())
  for argument in argv[1:]:
    override = re.match(r'--(?:no)?config\.([\w.]*)', argument)
    if override and override[1] not in fields:
      refuse(f'config.{override[1]} is not a field; the fields are {", ".join(fields)}.')
  # ml_collections treats None as text or rejects it, and it reads the same list again.
  unset = [found for a in argv if (found := re.fullmatch(r'--config\.([\w.]+)=None', a))]
  for field in (found[1] for found in unset):
    if fields[field] is not None:
      refuse(f'config.{field} cannot be None; its default is {fields[field]!r}.')
  argv[:] = [a for a in argv if a not in {found[0] for found in unset}]
  try:
    rest = flags.FLAGS(argv)
    if config.value is None:
      refuse('--config is missing; give a file, such as --config=configs/quickstart.py.')
    # A config file that failed to load raises only now.
    config.value.update_from_flattened_dict({found[1]: None for found in unset})
  except flags.IllegalFlagValueError as error:
    if not str(error).startswith('flag --config'):
      refuse(f'{error}; --help lists the flags.')
    refuse(_bad_value(str(error)))
  except flags.Error as error:
    refuse(f'{error}; --help lists the flags.')
  except Exception as error:  # The config file is code, which can raise anything.
    refuse(_bad_config(str(error)))
  refuse_rest(rest)
  return rest


def parse_change(text: str) -> tuple[str, Any]:
  """Parses FIELD=VALUE to (field, value of the field's type); raises BadInput."""
  field, _, value = text.partition('=')
  fields = config_lib.flatten(config_lib.default())
  if field not in fields or '=' not in text:
    raise BadInput(
      f'--set is {text!r}, but it must be FIELD=VALUE, where FIELD is one of '
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
  """The message to show for absl's 'flag --config.FIELD=VALUE: reason'."""
  found = re.match(r'flag --config\.([\w.]+)=(.*?): ', message)
  if not found:
    return _bad_config(message)
  field, value = found.groups()
  kind = KINDS[_kind(field)]
  _, words = config_lib.ACCEPTED.get(field, (None, None))
  accepted = ', '.join(filter(None, (kind, words)))
  return f'config.{field} is {value!r}, but it must be {accepted}.'


def _bad_config(message):
  """The message to show when the config file does not load."""
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
