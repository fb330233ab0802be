import json

import numpy as np
import pytest

from rethink_gen import memory
from rethink_gen.errors import BadInput
from rethink_gen.paper import cifar_kernel, kernels, mnist_kernel
from rethink_gen.reporting import artifacts, tables
from rethink_gen.reproduce import grid

pytestmark = pytest.mark.slow

ARTIFACTS = pytest.mark.parametrize('artifact', [mnist_kernel, cifar_kernel])


def settings(artifact, name, **changes):
  row = next(row for row in artifact.rows('smoke') if row.name == name)
  return row.changes | {'seed': 0} | changes


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """{artifact: {(row name, seed): run}} at smoke scale."""
  runs = {}
  for artifact in (mnist_kernel, cifar_kernel):
    runs[artifact] = {}
    for row in artifact.rows('smoke'):
      folder = tmp_path_factory.mktemp(row.name)
      result = artifact.compute(row.changes | {'seed': 0}, folder, lambda line: None)
      result = json.loads(json.dumps(result)) | {
        'status': 'complete',
        'seconds': 1.0,
        'device': 'cpu',
      }
      runs[artifact][row.name, 0] = artifacts.Run(row.changes, result, [], ())
  return runs


@ARTIFACTS
@pytest.mark.parametrize('scale', ['smoke', 'laptop', 'full'])
def test_rows_are_accepted_and_plain(artifact, scale):
  rows = artifact.rows(scale)
  assert len({row.name for row in rows}) == len(rows)
  for row in rows:
    assert json.loads(json.dumps(row.changes)) == row.changes
    assert row.paper.keys() <= artifact.COLUMNS.keys()
    assert artifact.expected_seconds(row.changes) > 0
    kernels.check_settings(row.changes)
    if scale == 'smoke':
      artifact.check(row.changes | {'seed': 0})


@ARTIFACTS
def test_what_is_computed_is_shown(artifact, finished):
  runs = finished[artifact]
  entries = grid.make_entries(artifact, artifact.rows('smoke'), runs)
  artifact.draw(entries, runs).savefig('/dev/null', format='svg')
  findings = list(artifact.findings(entries))
  assert len(findings) >= len(entries)
  for entry in entries:
    train_error = entry['ours']['train_error']
    assert train_error in (0, None)
    assert (train_error is None) == (0 not in entry['changes']['ridges'])
    assert entry['ours']['ridge_test_error'] < 15
  assert artifact.draw([], {}) is not None
  assert list(artifact.findings([])) == []


def test_the_interpolant_has_the_largest_norm_of_the_path(finished):
  for runs in finished.values():
    for run in runs.values():
      points = sorted(run.summary['path'], key=lambda point: point['ridge'])
      norms = [point['norm'] for point in points]
      assert norms == sorted(norms, reverse=True)
      for point in points:
        squares = np.square(point['norms']).sum()
        assert squares == pytest.approx(point['norm'] ** 2)


def test_the_ridge_is_compared_by_mcnemars_test():
  # Nine examples on which only one of the two is wrong, one of them the ridge's.
  point = {'norm': 1, 'iterations': 1, 'residual': 0, 'condition': 1, 'seconds': 1}
  point |= {'train_error': 0, 'test_error': 0.1, 'interpolates': True}
  summary = {
    'path': [
      point | {'ridge': 0, 'wrong': [0, 1, *range(10, 18)]},
      point | {'ridge': 1, 'wrong': [0, 1, 20]},
    ],
    'peak_gib': 1,
    'seconds_of': {'gram': 1, 'low_rank': 1},
  }
  runs = {('row', 0): artifacts.Run({'num_test': 100}, summary, [], ())}
  measured = kernels.measure(runs, 'row', 0)
  assert measured['ridge_p_value'] == pytest.approx(2 * (1 + 9) / 2**9)
  for old in summary['path']:
    del old['wrong']
  assert 'ridge_p_value' not in kernels.measure(runs, 'row', 0)


def test_the_table_says_what_interpolates_and_how_sure_it_is(finished):
  for artifact, runs in finished.items():
    for name, seed in runs:
      path = runs[name, seed].summary['path']
      measured = kernels.measure(runs, name, seed)
      assert measured.keys() <= artifact.COLUMNS.keys() | {'ridge'}
      if path[0]['ridge'] == 0:
        exact = path[0]
        fits = exact['residual'] <= 1e-3 and exact['train_error'] == 0
        assert measured['interpolates'] == fits
        assert len(exact['wrong']) == pytest.approx(300 * exact['test_error'])
        error = exact['test_error']
        assert measured['standard_error'] == pytest.approx(
          100 * (error * (1 - error) / 300) ** 0.5
        )
        assert 0 <= measured['ridge_p_value'] <= 1


