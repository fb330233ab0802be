import io
import json
import math
import os
import re
import struct

import pytest
import rich.console
from tensorboardX.proto import event_pb2

from rethink_gen import files
from rethink_gen.progress import progress_bar
from rethink_gen.text import format_duration, format_range
from rethink_gen.train import metrics, summaries

RECORDS = [{'step': step, 'train_loss': 1 / step} for step in (10, 20, 30)]

SUMMARY = {
  'status': 'complete',
  'model': 'mlp',
  'num_params': 1_209_866,
  'dataset': 'cifar10',
  'corruption': 'none',
  'labels_changed': 0.0,
  'num_train': 50_000,
  'num_test': 10_000,
  'steps': 3_900,
  'steps_per_epoch': 390,
  'steps_to_fit': None,
  'train_accuracy': 1.0,
  'test_accuracy': 0.5,
  'best_test_accuracy': 0.52,
  'chance_accuracy': 0.1,
  'constant_accuracy': 0.1,
  'generalization_gap': 0.5,
  'seconds': 61.0,
  'examples_per_second': 12_345.6,
  'device': '1 x cpu (2 cores)',
  'precision': 'float32',
}


SKEWED = {'num_test': 200, 'chance_accuracy': 0.935, 'constant_accuracy': 0.935}


def events(folder):
  """All Event messages of a folder's files, oldest file first."""
  found = []
  for path in sorted(folder.iterdir()):
    content = path.read_bytes()
    while content:
      length = struct.unpack('<Q', content[:8])[0]
      found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
      content = content[12 + length + 4 :]
  return found


@pytest.fixture
def workdir(tmp_path):
  for record in RECORDS:
    metrics.append_record(tmp_path, record)
  return tmp_path


def lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  assert not text or text.endswith('\n')
  return [json.loads(line) for line in text.splitlines()]


def test_a_record_is_a_line(workdir):
  assert lines(workdir) == RECORDS


@pytest.mark.parametrize(('step', 'kept'), [(0, 0), (19, 1), (20, 2), (99, 3)])
def test_records_after_the_step_leave_the_file(workdir, step, kept):
  assert metrics.resume_records(workdir, step) == RECORDS[:kept]
  assert lines(workdir) == RECORDS[:kept]


def test_before_the_first_record_there_are_none(tmp_path):
  assert metrics.resume_records(tmp_path, 0) == []
  assert list(tmp_path.iterdir()) == []


# Any part of the last line may be all that was written; without its newline it is whole.
@pytest.mark.parametrize('missing', [1, 2, 10])
def test_after_a_torn_last_line_the_next_record_has_its_own(workdir, missing):
  path = workdir / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-missing])
  kept = metrics.resume_records(workdir, 30)
  assert kept == RECORDS[: 3 if missing == 1 else 2]
  metrics.append_record(workdir, {'step': 40})
  assert lines(workdir) == [*kept, {'step': 40}]


def test_numbers_that_are_not_finite_become_null(tmp_path):
  files.write_json(tmp_path / 'a.json', {'x': {'y': math.nan, 'z': math.inf}, 'v': 1.5})
  written = json.loads((tmp_path / 'a.json').read_text(), parse_constant=pytest.fail)
  assert written == {'x': {'y': None, 'z': None}, 'v': 1.5}


@pytest.mark.parametrize('function', ['fsync', 'replace'])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, function):
  path = tmp_path / 'a.json'
  files.write_json(path, {'old': 1})

  def fail(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, function, fail)
  with pytest.raises(OSError, match='No space'):
    files.write_json(path, {'new': 2})
  assert json.loads(path.read_text()) == {'old': 1}
  assert list(tmp_path.iterdir()) == [path]


def test_tensorboard_gets_every_number_at_its_step(tmp_path):
  record = {'step': 7, 'train_loss': 0.25, 'test_accuracy': 0.5}
  with metrics.tensorboard(tmp_path, 0) as write:
    write(record)
    # At once, so that it can be watched, and is not lost when the run is killed.
    last = events(tmp_path / 'tensorboard')[-1]
  assert last.step == 7
  values = {value.tag: value.simple_value for value in last.summary.value}
  assert values == {'train_loss': 0.25, 'test_accuracy': 0.5}


