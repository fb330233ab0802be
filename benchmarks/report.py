"""What the benchmarks write: results.json, a Markdown table and a figure.

A measurement is a dict: measure, case, unit, and values {who: [one number per round]},
where less is better. That of an epoch also has its examples, its operations and the
ceilings of its rounds.
"""

import json
import os
import pathlib
import platform
import statistics
import sys
import time

import jax

from rethink_gen import cli
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.train import workdirs

BESIDE = ('plain loop', 'one by one')  # what ours is compared with, besides PyTorch

OUT = cli.define_path('out', None, 'A folder for the results, created if needed.')


def parse(argv):
  """Parses absl flags; an error prints one sentence and exits."""
  rest = cli.parse_flags(argv)
  cli.refuse_rest(rest)
  return rest


def new_folder():
  """Creates the folder of --out, if given; raises BadInput if it cannot be used."""
  if OUT.value is None:
    return None
  folder = pathlib.Path(OUT.value)
  if (folder / 'results.json').exists():
    raise BadInput(f'{folder} already holds results; choose another --out.')
  workdirs.make_folder(folder, '--out')
  return folder


def describe_machine(with_torch=False):
  """The date, machine, versions and command of the measurements."""
  versions = {'jax': jax.__version__}
  if with_torch:
    import torch

    versions['torch'] = torch.__version__
  return {
    'date': time.strftime('%Y-%m-%d'),
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'processor': processor(),
    'cores': len(os.sched_getaffinity(0)),
    'python': platform.python_version(),
    **versions,
    'command': ' '.join(
      ['python -m', f'benchmarks.{pathlib.Path(sys.argv[0]).stem}', *sys.argv[1:]]
    ),
  }


def processor():
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  names = (line.split(': ')[1] for line in lines if line.startswith('model name'))
  return next(names, platform.processor())


def describe(results):
  """The machine and the versions in one line."""
  left_out = ('measurements', 'command')
  return ', '.join(f'{k} {v}' for k, v in results.items() if k not in left_out)


