"""Lists the runs in a folder in a table, or exports the parameters of one run.

  python -m rethink_gen.runs runs
  python -m rethink_gen.runs runs/quickstart --export=quickstart.npz
  python -m rethink_gen.runs runs/quickstart --export=quickstart.safetensors

The first command lists the runs in and below a folder, finished or not, with the config
fields in which they differ. --export writes the parameters of one run, under names such as
params/Dense_0/kernel. In Python, `runs.table(folder)` returns the same table and
`runs.open(folder)` one run, whatever machine it ran on.

Nothing here writes into the folder of a run.
"""

import functools

import rich
import rich.text

from rethink_gen import cli
from rethink_gen.runs import compare, opening, parameters

EXPORT = cli.define_path(
  'export', None, 'The .npz or .safetensors file to write the parameters of the run to.'
)


def main(argv: list[str]) -> None:
  cli.setup()
  if EXPORT.value is None:
    cli.call(list_runs, argv[1])
  else:
    cli.call(functools.partial(export_run, path=EXPORT.value), argv[1])


def list_runs(folder: str) -> None:
  compare.print_table(*compare.make_table(folder), rich.get_console())


def export_run(folder: str, path: str) -> None:
  run = opening.open(folder)
  parameters.export(run, path)
  print(f'The parameters of step {run.step:,} are in {path}.')


def parse(argv: list[str]) -> list[str]:
  """Parses absl flags and the folder; an error prints one sentence and exits."""
  rest = cli.parse_flags(argv)
  if len(rest) != 2:
    cli.refuse(
      'Give one folder, as in python -m rethink_gen.runs runs; --help lists the flags.'
    )
  return rest


if __name__ == '__main__':
  cli.run(main, parse)
