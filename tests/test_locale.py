"""Programs in a locale whose encoding is not UTF-8: reports are, and nothing crashes."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

NOT_UTF_8 = {'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0', 'LC_ALL': 'C'}


def run(encoding, folder, *arguments):
  """Bytes of standard output of a program, in this folder and with this encoding."""
  environment = os.environ | NOT_UTF_8
  environment['PYTHONPATH'] = os.pathsep.join(filter(None, sys.path))
  if encoding != 'ascii':
    environment['PYTHONIOENCODING'] = encoding
  done = subprocess.run(
    [sys.executable, *arguments],
    cwd=folder,
    env=environment,
    capture_output=True,
    timeout=200,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_an_artifact(tmp_path):
  arguments = ('--artifact=theorem1', '--scale=smoke', '--workdir=runs')
  said = run('ascii', tmp_path, '-m', 'rethink_gen.reproduce', *arguments)
  assert b'The report is in' in said
  folder = tmp_path / 'runs/theorem1'
  assert '\u27e8a, x\u27e9' in (folder / 'theorem1.svg').read_text('utf-8')
  page = (folder / 'report.html').read_text('utf-8')
  assert 'n\u00b2' in page
  assert '|' in (folder / 'table.md').read_text('utf-8')


@pytest.mark.parametrize('encoding', ['latin-1'])
def test_an_audit(tmp_path, encoding):
  code = (
    'from sklearn import naive_bayes\nclass Mod\u00e8le(naive_bayes.GaussianNB): pass\n'
  )
  (tmp_path / 'own.py').write_text(f'{code}make = Mod\u00e8le', 'utf-8')
  arguments = ('--estimator=own:make', '--seeds=1', '--noise_levels=0', '--num_train=200')
  arguments += ('--workdir=runs',)
  said = run('latin-1', tmp_path, '-m', 'rethink_gen.audit', *arguments)
  assert b'random labels' in said
  page = (tmp_path / 'runs/report.html').read_text('utf-8')
  assert 'Mod\u00e8le' in page
  assert '\u03a3' in page


@pytest.mark.parametrize(
  ('encoding', 'expected'),
  [
    ('ascii', b'1 - 2 +- 3 x 4... ? caf\xc3\xa9\n'),
    ('latin-1', b'1 - 2 \xb1 3 \xd7 4... ? caf\xc3\xa9\n'),
  ],
)
def test_what_an_encoding_lacks_is_spelled(tmp_path, encoding, expected):
  text = '1 \\u2013 2 \\u00b1 3 \\u00d7 4\\u2026 \\u6f22 caf\\udcc3\\udca9'
  code = (
    f'from rethink_gen import output; output.open_streams(); print("{text}", flush=True)'
  )
  assert run(encoding, tmp_path, '-c', code) == expected


def test_the_table_of_an_audit_is_ascii(tmp_path):
  code = (
    'import numpy as np, rethink_gen; from sklearn import dummy; '
    'x, y = np.eye(20), np.arange(20) % 2; '
    'print(rethink_gen.randomization_test(dummy.DummyClassifier(), x, y, seeds=1))'
  )
  # Printed by a program of the user's own, which nothing has prepared.
  assert b'| -' in run('ascii', tmp_path, '-X', 'utf8=0', '-c', code).replace(b'  ', b' ')
