"""Compares initializations by training loss and dead units after a few hundred steps.

  python -m benchmarks.starts --models=alexnet,mlp_1x512 --out=runs/starts

The experiment behind the default of `config.model.initialization`. Every config, rule and
seed trains on all of CIFAR-10, as `rethink_gen.main` would. It reports only training loss
and dead ReLU units: no test example is used. One line of JSON per run is appended to
OUT/starts.jsonl; runs recorded there are not repeated. Means over seeds are in
OUT/table.md.
"""

import json
import pathlib
import time

import jax
import numpy as np
from absl import flags

from benchmarks import ours
from rethink_gen import cli
from rethink_gen.errors import BadInput
from rethink_gen.models.initialization import RULES
from rethink_gen.train import compiled, evaluation

MODELS = flags.DEFINE_list('models', ['mlp_1x512', 'mlp_3x512', 'alexnet'], 'Configs.')
RULES_TRIED = flags.DEFINE_list('rules', list(RULES), 'Initializations to try.')
SEEDS = flags.DEFINE_integer('seeds', 3, 'Seeds 0, 1, ... for each.', lower_bound=1)
STEPS = flags.DEFINE_integer('steps', 500, 'Gradient steps.', lower_bound=1)
RATES = flags.DEFINE_list('rates', None, "Learning rates; the config's by default.")
OUT = cli.define_path('out', 'runs/starts', 'A folder for the results.')
LAST = 50  # final steps whose mean loss is reported
EXAMINED = 5_000  # training examples; a unit that is active on none of them is dead


def main(_):
  cli.setup()
  check('models', MODELS.value, ours.CPU_BATCHES)
  check('rules', RULES_TRIED.value, RULES)
  folder = pathlib.Path(OUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / 'starts.jsonl'
  done = read(file)
  for model in MODELS.value:
    for rate in RATES.value or [None]:
      for rule in RULES_TRIED.value:
        for seed in range(SEEDS.value):
          config = make_config(model, rule, seed, rate)
          key = (model, config.optimizer.learning_rate, rule, seed, STEPS.value)
          if key not in done:
            done[key] = measure(config, STEPS.value)
            with open(file, 'a') as lines:
              lines.write(json.dumps([*key, done[key]]) + '\n')
            print(*key, done[key], flush=True)
  table = make_table(read(file))  # others may have written too
  (folder / 'table.md').write_text(table)
  print(table)


def check(flag, values, known):
  """Raises BadInput if the flag has an unknown value."""
  for value in values:
    if value not in known:
      raise BadInput(f'--{flag} has {value!r}, but it takes {", ".join(known)}.')


def make_config(model, rule, seed, rate):
  config = ours.make_config(model, 128, num_train=None)
  config.seed = seed
  config.model.initialization = rule
  if rate:
    config.optimizer.learning_rate = float(rate)
  return config


def measure(config, steps):
  """The reported figures of one run; losses are None if they stop being finite."""
  dataset = ours.load(config)
  program = compiled.make_program(config, dataset)
  started = time.monotonic()
  losses = np.zeros(0)
  with compiled.matmul_precision(config):
    state, train_to, _, _ = compiled.build(config, dataset, program)
    while len(losses) < steps and np.isfinite(losses).all():
      # At most to the end of the epoch, and ten steps at first: some diverge at once.
      chunk = 10 if not losses.size else len(state.losses)
      first = len(losses)
      stop = min(first + chunk, steps, (first // len(state.losses) + 1) * len(state.losses))
      state = train_to(state, stop)
      found = np.asarray(state.losses)[first % len(state.losses) :][: stop - first]
      losses = np.concatenate([losses, found])
    evaluate = compiled.compile_program(program)[2]
    totals = evaluate(state, dataset.x_train[:EXAMINED], dataset.y_train[:EXAMINED])
  finite = bool(np.isfinite(losses).all())
  return {
    'loss': float(losses[-LAST:].mean()) if finite else None,
    'highest_loss': float(losses.max()) if finite else None,
    'diverged_at': None if finite else int(np.argmin(np.isfinite(losses))) + 1,
    'seconds': time.monotonic() - started,
    **evaluation.dead_units(jax.device_get(totals.active)),
  }


def read(file):
  """{(model, rate, rule, seed, steps): the figures of that run}."""
  lines = file.read_text().splitlines() if file.exists() else []
  return {tuple(key): found for *key, found in map(json.loads, lines)}


def make_table(done):
  """A Markdown table with one row per model, rate, rule and steps, over seeds."""
  groups = {}
  for (model, rate, rule, _, steps), found in done.items():
    groups.setdefault((model, rate, rule, steps), []).append(found)
  lines = [
    '| config | learning rate | initialization | steps | seeds | training loss '
    '| highest loss | dead units, worst layer (%) | all layers (%) |',
    '|' + '---|' * 9,
  ]
  for (model, rate, rule, steps), runs in groups.items():
    figures = [f'{model} | {rate:g} | {rule} | {steps} | {len(runs)}']
    diverged = [run['diverged_at'] for run in runs if run['diverged_at']]
    if diverged:
      figures += [f'{len(diverged)} diverged, the first at step {min(diverged)}']
      figures += ['', '', '']
    else:
      losses = [run['loss'] for run in runs]
      spread = f' ± {np.std(losses, ddof=1):.3f}' if len(runs) > 1 else ''
      worst = [
        max(share for name, share in run.items() if name.startswith('dead_units/'))
        for run in runs
      ]
      figures.append(f'{np.mean(losses):.3f}{spread}')
      figures.append(f'{max(run["highest_loss"] for run in runs):.2f}')
      figures.append(' '.join(f'{100 * share:.0f}' for share in worst))
      figures.append(' '.join(f'{100 * run["dead_units"]:.1f}' for run in runs))
    lines.append(f'| {" | ".join(figures)} |')
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  cli.run(main, cli.parse_flags)
