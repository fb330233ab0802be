import json
import math
import statistics
import types

import jax
import pytest

from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.errors import BadInput
from rethink_gen.paper import figure1b, scales, table1
from rethink_gen.reporting.artifacts import Column, Row, Run
from rethink_gen.reproduce import grid, training
from rethink_gen.reproduce.registry import ARTIFACTS
from rethink_gen.train import compiled as compiled_lib

pytestmark = pytest.mark.slow

TINY = {
  'dataset.name': 'digits',
  'dataset.num_train': 64,
  'dataset.num_test': 50,
  'batch_size': 32,
  'num_epochs': 2,
  'model.width': 8,
  'stop_at_train_accuracy': None,
}
ROWS = [
  Row('true', 'mlp_1x512', TINY),
  Row('random', 'mlp_1x512_random', TINY),
  Row('noisy', 'mlp_1x512', TINY | figure1b.label_noise(0.3)),
]
DIVERGING = Row('diverging', 'mlp_1x512', TINY | {'optimizer.learning_rate': 1e30})
SCALES = pytest.mark.parametrize('scale', scales.SCALES)


def every_row(scale):
  """The rows that are training runs."""
  return [
    row
    for artifact in ARTIFACTS.values()
    if grid.kind_of(artifact) is training
    for row in artifact.rows(scale)
  ]


@SCALES
def test_every_row_makes_a_config_that_is_accepted(scale):
  for row in every_row(scale):
    config_lib.validate(training.make_settings(row, seed=1))


@SCALES
def test_the_grids_have_the_papers_rows(scale):
  counts = {
    name: len(artifact.rows(scale))
    for name, artifact in ARTIFACTS.items()
    if grid.kind_of(artifact) is training
  }
  noise_levels = 6 if scale == 'laptop' else 11
  assert counts == {
    'table1': 19,
    'figure1a': 5,
    'figure1b': 3 * noise_levels,
    'figure1c': 3 * noise_levels,
    'figure2b': 2,
    'table2': 7,
    'figure2a': 2,
    'appendix_e': 8,
    'fitting_time': 3,
    'double_descent_cnn': {'smoke': 4, 'laptop': 16, 'full': 54}[scale],
  }
  for artifact in ARTIFACTS.values():
    names = [row.name for row in artifact.rows(scale)]
    assert len(set(names)) == len(names)


@SCALES
def test_figures_1b_and_1c_share_one_grid(scale, tmp_path):
  one, other = (
    grid.make_jobs(ARTIFACTS[name], ARTIFACTS[name].rows(scale), 2, tmp_path)
    for name in ('figure1b', 'figure1c')
  )
  assert one.keys() == other.keys()
  assert len(one) == 2 * len(figure1b.rows(scale))


@SCALES
def test_figure_2a_is_two_runs_of_table_2(scale, tmp_path):
  one, other = (
    grid.make_jobs(ARTIFACTS[name], ARTIFACTS[name].rows(scale), 1, tmp_path).keys()
    for name in ('figure2a', 'table2')
  )
  assert one < other
  assert len(one) == 2


def test_at_full_scale_the_curves_are_runs_of_table_1(tmp_path):
  jobs = {
    name: grid.make_jobs(artifact, artifact.rows('full'), 1, tmp_path).keys()
    for name, artifact in ARTIFACTS.items()
  }
  assert len(jobs['table1'] & jobs['figure1a']) == 2
  assert jobs['figure2b'] <= jobs['table1']


def test_at_laptop_scale_figures_1a_and_1b_share_the_run_on_true_labels(tmp_path):
  one, other = (
    grid.make_jobs(ARTIFACTS[name], ARTIFACTS[name].rows('laptop'), 3, tmp_path).keys()
    for name in ('figure1a', 'figure1b')
  )
  assert len(one & other) == 3  # one a seed


def test_full_scale_changes_no_data_and_no_hyperparameter():
  allowed = {
    *('num_epochs', 'stop_at_train_accuracy', 'eval_every', 'record_examples'),
    *('corruption.mode', 'corruption.label_noise'),
    *('regularization.weight_decay', 'regularization.weight_decay_on'),
    'regularization.dropout_rate',
    *('regularization.random_crop', 'regularization.color_jitter'),
    *('regularization.random_flip', 'regularization.random_rotation'),
  }
  for row in every_row('full'):
    own = {'model.width'} if row.config == 'cnn' else set()
    assert row.changes.keys() <= allowed | own, row.name


def test_the_seed_is_that_of_the_run_and_of_the_corruption():
  config = training.make_settings(ROWS[1], seed=3)
  assert (config.seed, config.corruption.seed) == (3, 3)


