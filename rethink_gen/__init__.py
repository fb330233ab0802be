"""Understanding deep learning requires rethinking generalization, in JAX and Flax."""

# All but the programs main and reproduce, whose flags would clash in one process.
__all__ = [
  *('checkpoint', 'command_line', 'config', 'data', 'distributed', 'errors', 'estimate'),
  *('examples', 'interrupt', 'metrics', 'models', 'paper', 'runs', 'sgd', 'streamed'),
  *('theory', 'together', 'train'),
]
