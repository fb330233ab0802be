"""Understanding deep learning requires rethinking generalization, in JAX and Flax."""

# All but the programs main and reproduce, whose flags would clash in one process.
__all__ = [
  *('audit', 'audit_report', 'checkpoint', 'command_line', 'config', 'data', 'distributed'),
  *('errors', 'estimate', 'examples', 'identity', 'interrupt', 'learners', 'metrics'),
  *('models', 'output', 'paper', 'paths', 'programs', 'randomizations', 'runs', 'sgd'),
  *('significance', 'streamed', 'theory', 'together', 'train', 'workdirs'),
]


def __getattr__(name):
  # Only when asked for: it imports JAX, which takes seconds.
  if name == 'randomization_test':
    from rethink_gen.audit import randomization_test

    return randomization_test
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
