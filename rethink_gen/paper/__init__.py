"""The paper's claims: one module per table, figure or theorem.

Each module defines its grid of runs as data, `rows(scale)`, and evaluates the runs with
`measure`, `draw` and `findings`, next to its texts and the paper's numbers. Its rows are
training runs unless it has a `compute` of its own.
"""

from rethink_gen.paper import (
  appendix_e,
  cifar_kernel,
  figure1a,
  figure1b,
  figure1c,
  figure2a,
  figure2b,
  linear_sgd,
  mnist_kernel,
  table1,
  table2,
  theorem1,
)

PAPER = {
  'table1': table1,
  'figure1a': figure1a,
  'figure1b': figure1b,
  'figure1c': figure1c,
  'figure2b': figure2b,
  'table2': table2,
  'figure2a': figure2a,
  'appendix_e': appendix_e,
  'theorem1': theorem1,
  'mnist_kernel': mnist_kernel,
  'cifar_kernel': cifar_kernel,
  'linear_sgd': linear_sgd,
}
