"""Follow-up studies: one module per question, with the interface of an artifact."""

from rethink_gen.studies import complexity, fitting_time, hashing

STUDIES = {
  'complexity': complexity,
  'hashing': hashing,
  'fitting_time': fitting_time,
}
