r"""Reproduces a table or figure of the paper, from its grid of runs to its report.

  python -m rethink_gen.reproduce --artifact=table1 --scale=laptop --workdir=runs/paper
  python -m rethink_gen.reproduce --artifact=all --scale=smoke --workdir=runs/smoke
  python -m rethink_gen.reproduce --artifact=table1 --scale=full --workdir=runs/full \
      --rows='mlp_*' --num_seeds=3
  python -m rethink_gen.reproduce --artifact=table1 --scale=full --workdir=runs/bfloat16 \
      --precision=bfloat16 --set=optimizer.decay_every_steps=390

The same command in the same folder resumes where it stopped, and runs that another artifact
has finished there are not repeated. WORKDIR/runs holds the runs; WORKDIR/ARTIFACT gets
results.json, table.md, the figure as PNG and SVG, and report.html; with --artifact=all,
WORKDIR/report.html covers them all.

On several machines that share a folder, or whose folders are merged later:

  python -m rethink_gen.reproduce ... --shard=1/4     (and 2/4, 3/4, 4/4)
  python -m rethink_gen.reproduce ... --collect
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before the slow imports

import fnmatch
import pathlib
import re
import sys

from absl import flags

from rethink_gen import cli
from rethink_gen import config as config_lib
from rethink_gen.errors import BadInput
from rethink_gen.paper import scales
from rethink_gen.reporting.artifacts import Row
from rethink_gen.reproduce import grid, report, training
from rethink_gen.reproduce.registry import ARTIFACTS

ARTIFACT = flags.DEFINE_enum(
  'artifact', None, [*ARTIFACTS, 'all'], 'The table, figure or study to reproduce.'
)
SCALE = flags.DEFINE_enum(
  'scale',
  'laptop',
  scales.SCALES,
  'smoke: minutes in total; laptop: for two CPU cores; full: for a GPU.',
)
WORKDIR = cli.define_path(
  'workdir', None, 'Folder for runs and results; runs/paper_SCALE by default.'
)
NUM_SEEDS = flags.DEFINE_integer(
  'num_seeds',
  None,
  'Runs per row, for a mean and a standard deviation; by default what the artifact needs '
  'at this scale: 3 if it compares rows, otherwise 1.',
  lower_bound=1,
)
PRECISION = flags.DEFINE_enum(
  'precision',
  None,
  config_lib.PRECISIONS,
  "Precision of all training runs; by default the config's.",
)
SET = flags.DEFINE_multi_string(
  'set',
  [],
  'FIELD=VALUE to set in the config of every training run, such as optimizer.momentum=0.8; '
  'can be repeated.',
)
ROWS = flags.DEFINE_list(
  'rows', None, "Names of the rows to run, such as 'mlp_*,alexnet'; all by default."
)
DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Only list what would run, with estimated times.'
)
RUNS_AT_ONCE = flags.DEFINE_integer(
  'runs_at_once',
  None,
  'How many runs of one model to train together; by default 16 for MLPs on an '
  'accelerator, otherwise 1.',
  lower_bound=1,
)
SHARD = flags.DEFINE_string('shard', None, 'i/n: run only the i-th of n parts of the grid.')
COLLECT = flags.DEFINE_bool('collect', False, 'Run nothing; only report the finished runs.')


def main(argv: list[str]) -> None:
  del argv
  cli.setup()
  workdir = pathlib.Path(WORKDIR.value or f'runs/paper_{SCALE.value}')
  cli.call(reproduce, workdir)


def reproduce(workdir: pathlib.Path) -> None:
  """Runs the requested grids, then writes their results."""
  names = list(ARTIFACTS) if ARTIFACT.value == 'all' else [ARTIFACT.value]
  rows = pick({name: ARTIFACTS[name].rows(SCALE.value) for name in names})
  rows = change(rows)
  seeds = {
    name: NUM_SEEDS.value or grid.num_seeds(ARTIFACTS[name], SCALE.value) for name in rows
  }
  jobs = {}
  for name, of_one in rows.items():
    one = grid.make_jobs(ARTIFACTS[name], of_one, seeds[name], workdir)
    for folder, job in one.items():
      label = f'{name} {job.label}' if len(rows) > 1 else job.label
      jobs.setdefault(folder, job._replace(label=label))
  if SHARD.value:
    jobs = take_shard(jobs)
  if DRY_RUN.value:
    grid.print_plan(jobs)
    return
  if not COLLECT.value:
    grid.check(jobs)
    grid.run_all(jobs, RUNS_AT_ONCE.value)
  if SHARD.value:
    print('This part is finished; when all parts are, run with --collect.')
    return
  runs = {
    name: grid.collect(ARTIFACTS[name], of_one, seeds[name], workdir)
    for name, of_one in rows.items()
  }
  command = ' '.join(['python -m rethink_gen.reproduce', *sys.argv[1:]])
  report.write(workdir, SCALE.value, rows, runs, command)


def pick(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
  """Keeps the rows selected by --rows and drops artifacts left without any."""
  if ROWS.value is None:
    return rows
  if not any(ROWS.value):
    raise BadInput('--rows is empty; give names of rows, or leave it out for all of them.')
  known = {row.name for of_one in rows.values() for row in of_one}
  for pattern in ROWS.value:
    if not fnmatch.filter(known, pattern):
      raise BadInput(
        f'--rows has {pattern!r}, but no row has such a name; the rows are '
        f'{", ".join(sorted(known))}.'
      )
  picked = {
    name: [row for row in of_one if any(fnmatch.fnmatch(row.name, p) for p in ROWS.value)]
    for name, of_one in rows.items()
  }
  return {name: of_one for name, of_one in picked.items() if of_one}


def change(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
  """The rows with --precision and --set applied on top of their own changes."""
  changes = dict(map(cli.parse_change, SET.value))
  if PRECISION.value:
    changes['precision'] = PRECISION.value
  if not changes:
    return rows
  changed = {
    name: [row._replace(changes=row.changes | changes) for row in of_one]
    for name, of_one in rows.items()
    if grid.kind_of(ARTIFACTS[name]) is training
  }
  if not changed:
    raise BadInput(
      f'{", ".join(rows)} trains nothing that --precision and --set could change; leave '
      'them out.'
    )
  return changed


def take_shard(jobs: dict[pathlib.Path, grid.Job]) -> dict[pathlib.Path, grid.Job]:
  """Every n-th of the jobs, starting with the i-th."""
  found = re.fullmatch(r'(\d+)/(\d+)', SHARD.value)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise BadInput(
      f'--shard is {SHARD.value!r}, but it must be i/n with i from 1 to n, such as 1/4.'
    )
  part, parts = map(int, found.groups())
  return dict(list(jobs.items())[part - 1 :: parts])


def parse(argv: list[str]) -> list[str]:
  """Parses absl's flags from the command line; reports any error in one sentence."""
  rest = cli.parse_flags(argv)
  if ARTIFACT.value is None:
    cli.refuse(f'--artifact is missing; it must be one of {", ".join(ARTIFACTS)}, all.')
  if SHARD.value and COLLECT.value:
    cli.refuse('--shard runs a part and --collect reports the whole; give only one.')
  cli.refuse_rest(rest)
  return rest


if __name__ == '__main__':
  cli.run(main, parse)
