"""The program as a user calls it: every artifact at smoke scale, kills, shards, errors."""

import json
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree

import PIL.Image
import pytest
from helpers import ROOT

from rethink_gen.reproduce import grid, training
from rethink_gen.reproduce.registry import ARTIFACTS

ROWS = ('--rows=mlp_1x512_0.?', '--artifact=figure1b', '--scale=smoke')


@pytest.fixture(scope='module')
def smoke(reproduce, tmp_path_factory):
  """(the workdir of --artifact=all --scale=smoke, what it printed)."""
  workdir = tmp_path_factory.mktemp('smoke')
  done = reproduce('--artifact=all', '--scale=smoke', f'--workdir={workdir}', timeout=900)
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout


@pytest.fixture(scope='module')
def whole(reproduce, tmp_path_factory):
  """The workdir of one uninterrupted run of ROWS."""
  workdir = tmp_path_factory.mktemp('whole')
  done = reproduce(*ROWS, f'--workdir={workdir}')
  assert done.returncode == 0, done.stderr
  return workdir


def results(workdir, artifact='figure1b'):
  """The rows of results.json, less what depends on the clock."""
  rows = json.loads((workdir / artifact / 'results.json').read_text())['rows']
  for row in rows:
    del row['seconds']
  return rows


@pytest.mark.parametrize('name', ARTIFACTS)
def test_every_artifact_leaves_its_results(smoke, name):
  workdir, printed = smoke
  folder = workdir / name
  kept = json.loads((folder / 'results.json').read_text())
  rows = {row.name: row for row in ARTIFACTS[name].rows('smoke')}
  assert (kept['artifact'], kept['scale']) == (name, 'smoke')
  assert [entry['name'] for entry in kept['rows']] == list(rows)
  for entry in kept['rows']:
    assert entry['status'] == 'complete'
    assert entry['paper'] == rows[entry['name']].paper
    assert entry['ours'].keys() == kept['units'].keys()
    for column, value in entry['paper'].items():
      assert entry['difference'][column] == entry['ours'][column] - value
    assert entry['seeds'] == [0]
    assert entry['seconds'] > 0
    assert 'cpu' in entry['device']
  assert kept['findings']

  table = (folder / 'table.md').read_text()
  header, rule, *lines = table.replace(r'\|', '').splitlines()
  assert [line.split()[1] for line in lines] == list(rows)
  assert len({line.count('|') for line in (header, rule, *lines)}) == 1
  assert table in printed
  with PIL.Image.open(folder / f'{name}.png') as picture:
    assert min(picture.size) > 200
    assert len(picture.convert('RGB').getcolors(1 << 24)) > 10
  xml.etree.ElementTree.parse(folder / f'{name}.svg')
  assert ARTIFACTS[name].TITLE in (folder / 'report.html').read_text()


def test_one_report_holds_all(smoke):
  page = (smoke[0] / 'report.html').read_text()
  for name, artifact in ARTIFACTS.items():
    assert f'<section id="{name}">' in page
    assert artifact.TITLE in page


def test_figures_1b_and_1c_ran_once(smoke):
  """Of configs/mlp_1x512.py: Table 1 has two rows, both figures eleven, one more three."""
  workdir, printed = smoke
  finished = list(workdir.glob('runs/*-*/summary.json'))
  assert len(finished) == int(re.search(r'^ *1/(\d+)  ', printed, re.MULTILINE)[1])
  assert len(list(workdir.glob('runs/mlp_1x512-*'))) == 2 + 11 + 3


