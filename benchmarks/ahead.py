"""Compiles every config for TPU slices and GPUs, and tabulates what their compilers say.

  python -m benchmarks.ahead --out=runs/ahead
  python -m benchmarks.ahead --out=runs/ahead --configs=inception,alexnet,mlp_1x512 \
      --targets=v5e:1x1,h100:1 --precisions=float32,bfloat16

Needs no accelerator, but its compiler: pip install -e '.[aot]' for TPUs and '.[cuda]' for
GPUs, in an environment of its own. Configs that compile to the same program, such as true
and random labels, are compiled once. A batch that the devices cannot share becomes the
smallest one that they can; one that does not fit is halved until it does, and the table
says so. --out gets a JSON file for each program, so the same command resumes, and table.md.
Inception takes about 80 seconds per target on one core, Inception V3 several minutes.
"""

import hashlib
import json
import pathlib

import jax
from absl import flags

from rethink_gen import cli, files, sharding
from rethink_gen import config as config_lib
from rethink_gen.errors import BadInput
from rethink_gen.estimate import accelerators, ahead, counting, roofline, targets
from rethink_gen.text import format_duration, format_quantity
from rethink_gen.train import compiled

NAMES = sorted(path.stem for path in pathlib.Path('configs').glob('[a-z]*.py'))
OUT = cli.define_path('out', 'runs/ahead', 'The folder for results.')
CONFIGS = flags.DEFINE_list('configs', NAMES, 'The configs to compile; all by default.')
TARGETS = flags.DEFINE_list(
  'targets', ['v5e:1x1', 'v5e:4x4', 'v6e:16x16'], 'The devices to compile for.'
)
PRECISIONS = flags.DEFINE_list('precisions', ['bfloat16'], 'The precisions to compile in.')


def main(_):
  cli.setup()
  out = pathlib.Path(OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  cli.call(lambda _: compile_all(out), out)


def compile_all(out):
  """Compiles what is missing in a folder, then writes and prints its table."""
  rows = {}
  for name in TARGETS.value:
    target = targets.find_target(name)
    for config_name in CONFIGS.value:
      for precision in PRECISIONS.value:
        config = config_lib.named(config_name)
        config.precision = precision
        path = out / f'{identify(config, name)}.json'
        if not path.exists():
          print(f'{config_name}, {precision}, {name}', flush=True)
          files.write_json(path, measure(config, target))
        row = rows.setdefault((name, precision, path.name), json.loads(path.read_text()))
        row.setdefault('configs', []).append(config_name)
  table = to_markdown(rows)
  files.write_bytes(out / 'table.md', table.encode())
  print(table)


def identify(config, name):
  """A digest of what a config compiles to on a target."""
  fields = config_lib.flatten(config)
  data = 'streaming', 'name', 'crop_size', 'num_train', 'num_test', 'shard_rows'
  kept = {f'dataset.{field}': fields[f'dataset.{field}'] for field in data}
  kept |= {f: v for f, v in fields.items() if f.split('.')[0] in compiled.FIELDS}
  kept['dtype'] = str(counting.describe_data(config).x_train.dtype)
  kept |= {'target': name, 'jax': jax.__version__}
  del kept['optimizer.learning_rate'], kept['regularization.weight_decay']
  text = json.dumps(kept, sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def measure(config, target):
  """What `ahead.compile_training` finds, as a dict, with the batch that was compiled."""
  devices, asked = len(target.devices), config.batch_size
  config.batch_size = -(-asked // devices) * devices
  while True:
    with sharding.compiling_for(target.devices):
      config_lib.validate(config)
    dataset = counting.describe_data(config)
    try:
      found = ahead.compile_training(config, dataset, target)
      break
    except BadInput:
      smaller = config.batch_size // 2 // devices * devices
      if not smaller:
        raise
      config.batch_size = smaller
  with compiled.matmul_precision(config):
    plan = counting.count(config, dataset)
  machine = accelerators.ACCELERATORS[target.accelerator]
  seconds = None
  if found.cycles is not None:
    seconds = ahead.step_seconds(found, target)
  peak = getattr(machine, config.precision) * devices
  flops = plan.step(config.batch_size).flops
  return found._asdict() | {
    'batch_size': config.batch_size,
    'asked': asked,
    'devices': devices,
    'memory_available': machine.memory,
    'step_seconds': seconds,
    'share_of_peak': flops / seconds / peak if seconds else None,
    'roofline_seconds': roofline.step_seconds(plan, machine, devices),
  }


def to_markdown(rows):
  """The table of {(target, precision, file): row}."""
  header = 'configs|devices|precision|batch|memory|temporary|cycles|step|images/s a chip'
  header += '|share of peak|all-reduces|kernels|compiled in'
  lines = [f'| {" | ".join(header.split("|"))} |', '|---|---|---' + '|---:' * 10 + '|']
  for (target, precision, _), row in rows.items():
    batch = f'{row["batch_size"]:,}'
    if row['batch_size'] != row['asked']:
      batch += f' (not {row["asked"]:,})'
    seconds = row['step_seconds']
    reduces = [size for kind, size in row['collectives'] if kind == 'all-reduce']
    cells = [
      ', '.join(row['configs']),
      target,
      precision,
      batch,
      f'{format_quantity(row["memory"], "B")} of '
      f'{format_quantity(row["memory_available"], "B")}',
      format_quantity(row['temporary'], 'B'),
      f'{row["cycles"]:,}' if row['cycles'] is not None else '–',
      roofline.say(seconds) if seconds else '–',
      f'{row["batch_size"] / row["devices"] / seconds:,.0f}' if seconds else '–',
      f'{row["share_of_peak"]:.1%}' if seconds else '–',
      f'{len(reduces)}, {format_quantity(sum(reduces), "B")}' if reduces else 'none',
      ', '.join(
        f'{number} {kind}' for kind, number in row['kernels'].items() if is_kernel(kind)
      ),
      format_duration(row['seconds']),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def is_kernel(kind):
  """Whether a call is a fusion or a library's kernel, not one of the compiler's helpers."""
  return kind == 'fusion' or kind.startswith('__')


if __name__ == '__main__':
  cli.run(main, lambda argv: cli.refuse_rest(cli.parse_flags(argv)))