def test_a_folder_is_named_by_all_that_decides_the_result():
  config = training.make_settings(ROWS[0], seed=0)
  name = grid.folder_name(ROWS[0], config)
  config.dataset.data_dir = '/elsewhere'
  assert grid.folder_name(ROWS[0], config) == name
  config.model.width = 9
  assert grid.folder_name(ROWS[0], config) != name
  # Golden: a change orphans the finished runs of every user's folder.
  assert name == 'mlp_1x512-e735b1d1'


def test_runs_from_before_the_choice_of_initialization_keep_their_folders():
  config = training.make_settings(ROWS[0], seed=0)
  config.model.initialization = 'he_normal'
  assert grid.folder_name(ROWS[0], config) == 'mlp_1x512-c07e98ac'


def test_a_grid_runs_once_and_goes_on_past_a_row_that_diverges(
  tmp_path, monkeypatch, capsys
):
  rows = [DIVERGING, *ROWS]
  jobs = grid.make_jobs(table1, rows, 1, tmp_path)
  grid.check(jobs)
  grid.run_all(jobs)
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[:2] for line in lines] == [
    *(['1/4', 'diverging'], ['2/4', 'true'], ['3/4', 'random'], ['4/4', 'noisy'])
  ]
  assert 'diverged at step' in lines[0]
  assert 'left' in lines[2]
  assert 'the last run' in lines[3]

  runs = grid.collect(table1, rows, 1, tmp_path)
  entries = grid.make_entries(table1, rows, runs)
  assert [entry['status'] for entry in entries] == ['diverged', *3 * ['complete']]
  assert entries[0]['ours'] == {'train_accuracy': None, 'test_accuracy': None}
  summary = runs['random', 0].summary
  assert entries[2]['ours']['train_accuracy'] == 100 * summary['train_accuracy']

  monkeypatch.setattr(train, 'run', None)
  grid.run_all(jobs)
  assert '4 of 4 runs are already finished' in capsys.readouterr().out


def test_runs_of_one_program_can_run_at_once(tmp_path, capsys):
  """In threes here: two seeds of three rows, and a row that is of another program."""
  other = Row('other', 'mlp_1x512', TINY | {'model.width': 4})
  rows = [ROWS[0], other, *ROWS[1:]]
  jobs = grid.make_jobs(table1, rows, 2, tmp_path / 'together')
  assert [len(group) for group in grid.make_groups(jobs, 3)] == [3, 3, 2]
  assert [len(group) for group in grid.make_groups(jobs, None)] == 8 * [1]  # on a CPU
  grid.run_all(jobs, 3)
  lines = capsys.readouterr().out.splitlines()
  assert sorted(line.split('/')[0] for line in lines) == list('12345678')
  assert 'the last run' in lines[-1]
  alone = grid.make_jobs(table1, rows, 2, tmp_path / 'alone')
  grid.run_all(alone)
  entries, expected = (
    grid.make_entries(table1, rows, grid.collect(table1, rows, 2, tmp_path / folder))
    for folder in ('together', 'alone')
  )
  for one, another in zip(entries, expected, strict=True):
    assert one['ours'] == pytest.approx(another['ours'])
    assert one['status'] == 'complete'


def test_runs_that_differ_in_data_seed_label_noise_or_rates_compile_once(tmp_path):
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if 'backend_compile' in event else None
  )
  compiled_lib.compile_program.cache_clear()  # of what other tests compiled
  rates = {'optimizer.learning_rate': 0.02, 'regularization.weight_decay': 0.1}
  rows = [*ROWS, Row('rates', 'mlp_1x512', TINY | rates)]
  jobs = list(grid.make_jobs(table1, rows, 2, tmp_path).items())
  folder, job = jobs[0]
  train.run(job.settings, folder)
  assert compiled, 'the first run compiles, or this test sees nothing'
  compiled.clear()
  for folder, job in jobs[1:]:
    train.run(job.settings, folder)
  assert compiled == []


