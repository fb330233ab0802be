"""One run of rethink_gen: a model, a data set, a corruption, trained by SGD.

  python -m rethink_gen.main --config=configs/quickstart.py
  python -m rethink_gen.main --config=configs/inception_random.py --workdir=runs/mine
  python -m rethink_gen.main --config=configs/mlp_1x512.py --config.batch_size=64

--config is a file that makes a config; configs/ holds one for each experiment with a
name. --config.FIELD=VALUE overrides any field; rethink_gen/config.py lists the fields
with what they mean and accept. --workdir is the run's folder, runs/NAME by default.
The same command in the same folder goes on where it stopped.
"""

import functools
import pathlib
import re
import sys

from absl import app, flags
from ml_collections import config_flags

from rethink_gen import command_line, distributed, metrics, train
from rethink_gen import config as config_lib
from rethink_gen.command_line import refuse

CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='The config file of the run, such as configs/quickstart.py.'
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'The folder of the run, made if needed; runs/NAME by default.'
)
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'This is one of several processes; README says how to start them.'
)
KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}


def main(_):
  command_line.prepare()
  file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']))
  name = file.name.replace('.py', '').replace(':', '_')  # quickstart.py:true
  workdir = WORKDIR.value or pathlib.Path('runs', name)
  if DISTRIBUTED.value:
    command_line.call(lambda _: distributed.initialize(), workdir)
  summary = command_line.call(functools.partial(train.run, CONFIG.value), workdir)
  if distributed.is_first():
    metrics.print_summary(summary, workdir)
  if summary['status'] == 'diverged':
    sys.exit(1)


def parse(argv):
  """absl's flags from the command line, every fault of theirs in one sentence."""
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
    if CONFIG.value is None:
      refuse('--config is missing; give a file, such as --config=configs/quickstart.py.')
    # Only now does a file that did not load say so.
    CONFIG.value.update_from_flattened_dict({found[1]: None for found in unset})
  except flags.IllegalFlagValueError as error:
    refuse(_bad_value(str(error)))
  except flags.Error as error:
    refuse(f'{error}; --help shows what there is.')
  except Exception as error:  # The config file is code: anything may come out of it.
    refuse(_bad_config(str(error)))
  if rest[1:]:
    refuse(f'{rest[1]!r} is not a flag; flags begin with --, and --help shows them.')
  return rest


def _bad_value(message):
  """What to say of absl's 'flag --config.FIELD=VALUE: reason'."""
  found = re.match(r'flag --config\.([\w.]+)=(.*?): ', message)
  if not found:
    return _bad_config(message)
  field, value = found.groups()
  *parents, name = field.split('.')
  kind = KINDS[functools.reduce(getattr, parents, config_lib.default()).get_type(name)]
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
  last = [line.strip() for line in message.splitlines() if line.strip()][-1]
  return f'the config file does not load ({last}).'


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
