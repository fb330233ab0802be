"""Every notebook runs to its end, and what the repository has of it is small and clean."""

import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow

reason = 'needs nbclient, nbformat and ipykernel'
nbformat = pytest.importorskip('nbformat', reason=reason)
nbclient = pytest.importorskip('nbclient', reason=reason)
pytest.importorskip('ipykernel', reason=reason)

NOTEBOOKS = sorted(ROOT.glob('notebooks/*.ipynb'))


def read(path):
  return nbformat.read(path, as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def test_there_are_notebooks():
  assert [path.stem for path in NOTEBOOKS] == [
    *('inspect_checkpoint', 'randomization_test', 'studies', 'theory')
  ]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path, tmp_path, monkeypatch):
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
  notebook = read(path)
  stored = [cell.outputs for cell in code_cells(notebook)]
  for cell in code_cells(notebook):
    cell.outputs = []
  resources = {'metadata': {'path': str(tmp_path)}}
  nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
  for cell, outputs in zip(code_cells(notebook), stored, strict=True):
    kinds = [set(output.get('data', {})) for output in cell.outputs]
    assert kinds == [set(output.get('data', {})) for output in outputs]  # as it was shown
    assert not any(output.get('name') == 'stderr' for output in cell.outputs), cell.source


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_small_and_without_traces_of_a_machine(path):
  assert path.stat().st_size < 300_000
  assert not any(words in path.read_text() for words in ('/home/', '/tmp/', '/root/'))
  notebook = read(path)
  nbformat.validate(notebook)
  assert not any(cell.metadata for cell in notebook.cells)
  counts = [cell.execution_count for cell in code_cells(notebook)]
  assert counts == list(range(1, len(counts) + 1))  # executed once, from top to bottom
  assert notebook.metadata.keys() == {'kernelspec', 'language_info'}
