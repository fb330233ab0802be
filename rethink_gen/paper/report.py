"""What an artefact leaves: results.json, table.md, the figure, and report.html."""

import base64
import io
import json
import pathlib
import platform

import jax
import jinja2

from rethink_gen import metrics
from rethink_gen.errors import BadInput
from rethink_gen.paper import ARTIFACTS, drawing, grid, scales


def write(workdir, scale, rows, runs, command):
  """Writes and prints the results of artefacts.

  Args:
    workdir: gets a folder for each artefact, and report.html if there are several.
    scale: one of scales.SCALES.
    rows: {artefact: [Row]}, all that were asked for.
    runs: {artefact: {(row name, seed): Run}}, all that have finished.
    command: the command line, for the reports.

  Raises:
    BadInput: when no run has finished.
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
    metrics.write_json(folder / 'results.json', results)
    write_text(folder / 'table.md', section['table'])
    for kind in ('png', 'svg'):
      (folder / f'{name}.{kind}').write_bytes(section[kind])
    write_text(folder / 'report.html', render([section], command))
    print(f'\n{section["title"]}\n\n{section["table"]}')
    print('\n'.join([*section['findings'], section['scale']]))
    sections.append(section)
  if len(sections) > 1:
    write_text(workdir / 'report.html', render(sections, command))
  where = workdir if len(sections) > 1 else folder
  print(f'\nTo read and look at: {where}/report.html')


def write_text(path, text):
  """Writes UTF-8, whatever the locale; bytes in a path that are none stay as they were."""
  path.write_bytes(text.encode('utf-8', 'surrogateescape'))


def says(artifact, scale):
  """What the scale means for an artefact: its own words, or those of all training runs."""
  return getattr(artifact, 'SAYS', scales.SAYS)[scale]


def make_section(name, scale, rows, runs):
  """All that a report says of one artefact, as the template wants it."""
  artifact = ARTIFACTS[name]
  entries = grid.make_entries(artifact, rows, runs)
  header, lines = make_table(artifact.COLUMNS, entries)
  figure = artifact.draw(entries, runs)
  svg = image(figure, 'svg')
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
    'table': to_markdown(header, lines),
    'png': image(figure, 'png'),
    'svg': svg,
    'figure': data_uri(svg),
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


def make_table(columns, entries):
  """(header, lines) of text: the paper's number, ours and the difference, if there are."""
  header = ['row']
  for column, (label, unit, _) in columns.items():
    with_unit = f'{label} ({unit})' if unit else label
    if any(column in entry['paper'] for entry in entries):
      header += [f'{with_unit}: paper', 'ours', 'difference']
    else:
      header.append(with_unit)
  header += ['seeds', 'time', 'remark']
  lines = []
  for entry in entries:
    line = [entry['name']]
    for column, (_, unit, form) in columns.items():
      ours = number(entry['ours'][column], unit, form)
      if (deviation := entry['std'][column]) is not None:
        ours += f' ± {deviation:{form.lstrip("+")}}'
      if any(column in other['paper'] for other in entries):
        difference = entry['difference'].get(column)
        line.append(number(entry['paper'].get(column), unit, form))
        line += [ours, number(difference, '', '+.2f')]
      else:
        line.append(ours)
    remark = [] if entry['status'] == 'complete' else [entry['status']]
    remark += [entry['note']] if entry['note'] else []
    remark += (
      [f'dead: {metrics.list_layers(dead)}'] if (dead := entry['dead_layers']) else []
    )
    line += [
      str(len(entry['seeds'])),
      metrics.duration(entry['seconds']),
      '; '.join(remark),
    ]
    lines.append(line)
  if not any(line[-1] for line in lines):
    header.pop()
    lines = [line[:-1] for line in lines]
  return header, lines


def number(value, unit, form):
  """A number as the tables show it; what is not quite 100 % is not rounded to it."""
  if value is None:
    return '–'
  if unit == '%' and 99.99 < value < 100:
    return '99.99'
  sign = '+' if form.startswith('+') else ''
  return f'{float(value):{sign}z{form.removeprefix("+")}}'  # z: no -0.00


def to_markdown(header, lines):
  header, *lines = (
    [cell.replace('|', r'\|') for cell in line] for line in (header, *lines)
  )
  widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]

  def join(cells):
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return f'| {" | ".join(padded)} |\n'

  rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
  return join(header) + join(rule) + ''.join(map(join, lines))


def make_details(row, entry, runs):
  """What stands under a row's name: its config and its curves."""
  mine = {seed: run for (name, seed), run in runs.items() if name == row.name}
  text = json.dumps(next(iter(mine.values())).config, indent=2) if mine else ''
  is_training = any(len(run.losses) for run in mine.values())
  changed = [f'--config.{field}={value}' for field, value in row.changes.items()]
  command = ['python -m rethink_gen.main', f'--config=configs/{row.config}.py', *changed]
  return {
    'name': row.name,
    'command': ' '.join(command) if is_training else '',
    'config': text,
    'curves': data_uri(image(draw_curves(mine), 'svg')) if is_training else '',
    'status': entry['status'],
  }


def draw_curves(runs):
  """Training loss of the batches, and accuracies after epochs, of a row's seeds."""
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


def image(figure, kind):
  content = io.BytesIO()
  # Without a date, the same runs give the same file.
  metadata = {'Date': None} if kind == 'svg' else None
  drawing.save(figure, content, format=kind, metadata=metadata)
  return content.getvalue()


def data_uri(svg):
  return f'data:image/svg+xml;base64,{base64.b64encode(svg).decode()}'


def render(sections, command):
  """report.html: one file that needs no other."""
  template = pathlib.Path(__file__).with_name('report.html').read_text('utf-8')
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  return environment.from_string(template).render(
    sections=sections,
    command=command,
    versions=f'jax {jax.__version__}, Python {platform.python_version()}',
  )
