"""Result tables as text and Markdown."""

from rethink_gen.reporting.artifacts import Column
from rethink_gen.text import format_duration
from rethink_gen.train import summaries


def make_table(
  columns: dict[str, Column], entries: list[dict]
) -> tuple[list[str], list[list[str]]]:
  """(header, lines) of text: ours, with the paper's number and the difference if given."""
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
      [f'dead: {summaries.list_layers(dead)}'] if (dead := entry['dead_layers']) else []
    )
    line += [
      str(len(entry['seeds'])),
      format_duration(entry['seconds']),
      '; '.join(remark),
    ]
    lines.append(line)
  if not any(line[-1] for line in lines):
    header.pop()
    lines = [line[:-1] for line in lines]
  return header, lines


def number(value: float | None, unit: str, form: str) -> str:
  """A number as the tables show it; less than 100 % is never rounded up to 100 %."""
  if value is None:
    return '–'
  if unit == '%' and 99.99 < value < 100:
    return '99.99'
  sign = '+' if form.startswith('+') else ''
  return f'{float(value):{sign}z{form.removeprefix("+")}}'  # z: no -0.00


def to_markdown(header: list[str], lines: list[list[str]]) -> str:
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
