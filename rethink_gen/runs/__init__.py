"""Compares, opens and exports runs, finished or not."""

import importlib

LAZY = {'Run': 'opening', 'open': 'opening', 'table': 'compare', 'export': 'parameters'}


def __getattr__(name):
  # Imported on first use: it imports JAX, and `python -m` imports this module first.
  if name in LAZY:
    return getattr(importlib.import_module(f'{__name__}.{LAZY[name]}'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
