"""Do the kernels of infinitely wide networks tell how networks learn and generalize?"""

import math
import pathlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs
from rethink_gen.studies import wide_networks
from rethink_gen.theory import infinite_width as theory

check, expected_seconds = wide_networks.check, wide_networks.expected_seconds

TITLE = 'Infinite width: kernels of wide networks, and what they predict'
ASKED = (
  'Infinitely wide networks are kernel machines that can be computed exactly. How accurate '
  'are they? Does the kernel’s measure of the labels rank true labels and the paper’s '
  'randomizations as the test error does, and does it tell how soon they are fitted? And '
  'do the features of a network move less as it gets wider?'
)
FOUND = (
  'The paper does not ask. Lee et al. (arXiv:1711.00165) find kernels at least as accurate '
  'as networks; their accuracies are given as the paper’s here. Arora et al. '
  '(arXiv:1901.08584) bound the test error by a measure of labels and kernel, and predict '
  'the training curve. Yang & Hu (arXiv:2011.14522) show that features do not move in the '
  'limit of the NTK parametrization, and do in that of the maximal-update parametrization.'
)
COLUMNS = {
  'nngp': Column('NNGP accuracy', '%', '.2f'),
  'nngp_error': Column('±', '%', '.2f'),
  'ntk': Column('NTK accuracy', '%', '.2f'),
  'ntk_error': Column('±', '%', '.2f'),
  'measure': Column('√(2 yᵀH⁻¹y/n)', '', '.2f'),
  'measure_error': Column('±', '', '.2f'),
  'top': Column('|y|² in the top tenth', '%', '.1f'),
  'test_error': Column('test error', '%', '.2f'),
  'test_error_error': Column('±', '%', '.2f'),
  'epochs': Column('epochs to fit', '', '.1f'),
  'epochs_error': Column('±', '', '.1f'),
  'rank_test_error': Column('rank correlation with test error', '', '+.2f'),
  'rank_test_error_error': Column('±', '', '.2f'),
  'rank_epochs': Column('rank correlation with epochs', '', '+.2f'),
  'rank_epochs_error': Column('±', '', '.2f'),
  'rank_noise': Column('with test error, label noise alone', '', '+.2f'),
  'predicted': Column('steps to a tenth, predicted', '', '.0f'),
  'measured': Column('measured', '', '.0f'),
  'curve_gap': Column('largest gap of the curves', '', '.4f'),
  'narrow': Column('feature change, narrowest', '', '.4f'),
  'wide': Column('feature change, widest', '', '.4f'),
  'slope': Column('slope', '', '+.3f'),
  'slope_error': Column('±', '', '.3f'),
}
CAPTION = (
  'Top: mean test error and mean epochs to fit of networks with one hidden layer of '
  f'{wide_networks.WIDTH} units, against √(2 yᵀH⁻¹y/n) of the same images and labels, for '
  'two classes; bars are standard errors over draws of images, labels and networks. '
  'Lines join the six levels of label noise, from 0 to 1. Bottom '
  'left: squared error as a share of |y|² during gradient descent on the first of two '
  'layers, predicted from the kernel (lines) and measured (dots); the table has the first '
  'step at which it is a tenth. Bottom right: root mean '
  'square change of the last hidden layer in training against its width. In the table, '
  '± is a standard error over draws or networks, or over test images if there is one draw; '
  'the top tenth are the eigenvectors of H with the largest eigenvalues; rank correlations '
  '(Spearman) of √(2 yᵀH⁻¹y/n) are over all rows of a data set, in its row with true '
  'labels; √(2 yᵀH⁻¹y/n) is the label-dependent term of a bound on the test loss, which '
  'says nothing above 1.'
)
# {(data set, training images): (hidden layers, weight variance, bias variance, accuracy in
# % of the NNGP, of a network)}: arXiv:1711.00165, Table 1, the best on held-out images.
PUBLISHED = {
  ('mnist', 1_000): (20, 1.45, 0.28, 92.79, 92.52),
  ('cifar10', 1_000): (7, 1.28, 0.0, 36.08, 32.25),
  ('mnist', 10_000): (7, 0.61, 0.07, 97.65, 97.71),
  ('cifar10', 10_000): (5, 2.97, 0.28, 47.80, 45.45),
  ('mnist', 50_000): (1, 0.10, 0.48, 98.75, 98.64),
  ('cifar10', 45_000): (3, 3.31, 1.86, 55.66, 53.13),
}
# {row: (mode of corruption, label noise)}
RANDOMIZATIONS = {
  'true_labels': ('none', 0.0),
  **{f'noise_{noise}': ('partial_labels', noise) for noise in (0.2, 0.4, 0.6, 0.8)},
  'random_labels': ('random_labels', 1.0),
  'shuffled_pixels': ('shuffled_pixels', 0.0),
  'random_pixels': ('random_pixels', 0.0),
  'gaussian': ('gaussian', 0.0),
}
NOISE_LEVELS = tuple(RANDOMIZATIONS)[:6]
TENTH = 0.1  # of |y|^2
MARKERS = {'shuffled_pixels': 's', 'random_pixels': '^', 'gaussian': 'D'}
SIZES: dict[str, dict[str, dict[str, Any]]] = {
  'smoke': {
    'labels': {'num_train': 60, 'draws': 2, 'max_epochs': 500},
    'curves': {'dataset': 'digits', 'num_train': 32, 'width': 512, 'steps': 50},
    'features': {
      **{'dataset': 'digits', 'num_train': 32, 'widths': [16, 64, 256], 'networks': 2},
      **{'base_width': 64, 'steps': 3},
    },
  },
  'laptop': {
    'labels': {'num_train': 1_000, 'draws': 3, 'max_epochs': 1_000},
    'curves': {'dataset': 'cifar10', 'num_train': 100, 'width': 32_768, 'steps': 100},
    'features': {
      **{'dataset': 'mnist', 'num_train': 64, 'widths': [64, 256, 1_024, 4_096]},
      **{'networks': 5, 'base_width': 512, 'steps': 10},
    },
  },
  'full': {
    'labels': {'num_train': 5_000, 'draws': 10, 'max_epochs': 1_000},
    'curves': {'dataset': 'cifar10', 'num_train': 250, 'width': 131_072, 'steps': 500},
    'features': {
      **{'dataset': 'mnist', 'num_train': 128, 'networks': 10, 'base_width': 512},
      **{'widths': [64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192], 'steps': 20},
    },
  },
}
SAYS = {
  'smoke': 'Handwritten digits and small networks: shows that everything runs, no more.',
  'laptop': (
    'Kernels on 1,000 images (3 draws) and 10,000 (one draw) of MNIST and CIFAR-10, and '
    'networks on 1,000 images of two classes.'
  ),
  'full': 'Kernels on up to 50,000 images, networks on 5,000 images of two classes.',
}


