"""Figure 1(b): how much longer corrupted labels take to fit. Its grid is 1(c)'s too."""

from rethink_gen.paper import drawing, scales
from rethink_gen.paper.grid import Row

TITLE = 'Figure 1(b): how much longer corrupted labels take'
ASKED = (
  'If each label is replaced by a random one with probability p, how does the time to fit '
  'the training set grow with p?'
)
FOUND = (
  'By a small constant factor: training takes at most about four times as long as on true '
  'labels (the paper gives curves, no numbers).'
)
COLUMNS = {
  'slowdown': ('time to fit, relative to p = 0', '', '.2f'),
  'steps_to_fit': ('steps to fit', '', ',.0f'),
}
MODELS = ('inception', 'alexnet', 'mlp_1x512')
NOISE_LEVELS = tuple(level / 10 for level in range(11))
CONVERGED = 0.99  # of the whole training set; the paper's MLP ends at 99.34 % at p = 1
CAPTION = (
  f'Convergence time is the first step at which the training accuracy over the whole '
  f'training set is seen to reach {CONVERGED:.0%}: it is evaluated after each epoch (at '
  'laptop scale every fourth for Inception and every fifth for AlexNet, and after any '
  'epoch whose batches were classified as well as that). Drawn is its ratio '
  'to the one at p = 0 of the same seed, with the standard deviation over seeds. A run '
  'that never gets there has no ratio: a triangle at its last step says that it took '
  'longer.'
)


def rows(scale):
  return [_row(scale, model, noise) for model in MODELS for noise in NOISE_LEVELS]


def _row(scale, model, noise):
  changes = scales.changes(scale, model) | scales.noise_level(scale, model)
  changes |= {'stop_at_train_accuracy': CONVERGED} | label_noise(noise)
  return Row(f'{model}_{noise:.1f}', model, changes)


def label_noise(noise):
  """{field: value} of a noise level; at 0 that is a run on true labels, named so."""
  if not noise:
    return {}
  return {'corruption.mode': 'partial_labels', 'corruption.label_noise': noise}


def measure(runs, name, seed):
  steps = runs[name, seed].summary['steps_to_fit']
  model, _ = split(name)
  true_labels = runs.get((f'{model}_0.0', seed))
  base = true_labels.summary['steps_to_fit'] if true_labels else None
  return {'slowdown': steps / base if steps and base else None, 'steps_to_fit': steps}


def split(name):
  """(model, noise level) of a row's name."""
  model, _, noise = name.rpartition('_')
  return model, float(noise)


def draw(entries, runs):
  figure, axis = drawing.subplots()
  plot(axis, entries, 'slowdown')
  for (name, seed), run in runs.items():
    model, noise = split(name)
    base = runs.get((f'{model}_0.0', seed))
    never = run.summary['status'] == 'complete' and run.summary['steps_to_fit'] is None
    if never and base and base.summary['steps_to_fit']:
      bound = run.summary['steps'] / base.summary['steps_to_fit']
      axis.plot(noise, bound, '^', color=drawing.COLORS[model])
  axis.set(xlabel='label noise p', ylabel='convergence time / that at p = 0', ylim=0)
  drawing.legend(axis)
  return figure


def plot(axis, entries, column):
  """One line a model: a column against the noise level, with its spread over seeds."""
  for model in MODELS:
    points = [
      (split(entry['name'])[1], entry['ours'][column], entry['std'][column])
      for entry in entries
      if entry['config'] == model and entry['ours'][column] is not None
    ]
    if points:
      noise, values, spread = zip(*points, strict=True)
      axis.errorbar(
        noise,
        values,
        yerr=None if None in spread else spread,
        fmt='o-',
        capsize=2,
        color=drawing.COLORS[model],
        label=drawing.NAMES[model],
      )


def findings(entries):
  for model in MODELS:
    mine = {split(e['name'])[1]: e for e in entries if e['config'] == model}
    slowdown = mine[1.0]['ours']['slowdown'] if 1.0 in mine else None
    if slowdown is not None:
      yield f'{drawing.NAMES[model]}: {slowdown:.2f} times as long at p = 1 as at p = 0.'
  never = [
    entry['name']
    for entry in entries
    if entry['status'] == 'complete' and entry['ours']['steps_to_fit'] is None
  ]
  if never:
    yield f'Not fitted by every seed within its epochs: {", ".join(never)}.'
