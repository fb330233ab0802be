"""The interface of an artifact: a table or figure of the paper, or a study.

An artifact is a module with the names of `Artifact`. Its rows describe, as data, what to
run at each scale; its functions turn finished runs into numbers, a figure and sentences.
Rows are training runs unless the module also has the names of `Computed`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Row(NamedTuple):
  """One line of an artifact."""

  name: str  # for --rows
  config: str  # configs/NAME.py, or the artifact's name if the row is computed
  changes: dict  # {field: value} on top of the config
  paper: dict = {}  # {column: the paper's number}
  note: str = ''  # what the paper says in words, or what differs here


class Column(NamedTuple):
  """One number that an artifact reports for every row."""

  label: str
  unit: str  # '%', or '' for none
  format: str  # a format specification, such as '.2f'


class Run(NamedTuple):
  """The results of a finished run."""

  config: dict
  summary: dict
  records: list  # the evaluations, as in metrics.jsonl
  losses: Any  # float32 (steps,)
  accuracies: Any = ()  # float32 (steps,), on the training batches
  examples: dict | None = None  # from `example_history.summarize`, if recorded


Runs = dict[tuple[str, int], Run]  # by (row name, seed)


@runtime_checkable
class Artifact(Protocol):
  """The names that every artifact module has.

  Attributes:
    TITLE, ASKED, FOUND, CAPTION: the heading, the question, what the paper found, and the
      caption of the figure.
    COLUMNS: {name: Column}, the numbers in a row of the table.

  Optional names: SAYS, {scale: sentence}, if the scales have a meaning specific to the
  artifact; SEEDS, {scale: number of seeds}, if a claim needs more than one.
  """

  TITLE: str
  ASKED: str
  FOUND: str
  CAPTION: str
  COLUMNS: dict[str, Column]

  def rows(self, scale: str) -> list[Row]:
    """The rows at a scale: 'smoke', 'laptop' or 'full'."""

  def measure(self, runs: Runs, name: str, seed: int) -> dict[str, float | None]:
    """{column: number} for one run, which may be compared with the others."""

  def draw(self, entries: list[dict], runs: Runs):
    """The matplotlib Figure; entries come from `grid.make_entries`."""

  def findings(self, entries: list[dict]) -> Iterable[str]:
    """What the numbers say and no more, one sentence each."""


@runtime_checkable
class Computed(Protocol):
  """The additional names of an artifact whose rows are computed rather than trained.

  `settings` are a row's changes and 'seed' as plain JSON: all that determines the result.
  """

  compute: Callable  # compute(settings, folder, say) -> dict for summary.json

  def check(self, settings: dict) -> None:
    """Raises BadInput for settings that `compute` cannot use, before anything runs."""

  def expected_seconds(self, settings: dict) -> float:
    """Estimated seconds on two CPU cores."""