def rows(scale: str) -> list[Row]:
  sizes = SIZES[scale]
  two = ('digits',) if scale == 'smoke' else ('mnist', 'cifar10')
  return [
    *(
      Row(f'labels_{dataset}_{name}', 'infinite_width', changes)
      for dataset in two
      for name, (mode, noise) in RANDOMIZATIONS.items()
      for changes in [
        {'part': 'labels', 'dataset': dataset, 'mode': mode, 'label_noise': noise}
        | sizes['labels']
      ]
    ),
    *(
      Row(
        f'curve_{labels}_labels',
        'infinite_width',
        {'part': 'curves', 'labels': labels} | sizes['curves'],
      )
      for labels in wide_networks.LABELS
    ),
    *(
      Row(
        f'features_{name}',
        'infinite_width',
        {'part': 'features', 'parametrization': name, 'depth': 2, 'learning_rate': 0.05}
        | sizes['features'],
      )
      for name in ('ntk', 'mup')
    ),
    *accuracy_rows(scale),
  ]


def accuracy_rows(scale: str) -> Iterator[Row]:
  """The rows of kernels, the largest last."""
  if scale == 'smoke':
    yield _accuracy('digits', 200, 2, 300, (3, 2.0, 0.1))
    return
  for (dataset, count), (*architecture, nngp, network) in PUBLISHED.items():
    if count > 10_000 and scale == 'laptop':
      continue
    draws = 1 if count > (1_000 if scale == 'laptop' else 10_000) else 3
    row = _accuracy(dataset, count, draws, 10_000, architecture)
    note = f'paper: Lee et al., Table 1; their best network {network:.2f} %'
    yield row._replace(paper={'nngp': nngp}, note=note)


def _accuracy(dataset, count, draws, num_test, architecture):
  names = theory.Architecture._fields
  changes = {
    **{'part': 'accuracy', 'dataset': dataset, 'num_train': count, 'num_test': num_test},
    **{'draws': draws},
    **dict(zip(names, architecture, strict=True)),
  }
  return Row(f'kernels_{dataset}_{count}', 'infinite_width', changes)


PARTS = {
  'accuracy': wide_networks.kernel_accuracies,
  'labels': wide_networks.label_measures,
  'curves': wide_networks.training_curves,
  'features': wide_networks.feature_changes,
}


def compute(settings: dict, folder: pathlib.Path, say: Callable) -> dict:
  """What the function of the row's part returns; see `wide_networks`."""
  del folder
  return PARTS[settings['part']](settings, say)


