"""docs/extending.md, followed to the letter: its files are written, its commands run."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

SECTIONS = dict(
  section.split('\n', 1)
  for section in (ROOT / 'docs/extending.md').read_text().split('\n## ')[1:]
)
FILE = re.compile(r'^`(\S+)`:\n\n```python\n(.*?)^```', re.M | re.S)
COMMANDS = re.compile(r'(?<=\n\n)```\n(.*?)^```', re.M | re.S)


@pytest.fixture
def follow(tmp_path):
  """follow(section): writes its files into a copy of the package and runs its commands."""
  for folder in ('rethink_gen', 'configs'):
    (tmp_path / folder).symlink_to(ROOT / folder)

  def run(section):
    text = SECTIONS[section]
    for name, content in FILE.findall(text):
      if name.startswith('rethink_gen/'):
        (tmp_path / 'rethink_gen').unlink()
        shutil.copytree(ROOT / 'rethink_gen', tmp_path / 'rethink_gen')
      (tmp_path / name).write_text(content)
      if name.startswith('rethink_gen/studies/'):
        register(tmp_path / 'rethink_gen/studies/__init__.py', (tmp_path / name).stem)
    for line in ''.join(COMMANDS.findall(text)).splitlines():
      words = [sys.executable, *shlex.split(line)[1:]]
      done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
      assert done.returncode == 0, done.stderr
    return tmp_path / 'runs'

  return run


def register(file, study):
  """What the page says in words: the import, and the entry of STUDIES."""
  text = file.read_text()
  text = text.replace('  complexity,', f'  complexity,\n  {study},', 1)
  file.write_text(text.replace('STUDIES = {', f"STUDIES = {{\n  '{study}': {study},"))


@pytest.mark.parametrize(
  ('section', 'expected'),
  [
    ('A model', {'model': 'tiny', 'num_params': 7 * 7 * 8 * 10 + 10 + 9 * 8 + 8}),
    ('A corruption', {'corruption': 'inverted', 'labels_changed': 0.0}),
    ('An optimizer', {'model': 'mlp'}),
    ('A data set', {'dataset': 'npz', 'num_train': 300, 'num_classes': 2}),
  ],
)
def test_a_run_of_what_was_added(follow, section, expected):
  (workdir,) = follow(section).iterdir()
  summary = json.loads((workdir / 'summary.json').read_text())
  assert summary | expected | {'status': 'complete'} == summary


@pytest.mark.slow
def test_a_study_is_reported_like_any_other(follow):
  folder = follow('An artifact or a study') / 'width/width'
  results = json.loads((folder / 'results.json').read_text())
  assert [row['status'] for row in results['rows']] == ['complete', 'complete']
  assert 'width_64' in (folder / 'table.md').read_text()
  assert (folder / 'report.html').exists()
