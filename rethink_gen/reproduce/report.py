"""Writes an artifact's results.json, table.md, figure and report.html."""

import json
import pathlib

import jax

from rethink_gen import files
from rethink_gen.errors import BadInput
from rethink_gen.paper import scales
from rethink_gen.reporting import drawing, pages, tables
from rethink_gen.reporting.artifacts import Artifact, Row, Run, Runs
from rethink_gen.reproduce import grid
from rethink_gen.reproduce.registry import ARTIFACTS


def write(
  workdir: pathlib.Path,
  scale: str,
  rows: dict[str, list[Row]],
  runs: dict[str, Runs],
  command: str,
) -> None:
  """Writes and prints the results of artifacts.

  Args:
    workdir: gets a folder per artifact, and report.html if there are several.
    scale: one of scales.SCALES.
    rows: {artifact: [Row]}, all that were requested.
    runs: {artifact: {(row name, seed): Run}}, all that have finished.
    command: the command line, shown in the reports.

  Raises:
    BadInput: if no run has finished.
  """
  if not any(runs.values()):
    raise BadInput(
      f'{workdir} holds no finished run of these rows; run them first, without --collect.'
    )
  sections = []
  for name in rows:
    if not runs[name]:
      print(f'\n{ARTIFACTS[name].TITLE}: no finished run yet.')
      continue
    section = make_section(name, scale, rows[name], runs[name])
    folder = workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    results = {
      'artifact': name,
      'title': section['title'],
      'scale': scale,
      'command': command,
      'jax_version': jax.__version__,
      'units': {column: unit for column, (_, unit, _) in section['columns'].items()},
      'findings': section['findings'],
      'rows': section['entries'],
    }
    files.write_json(folder / 'results.json', results)
    pages.write(folder / 'table.md', section['table'])
    for kind in ('png', 'svg'):
      (folder / f'{name}.{kind}').write_bytes(section[kind])
    pages.write(folder / 'report.html', render([section], command))
    print(f'\n{section["title"]}\n\n{section["table"]}')
    print('\n'.join([*section['findings'], section['scale']]))
    sections.append(section)
  if len(sections) > 1:
    pages.write(workdir / 'report.html', render(sections, command))
  where = workdir if len(sections) > 1 else folder
  print(f'\nThe report is in {where}/report.html')


def says(artifact: Artifact, scale: str) -> str:
  """What the scale means: in the artifact's own words, or in those for training runs."""
  return getattr(artifact, 'SAYS', scales.SAYS)[scale]


def make_section(name: str, scale: str, rows: list[Row], runs: Runs) -> dict:
  """What a report shows for one artifact, in the form that the template expects."""
  artifact = ARTIFACTS[name]
  entries = grid.make_entries(artifact, rows, runs)
  header, lines = tables.make_table(artifact.COLUMNS, entries)
  figure = artifact.draw(entries, runs)
  svg = pages.image(figure, 'svg')
  return {
    'name': name,
    'title': artifact.TITLE,
    'asked': artifact.ASKED,
    'found': artifact.FOUND,
    'scale': says(artifact, scale),
    'caption': artifact.CAPTION,
    'columns': artifact.COLUMNS,
    'entries': entries,
    'findings': list(artifact.findings(entries)),
    'header': header,
    'lines': lines,
    'table': tables.to_markdown(header, lines),
    'png': pages.image(figure, 'png'),
    'svg': svg,
    'figure': pages.data_uri(svg, 'svg'),
    'details': [
      make_details(row, entry, runs) for row, entry in zip(rows, entries, strict=True)
    ],
    'machines': sorted(
      {
        ', '.join(
          run.summary[field] for field in ('device', 'precision') if field in run.summary
        )
        for run in runs.values()
      }
    ),
  }


def make_details(row: Row, entry: dict, runs: Runs) -> dict[str, str]:
  """What the report shows for a row: its config and its curves."""
  mine = {seed: run for (name, seed), run in runs.items() if name == row.name}
  text = json.dumps(next(iter(mine.values())).config, indent=2) if mine else ''
  is_training = any(len(run.losses) for run in mine.values())
  changed = [f'--config.{field}={value}' for field, value in row.changes.items()]
  command = ['python -m rethink_gen.main', f'--config=configs/{row.config}.py', *changed]
  curves = ''
  if is_training:
    curves = pages.data_uri(pages.image(draw_curves(mine), 'svg'), 'svg')
  return {
    'name': row.name,
    'command': ' '.join(command) if is_training else '',
    'config': text,
    'curves': curves,
    'status': entry['status'],
  }


def draw_curves(runs: dict[int, Run]):
  """Plots the training loss on batches and the evaluated accuracies of a row's seeds."""
  figure, (loss, accuracy) = drawing.subplots(1, 2, height=1.9)
  for run in runs.values():
    steps, losses = drawing.smooth(run.losses, len(run.losses) // 200)
    loss.plot(steps, losses, color='black', linewidth=0.8)
    evaluated = [record['step'] for record in run.records]
    for split, style in (('train', '.--'), ('test', '.-')):
      values = [100 * record[f'{split}_accuracy'] for record in run.records]
      accuracy.plot(evaluated, values, style, color='black', linewidth=0.8)
  loss.set(xlabel='steps', ylabel='training loss', ylim=0)
  accuracy.set(xlabel='steps', ylabel='accuracy (%)', ylim=(0, 101))
  return figure


def render(sections: list[dict], command: str) -> str:
  """The text of report.html."""
  template = pathlib.Path(__file__).with_name('report.html')
  return pages.render(template, sections=sections, command=command)
