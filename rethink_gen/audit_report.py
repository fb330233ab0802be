"""What an audit leaves: the verdict in words, results.json, figure.png and report.html."""

import base64
import pathlib
import platform

import jax
import jinja2
import numpy as np

from rethink_gen import metrics
from rethink_gen.paper import drawing, report

LEVEL = 0.05  # of the tests the verdict reports
STILL = 0.01  # gained late, from which training accuracy is called still rising
NAMES = {
  'shuffled_pixels': 'positions permuted, all alike',
  'random_pixels': 'positions permuted, each its own way',
  'gaussian': 'Gaussian inputs',
}


def label(level):
  """A setup in words."""
  if level['name'] in NAMES:
    return NAMES[level['name']]
  noise = level['label_noise']
  words = {0: 'true labels', 1: 'random labels'}
  return words.get(noise, f'{noise:.0%} of labels drawn anew')


def verdict(result):
  """The sentences; each says what was measured and what follows from that alone."""
  settings = result.settings
  levels = {level['name']: level for level in result.levels}
  true, noise = levels['label_noise_0'], levels['label_noise_1']
  return [
    *_divergence(result.levels),
    *_fit(true, noise, settings),
    *_test(true, noise, settings),
    *_inputs([levels[name] for name in NAMES if name in levels], settings),
    _scope(settings),
  ]


def _divergence(levels):
  for level in levels:
    if level['diverged']:
      yield (
        f'Diverged: the loss was no longer a finite number in {level["diverged"]} of '
        f'{level["runs"]} runs with {label(level)}; they are left out of what follows, and '
        'a smaller learning rate may help.'
      )


def _fit(true, noise, settings):
  if noise['train_accuracy'] is None:
    yield 'Whether it fits random labels is not known: no run on them was completed.'
    return
  threshold = f'{settings["fit_accuracy"]:.4g}'
  reached = f'training accuracy {_percent(noise, "train")}'
  budget = ''
  if not settings['is_estimator']:
    budget = f' within {settings["num_epochs"]:,} epochs ({settings["steps"]:,} steps)'
  done = noise['runs'] - noise['diverged']
  chance = metrics.percent(settings['chance_accuracy'])
  if noise['fitted'] == done:
    yield (
      f'It fits random labels: in {done} of {done} runs training accuracy reached '
      f'{threshold}{budget}, though the labels say nothing of the inputs ({reached}).'
    )
  elif noise['fitted']:
    yield (
      f'It fits random labels in {noise["fitted"]} of {done} runs: those reached a '
      f'training accuracy of {threshold}{budget} ({reached}).'
    )
  else:
    yield (
      f'It did not fit random labels{budget}: {reached}, where a fit is {threshold} and '
      f'guessing gives {chance}.'
    )
    yield from _late(noise)
    if true['fitted'] == 0 and true['train_accuracy'] is not None:
      yield (
        'Nor did it fit the true labels to that threshold (training accuracy '
        f'{_percent(true, "train")}), so the two differ by '
        f'{_points(true["train_accuracy"] - noise["train_accuracy"])}.'
      )
  if noise['times_longer'] is not None:
    yield (
      f'Random labels took {noise["times_longer"]:.1f} times as many steps to fit as true '
      'ones (median over seeds, to the nearest epoch).'
    )
  elif noise['longer_than'] is not None and noise['fitted'] < done:
    yield (
      f'In {noise["longer_than"]:.1f} times as many steps as the true labels took to fit, '
      'not every run had fitted random ones.'
    )


def _late(level):
  gained = level['gained_late']
  if gained is None:
    return
  if gained >= STILL:
    yield (
      f'Training accuracy was still rising, by {_points(gained)} in the last fifth of '
      'training, so with more epochs it may.'
    )
  else:
    yield (
      'Training accuracy was hardly rising any more: in the last fifth of training it '
      f'changed by {_points(gained)}.'
    )


def _test(true, noise, settings):
  if true['test_accuracy'] is None:
    return
  guessing = settings['majority_accuracy']
  words = (
    f'On true labels its test accuracy is {_percent(true, "test")}, a generalization gap '
    f'of {_points(true["generalization_gap"])}'
  )
  if true['p_value'] > LEVEL:
    yield (f'{words}; that is not shown to be better than chance ({_p(true, settings)}).')
    return
  yield (
    f'{words}; it is above chance ({_p(true, settings)}), and always naming the largest '
    f'class of the test set gives {metrics.percent(guessing)}.'
  )
  if noise['train_accuracy'] is None:
    return
  if noise['fitted'] and noise['fitted'] == noise['runs'] - noise['diverged']:
    yield (
      'So the same model, trained in the same way, generalizes on true labels and fits '
      'random ones, whose generalization gap is '
      f'{_points(noise["generalization_gap"])}: being too small to memorize its training '
      'set cannot be why it generalizes.'
    )


