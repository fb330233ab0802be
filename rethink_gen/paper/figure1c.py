"""Figure 1(c): test error against label noise, for the networks of figure 1(b)."""

from collections.abc import Iterator

from rethink_gen.paper import figure1b, scales, table1
from rethink_gen.reporting import drawing
from rethink_gen.reporting.artifacts import Column, Row, Runs

TITLE = 'Figure 1(c): test error grows with label noise'
ASKED = (
  'What is the test error of networks that have fitted labels, a fraction of them random?'
)
FOUND = (
  'It rises steadily from the error of each network on true labels to 90 %, the error of '
  'guessing one of ten classes. The networks still use whatever signal is left in the '
  'labels.'
)
SEEDS = figure1b.SEEDS
COLUMNS = {'test_error': Column('test error', '%', '.2f')}
CAPTION = (
  'Test error at convergence as defined for figure 1(b), or at the end of a run that did '
  'not converge, with the standard deviation over seeds. Dotted: guessing. Open circles: '
  "the paper's errors at p = 1 and, where all images are trained on, on true labels (Table "
  '1).'
)


def rows(scale: str) -> list[Row]:
  """The grid of figure 1(b), with the paper's numbers at both ends."""
  true_labels = {
    model: {'test_error': 100 - test_accuracy}
    for model, crop, decay, random, _, test_accuracy in table1.PAPER
    if not (crop or decay or random)
  }
  return [
    row._replace(
      paper={
        0.0: scales.comparable(true_labels[row.config], row.changes),
        1.0: {'test_error': 90.0},
      }.get(noise, {})
    )
    for row in figure1b.rows(scale)
    for _, noise in [figure1b.split(row.name)]
  ]


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  return {'test_error': 100 * (1 - runs[name, seed].summary['test_accuracy'])}


def draw(entries: list[dict], runs: Runs):
  figure, axis = drawing.subplots()
  axis.axhline(90, linestyle=':', color='gray')
  figure1b.plot(axis, entries, 'test_error')
  for entry in entries:
    if entry['paper']:
      color = drawing.COLORS[entry['config']]
      noise = figure1b.split(entry['name'])[1]
      axis.plot(
        noise,
        entry['paper']['test_error'],
        'o',
        fillstyle='none',
        color=color,
        markersize=8,
      )
  axis.set(xlabel='label noise p', ylabel='test error (%)', ylim=(0, 100))
  drawing.legend(axis, loc='lower right')
  return figure


def findings(entries: list[dict]) -> Iterator[str]:
  for model in figure1b.MODELS:
    errors = {
      figure1b.split(entry['name'])[1]: entry['ours']['test_error']
      for entry in entries
      if entry['config'] == model and entry['ours']['test_error'] is not None
    }
    if errors:
      low, high = min(errors), max(errors)
      rising = list(errors.values()) == sorted(errors.values())
      yield (
        f'{drawing.NAMES[model]}: {errors[low]:.1f} % at p = {low}, '
        f'{errors[high]:.1f} % at p = {high}; the mean '
        f'{"rises" if rising else "does not rise"} from each noise level to the next.'
      )
