"""What the paper claims: one file per table or figure.

Each says its grid as data, `rows(scale)`, and what to make of the runs: `measure`, `draw`,
`findings`, with the words and the paper's numbers beside them.
"""

from rethink_gen.paper import appendix_e, figure1a, figure1b, figure1c, figure2b, table1

ARTIFACTS = {
  'table1': table1,
  'figure1a': figure1a,
  'figure1b': figure1b,
  'figure1c': figure1c,
  'figure2b': figure2b,
  'appendix_e': appendix_e,
}