def mean_and_error(values: list[float]) -> tuple[float, float | None]:
  """The mean and its standard error, which is None for a single value."""
  if len(values) < 2:
    return values[0], None
  return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  settings, summary = runs[name, seed].config, runs[name, seed].summary
  part = settings['part']
  if part == 'curves':
    gap = np.abs(np.subtract(summary['measured'], summary['predicted'])).max()
    measured = {'measure': summary['measure'], 'curve_gap': float(gap)}
    for kind in ('predicted', 'measured'):
      small = np.flatnonzero(np.array(summary[kind]) <= TENTH)
      if len(small):
        measured[kind] = summary['steps'][small[0]]
    return measured
  if part == 'features':
    changes = np.array(summary['changes'])
    logarithms = np.log(settings['widths'])
    slopes = [float(np.polyfit(logarithms, np.log(own), 1)[0]) for own in changes]
    measured = dict(zip(('slope', 'slope_error'), mean_and_error(slopes), strict=True))
    ends = np.argsort(settings['widths'])[[0, -1]]
    narrow, wide = changes.mean(0)[ends].tolist()
    return measured | {'narrow': narrow, 'wide': wide}
  columns = {
    'accuracy': {'nngp': 100, 'ntk': 100},
    'labels': {'measure': 1, 'top': 100, 'test_error': 100, 'epochs': 1},
  }[part]
  measured = {}
  for column, scale in columns.items():
    if None in summary[column]:  # a network that did not fit its labels
      continue
    mean, error = mean_and_error([scale * value for value in summary[column]])
    measured |= {column: mean, f'{column}_error': error}
  if part == 'accuracy' and measured['nngp_error'] is None:  # one draw: of the test images
    for column in columns:
      share = summary[column][0] * (1 - summary[column][0])
      measured[f'{column}_error'] = 100 * math.sqrt(share / settings['num_test'])
  if name.endswith('true_labels'):
    measured |= rank_correlations(runs, settings['dataset'], seed)
  return {column: value for column, value in measured.items() if column in COLUMNS}


def rank_correlations(runs: Runs, dataset: str, seed: int) -> dict[str, float | None]:
  """Spearman's correlations of the measure over the randomizations, averaged over draws."""
  from scipy import stats  # slow to import

  found: dict[str, float | None] = {}
  for result, column, names in (
    ('rank_test_error', 'test_error', RANDOMIZATIONS),
    ('rank_epochs', 'epochs', RANDOMIZATIONS),
    ('rank_noise', 'test_error', NOISE_LEVELS),
  ):
    keys = [(f'labels_{dataset}_{name}', seed) for name in names]
    if not all(key in runs for key in keys):
      return {}
    one, other = ([runs[key].summary[c] for key in keys] for c in ('measure', column))
    if any(None in values for values in other):
      continue
    each = [
      float(stats.spearmanr(*draw).statistic)
      for draw in zip(np.transpose(one), np.transpose(other), strict=True)
    ]
    found[result], found[f'{result}_error'] = mean_and_error(each)
  return found


def draw(entries: list[dict], runs: Runs):
  figure, axes = drawing.subplots(2, 2, height=6.6)
  _draw_labels(axes[0], entries)
  _draw_curves(axes[1, 0], runs)
  _draw_features(axes[1, 1], runs)
  return figure


def _draw_labels(axes, entries):
  names = {'digits': 'digits', 'mnist': 'MNIST', 'cifar10': 'CIFAR-10'}
  for color, dataset in zip(drawing.PALETTE, names, strict=False):
    own = {
      entry['name'].removeprefix(f'labels_{dataset}_'): entry['ours']
      for entry in entries
      if entry['name'].startswith(f'labels_{dataset}_')
      and entry['ours']['test_error'] is not None
    }
    for axis, column in zip(axes, ('test_error', 'epochs'), strict=True):
      for kinds, style in (
        (NOISE_LEVELS, {'fmt': 'o-', 'label': f'{names[dataset]}, label noise'}),
        *(((name,), {'fmt': mark}) for name, mark in MARKERS.items()),
      ):
        points = [own[name] for name in kinds if name in own]
        if points:
          axis.errorbar(
            *([point[c] for point in points] for c in ('measure', column)),
            *([point[f'{c}_error'] or 0 for point in points] for c in (column, 'measure')),
            **style,
            **{'color': color, 'linewidth': 1, 'fillstyle': 'none', 'markersize': 5},
          )
  for axis, label in zip(axes, ('test error (%)', 'epochs to fit'), strict=True):
    axis.set(xlabel='√(2 yᵀH⁻¹y/n)', ylabel=label, ylim=0)
  for name, mark in MARKERS.items():
    style = {'color': 'gray', 'fillstyle': 'none', 'markersize': 5}
    axes[1].plot([], [], mark, label=name.replace('_', ' '), **style)
  drawing.legend(axes[1], fontsize=7, loc='upper left')


