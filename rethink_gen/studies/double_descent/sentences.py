"""The findings: what the numbers say, one sentence each."""

from collections.abc import Iterator

import numpy as np

from rethink_gen.studies.double_descent.curves import largest_rise, of_curve, samples_of
from rethink_gen.studies.double_descent.least_squares import NOISES
from rethink_gen.text import format_list

# Test errors in percent differ at this many standard errors of their difference.
DIFFERENT = 2


def findings(entries: list[dict]) -> Iterator[str]:
  """What the numbers say, one sentence each."""
  yield from say_fourier(entries)
  yield from say_fourier_samples(entries)
  yield from say_closed_forms(entries)
  for n in samples_of(entries, 'network'):
    for noise in NOISES:
      if curve := of_curve(entries, 'network', noise, n):
        yield from say_network(curve, n, noise)
  yield from say_network_samples(entries)


def _pm(ours, column, form='.1f'):
  """'12.3 ± 0.4'."""
  return f'{ours[column]:{form}} ± {ours[f"{column}_se"]:{form}}'


def say_fourier(entries: list[dict]) -> Iterator[str]:
  for noise in NOISES:
    curve = of_curve(entries, 'fourier', noise)
    at = dict(curve)
    threshold = next((round(ours['threshold']) for ours in at.values()), None)
    below = [width for width in at if width < threshold]
    if threshold not in at or not below:
      continue
    best, widest = min(below, key=lambda width: at[width]['error']), max(at)
    points = [at[width] for width in (best, threshold, widest)]
    errors, risks, norms = (
      [format(point[column], form) for point in points]
      for column, form in (('error', '.1f'), ('risk', '.3g'), ('norm', '.3g'))
    )
    ratio = points[1]['error'] / points[0]['error']
    rise = largest_rise(curve, 'ridge_error')
    yield (
      f'Random Fourier features, n = {threshold:,}, {100 * noise:.0f} % wrong labels: the '
      f'best test error below N = n is {_pm(points[0], "error")} % (N = {best:,}); at '
      f'N = n it is {_pm(points[1], "error")} %, {ratio:.1f} times as high, and at '
      f'N = {widest:,} {_pm(points[2], "error")} % (± standard errors over '
      f'seeds). At these three widths the squared risk is {format_list(risks)}, and the '
      f'weight norm {format_list(norms)}.'
    )
    shown = rise.size > DIFFERENT * rise.error
    yield (
      'There, with the ridge chosen on held-out images, the test error is '
      f'{_pm(points[1], "ridge_error")} % at N = n and {_pm(points[2], "ridge_error")} % '
      f'at N = {widest:,}. Its largest change from a smaller N to a larger is '
      f'{rise.size:+.2f} ± {rise.error:.2f} points: {"a" if shown else "no"} rise by more '
      f'than {DIFFERENT} standard errors.'
    )


def say_fourier_samples(entries: list[dict]) -> Iterator[str]:
  counts = samples_of(entries, 'fourier')
  by_width: dict[int, list] = {}
  for count in counts:
    for width, ours in of_curve(entries, 'fourier', NOISES[-1], count):
      by_width.setdefault(width, []).append((count, ours))
  for width, curve in by_width.items():
    if len(curve) == len(counts) > 1:
      errors = format_list(_pm(ours, 'error') for _, ours in curve)
      ridge = format_list(_pm(ours, 'ridge_error') for _, ours in curve)
      rise = largest_rise(curve, 'error')
      sizes = format_list(f'{count:,}' for count in counts)
      hurts = rise.size > DIFFERENT * rise.error
      yield (
        f'{width:,} Fourier features on n = {sizes} '
        f'images, {100 * NOISES[-1]:.0f} % wrong labels: the test error is {errors} % '
        f'without ridge and {ridge} % with the best. More examples '
        f'{"hurt" if hurts else "are not shown to hurt"} without ridge.'
      )


