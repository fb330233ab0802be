"""Differences between rows over seeds, with their standard errors."""

import math
import statistics
from typing import NamedTuple


class Difference(NamedTuple):
  """The mean difference between two rows over the seeds that both have."""

  mean: float
  error: float | None  # standard error of the mean; None with one seed
  seeds: int


def paired(
  first: dict[int, float | None], second: dict[int, float | None]
) -> Difference | None:
  """The Difference first - second of {seed: value or None}; None if no seed has both."""
  each = [
    value - second[seed]
    for seed, value in first.items()
    if value is not None and second.get(seed) is not None
  ]
  if not each:
    return None
  error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else None
  return Difference(statistics.mean(each), error, len(each))


def describe(difference: Difference, unit: str) -> str:
  """'+3.20 ± 0.40 points (standard error, 3 seeds)', or '+3.20 points (one run each)'."""
  if difference.error is None:
    return f'{difference.mean:+z.2f} {unit} (one run each)'
  return (
    f'{difference.mean:+z.2f} ± {difference.error:.2f} {unit} (standard error, '
    f'{difference.seeds} seeds)'
  )
