"""Finished and unfinished runs: compared in a table, opened, exported."""

import importlib

HOME = {'Run': 'opening', 'open': 'opening', 'table': 'compare', 'export': 'parameters'}
__all__ = [*HOME]


def __getattr__(name):
  # Only when asked for: it imports JAX, and `python -m` imports this module first.
  if name in HOME:
    return getattr(importlib.import_module(f'{__name__}.{HOME[name]}'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
