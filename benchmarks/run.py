r"""Compares this project with a plain Flax loop and PyTorch, in one run on one machine.

  pip install -e '.[benchmarks]'      (PyTorch; without it, its columns are left out)
  TFDS_DATA_DIR=... python -m benchmarks.run --out=runs/benchmarks

The contestants take turns, so that changes in machine speed affect all of them. --parts
selects what is measured:

  epoch    training, for all --models, --batch_sizes and --precisions; in each round also a
           large product and a large copy, as ceilings
  start    from process start to the first step, and how much of it is building and
           compiling, without (cold) and with (warm) compiled programs from before; peak
           memory
  fit      fitting all random labels of 2,000 CIFAR-10 images with MLP 1x512: `train.run`
           with its evaluations and checkpoints, in PyTorch a loop with evaluations
  together the eleven noise levels of Figure 1(b) for MLP 1x512 in one program, and one
           after the other, by `vmapped.run` and `train.run`, including what they write
  grid     Figure 1(b) at smoke scale, end to end

To compare before and after a change, in two minutes on two CPU cores: epochs of the MLPs
and AlexNet in float32 at batch size 128, without torch.compile, and our start of MLP 1x512:

  python -m benchmarks.run --quick --out=runs/before
  python -m benchmarks.run --quick --out=runs/after --compare=runs/before/results.json

--out gets results.json, table.md, figure.png and figure.svg. The PyTorch side is
benchmarks/peer_torch.py. A benchmark, not a test: it asserts nothing.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time

# PyTorch needs GPU memory too; by default, JAX would take three quarters.
os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.4')

import jax
from absl import flags

from benchmarks import once, ours, report
from rethink_gen import cli, files, train
from rethink_gen.errors import BadInput
from rethink_gen.estimate import accelerators, counting
from rethink_gen.paper import figure1b
from rethink_gen.progress import no_progress
from rethink_gen.train import compiled, vmapped

PARTS = ('epoch', 'start', 'fit', 'together', 'grid')
PRECISIONS = ('float32', 'bfloat16')
QUICK_MODELS = ['mlp_1x512', 'mlp_3x512', 'alexnet']
QUICK_PART = 8  # a turn of --quick trains on an eighth of the examples

MODELS_FLAG = flags.DEFINE_list(
  'models', None, f'Which of {", ".join(ours.CPU_BATCHES)}; all by default.'
)
ROUNDS = flags.DEFINE_integer(
  'rounds', None, 'Number of turns for each; 5 by default, 3 if quick.', lower_bound=1
)
PARTS_FLAG = flags.DEFINE_list('parts', None, f'What to measure, of {", ".join(PARTS)}.')
BATCH_SIZES = flags.DEFINE_list('batch_sizes', None, 'Batch sizes; 128 and 512 by default.')
PRECISIONS_FLAG = flags.DEFINE_list('precisions', None, 'float32, bfloat16; default: both.')
QUICK = flags.DEFINE_bool('quick', False, 'A subset that takes two minutes on two cores.')
COMPARE = cli.define_path('compare', None, 'An older results.json to compare with.')


def main(_):
  cli.setup()
  cli.call(lambda _: run(), report.OUT.value or 'the benchmark')


def run():
  """Checks the flags, measures, and writes results.json after every measurement."""
  wanted = choose()
  older = report.read(COMPARE.value) if COMPARE.value else None
  out = report.new_folder()
  with_torch = importlib.util.find_spec('torch') is not None
  if not with_torch:
    print("PyTorch is not installed, so it is left out: pip install -e '.[benchmarks]'.")
  results = report.describe_machine(with_torch)
  print(report.describe(results), flush=True)
  results['measurements'] = []
  measure = {
    'epoch': epochs,
    'start': starts,
    'fit': fits,
    'together': noise_levels,
    'grid': grids,
  }
  for part in wanted['parts']:
    for measurement in measure[part](wanted, with_torch):
      results['measurements'].append(measurement)
      print(report.line(measurement), flush=True)
      if out:  # so that measurements are kept, whatever happens
        files.write_json(out / 'results.json', results)
  print('\n' + report.table(results))
  if out:
    report.write(out, report.table(results), report.draw(results))
  if older:
    print('\n' + report.comparison(older, results))


def choose():
  """What to measure, from the flags; raises BadInput for unknown values."""
  quick = QUICK.value
  defaults = {
    'models': (MODELS_FLAG, tuple(ours.CPU_BATCHES), QUICK_MODELS),
    'parts': (PARTS_FLAG, PARTS, ['epoch', 'start']),
    'precisions': (PRECISIONS_FLAG, PRECISIONS, ['float32']),
  }
  wanted = {'rounds': ROUNDS.value or (3 if quick else 5), 'quick': quick}
  for name, (flag, known, few) in defaults.items():
    wanted[name] = flag.value if flag.value is not None else few if quick else list(known)
    wrong = set(wanted[name]) - set(known)
    if wrong or not wanted[name]:
      raise BadInput(
        f'--{name} is {",".join(wanted[name])!r}, but it must be of {", ".join(known)}, '
        'separated by commas.'
      )
  sizes = BATCH_SIZES.value or (['128'] if quick else ['128', '512'])
  devices = jax.device_count()
  if not all(s.isdecimal() and int(s) and int(s) % devices == 0 for s in sizes):
    raise BadInput(
      f'--batch_sizes is {",".join(sizes)!r}, but it must be numbers of examples '
      f'divisible by the number of devices, {devices}, separated by commas.'
    )
  wanted['batch_sizes'] = [int(s) for s in sizes]
  return wanted


def contestants(wanted, with_torch):
  """Those of once.WHO that take part; --quick has no time for torch.compile."""
  left_out = {'PyTorch compiled'} if wanted['quick'] else set()
  if not with_torch:
    left_out |= {'PyTorch eager', 'PyTorch compiled'}
  return [who for who in once.WHO if who not in left_out]


def epochs(wanted, with_torch):
  """One measurement for every precision, batch size and model."""
  for precision in wanted['precisions']:
    for batch_size in wanted['batch_sizes']:
      for name in wanted['models']:
        yield from epoch(wanted, with_torch, name, batch_size, precision)


def epoch(wanted, with_torch, name, batch_size, precision):
  """Seconds per epoch of one model, and the ceilings measured in the same rounds."""
  count = ours.examples(name, batch_size, QUICK_PART if wanted['quick'] else 1)
  config = ours.make_config(name, batch_size, precision, count)
  dataset = ours.load(config)
  case = f'{name}, batch {batch_size}, {precision}'
  turns, ceilings = {}, {'JAX': lambda: of_machine(precision)}
  with compiled.matmul_precision(config):
    for who in contestants(wanted, with_torch):
      print(f'{case}: preparing {who}', flush=True)
      try:
        turn = once.make_turn(who, config, dataset)
        turn(1)
        turn()  # to the end of the epoch
      except Exception as error:
        if who != 'PyTorch compiled':
          raise
        reason = ' '.join(str(error).split())[:120]
        print(f'torch.compile does not work here, so it is left out ({reason}).')
      else:
        turns[who] = turn
    if with_torch:
      from benchmarks import peer_torch

      ceilings['PyTorch'] = lambda: peer_torch.ceiling(precision)
    seconds, rates = {who: [] for who in turns}, {who: [] for who in ceilings}
    for number in range(wanted['rounds']):
      print(f'{case}: round {number + 1} of {wanted["rounds"]}', flush=True)
      for measure, measured in ((turns, seconds), (ceilings, rates)):
        for who, turn in measure.items():
          measured[who].append(turn())
  flops = counting.count(config, dataset).step(batch_size).flops
  yield {
    'measure': 'epoch',
    'case': case,
    'unit': 's',
    'examples': count,
    'flops': flops * (count // batch_size),
    'values': seconds,
    'product_flops_per_second': {who: [r[0] for r in rate] for who, rate in rates.items()},
    'copy_bytes_per_second': {who: [r[1] for r in rate] for who, rate in rates.items()},
  }


def of_machine(precision):
  """(operations per second, bytes per second) of a large product and copy in JAX."""
  machine = accelerators.measure_machine(precision)
  return getattr(machine, precision), machine.bandwidth


def starts(wanted, with_torch):
  """Start-up, compilation and peak memory, each in separate processes."""
  for name in ['mlp_1x512'] if wanted['quick'] else wanted['models']:
    reports = {'cold': {}, 'warm': {}}
    who_starts = ['ours'] if wanted['quick'] else contestants(wanted, with_torch)
    for number in range(1 if wanted['quick'] else wanted['rounds']):
      for who in who_starts:
        print(f'{name}: start {number + 1} of {who}', flush=True)
        with tempfile.TemporaryDirectory() as cache:
          for of_kind in reports.values():
            of_kind.setdefault(who, []).append(once.start(cache, model=name, who=who))
    for kind, of_kind in reports.items():
      for key, measure in (
        ('start_to_first_step', 'start to first step'),
        ('build_and_first_step', 'building and compiling'),
      ):
        values = {who: [r[key] for r in found] for who, found in of_kind.items()}
        yield measurement(measure, f'{name}, {kind}', 's', values)
    values = {who: [r['peak_memory'] for r in rs] for who, rs in reports['warm'].items()}
    if all(map(all, values.values())):
      megabytes = {who: [b / 1e6 for b in found] for who, found in values.items()}
      yield measurement('peak memory', name, 'MB', megabytes)


def measurement(measure, case, unit, values):
  return {'measure': measure, 'case': case, 'unit': unit, 'values': values}


def fits(wanted, with_torch):
  """Seconds and steps to fit random labels."""
  seconds, steps = {}, {}
  for number in range(wanted['rounds']):
    print(f'fitting random labels: round {number + 1} of {wanted["rounds"]}', flush=True)
    config = ours.make_config('mlp_1x512_random', num_train=2_000)
    config.dataset.num_test = 100
    config.stop_at_train_accuracy = 1.0
    config.num_epochs = 1_000
    config.seed = number
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
      summary = train.run(config, workdir, no_progress)
      taken = {'ours': (time.perf_counter() - started, summary['steps'])}
    if with_torch:
      from benchmarks import peer_torch

      taken['PyTorch eager'] = peer_torch.fit(config, ours.load(config))
    for who, (time_taken, steps_taken) in taken.items():
      seconds.setdefault(who, []).append(time_taken)
      steps.setdefault(who, []).append(steps_taken)
  case = '2,000 images, mlp_1x512'
  yield measurement('fitting random labels', case, 's', seconds)
  yield measurement('fitting random labels', case, 'steps', steps)


def noise_levels(wanted, with_torch):
  """Seconds of eleven runs in one program, and of the same one after the other."""
  del with_torch
  seconds = {'ours': [], 'one by one': []}
  count, epochs = (8_192, 5) if jax.default_backend() == 'cpu' else (None, 20)
  configs = {}
  for level in range(11):
    config = ours.make_config('mlp_1x512', num_train=count)
    config.update_from_flattened_dict(figure1b.label_noise(level / 10))
    config.num_epochs = config.eval_every = epochs
    config.stop_at_train_accuracy = None
    configs[f'{level}'] = config
  for number in range(wanted['rounds'] + 1):
    print(f'eleven noise levels: round {number} of {wanted["rounds"]}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
      started = time.perf_counter()
      vmapped.run({f'{folder}/together/{n}': c for n, c in configs.items()}, no_progress)
      between = time.perf_counter()
      for name, config in configs.items():
        train.run(config, f'{folder}/one/{name}', no_progress)
      ended = time.perf_counter()
    if number:  # the first compiles
      seconds['ours'].append(between - started)
      seconds['one by one'].append(ended - between)
  images = 'all' if count is None else f'{count:,}'
  case = f'mlp_1x512, {images} images, {epochs} epochs'
  yield measurement('eleven noise levels together', case, 's', seconds)


def grids(wanted, with_torch):
  """Seconds of an artifact, from its command to its report."""
  del with_torch
  values = {'cold': [], 'warm': []}
  for number in range(wanted['rounds']):
    print(f'Figure 1(b): round {number + 1} of {wanted["rounds"]}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
      for kind, seconds in values.items():
        started = time.perf_counter()
        subprocess.run(
          [sys.executable, '-m', 'rethink_gen.reproduce', '--artifact=figure1b']
          + ['--scale=smoke', f'--workdir={folder}/{kind}'],
          env=os.environ | {'RETHINK_GEN_CACHE': f'{folder}/cache'},
          stdout=subprocess.DEVNULL,
          check=True,
        )
        seconds.append(time.perf_counter() - started)
  for kind, seconds in values.items():
    yield measurement('Figure 1(b) at smoke scale', kind, 's', {'ours': seconds})


if __name__ == '__main__':
  cli.run(main, report.parse)
