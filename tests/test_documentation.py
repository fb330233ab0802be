"""The reference that README says how to make is made of every module, without a warning."""

import subprocess
import sys

import pytest
from helpers import ROOT

import rethink_gen

pytest.importorskip('pdoc', reason='needs pdoc')
PROGRAMS = {'rethink_gen/main', 'rethink_gen/reproduce'}  # --help is their reference


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  """{'rethink_gen/sgd': its page}."""
  folder = tmp_path_factory.mktemp('pages')
  command = '-m pdoc --docformat=google rethink_gen -o'.split()
  done = subprocess.run(
    [sys.executable, *command, folder], cwd=ROOT, capture_output=True, text=True
  )
  assert (done.returncode, done.stderr) == (0, '')
  return {
    str(path.relative_to(folder).with_suffix('')): path.read_text()
    for path in folder.glob('rethink_gen/**/*.html')
  }


def test_every_module_has_a_page(pages):
  paths = (path.relative_to(ROOT) for path in ROOT.glob('rethink_gen/**/*.py'))
  modules = {str(path.with_suffix('')).removesuffix('/__init__') for path in paths}
  assert pages.keys() == modules - PROGRAMS - {'rethink_gen'}  # whose page lies above
  assert set(rethink_gen.__all__) == {name.split('/')[1] for name in pages}


def test_a_page_has_the_docstrings_with_their_parts(pages):
  page = pages['rethink_gen/train']
  for text in ('id="run"', 'Arguments:', '<strong>workdir:</strong>', 'Raises:'):
    assert text in page
