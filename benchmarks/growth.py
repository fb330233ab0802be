r"""Measures how the seconds per epoch grow with the size of what is trained.

  TFDS_DATA_DIR=... python -m benchmarks.growth --out=runs/growth [--axes=width,examples]

Trains MLP 1x512 on CIFAR-10 at batch size 128 and varies one number at a time: training
examples, hidden units, batch size, runs trained at once in one program, or devices
simulated on a CPU (in separate processes on the same cores, so that sharing costs time and
gains none). The points of an axis take turns. Reported with the seconds are the slope of a
straight line through their logarithms (1: proportional growth), and where it bends: the
first point from which the slope to the next differs by more than 0.25 from that between the
first two. --out gets results.json, table.md, figure.png and figure.svg. It asserts nothing.
Takes minutes on two CPU cores.
"""

import itertools
import statistics
import tempfile

import numpy as np
from absl import flags

from benchmarks import once, ours, report
from rethink_gen import cli, files
from rethink_gen.errors import BadInput
from rethink_gen.reporting import drawing
from rethink_gen.train import compiled

AXES = {
  'examples': (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 49_152),
  'width': (32, 64, 128, 256, 512, 1_024, 2_048, 4_096),
  'batch_size': (8, 16, 32, 64, 128, 256, 512, 1_024, 2_048),
  'runs': (1, 2, 4, 8, 16),
  'devices': (1, 2, 4, 8),
}
LABELS = {
  'examples': 'training examples',
  'width': 'hidden units',
  'batch_size': 'batch size',
  'runs': 'runs at once',
  'devices': 'simulated devices',
}
EXAMPLES = 8_192  # unless they are what varies
BEND = 0.25  # a greater change of slope counts as a bend

AXES_FLAG = flags.DEFINE_list('axes', list(AXES), f'Which of {", ".join(AXES)}.')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'Number of turns for each.', lower_bound=1)


def main(_):
  cli.setup()
  cli.call(lambda _: measure(), report.OUT.value or 'the benchmark')


def measure():
  """Checks the flags, measures one axis after another, and writes after each."""
  wrong = set(AXES_FLAG.value) - set(AXES)
  if wrong or not AXES_FLAG.value:
    raise BadInput(
      f'--axes is {",".join(AXES_FLAG.value)!r}, but it must be of {", ".join(AXES)}, '
      'separated by commas.'
    )
  out = report.new_folder()
  results = report.describe_machine() | {'measurements': []}
  print(report.describe(results), flush=True)
  for axis in AXES_FLAG.value:
    seconds = on_devices() if axis == 'devices' else in_turns(axis)
    results['measurements'].append(describe(axis, seconds))
    if out:
      files.write_json(out / 'results.json', results)
  print('\n' + table(results))
  if out:
    report.write(out, table(results), draw(results))


def in_turns(axis):
  """{value: [seconds per epoch in each round]} for the values of an axis of the config."""
  turns = {value: make_turn(axis, value) for value in AXES[axis]}
  seconds = {value: [] for value in turns}
  for number in range(ROUNDS.value):
    print(f'{axis}: round {number + 1} of {ROUNDS.value}', flush=True)
    for value, turn in turns.items():
      seconds[value].append(turn())
  return seconds


def make_turn(axis, value):
  """A turn of the compiled epoch, already compiled and warmed up."""
  config = ours.make_config('mlp_1x512', num_train=EXAMPLES)
  if axis == 'examples':
    config.dataset.num_train = value
  elif axis == 'width':
    config.model.width = value
  elif axis == 'batch_size':
    config.batch_size = value
  if axis == 'runs':
    epoch = ours.epoch_of_many(config, ours.load(config), value)
  else:
    epoch = ours.compiled_epoch(config, ours.load(config))

  def turn():
    with compiled.matmul_precision(config):
      return epoch()

  turn()
  return turn


def on_devices():
  """The same for numbers of devices, with a separate process per number and round."""
  seconds = {value: [] for value in AXES['devices']}
  with tempfile.TemporaryDirectory() as cache:
    for number in range(ROUNDS.value):
      print(f'devices: round {number + 1} of {ROUNDS.value}', flush=True)
      for devices, of_them in seconds.items():
        of_them += once.start(cache, devices, examples=EXAMPLES)['epochs']
  return seconds


def describe(axis, seconds):
  """The measurement of an axis from its seconds, with slope and bend."""
  values = np.array(list(seconds))
  medians = np.array([statistics.median(found) for found in seconds.values()])
  x, y = np.log(values), np.log(medians)
  local = np.diff(y) / np.diff(x)
  away = np.flatnonzero(np.abs(local - local[0]) > BEND)
  return {
    'axis': axis,
    'values': values.tolist(),
    'seconds': list(seconds.values()),
    'slope': float(np.polyfit(x, y, 1)[0]),
    'slopes': local.tolist(),
    'bend': int(values[away[0]]) if len(away) else None,
  }


def table(results):
  """One Markdown table per axis."""
  text = [
    f'`{results["command"]}`: {report.describe(results)}',
    'Seconds per epoch: the median over rounds, in parentheses the minimum and maximum. '
    'The slope from each point to the next is that of the logarithms.',
  ]
  for m in results['measurements']:
    bend = 'no bend' if m['bend'] is None else f'a bend at {m["bend"]:,}'
    lines = [f'| {LABELS[m["axis"]]} | seconds | slope to the next |', '|---|---|---|']
    for value, seconds, slope in itertools.zip_longest(
      m['values'], m['seconds'], m['slopes']
    ):
      to_next = '' if slope is None else f'{slope:.2f}'
      lines.append(f'| {value:,} | {report.say(report.spread(seconds))} | {to_next} |')
    text += ['\n'.join(lines), f'Overall slope {m["slope"]:.2f}; {bend}.']
  return '\n\n'.join(text) + '\n'


def draw(results):
  """Seconds against each axis, log-log, with a dotted line at the bend."""
  measurements = results['measurements']
  figure, axes = drawing.subplots(
    -(-len(measurements) // 2), 2, height=2.8 * -(-len(measurements) // 2), squeeze=False
  )
  for axis, m in itertools.zip_longest(axes.flat, measurements):
    if m is None:
      axis.set_axis_off()
      continue
    medians, least, most = zip(*map(report.spread, m['seconds']), strict=True)
    axis.fill_between(m['values'], least, most, color=drawing.PALETTE[0], alpha=0.3)
    axis.plot(m['values'], medians, 'o-', color=drawing.PALETTE[0])
    if m['bend']:
      axis.axvline(m['bend'], color='black', linestyle=':', linewidth=1)
    axis.set_xscale('log', base=2)
    axis.set_yscale('log', base=2)
    axis.xaxis.set_major_formatter('{x:,.0f}')
    axis.yaxis.set_major_formatter('{x:.3g}')
    axis.set(xlabel=LABELS[m['axis']], ylabel='seconds per epoch')
    axis.set_title(f'slope {m["slope"]:.2f}', fontsize=9)
  return figure


if __name__ == '__main__':
  cli.run(main, report.parse)