def test_tensorboard_is_told_to_drop_what_comes_after_the_step(tmp_path):
  with metrics.tensorboard(tmp_path, 20):
    pass
  [start] = [e for e in events(tmp_path / 'tensorboard') if e.HasField('session_log')]
  assert start.session_log.status == event_pb2.SessionLog.START
  assert start.step == 21


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [
    *((0.4, '0 s'), (59.4, '59 s'), (59.6, '1 min 0 s'), (185, '3 min 5 s')),
    *((3599.6, '1 h 0 min'), (7800, '2 h 10 min'), (90_000, '25 h 0 min')),
  ],
)
def test_durations_are_said_as_a_person_would(seconds, words):
  assert format_duration(seconds) == words


def test_a_span_whose_ends_print_alike_is_one_number():
  assert format_range([21, 18.75, 20.1]) == '18.75 to 21.00'
  assert format_range([18.751, 18.749]) == '18.75'


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({}, 'is 40.00 percentage points above chance (the most frequent class'),
    ({}, 'of the training labels) and 50.00 percentage points below the training'),
    ({'train_accuracy': 0.4}, '10.00 percentage points above the training accuracy'),
    (
      {'test_accuracy': 0.1075},
      'right in 10.75% of cases, which is not shown to be',
    ),
    ({'test_accuracy': 0.108}, '0.80 percentage points above chance'),
    # Noise of which nine in ten images have one label: naming it is as good.
    (SKEWED | {'test_accuracy': 0.935}, 'not shown to be better than the most frequent'),
    (SKEWED | {'test_accuracy': 0.985}, '5.00 percentage points above chance (the most'),
    # Without the predictions, differences of two accuracies count least where they can.
    (SKEWED | {'test_accuracy': 0.96}, 'not shown to be better'),
    # The classes of the training set are rare in the test set, or not known.
    ({'constant_accuracy': 0.02}, 'points above chance (a uniform guess)'),
    ({'constant_accuracy': None}, 'points above chance (a uniform guess)'),
    ({'constant_accuracy': None, 'test_accuracy': 0.1045}, 'better than a uniform guess'),
    ({'corruption': 'gaussian'}, 'Despite the corruption (gaussian)'),
    ({'corruption': 'gaussian', 'test_accuracy': 0.1}, 'not shown to be better'),
    ({'corruption': 'partial_labels', 'label_noise': 0.8}, 'Despite the corruption (part'),
    ({'status': 'diverged', 'train_accuracy': None}, 'Diverged: the loss was no longer'),
  ],
)
def test_the_conclusion_says_what_the_numbers_say(changes, words):
  assert words in summaries.conclusion(SUMMARY | changes)


@pytest.mark.parametrize(
  ('train', 'test', 'words'),
  [
    (1.0, 0.1, 'fits every one of them; on the test set it is right in 10.00%'),
    (0.57, 0.1, 'fits 57.00% of them'),
    (0.99996, 0.0941, 'fits 99.99% of them; on the test set it is right in 9.41%'),
  ],
)
def test_the_conclusion_on_random_labels(train, test, words):
  changes = {'train_accuracy': train, 'test_accuracy': test, 'constant_accuracy': None}
  random = {'corruption': 'random_labels'}
  said = summaries.conclusion(SUMMARY | random | changes)
  assert words in said
  assert said.startswith('The labels are random')
  assert said.endswith('and a uniform guess in 10.00%.')
  # The same labels under another name.
  partial = {'corruption': 'partial_labels', 'label_noise': 1.0}
  assert summaries.conclusion(SUMMARY | partial | changes) == said


def test_the_conclusion_on_a_run_that_has_no_constant_guess_on_record():
  older = {k: v for k, v in SUMMARY.items() if k != 'constant_accuracy'}
  assert 'above chance (a uniform guess)' in summaries.conclusion(older)