def test_the_report_opens_in_a_browser_and_asks_for_nothing_else(smoke):
  playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright')
  browser_path = shutil.which('chromium') or shutil.which('google-chrome')
  if not browser_path:
    pytest.skip('needs Chromium')
  address = (smoke[0] / 'report.html').as_uri()
  requests, errors = [], []
  with playwright.sync_playwright() as browsers:
    browser = browsers.chromium.launch(executable_path=browser_path, args=['--no-sandbox'])
    page = browser.new_page()
    page.on('request', lambda request: requests.append(request.url))
    page.on('console', lambda message: errors.append(message.text))
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(address)
    pictures = page.eval_on_selector_all(
      'img', 'all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))'
    )
    rows = page.eval_on_selector_all('tbody tr', 'all => all.length')
    browser.close()
  assert [url for url in requests if not url.startswith('data:')] == [address]
  assert errors == []
  counts = {name: len(artifact.rows('smoke')) for name, artifact in ARTIFACTS.items()}
  assert rows == sum(counts.values())
  # A figure each, and the curves of every training run.
  trained = {n for n, a in ARTIFACTS.items() if grid.kind_of(a) is training}
  assert len(pictures) == len(ARTIFACTS) + sum(counts[name] for name in trained)
  assert min(pictures) > 100


def test_a_grid_that_was_killed_goes_on_without_repeating_a_finished_row(
  whole, reproduce, start, tmp_path
):
  process = start('rethink_gen.reproduce', *ROWS, f'--workdir={tmp_path}')
  for line in process.stdout:
    if line.startswith(' 2/'):  # in the third run, as a rule; eight of them are ahead
      break
  process.kill()
  process.wait()
  finished = {p: p.stat().st_mtime_ns for p in tmp_path.glob('runs/*/summary.json')}
  assert 2 <= len(finished) < 10
  done = reproduce(*ROWS, f'--workdir={tmp_path}')
  assert done.returncode == 0, done.stderr
  assert f'{len(finished)} of 10 runs are already finished' in done.stdout
  assert {path: path.stat().st_mtime_ns for path in finished} == finished
  assert results(tmp_path) == results(whole)


def test_a_grid_stops_at_sigterm(start, tmp_path):
  process = start('rethink_gen.reproduce', *ROWS, f'--workdir={tmp_path}')
  process.stdout.readline()
  process.send_signal(signal.SIGTERM)
  process.wait(60)
  # Inside a run it saves and says 143; between two there is nothing to save.
  assert process.returncode in (143, -signal.SIGTERM)
  assert len(list(tmp_path.glob('runs/*/summary.json'))) < 10
  assert not (tmp_path / 'figure1b').exists()


def test_two_shards_and_collect_give_the_same_as_one_run(whole, reproduce, tmp_path):
  for part in ('1/2', '2/2'):
    done = reproduce(*ROWS, f'--workdir={tmp_path}', f'--shard={part}')
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob('runs/*/summary.json'))) == 5 * int(part[0])
    assert not (tmp_path / 'figure1b').exists()
  done = reproduce(*ROWS, f'--workdir={tmp_path}', '--collect')
  assert done.returncode == 0, done.stderr
  assert results(tmp_path) == results(whole)
  for kind in ('png', 'svg'):
    one, other = (d / f'figure1b/figure1b.{kind}' for d in (tmp_path, whole))
    assert one.read_bytes() == other.read_bytes()


def test_collect_draws_what_there_is_and_says_what_is_missing(whole, reproduce, tmp_path):
  shutil.copytree(whole / 'runs', tmp_path / 'runs')
  arguments = ('--artifact=figure1c', '--scale=smoke', f'--workdir={tmp_path}', '--collect')
  done = reproduce(*arguments)
  assert done.returncode == 0, done.stderr
  statuses = {row['name']: row['status'] for row in results(tmp_path, 'figure1c')}
  assert statuses['mlp_1x512_0.9'] == 'complete'
  assert statuses['inception_0.0'] == 'not run'
  assert 'not run' in (tmp_path / 'figure1c/table.md').read_text()


def test_collecting_all_leaves_out_what_has_not_run(reproduce, tmp_path):
  arguments = ('--artifact=all', '--scale=smoke', f'--workdir={tmp_path}')
  done = reproduce(*arguments, '--rows=digest_32,train_error')
  assert done.returncode == 0, done.stderr
  done = reproduce(*arguments, '--collect')
  assert done.returncode == 0, done.stderr
  assert 'no finished run yet' in done.stdout
  folders = {path.parent.name for path in tmp_path.glob('*/results.json')}
  assert folders == {'complexity', 'hashing'}
  assert (tmp_path / 'report.html').exists()


