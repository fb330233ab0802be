"""The paper's randomization tests of anybody's model."""

__all__ = ['Result', 'randomization_test']


def __getattr__(name):
  # Only when asked for: it imports JAX, and `python -m` imports this module first.
  if name in __all__:
    from rethink_gen.audit import testing

    return getattr(testing, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