def _inputs(levels, settings):
  for level in levels:
    if level['test_accuracy'] is None:
      continue
    done = level['runs'] - level['diverged']
    above = 'above' if level['p_value'] <= LEVEL else 'not shown to be above'
    yield (
      f'{label(level).capitalize()}: it fits in {level["fitted"]} of {done} runs, with '
      f'test accuracy {_percent(level, "test")}, {above} chance ({_p(level, settings)}).'
    )


def _scope(settings):
  held_out = ''
  if settings['held_out']:
    held_out = ' (no test set was given, so a fifth was held out at random)'
  count = settings['seeds']
  return (
    f'All of it is of {settings["num_train"]:,} training and {settings["num_test"]:,} test '
    f'examples{held_out}, and {count} seed{"s" if count > 1 else ""}; of other data, sizes '
    'or training it says nothing.'
  )


def _p(level, settings):
  return f'p = {level["p_value"]:.2g}, {settings["permutations"]:,} permutations'


def _percent(level, split):
  """A mean, and its range over seeds where there is one."""
  low, high = level[f'{split}_accuracy_range']
  mean = metrics.percent(level[f'{split}_accuracy'])
  if low == high:
    return mean
  return f'{mean} ({metrics.percent(low)} to {metrics.percent(high)})'


def _points(difference):
  return f'{100 * difference:.2f} percentage points'


def text(result):
  """The table, the complexity and the verdict, for a terminal."""
  header, lines = table(result)
  rademacher = complexity_sentence(result)
  return '\n'.join(
    [
      report.to_markdown(header, lines),
      *filter(None, [rademacher]),
      *result.verdict,
      f'\nTo read and look at: {result.workdir}/report.html',
    ]
  )


def table(result):
  """(header, lines) of text."""
  header = ['', 'fits', 'training accuracy', 'test accuracy', 'gap (points)', 'p']
  steps = not result.settings['is_estimator']
  if steps:
    header += ['steps to fit', 'times true labels']
  lines = []
  for level in result.levels:
    done = level['runs'] - level['diverged']
    line = [label(level), f'{level["fitted"]} of {done}']
    if done:
      line += [_percent(level, 'train'), _percent(level, 'test')]
      line += [f'{100 * level["generalization_gap"]:.1f}', f'{level["p_value"]:.2g}']
    else:
      line += 4 * ['diverged' if level['diverged'] else 'failed']
    if steps:
      fitted = [s for s in level['steps_to_fit'] if s is not None]
      line.append(f'{np.median(fitted):,.0f}' if len(fitted) == level['runs'] else '–')
      line.append(_times(level))
    lines.append(line)
  return header, lines


def _times(level):
  if level['times_longer'] is not None:
    return f'{level["times_longer"]:.1f}'
  if level['longer_than'] is not None:
    return f'> {level["longer_than"]:.1f}'
  return '–'


def complexity_sentence(result):
  """What is said of the empirical Rademacher complexity, or None."""
  if result.rademacher is None:
    return None
  low, high = (result.rademacher[end] for end in ('min', 'max'))
  spread = '' if low == high else f', {low:.3f} to {high:.3f}'
  return (
    'Empirical Rademacher complexity of the functions that training reaches: at least '
    f'{result.rademacher["mean"]:.3f} (mean over {result.rademacher["draws"]} draws of '
    f'random signs{spread}); 1 is that of a class that fits every sign.'
  )


def draw(result, runs):
  """The figure: learning curves or accuracies, error against noise, time to fit or gap."""
  figure, (left, middle, right) = drawing.subplots(1, 3, height=3.8)
  noisy = [level for level in result.levels if level['name'] not in NAMES]
  shown = [noisy[0], noisy[-1]]
  shown += [level for level in result.levels if level['name'] in NAMES]
  if result.settings['is_estimator']:
    _draw_accuracies(left, shown)
  else:
    _draw_curves(left, shown, runs)
    below = {'loc': 'outside lower center', 'ncols': 3, 'frameon': False}
    figure.legend(*left.get_legend_handles_labels(), fontsize=7, **below)
  noise = [level['label_noise'] for level in noisy]
  for split, style in (('train', 'o--'), ('test', 'o-')):
    errors = [_error(level, split) for level in noisy]
    name = 'training' if split == 'train' else 'test'
    middle.plot(noise, errors, style, color=drawing.PALETTE[0], label=name)
    ranges = [level[f'{split}_accuracy_range'] or [np.nan, np.nan] for level in noisy]
    low, high = (100 - 100 * np.array(ranges).T)[::-1]
    middle.fill_between(noise, low, high, color=drawing.PALETTE[0], alpha=0.2, linewidth=0)
  chance = 100 - 100 * result.settings['chance_accuracy']
  majority = 100 - 100 * result.settings['majority_accuracy']
  middle.axhline(chance, color='black', linewidth=0.8, linestyle=':', label='guessing')
  if chance - majority > 2:
    color = drawing.PALETTE[1]
    middle.axhline(majority, color=color, linewidth=0.8, linestyle=':', label='one class')
  middle.set(xlabel='share of labels drawn anew', ylabel='error (%)', ylim=(-2, 102))
  drawing.legend(middle, fontsize=7)
  if result.settings['is_estimator']:
    gaps = [100 * level['generalization_gap'] for level in noisy]
    right.plot(noise, gaps, 'o-', color=drawing.PALETTE[0])
    right.set(ylabel='generalization gap (points)')
  else:
    _draw_times(right, noisy)
  right.set(xlabel='share of labels drawn anew')
  return figure


