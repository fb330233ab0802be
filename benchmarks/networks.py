r"""Measures what many small networks in one program gain over a Python loop over networks.

  python -m benchmarks.networks --out=runs/networks

Random networks that are checked against 8 labeled points (`theory.guessing.find`), and
trained on them (`guessing.train`); random networks of seven Boolean inputs whose functions
are tabulated (`boolean_functions.sample`), and trained on half of a random one
(`boolean_functions.fit`).
The loop calls the same compiled functions with one network at a time. Both take turns;
a number is the time per network. --out gets results.json, table.md, figure.png and
figure.svg. It asserts nothing. Takes two minutes on two CPU cores.
"""

import time

import jax
import numpy as np
from absl import flags

from benchmarks import report
from rethink_gen import cli, files
from rethink_gen.theory import boolean_functions, guessing

POINTS, INPUTS, STEPS = 8, 784, 200
SIZES = (INPUTS, 32, 1)
PRIOR = boolean_functions.Prior(7, 2, 40, 'relu', 1.0, 0.1)
MANY = 512  # networks that are trained together
FEW = 256  # networks in the loop

ROUNDS = flags.DEFINE_integer('rounds', 5, 'Number of turns for each.', lower_bound=1)


def main(_):
  cli.setup()
  cli.call(lambda _: measure(), report.OUT.value or 'the benchmark')


def measure():
  """Measures one kind of network after another, and writes after each."""
  out = report.new_folder()
  results = report.describe_machine() | {'measurements': []}
  print(report.describe(results), flush=True)
  for (name, case), (run, many) in cases().items():
    found = {
      'measure': name,
      'case': case,
      'unit': 'ms per network',
      'values': in_turns(run, many),
    }
    print(report.line(found), flush=True)
    results['measurements'].append(found)
    if out:
      files.write_json(out / 'results.json', results)
  print('\n' + report.table(results))
  if out:
    report.write(out, report.table(results), report.draw(results))


def in_turns(run, many):
  """{who: [ms per network in each round]} of run(first, count), for many at once or one."""
  run(0, many)
  run(0, 1)  # both are compiled now
  values = {'ours': [], 'one by one': []}
  for _ in range(ROUNDS.value):
    for who, calls, count in (('ours', 1, many), ('one by one', FEW, 1)):
      started = time.perf_counter()
      for first in range(calls):
        run(first, count)
      values[who].append((time.perf_counter() - started) * 1e3 / (calls * count))
  return values


def cases():
  """{(measure, case): (run(first, count), the count for one program)}."""
  random = np.random.default_rng(0)
  signs = np.tile((-1.0, 1.0), POINTS // 2)
  sample = guessing.make_sample(random.normal(size=(POINTS, INPUTS)), signs, 'gaussian')
  key = jax.random.key(0)
  layers = guessing.networks(key, np.arange(MANY), sample, SIZES, 'gaussian')
  targets = random.random((MANY, 2**PRIOR.num_inputs)) < 0.5
  halves = np.stack([random.permutation(2**PRIOR.num_inputs)[::2] for _ in targets])

  def guess(first, count):
    chunk = 1 if count == 1 else None
    guessing.find(key, sample, SIZES, 'gaussian', count, first, chunk)

  def train(first, count):
    chosen = [weights[first : first + count] for weights in layers]
    goals = np.zeros(count, np.float32)  # never reached: all take STEPS steps
    jax.block_until_ready(
      guessing.train(key, chosen, sample.x, sample.signs, goals, 0.01, STEPS)
    )

  def tabulate(first, count):
    boolean_functions.sample(PRIOR, 0, first, count)

  def fit(first, count):
    chosen = slice(first, first + count)
    boolean_functions.fit(PRIOR, 0, targets[chosen], halves[chosen], 8, 0.1, 20)

  of_points = f'{INPUTS}-32-1, {POINTS} points'
  of_tables = f'{PRIOR.num_inputs}-40-40-1, {PRIOR.activation}'
  return {
    ('guessed', of_points): (guess, 2**16),
    ('trained', of_points): (train, MANY),
    ('tabulated', of_tables): (tabulate, 2**14),
    ('trained', of_tables): (fit, MANY),
  }


if __name__ == '__main__':
  cli.run(main, report.parse)
