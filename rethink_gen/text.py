"""Text and numbers formatted for people to read."""

import math
from collections.abc import Collection, Iterable


def shorten(text: str, width: int) -> str:
  """Truncates the text to `width`, ending in an ellipsis, which is always kept."""
  return text if len(text) <= width else text[: max(width - 1, 0)] + '…'


def format_duration(seconds: float) -> str:
  """Formats seconds: 48 s, 3 min 5 s, 2 h 10 min."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 3600:
    return f'{seconds // 60} min {seconds % 60} s'
  return f'{seconds // 3600} h {seconds % 3600 // 60} min'


def format_percent(fraction: float | None) -> str:
  """Formats a fraction: '99.98%'; only 1 itself becomes '100.00%', and None 'none'."""
  if fraction is None:
    return 'none'
  return f'{1 if fraction == 1 else min(fraction, 0.9999):.2%}'


def format_range(values: Collection[float]) -> str:
  """'18.75 to 21.00', minimum to maximum, or one number if both print alike."""
  ends = [f'{end:.2f}' for end in (min(values), max(values))]
  return ' to '.join(dict.fromkeys(ends))


def format_list(items: Iterable) -> str:
  """'1, 2 and 3'; at least one item."""
  *most, last = map(str, items)
  return f'{", ".join(most)} and {last}' if most else last


def format_quantity(number: float, unit: str) -> str:
  """Formats a number with an SI prefix, to three digits: '1.21 GB'."""
  number = float(f'{number:.3g}')  # 999.9 becomes a thousand
  power = min(6, int(math.log10(max(number, 1)) / 3 + 1e-9))
  return f'{number / 1000**power:.3g} {("", *"kMGTPE")[power]}{unit}'
