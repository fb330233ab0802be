"""The runs that are there: a table that compares them, and one opened to look into.

  python -m rethink_gen.runs runs
  python -m rethink_gen.runs runs/quickstart --export=quickstart.npz
  python -m rethink_gen.runs runs/quickstart --export=quickstart.safetensors

The first lists the runs in a folder and below it, finished or not, with the fields of
their configs in which they differ. --export writes the parameters of one run, under names
such as params/Dense_0/kernel. In Python, `runs.table(folder)` is the same table and
`runs.open(folder)` one run, whatever machine it ran on.

Nothing here writes into the folder of a run.
"""

import functools

import rich
import rich.text

from rethink_gen import cli
from rethink_gen.runs import compare, opening, parameters

EXPORT = cli.define_path(
  'export', None, 'A file that gets the parameters of the run, .npz or .safetensors.'
)


def main(argv):
  cli.setup()
  if EXPORT.value is None:
    cli.call(list_runs, argv[1])
  else:
    cli.call(functools.partial(export_run, path=EXPORT.value), argv[1])


def list_runs(folder):
  compare.print_table(*compare.make_table(folder), rich.get_console())


def export_run(folder, path):
  run = opening.open(folder)
  parameters.export(run, path)
  print(f'The parameters of step {run.step:,} are in {path}.')


def parse(argv):
  """absl's flags and the folder from the command line, every fault in one sentence."""
  rest = cli.parse_flags(argv)
  if len(rest) != 2:
    cli.refuse(
      'Give one folder, as in python -m rethink_gen.runs runs; --help shows what there is.'
    )
  return rest


if __name__ == '__main__':
  cli.run(main, parse)
