"""Trains one run of rethink_gen: a model on a data set with a corruption, by SGD.

  python -m rethink_gen.main --config=configs/quickstart.py
  python -m rethink_gen.main --config=configs/inception_random.py --workdir=runs/mine
  python -m rethink_gen.main --config=configs/mlp_1x512.py --config.batch_size=64

--config is a file that makes a config; configs/ holds one for each named experiment.
--config.FIELD=VALUE overrides any field; rethink_gen/config.py lists the fields, their
meaning and the values they accept. --workdir is the run's folder, runs/NAME by default.
The same command in the same folder resumes where it stopped.
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before the slow imports

import functools
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from rethink_gen import cli, train
from rethink_gen.train import multihost, summaries

CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='The config file of the run, such as configs/quickstart.py.'
)
WORKDIR = cli.define_path(
  'workdir', None, 'The folder of the run, created if needed; runs/NAME by default.'
)
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'This is one of several processes; see docs/launching.md.'
)


def main(_) -> None:
  cli.setup()
  file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']))
  name = file.name.replace('.py', '').replace(':', '_')  # quickstart.py:true
  workdir = WORKDIR.value or pathlib.Path('runs', name)
  if DISTRIBUTED.value:
    cli.call(lambda _: multihost.initialize(), workdir)
  summary = cli.call(functools.partial(train.run, CONFIG.value), workdir)
  if multihost.is_primary():
    summaries.print_summary(summary, workdir)
  if summary['status'] == 'diverged':
    sys.exit(3)  # a status of its own, since it would diverge again if restarted


if __name__ == '__main__':
  cli.run(main, functools.partial(cli.parse, config=CONFIG))