def test_seeds_give_a_mean_and_a_spread(reproduce, tmp_path):
  one_row = ('--artifact=table1', '--rows=mlp_1x512', '--scale=smoke')
  done = reproduce(*one_row, '--num_seeds=2', f'--workdir={tmp_path}')
  assert done.returncode == 0, done.stderr
  (row,) = results(tmp_path, 'table1')
  assert row['seeds'] == [0, 1]
  assert row['std']['test_accuracy'] > 0
  assert '±' in done.stdout


def test_what_is_set_is_in_every_run_and_result(reproduce, tmp_path):
  done = reproduce(
    *('--artifact=table1', '--rows=mlp_1x512,mlp_1x512_decay', '--scale=smoke'),
    *('--precision=bfloat16', '--set=optimizer.momentum=0.5', '--set=model.width=8'),
    f'--workdir={tmp_path}',
  )
  assert done.returncode == 0, done.stderr
  rows = results(tmp_path, 'table1')
  assert len(rows) == 2
  for row in rows:
    assert row['changes']['precision'] == row['precision'] == 'bfloat16'
    assert row['changes']['optimizer.momentum'] == 0.5
  configs = [json.loads(path.read_text()) for path in tmp_path.glob('runs/*/config.json')]
  assert {config['model']['width'] for config in configs} == {8}
  assert {config['precision'] for config in configs} == {'bfloat16'}


def test_a_dry_run_lists_what_would_run_and_writes_nothing(whole, reproduce, tmp_path):
  arguments = ('--artifact=all', '--scale=full', '--dry_run')
  done = reproduce(*arguments, f'--workdir={tmp_path / "new"}')
  assert done.returncode == 0, done.stderr
  assert not (tmp_path / 'new').exists()
  *lines, total = done.stdout.splitlines()
  assert total.startswith(f'{len(lines)} runs, 0 finished')
  assert all('about' in line for line in lines)
  done = reproduce(*ROWS, '--dry_run', f'--workdir={whole}')
  assert done.stdout.splitlines()[-1].startswith('10 runs, 10 finished')


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ((), '--artifact is missing'),
    (('--artifact=table9',), 'table1'),
    (('--artifact=table1', '--scale=huge'), 'smoke'),
    (('--artifact=table1', '--rows=resnet'), 'inception_crop'),
    (('--artifact=table1', '--rows='), '--rows is empty'),
    (('--artifact=table1', '--shard=3/2'), '1/4'),
    (('--artifact=table1', '--shard=half'), '1/4'),
    (('--artifact=table1', '--shard=1/2', '--collect'), 'only one'),
    (('--artifact=table1', '--num_seeds=0'), 'num_seeds'),
    (('--artifact=table1', '--collect'), 'no finished run'),
    (('--artifact=table1', '--set=nonsense=1'), 'optimizer.learning_rate'),
    (('--artifact=table1', '--set=seed'), 'FIELD=VALUE'),
    (('--artifact=table1', '--set=batch_size=many'), 'a whole number'),
    (('--artifact=table1', '--set=batch_size=0'), 'a number of examples'),
    (('--artifact=table1', '--precision=float64'), 'bfloat16'),
    (('--artifact=theorem1', '--precision=bfloat16'), 'trains nothing'),
    (('--artifact=table1', 'more'), "'more'"),
    (('--artifact=table1', '--nonsense=1'), 'nonsense'),
  ],
)
def test_bad_input_is_refused_in_a_sentence(reproduce, tmp_path, arguments, words):
  folder = tmp_path / 'folder'
  done = reproduce(*arguments, f'--workdir={folder}')
  assert done.returncode == 2
  assert done.stderr.startswith('error: ')
  assert len(done.stderr.strip().splitlines()) == 1
  assert words in done.stderr
  assert not folder.exists()


def test_a_missing_data_set_is_refused_before_anything_runs(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'rethink_gen.reproduce', '--artifact=table1', '--scale=laptop']
    + [f'--workdir={tmp_path / "new"}'],
    cwd=ROOT,
    env={'HOME': str(tmp_path), 'PATH': '/usr/bin:/bin'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'rethink_gen.data.prepare' in done.stderr
  assert not (tmp_path / 'new').exists()
