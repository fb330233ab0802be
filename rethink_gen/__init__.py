"""Understanding deep learning requires rethinking generalization, in JAX and Flax."""

# All but the command-line programs, whose flags would clash in one process.
__all__ = [
  *('audit', 'cli', 'config', 'data', 'errors', 'estimate', 'files', 'interrupt', 'memory'),
  *('models', 'ops', 'output', 'paper', 'paths', 'progress', 'reporting', 'reproduce'),
  *('runs', 'sharding', 'studies', 'text', 'theory', 'train'),
]


def __getattr__(name):
  # Imported on demand, because JAX takes seconds to import.
  if name == 'randomization_test':
    from rethink_gen.audit import randomization_test

    return randomization_test
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