def _error(level, split):
  accuracy = level[f'{split}_accuracy']
  return np.nan if accuracy is None else 100 - 100 * accuracy


def _draw_curves(axis, levels, runs):
  for level, color in zip(levels, drawing.PALETTE, strict=False):
    name = label(level)
    for run in runs[level['name']]:
      steps = [record['step'] for record in run.records]
      accuracy = [100 * record['train_accuracy'] for record in run.records]
      marker = 'o' if run.summary['steps_to_fit'] is not None else None
      axis.plot(
        steps,
        accuracy,
        color=color,
        label=name,
        linewidth=1,
        marker=marker,
        markevery=[-1],
        markersize=3,
      )
      name = None
  axis.set(xlabel='steps', ylabel='training accuracy (%)', ylim=(0, 102))
  if axis.dataLim.x1 > 0:  # a run that diverged at once has no evaluation
    axis.set_xscale('log')


def _draw_accuracies(axis, levels):
  """Training accuracy as a bar, test accuracy as a dot."""
  places = np.arange(len(levels))
  for split, style in (('train', 'o'), ('test', 'x')):
    values = [100 - _error(level, split) for level in levels]
    name = 'training' if split == 'train' else 'test'
    axis.plot(values, places, style, color=drawing.PALETTE[0], label=name)
  axis.set_yticks(places, [label(level).replace(', ', ',\n') for level in levels])
  axis.invert_yaxis()
  axis.set(xlabel='accuracy (%)', xlim=(-3, 103))
  drawing.legend(axis, fontsize=7)


def _draw_times(axis, levels):
  noise = [level['label_noise'] for level in levels]
  times = [level['times_longer'] or np.nan for level in levels]
  axis.plot(noise, times, 'o-', color=drawing.PALETTE[0], label='fitted')
  above = [level['longer_than'] or np.nan for level in levels]
  if np.isfinite(above).any():
    axis.plot(
      noise, above, '^', color=drawing.PALETTE[1], label='not fitted: more than this'
    )
    drawing.legend(axis, fontsize=7)
  axis.set(ylabel='steps to fit, true labels = 1', ylim=0, xlim=(-0.03, 1.03))


def write(result, runs):
  """results.json, figure.png and report.html of the audit's folder."""
  png = report.image(draw(result, runs), 'png')
  metrics.write_bytes(result.workdir / 'figure.png', png)
  results = result._asdict() | {'workdir': str(result.workdir)}
  metrics.write_json(result.workdir / 'results.json', results)
  page = render(result, png)
  metrics.write_bytes(result.workdir / 'report.html', page.encode())


def render(result, png):
  """report.html: one file that needs no other, in the look of the paper's reports."""
  here = pathlib.Path(__file__)
  papers = (here.parent / 'paper' / 'report.html').read_text()
  style = papers.split('<style>')[1].split('</style>')[0]
  template = here.with_name('audit_report.html').read_text()
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  header, lines = table(result)
  return environment.from_string(template).render(
    style=style,
    result=result,
    settings=result.settings,
    answer=answer(result),
    complexity=complexity_sentence(result),
    header=header,
    lines=lines,
    figure=f'data:image/png;base64,{base64.b64encode(png).decode()}',
    versions=f'jax {jax.__version__}, Python {platform.python_version()}',
  )


def answer(result):
  """The heading: the question's answer in a few words."""
  noise = next(level for level in result.levels if level['label_noise'] == 1)
  done = noise['runs'] - noise['diverged']
  if not done:
    return 'Training on random labels ' + ('diverged' if noise['diverged'] else 'failed')
  if noise['fitted'] == done:
    return 'It fits random labels'
  if noise['fitted']:
    return f'It fits random labels in {noise["fitted"]} of {done} runs'
  return 'It did not fit random labels'