def test_entries_are_means_over_seeds_beside_the_papers_numbers():
  artifact = types.SimpleNamespace(
    COLUMNS={'score': Column('score', '', '.2f'), 'other': Column('other', '', '.2f')},
    measure=lambda runs, name, seed: runs[name, seed].summary['measured'],
  )

  def run(status='complete', **measured):
    summary = {'status': status, 'measured': measured, 'seconds': 2.0, 'device': 'cpu'}
    return Run({}, summary, [], [])

  rows = [
    Row('whole', 'mlp_1x512', {}, {'score': 3.0}),
    Row('one', 'mlp_1x512', {}, {'score': 3.0}),
    Row('some', 'mlp_1x512', {}, {'score': 3.0}),
    Row('none', 'mlp_1x512', {}),
  ]
  values = [1.0, 4.0, 5.5]
  runs = {('whole', seed): run(score=v, other=None) for seed, v in enumerate(values)}
  runs |= {('one', 0): run(score=7.0), ('some', 0): run('diverged')}
  runs |= {('some', 1): run(score=1.0, other=1.0)}
  whole, one, some, none = grid.make_entries(artifact, rows, runs)
  assert whole['ours'] == {'score': statistics.mean(values), 'other': None}
  assert whole['std']['score'] == pytest.approx(2.2912878)  # by hand, n - 1
  assert whole['difference'] == {'score': 0.5}
  assert (whole['seeds'], whole['seconds'], whole['device']) == ([0, 1, 2], 6.0, 'cpu')
  assert (one['ours']['score'], one['std']['score']) == (7.0, None)
  assert (some['status'], some['ours']['score']) == ('1 of 2 diverged', None)
  assert (none['status'], none['seeds'], none['difference']) == ('not run', [], {})


def test_the_time_left_follows_the_pace_of_the_finished_runs(tmp_path):
  rows = [
    ROWS[0]._replace(name=f'{n}', changes=TINY | {'num_epochs': n}) for n in (1, 2, 4)
  ]
  jobs = grid.make_jobs(table1, rows, 1, tmp_path)
  first, second, third = jobs
  before = grid.seconds_left(jobs, {})
  assert before == pytest.approx(7 * 64 * training.PACES['digits', 'mlp'])
  assert grid.seconds_left(jobs, {first: 10.0}) == pytest.approx(60.0)
  assert grid.seconds_left(jobs, {first: 10.0, second: 5.0}) == pytest.approx(20.0)
  assert grid.seconds_left(jobs, dict.fromkeys((first, second, third), 1.0)) == 0


def test_a_finished_run_is_read_as_it_was_written(tmp_path):
  (folder, job), *_ = grid.make_jobs(table1, ROWS, 1, tmp_path).items()
  assert grid.read(folder) is None
  summary = train.run(job.settings, folder)
  run = grid.read(folder)
  assert run.summary == json.loads(json.dumps(summary))
  assert config_lib.differences(job.settings, run.config) == []
  assert [record['epoch'] for record in run.records] == [1, 2]
  assert run.losses.shape == (summary['steps'],)
  # The last epoch's mean is that of its record.
  assert math.isclose(run.losses[2:].mean(), run.records[-1]['running_loss'], rel_tol=1e-6)


def test_what_is_computed_is_computed_once_and_reads_back(tmp_path, capsys):
  def compute(settings, folder, say):
    assert (folder / 'config.json').exists()
    say('working')
    return {'twice': 2 * settings['number'] + settings['seed']}

  artifact = types.SimpleNamespace(
    check=lambda settings: None,
    compute=compute,
    expected_seconds=lambda settings: 100 * settings['number'],
    measure=lambda runs, name, seed: {'twice': runs[name, seed].summary['twice']},
    COLUMNS={'twice': Column('twice', '', '.1f')},
  )
  rows = [Row('a', 'made_up', {'number': 3}), Row('b', 'made_up', {'number': 4})]
  jobs = grid.make_jobs(artifact, rows, 2, tmp_path)
  assert len(jobs) == 4
  assert grid.seconds_left(jobs, {}) == 2 * 300 + 2 * 400
  # Twice as slow as the artifact thought.
  assert grid.seconds_left(jobs, {next(iter(jobs)): 600}) == 600 + 2 * 800
  grid.check(jobs)
  grid.run_all(jobs)
  assert '1/4  a, seed 0  working' in capsys.readouterr().out
  runs = grid.collect(artifact, rows, 2, tmp_path)
  entries = grid.make_entries(artifact, rows, runs)
  assert [entry['ours']['twice'] for entry in entries] == [6.5, 8.5]
  assert runs['b', 1].config == {'number': 4, 'seed': 1}
  artifact.compute = None
  grid.run_all(jobs)
  assert '4 of 4 runs are already finished' in capsys.readouterr().out


def test_what_cannot_be_computed_is_refused_before_anything_is(tmp_path):
  def refuse(settings):
    raise BadInput('no')

  artifact = types.SimpleNamespace(check=refuse, compute=None)
  jobs = grid.make_jobs(artifact, [Row('a', 'made_up', {})], 1, tmp_path / 'new')
  with pytest.raises(BadInput):
    grid.check(jobs)
  assert not (tmp_path / 'new').exists()
