"""The contract of an artifact: a table or figure of the paper, or a study.

An artifact is a module with the names of `Artifact`. Its rows say, as data, what is to be
run at each scale; the rest turns finished runs into numbers, a figure and sentences.
Rows are training runs, unless the module also has the names of `Computed`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Row(NamedTuple):
  """One line of an artifact."""

  name: str  # what --rows picks
  config: str  # configs/NAME.py; for what is computed, the artifact's name
  changes: dict  # {field: value} on top of it
  paper: dict = {}  # {column: the paper's number}
  note: str = ''  # what the paper says in words, or what is different here


class Column(NamedTuple):
  """One number that an artifact reports for every row."""

  label: str
  unit: str  # '%', or '' for none
  format: str  # a format specification, such as '.2f'


class Run(NamedTuple):
  """What a finished run has left."""

  config: dict
  summary: dict
  records: list  # its evaluations, as in metrics.jsonl
  losses: Any  # float32 (steps,)
  accuracies: Any = ()  # float32 (steps,), of the batches as they were trained on
  examples: dict | None = None  # of `example_history.summarize`, where recorded


Runs = dict[tuple[str, int], Run]  # by (row name, seed)


@runtime_checkable
class Artifact(Protocol):
  """What every artifact's module has.

  Attributes:
    TITLE, ASKED, FOUND, CAPTION: its heading, the question, what the paper found, and the
      caption of the figure.
    COLUMNS: {name: Column}, the numbers in a row of the table.

  Optional names: SAYS, {scale: sentence} where the scale means something of its own;
  SEEDS, {scale: number of seeds} where a claim needs more than one.
  """

  TITLE: str
  ASKED: str
  FOUND: str
  CAPTION: str
  COLUMNS: dict[str, Column]

  def rows(self, scale: str) -> list[Row]:
    """The rows at a scale: 'smoke', 'laptop' or 'full'."""

  def measure(self, runs: Runs, name: str, seed: int) -> dict[str, float | None]:
    """{column: number} of one run; it may compare it with the others."""

  def draw(self, entries: list[dict], runs: Runs):
    """The matplotlib Figure; entries as `grid.make_entries` gives them."""

  def findings(self, entries: list[dict]) -> Iterable[str]:
    """What the numbers say, a sentence each, and no more."""


@runtime_checkable
class Computed(Protocol):
  """What an artifact has besides if its rows are computed and not trained.

  `settings` are a row's changes and 'seed', plain JSON: all that decides the result.
  """

  compute: Callable  # compute(settings, folder, say) -> dict, which summary.json gets

  def check(self, settings: dict) -> None:
    """Raises BadInput for settings that `compute` cannot use, before anything runs."""

  def expected_seconds(self, settings: dict) -> float:
    """Seconds that it takes on two CPU cores."""