def _draw_curves(axis, runs):
  curves = [run for run in runs.values() if run.config['part'] == 'curves']
  for color, run in zip(drawing.PALETTE, curves, strict=False):
    summary = run.summary
    axis.plot(summary['steps'], summary['predicted'], color=color, linewidth=1)
    style = {'color': color, 'markersize': 3, 'label': f'{run.config["labels"]} labels'}
    axis.plot(summary['steps'], summary['measured'], 'o', **style)
  axis.set_xscale('symlog', linthresh=1)
  axis.set(xlabel='steps of gradient descent', ylabel='|y − u|² / |y|²', ylim=0, xlim=0)
  drawing.legend(axis, loc='lower left')


def _draw_features(axis, runs):
  features = [run for run in runs.values() if run.config['part'] == 'features']
  for color, run in zip(drawing.PALETTE, features, strict=False):
    widths, changes = run.config['widths'], np.array(run.summary['changes'])
    for own in changes:
      axis.plot(widths, own, 'o', color=color, markersize=3, alpha=0.5)
    names = {'ntk': 'NTK parametrization', 'mup': 'maximal update'}
    label = names.get(run.config['parametrization'], run.config['parametrization'])
    axis.plot(widths, np.exp(np.log(changes).mean(0)), color=color, label=label)
    axis.set(xscale='log', yscale='log')
    axis.set_xticks(widths, widths)
    axis.xaxis.set_minor_formatter('')
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter('{x:g}')
  axis.set(xlabel='width', ylabel='change of the features')
  drawing.legend(axis, loc='lower left')


def findings(entries: list[dict]) -> Iterator[str]:
  done = [entry for entry in entries if any(v is not None for v in entry['ours'].values())]
  for entry in done:
    part, ours, changes = entry['changes']['part'], entry['ours'], entry['changes']
    if part == 'accuracy':
      published = entry['paper'].get('nngp')
      yield (
        f'{changes["dataset"]}, {changes["num_train"]:,} images: NNGP '
        f'{ours["nngp"]:.2f} ± {ours["nngp_error"]:.2f} % right'
        f'{"" if published is None else f", published {published:.2f} %"}; NTK '
        f'{ours["ntk"]:.2f} ± {ours["ntk_error"]:.2f} % (standard errors over '
        f'{_counted(changes["draws"])}).'
      )
    elif part == 'curves':
      steps = [
        f'more than {changes["steps"]:,}' if ours[kind] is None else f'{ours[kind]:.0f}'
        for kind in ('predicted', 'measured')
      ]
      yield (
        f'{changes["labels"].capitalize()} labels: {steps[0]} steps are predicted to bring '
        f'the squared error to a tenth, and {steps[1]} do at width {changes["width"]:,}; '
        f'the curves are at most {100 * ours["curve_gap"]:.1f} % of |y|² apart.'
      )
    elif part == 'features':
      yield (
        f'{changes["parametrization"]}: from width {min(changes["widths"]):,} to '
        f'{max(changes["widths"]):,} the change of the last hidden layer goes from '
        f'{ours["narrow"]:.3g} to {ours["wide"]:.3g}, a log-log slope of '
        f'{ours["slope"]:+.3f} ± {ours["slope_error"] or 0:.3f} (standard error over '
        f'{changes["networks"]} networks).'
      )
    elif ours['rank_noise'] is not None:
      yield from _rankings(entry, done)


def _counted(draws):
  return 'the test images' if draws == 1 else f'{draws} draws'


def _rankings(entry, done):
  dataset, ours = entry['changes']['dataset'], entry['ours']
  by_name = {other['name']: other['ours'] for other in done}
  for name in ('true_labels', 'random_labels', 'gaussian'):
    own = by_name.get(f'labels_{dataset}_{name}')
    if own and own['epochs'] is not None:
      yield (
        f'{dataset}, {name.replace("_", " ")}: measure {own["measure"]:.2f}, test error '
        f'{own["test_error"]:.1f} ± {own["test_error_error"] or 0:.1f} %, fitted after '
        f'{own["epochs"]:.1f} ± {own["epochs_error"] or 0:.1f} epochs.'
      )
  errors = [
    f'{ours[name]:+.2f} ± {ours[f"{name}_error"] or 0:.2f}'
    for name in ('rank_test_error', 'rank_epochs')
  ]
  yield (
    f'{dataset}: over all {len(RANDOMIZATIONS)} randomizations the measure has a rank '
    f'correlation of {errors[0]} with the test error and {errors[1]} with the epochs to '
    f'fit (standard errors over {entry["changes"]["draws"]} draws); over the six levels of '
    f'label noise alone {ours["rank_noise"]:+.2f} with the test error.'
  )
