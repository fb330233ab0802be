"""What followed the paper: one file per question, with the contract of an artifact."""

from rethink_gen.studies import complexity, fitting_time, hashing

STUDIES = {
  'complexity': complexity,
  'hashing': hashing,
  'fitting_time': fitting_time,
}
