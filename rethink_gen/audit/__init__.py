"""The paper's randomization tests, for any model."""

LAZY = ('Result', 'randomization_test')


def __getattr__(name):
  # Imported on request: it imports JAX, and `python -m` imports this module first.
  if name in LAZY:
    from rethink_gen.audit import testing

    return getattr(testing, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