def read(path):
  """The results in a file; raises BadInput if they cannot be read."""
  try:
    results = json.loads(pathlib.Path(path).read_text())
    for measurement in results['measurements']:
      by_case(measurement)
    return results
  except OSError as error:
    raise BadInput(
      f'{path} cannot be read ({error.strerror}); give a results.json from --out.'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise BadInput(
      f'{path} does not hold results of this benchmark; give a results.json from --out.'
    ) from error


def by_case(measurement):
  """What two measurements must share to be comparable."""
  fields = measurement['measure'], measurement['case'], measurement['unit']
  return *fields, measurement.get('examples')


def others(values):
  """{'plain loop': ..., 'PyTorch eager': ...}: all but ours; only the faster PyTorch."""
  beside = {who: found for who, found in values.items() if who != 'ours'}
  peers = [who for who in beside if who.startswith('PyTorch')]
  if peers:
    best = min(peers, key=lambda who: statistics.median(beside[who]))
    beside = {who: v for who, v in beside.items() if who == best or who not in peers}
  return beside


def ratios(measurement):
  """{who: (median, least, most)} of theirs over ours, round by round."""
  values = measurement['values']
  return {
    who: spread([b / a for a, b in zip(values['ours'], found, strict=True)])
    for who, found in others(values).items()
  }


def spread(numbers):
  return statistics.median(numbers), min(numbers), max(numbers)


def share(measurement, who):
  """(median, least, most) of an epoch's rate as a share of a large product's rate.

  The epoch's rate is its operations, as XLA counts them, over its seconds; the product's is
  that of the same round in JAX or PyTorch, whichever was faster.
  """
  rounds = zip(*measurement['product_flops_per_second'].values(), strict=True)
  pairs = zip(measurement['values'][who], rounds, strict=True)
  return spread([measurement['flops'] / seconds / max(rates) for seconds, rates in pairs])


def say(numbers, scale=1, unit=''):
  """'1.25 (1.2 to 1.31)', with three significant digits."""
  middle, least, most = (number * scale for number in numbers)
  text = f'{digits(middle)}{unit}'
  return text if least == most else f'{text} ({digits(least)} to {digits(most)})'


def digits(number):
  return f'{number:,.0f}' if number >= 100 else f'{number:.3g}'


def line(measurement):
  """A measurement in one line, to print while the benchmark runs."""
  unit = measurement['unit']
  parts = [f'{w} {say(spread(v))} {unit}' for w, v in measurement['values'].items()]
  parts += [f'{who} / ours {say(r)}' for who, r in ratios(measurement).items()]
  return f'{measurement["measure"]}, {measurement["case"]}: {"; ".join(parts)}'


def table(results):
  """All results in Markdown."""
  text = [f'`{results["command"]}`: {describe(results)}']
  text.append(
    'Medians over rounds, in parentheses the minimum and maximum. A ratio is theirs over '
    'ours in the same round: above 1, ours takes less. PyTorch is the faster of eager and '
    'compiled. The share is that of the rate of a large matrix product of the same '
    'precision in the same round, in JAX or PyTorch, whichever is faster.'
  )
  columns = ['ours', *BESIDE, 'PyTorch']
  for measure in dict.fromkeys(m['measure'] for m in results['measurements']):
    chosen = [m for m in results['measurements'] if m['measure'] == measure]
    header = [measure, *columns, *(f'{who} / ours' for who in (*BESIDE, 'PyTorch'))]
    header += ['share, ours', 'share, PyTorch'] if 'flops' in chosen[0] else []
    rows = [row(m, shares='flops' in chosen[0]) for m in chosen]
    # Empty columns are dropped.
    kept = [i for i in range(len(header)) if any(r[i] for r in rows)]
    lines = [header, ['---'] * len(header), *rows]
    text.append('\n'.join('| ' + ' | '.join(r[i] for i in kept) + ' |' for r in lines))
  if ceilings := list(describe_ceilings(results)):
    text.append('\n'.join(ceilings))
  return '\n\n'.join(text) + '\n'


def row(measurement, shares):
  """The cells of a measurement's row."""
  values, unit = measurement['values'], measurement['unit']
  beside, against = others(values), ratios(measurement)
  peer = next((who for who in beside if who.startswith('PyTorch')), None)
  cells = [f'{measurement["case"]}, {unit}']
  cells += [say(spread(values[who])) if who in values else '' for who in ('ours', *BESIDE)]
  kind = peer and peer.removeprefix('PyTorch ')
  cells.append(f'{say(spread(values[peer]))}, {kind}' if peer else '')
  cells += [say(against[who]) if who in against else '' for who in (*BESIDE, peer)]
  if shares:
    cells += [
      say(share(measurement, who), 100, ' %') if who else '' for who in ('ours', peer)
    ]
  return cells


def describe_ceilings(results):
  """Lines with the rates of a large product and a large copy, over all rounds."""
  for precision in ('float32', 'bfloat16'):
    chosen = [
      m for m in results['measurements'] if 'flops' in m and m['case'].endswith(precision)
    ]
    for library in chosen[0]['product_flops_per_second'] if chosen else ():
      products, copies = (
        spread([rate for m in chosen for rate in m[key][library]])
        for key in ('product_flops_per_second', 'copy_bytes_per_second')
      )
      yield (
        f'- {library}, a large product in {precision}: {say(products, 1e-9)} GFLOP/s; a '
        f'large copy: {say(copies, 1e-9)} GB/s.'
      )


def comparison(older, results):
  """A table of the measurements in both: the older number over the newer one."""
  before = {by_case(m): m for m in older['measurements']}
  kinds = ('ours', *BESIDE, 'PyTorch')
  text = [f'| older / newer | {" | ".join(kinds)} |', '|---' * (len(kinds) + 1) + '|']
  for m in results['measurements']:
    if by_case(m) not in before:
      continue
    cells = []
    for kind in kinds:
      medians = [
        [statistics.median(v) for who, v in one['values'].items() if who.startswith(kind)]
        for one in (before[by_case(m)], m)
      ]
      cells.append(f'{min(medians[0]) / min(medians[1]):.2f}' if all(medians) else '')
    text.append(f'| {m["measure"]}, {m["case"]}, {m["unit"]} | {" | ".join(cells)} |')
  if len(text) == 2:
    return 'The older results have no measurement in common with these.'
  return '\n'.join(text)


def write(out, text, figure):
  (out / 'table.md').write_text(text)
  for kind in ('png', 'svg'):
    drawing.save(figure, out / f'figure.{kind}')


def draw(results):
  """The ratios, one line per measurement: a dot at the median, a bar from least to most."""
  chosen = [m for m in results['measurements'] if ratios(m) and m['unit'] != 'steps']
  figure, axis = drawing.subplots(height=0.28 * max(len(chosen), 2) + 1.2)
  labeled = set()
  for position, measurement in enumerate(chosen):
    for who, (middle, least, most) in ratios(measurement).items():
      kind = 'PyTorch' if who.startswith('PyTorch') else who
      place = (*BESIDE, 'PyTorch').index(kind)
      color, shift = drawing.PALETTE[place], 0.12 * (place - 1)
      axis.plot([least, most], [position + shift] * 2, color=color)
      label = None if kind in labeled else kind
      axis.plot(middle, position + shift, 'o', color=color, label=label)
      labeled.add(kind)
  axis.axvline(1, color='black', linewidth=1)
  axis.set_xscale('log')
  axis.set_yticks(range(len(chosen)), [f'{m["measure"]}, {m["case"]}' for m in chosen])
  axis.invert_yaxis()
  axis.set(xlabel='theirs / ours (right of 1, ours takes less)')
  ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8) if inside(t, axis.get_xlim())]
  axis.set_xticks(ticks, [f'{t:g}' for t in ticks])
  axis.minorticks_off()
  drawing.legend(axis)
  return figure


def inside(number, limits):
  return limits[0] <= number <= limits[1]