def test_a_residual_just_above_the_tolerance_does_not_interpolate():
  """As of the wavelets on MNIST: 1.0856e-3 with every training example right."""
  exact = {'ridge': 0, 'residual': 1.0856e-3, 'interpolates': False, 'wrong': []}
  exact |= dict.fromkeys(('train_error', 'test_error'), 0.0)
  exact |= dict.fromkeys(('norm', 'iterations', 'condition', 'seconds'), 1.0)
  seconds = {'gram': 1.0, 'low_rank': 1.0}
  summary = {'path': [exact], 'peak_gib': 1.0, 'seconds_of': seconds}
  summary |= {'status': 'complete', 'seconds': 1.0, 'device': 'cpu'}
  runs = {('gabor', 0): artifacts.Run({'num_test': 10}, summary, [], ())}
  rows = [row for row in mnist_kernel.rows('laptop') if row.name == 'gabor']
  entries = grid.make_entries(mnist_kernel, rows, runs)
  header, [line] = tables.make_table(mnist_kernel.COLUMNS, entries)
  shown = dict(zip(header, line, strict=True))
  assert shown['relative residual'] == '1.09e-03'
  assert shown['interpolates (1: yes)'] == '0'
  assert 'does not count as interpolation' in next(iter(mnist_kernel.findings(entries)))


def test_where_examples_are_held_out_they_choose_the_ridge():
  def point(ridge, test_error, held_out_error):
    return {'ridge': ridge, 'test_error': test_error, 'held_out_error': held_out_error}

  path = [point(0.1, 0.5, 0.4), point(1.0, 0.3, 0.5)]
  summary = {'path': path, 'peak_gib': 1.0}
  runs = {('row', 0): artifacts.Run({'num_test': 10}, summary, [], ())}
  measured = kernels.measure(runs, 'row', 0)
  assert (measured['ridge'], measured['ridge_test_error']) == (0.1, 50.0)


def test_the_bandwidth_is_chosen_without_the_test_set(tmp_path):
  rng = np.random.default_rng(0)
  train = rng.standard_normal((60, 3)).astype(np.float32)
  labels = (train[:, 0] > 0).astype(int)
  lines = []
  choose = kernels.choose_bandwidth
  best = choose(train, labels, [1e4, 0.3], tmp_path, lines.append)
  assert best == 0.3  # with 1e4 no example knows another
  assert '12 held out' in lines[0]
  assert choose(None, None, [1e4, 0.3], tmp_path, None) == 0.3  # is not done twice


def test_a_computation_goes_on_where_it_was_killed(tmp_path):
  chosen = settings(mnist_kernel, 'pixels', num_train=200, landmarks=5)
  whole_folder, folder = tmp_path / 'whole', tmp_path / 'killed'
  whole_folder.mkdir()
  folder.mkdir()
  whole = kernels.compute(chosen, whole_folder, lambda line: None)

  def kill(line):
    if line.startswith('ridge 0.01'):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    kernels.compute(chosen, folder, kill)
  lines = []
  resumed = kernels.compute(chosen, folder, lines.append)
  assert not any(line.startswith('ridge 0,') for line in lines)
  for one, other in zip(whole['path'], resumed['path'], strict=True):
    for point in (one, other):
      del point['seconds']
    assert one == other


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_train': 0}, 'num_train is 0, but it must be at least 1'),
    ({'num_train': 5_000}, 'has 1437 training examples; take at most that many'),
    ({'bandwidths': [0.02, -1.0]}, 'bandwidth is -1.0, but it must be a positive number'),
    ({'bandwidths': [float('nan')]}, 'bandwidth is nan'),
    ({'bandwidths': []}, 'bandwidths is empty'),
    ({'ridges': [-1.0]}, 'must hold finite numbers of 0 or more'),
    ({'ridges': []}, 'must hold finite numbers of 0 or more'),
    ({'held_out': 500}, 'must be from 0 to less than num_train, 500'),
    ({'tolerance': 0}, 'tolerance is 0'),
    ({'landmarks': 0}, 'landmarks is 0'),
    ({'features': 'smell'}, 'must be one of pixels, gabor, convolutional'),
    (
      {'features': 'convolutional', 'filters': 10},
      'too few to fit 500 examples exactly; leave 0 out of ridges, or use at least 63',
    ),
  ],
)
def test_bad_settings_are_refused_in_a_sentence(changes, message):
  with pytest.raises(BadInput, match=message):
    kernels.check(settings(mnist_kernel, 'pixels', **changes))


def test_too_little_memory_is_refused_before_the_start(monkeypatch):
  monkeypatch.setattr(memory, 'bytes_free', lambda: 2**30)
  with pytest.raises(BadInput, match='GiB of memory'):
    kernels.check(settings(mnist_kernel, 'pixels'))
