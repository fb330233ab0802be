"""Follow-up studies: one module per question, with the interface of an artifact."""

from rethink_gen.studies import (
  complexity,
  double_descent,
  double_descent_cnn,
  fitting_time,
  hashing,
  infinite_width,
  simplicity_bias,
  volume,
)

STUDIES = {
  'complexity': complexity,
  'hashing': hashing,
  'fitting_time': fitting_time,
  'volume': volume,
  'simplicity_bias': simplicity_bias,
  'infinite_width': infinite_width,
  'double_descent': double_descent,
  'double_descent_cnn': double_descent_cnn,
}
