"""All artifacts that `--artifact` accepts, by name."""

from rethink_gen.paper import PAPER
from rethink_gen.studies import STUDIES

ARTIFACTS = PAPER | STUDIES