def test_layers_that_are_mostly_dead_are_said_in_a_sentence(capsys):
  record = {'dead_units': 0.3, 'dead_units/conv_1': 0.5, 'dead_units/conv_2': 38 / 64}
  dead = metrics.dead_layers(record)
  assert dead == {'conv_2': 38 / 64}
  summaries.print_summary(SUMMARY | {'dead_layers': dead}, 'runs/x')
  assert 'Dead: 59.38% of conv_2 (ReLU units that no training' in capsys.readouterr().out
  summaries.print_summary(SUMMARY, 'runs/x')  # of a version that did not look
  assert 'Dead' not in capsys.readouterr().out


def test_the_closing_table_fits_a_pipe_and_a_narrow_terminal(capsys):
  summaries.print_summary(SUMMARY | {'steps_to_fit': 780}, 'runs/x')
  said = capsys.readouterr().out
  table = dict(line.split(maxsplit=1) for line in said.splitlines() if line[:3] == '  s')
  assert table['speed'] == '12,346 examples/s on 1 x cpu (2 cores), float32'
  assert '  steps to fit        780 (epoch 2)\n' in said
  assert '  test accuracy       50.00%\n' in said
  assert '  generalization gap  50.00 points\n' in said
  assert '  chance              10.00%, the most frequent class of the training' in said
  assert all(len(line) < 80 for line in said.splitlines() if line.startswith('  '))
  assert summaries.conclusion(SUMMARY) in said


def test_the_closing_table_of_a_run_that_was_never_evaluated(capsys):
  never = {
    name: None for name in SUMMARY if 'accuracy' in name and name != 'chance_accuracy'
  }
  changes = {'generalization_gap': None, 'examples_per_second': None}
  summaries.print_summary(SUMMARY | never | changes | {'status': 'diverged'}, 'runs/x')
  said = capsys.readouterr().out
  assert '  test accuracy       none\n' in said
  assert 'Diverged' in said


@pytest.mark.parametrize('width', [60, 80, 140])
def test_the_progress_bar_is_one_line_of_the_terminal(monkeypatch, width):
  screen = io.StringIO()
  console = rich.console.Console(
    file=screen, force_terminal=True, width=width, color_system=None, soft_wrap=True
  )
  monkeypatch.setattr(rich.console, 'Console', lambda **_: console)
  with progress_bar(39_000, 0) as (update, say):
    update(19_500, 'epoch 51/100', 2.3026, 0.1)
    say('an evaluation', 19_500)
  drawn = [line.rpartition('\r')[2] for line in screen.getvalue().split('\n')]
  bars = [line for line in drawn if 'epoch 51' in line]
  assert bars
  assert all(len(line.replace('\x1b[2K', '')) <= width for line in bars)
  if width >= 80:
    assert all('19,500/39,000 steps  loss 2.3026  train 10.00%' in line for line in bars)
  assert any('an evaluation' in line for line in drawn)


@pytest.mark.parametrize('width', [60, 80, 100])
@pytest.mark.parametrize('title', ['', '12/33  inception_no_bn_random_labels, seed 0'])
def test_the_progress_bar_always_shows_the_time_left(monkeypatch, width, title):
  screen = io.StringIO()
  console = rich.console.Console(
    file=screen, force_terminal=True, width=width, color_system=None, soft_wrap=True
  )
  monkeypatch.setattr(rich.console, 'Console', lambda **_: console)
  with progress_bar(39_000, 0, title) as (update, _):
    update(19_500, 'epoch 51/100', 2.3026, 0.1)
  bars = [line for line in re.split('[\r\n]', screen.getvalue()) if 'epoch 51' in line]
  assert bars
  for line in bars:
    assert re.search(r'\d:\d\d left|-:--:-- left|--:-- left', line), line
    assert title[:10] in line
    assert ('loss 2.3026' in line) == (width >= 80)


def test_without_a_terminal_progress_is_plain_lines(capsys):
  with progress_bar(100, 0) as (update, say):
    update(10, 'epoch 1/10', 2.3, 0.1)
    say('an evaluation', 10)
    say('a word')
  first, second = capsys.readouterr().out.splitlines()
  assert first.startswith('an evaluation  at most ')
  assert second == 'a word'
