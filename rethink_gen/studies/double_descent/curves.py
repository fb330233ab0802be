"""Curves over the width, from the entries of the table."""

import math
from typing import NamedTuple


def row_name(part: str, num_train: int, width: int, noise: float) -> str:
  return f'{part}_n{num_train}_w{width}_noise{100 * noise:.0f}'


def own_size(entries: list[dict], part: str) -> int | None:
  """The number of examples in the part's first row, from which the others may differ."""
  own = (entry['changes'] for entry in entries)
  return next((each['num_train'] for each in own if each['part'] == part), None)


def of_curve(
  entries: list[dict], part: str, noise: float, num_train: int | None = None
) -> list[tuple[int, dict]]:
  """[(width, numbers)] of a part's finished rows with this noise, narrowest first.

  num_train: None for `own_size`.
  """
  wanted = part, num_train or own_size(entries, part), noise
  found = {
    entry['changes']['width']: entry['ours']
    for entry in entries
    if entry['status'] == 'complete'
    and tuple(entry['changes'][name] for name in ('part', 'num_train', 'noise')) == wanted
  }
  return sorted(found.items())


def samples_of(entries: list[dict], part: str) -> list[int]:
  """The numbers of training examples of a part's rows, smallest first."""
  own = [entry['changes'] for entry in entries if entry['changes']['part'] == part]
  return sorted({changes['num_train'] for changes in own})


class Rise(NamedTuple):
  """The largest rise of a curve above its lowest point so far."""

  low: int  # the width of that point
  width: int  # and of the one above it
  size: float
  error: float  # standard error of the size, as if the two were independent


def largest_rise(curve: list[tuple[int, dict]], column: str) -> Rise | None:
  """The largest rise of `column` from a narrower to a wider model, or None."""
  rises = []
  for place, (width, ours) in enumerate(curve[1:], 1):
    low, least = min(curve[:place], key=lambda point: point[1][column])
    errors = least[f'{column}_se'], ours[f'{column}_se']
    rises.append(Rise(low, width, ours[column] - least[column], math.hypot(*errors)))
  return max(rises, key=lambda rise: rise.size, default=None)
