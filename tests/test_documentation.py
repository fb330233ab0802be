"""The documents and the reference: what they name exists, and every module has its page."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

import rethink_gen
from rethink_gen import config as config_lib

DOCUMENTS = sorted(
  [
    *(ROOT / name for name in ('README.md', 'RESULTS.md', 'CONTRIBUTING.md')),
    *(ROOT / 'docs').rglob('*.md'),
  ]
)
each_document = pytest.mark.parametrize(
  'document', DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT))
)


def anchors(document):
  """The anchors that GitHub gives the headings of a document."""
  text = re.sub(r'^```.*?^```', '', document.read_text(), flags=re.M | re.S)
  for heading in re.findall(r'^#+ (.*)', text, re.M):
    shown = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower().strip()
    yield re.sub(r'[^\w\- ]', '', shown).replace(' ', '-')


@each_document
def test_links_lead_somewhere(document):
  for link in re.findall(r'\]\(([^)\s]+)\)', document.read_text()):
    if re.match(r'https?:', link):
      continue
    path, _, anchor = link.partition('#')
    target = document.parent / path if path else document
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link


@each_document
def test_programs_exist(document):
  names = re.findall(r'python\s+-m\s+([\w.]*\w)', document.read_text())
  ours = {name for name in names if name.split('.')[0] in ('rethink_gen', 'benchmarks')}
  for name in ours:
    path = ROOT / name.replace('.', '/')
    assert path.with_suffix('.py').exists() or (path / '__main__.py').exists(), name


@each_document
def test_paths_exist(document):
  # A path on a line of its own is that of a file which the page makes.
  text = re.sub(r'^`\S+`:$', '', document.read_text(), flags=re.M)
  folders = 'rethink_gen|configs|benchmarks|examples|launch|notebooks|tests'
  ending = 'py|sh|ipynb|yaml'
  named = [
    *re.findall(rf'(?<![\w./-])(?:{folders})/[a-z0-9_/]+\.(?:{ending})\b', text),
    *re.findall(r'`((?:rethink_gen|docs|results)/[\w./-]*)`', text),
  ]
  for path in named:
    is_placeholder = re.search('[A-Z]{2}', path)  # results/SCALE/ARTIFACT
    assert is_placeholder or (ROOT / path).exists(), path


@each_document
def test_fields_exist(document):
  fields = config_lib.flatten(config_lib.default()).keys()
  named = re.findall(r'--config\.([a-z_.]*[a-z_])=', document.read_text())
  assert set(named) <= fields


def test_every_field_is_in_the_table_of_fields():
  text = (ROOT / 'docs/runs.md').read_text().split('## Fields of a config')[1]
  rows = re.findall(r'^\| `([a-z_.]+)` \| `(.+?)` \|', text.split('\n## ')[0], re.M)
  defaults = config_lib.flatten(config_lib.default())
  assert dict(rows) == {field: repr(value) for field, value in defaults.items()}


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  """{'rethink_gen/train/sgd': its page}."""
  pytest.importorskip('pdoc', reason='needs pdoc')
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


@pytest.mark.slow
def test_every_module_has_a_page(pages):
  paths = (path.relative_to(ROOT) for path in ROOT.glob('rethink_gen/**/*.py'))
  modules = {str(path.with_suffix('')).removesuffix('/__init__') for path in paths}
  programs = {name for name in modules if name.endswith('/__main__')}
  programs.add('rethink_gen/main')  # --help is their reference
  assert pages.keys() == modules - programs - {'rethink_gen'}  # whose page lies above
  assert set(rethink_gen.__all__) == {name.split('/')[1] for name in pages}


@pytest.mark.slow
def test_a_page_has_the_docstrings_with_their_parts(pages):
  page = pages['rethink_gen/train/loop']
  for text in ('id="run"', 'Arguments:', '<strong>workdir:</strong>', 'Raises:'):
    assert text in page
