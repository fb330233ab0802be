"""The progress of a run, as a bar or lines, and of a long computation, as lines."""

import contextlib
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress
import rich.table

from rethink_gen.text import format_duration, shorten

# Terminal columns besides the text: 4 for the bar, 8 for the time left, 4 for 'left', 4
# between them.
REST_OF_BAR = 20


@contextlib.contextmanager
def progress_bar(
  total_steps: int, first_step: int, title: str = ''
) -> Iterator[tuple[Callable, Callable]]:
  """Yields update(step, epoch, loss, accuracy) and say(line, step): a bar, or lines.

  The time left is until the last step; a run that stops at a training accuracy ends sooner.
  With a title, which says what is running, only the bar is shown.
  """
  console = rich.console.Console(soft_wrap=True, highlight=False)
  if not console.is_terminal:
    started = time.monotonic()

    def say(line, step=None):
      if title:
        return
      if step and step > first_step:
        pace = (time.monotonic() - started) / (step - first_step)
        line += f'  at most {format_duration(pace * (total_steps - step))} left'
      print(line, flush=True)

    yield (lambda *_: None), say
    return

  whole = rich.table.Column(no_wrap=True)  # the bar may shrink, numbers may not
  count = '' if title else '{task.completed:,}/{task.total:,} steps'
  columns = (
    '{task.description}',
    rich.progress.BarColumn(bar_width=None),
    count + '{task.fields[figures]}',
    rich.progress.TimeRemainingColumn(compact=True, table_column=whole),
    'left',
  )
  with rich.progress.Progress(
    *columns, console=console, transient=True, expand=True
  ) as bar:
    task = bar.add_task('', total=total_steps, figures='')
    count_width = len(count and f'{total_steps:,}/{total_steps:,} steps')

    def show(step, description, figures):
      # Rich would truncate all columns equally, including the time left.
      room = console.width - len(description) - count_width - REST_OF_BAR
      if len(figures) + min(len(title), 16) > room:
        figures = ''
      shown = shorten(title, max(room - len(figures) - 2, 0))
      description = '  '.join(filter(None, (shown, description)))
      bar.update(task, completed=step, description=description, figures=figures)

    def update(step, description, loss, accuracy):
      show(step, description, f'  loss {loss:.4f}  train {accuracy:.2%} ')

    show(first_step, 'compiling', '')
    yield update, lambda line, step=None: None if title else bar.console.print(line)


@contextlib.contextmanager
def no_progress(*_) -> Iterator[tuple[Callable, Callable]]:
  """Shows nothing, with the interface of `progress_bar`."""
  yield (lambda *_: None), (lambda *_: None)


def progress_lines(say: Callable | None, title: str, total: int) -> Callable:
  """A function show(done) that says a line with the time left every few seconds.

  Args:
    say: called with the line, or None to show nothing.
    title: what is being computed.
    total: the value of `done` at the end.
  """
  started = shown = time.monotonic()

  def show(done):
    nonlocal shown
    now = time.monotonic()
    if say and (now - shown > 5 or done == total):
      left = (now - started) / done * (total - done)
      say(f'{title}: {done}/{total}, about {format_duration(left)} left')
      shown = now

  return show
