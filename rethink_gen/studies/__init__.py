"""Follow-up studies: one module per question, with the interface of an artifact."""

from rethink_gen.studies import complexity, fitting_time, hashing, simplicity_bias, volume

STUDIES = {
  'complexity': complexity,
  'hashing': hashing,
  'fitting_time': fitting_time,
  'volume': volume,
  'simplicity_bias': simplicity_bias,
}