def say_closed_forms(entries: list[dict]) -> Iterator[str]:
  names = {'isotropic': 'Gaussian inputs', 'relu': 'random ReLU features'}
  for part, name in names.items():
    points = [
      (entry['changes'], entry['ours'])
      for entry in entries
      if entry['changes']['part'] == part and entry['status'] == 'complete'
    ]
    if not points:
      continue
    excess = [100 * (ours['risk'] / ours['formula'] - 1) for _, ours in points]
    near = sum(
      abs(ours['risk'] - ours['formula']) <= DIFFERENT * ours['risk_se']
      for _, ours in points
    )
    own = points[0][0]
    limit = f', the limit of large d, at d = {own["inputs"]}' if part == 'relu' else ''
    yield (
      f'{name[0].upper()}{name[1:]}, n = {own["num_train"]:,}: the simulated risk exceeds '
      f'the closed form{limit} by {np.mean(excess):+.1f} % on average ({min(excess):+.1f} '
      f'to {max(excess):+.1f} %); {near} of {len(points)} points are within {DIFFERENT} '
      'standard errors of it.'
    )


def say_network(curve: list[tuple[int, dict]], n: int, noise: float) -> Iterator[str]:
  """The peak in width, where it is expected, and what longer training does."""
  at, (widest, last) = dict(curve), curve[-1]
  start = f'Networks, n = {n:,}, {100 * noise:.0f} % wrong labels'
  fits = next((f'at H = {w}' for w, ours in curve if ours['train_error'] < 1), 'nowhere')
  expected = (
    f'The training error is first below 1 % {fits}; there are nK parameters, where a '
    f'squared loss could first be fitted, at H = {last["threshold"]:.1f}.'
  )
  if peak := _peak(curve, 'error', '.1f', ' %'):
    yield f'{start}: test error {peak} {expected}'
  else:
    yield (
      f'{start}: no peak in width is shown; test error falls to {_pm(last, "error")} % at '
      f'H = {widest}. {expected}'
    )
  if peak := _peak(curve, 'loss', '.2f', ''):
    yield f'{start}: test loss {peak}'
  for column, words in (
    ('longer', 'training to the end, instead of to the best epoch on held-out images,'),
    ('fall', 'after a higher error in between (epoch-wise double descent), more training'),
  ):
    sign = 'raises' if column == 'longer' else 'lowers'
    found = [
      width for width, ours in curve if ours[column] > DIFFERENT * ours[f'{column}_se']
    ]
    if found:
      most = max(found, key=lambda width: at[width][column])
      yield (
        f'{start}: {words} {sign} the test error by more than {DIFFERENT} standard errors '
        f'at H = {format_list(found)}; the most is {_pm(at[most], column)} points '
        f'(H = {most}).'
      )
    else:
      yield (
        f'{start}: {words} {sign} the test error at no width by more than {DIFFERENT} '
        'standard errors.'
      )


def _peak(curve, column, form, unit):
  """'peaks in width. It is ...', or None if it does not."""
  rise = largest_rise(curve, column)
  if not rise or rise.size <= DIFFERENT * rise.error:
    return None
  places = rise.low, rise.width, curve[-1][0]
  values = [f'{_pm(dict(curve)[w], column, form)}{unit} at H = {w}' for w in places]
  return f'peaks in width. It is {format_list(values)}.'


def say_network_samples(entries: list[dict]) -> Iterator[str]:
  """Where a network of the same width has a higher error on more examples."""
  counts = samples_of(entries, 'network')
  for few, many in zip(counts, counts[1:], strict=False):
    one, other = (
      dict(of_curve(entries, 'network', NOISES[-1], count)) for count in (few, many)
    )
    changes = {
      width: largest_rise([(few, one[width]), (many, other[width])], 'error')
      for width in one
      if width in other
    }
    if not changes:
      continue
    hurt = [w for w, rise in changes.items() if rise.size > DIFFERENT * rise.error]
    most = max(changes, key=lambda width: changes[width].size)
    where = (
      f'raises the test error by more than {DIFFERENT} standard errors at H = '
      f'{format_list(hurt)}'
      if hurt
      else f'raises the test error at no width by more than {DIFFERENT} standard errors'
    )
    yield (
      f'Networks, {100 * NOISES[-1]:.0f} % wrong labels: going from n = {few:,} to '
      f'{many:,} {where}; the largest change is {changes[most].size:+.1f} ± '
      f'{changes[most].error:.1f} points at H = {most}.'
    )
