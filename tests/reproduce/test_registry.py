"""Every artifact and study keeps the contract of `reporting.artifacts`."""

import inspect

import pytest
from helpers import ROOT

from rethink_gen import config as config_lib
from rethink_gen.paper import scales
from rethink_gen.reporting import artifacts
from rethink_gen.reproduce import grid, training
from rethink_gen.reproduce.registry import ARTIFACTS


def arguments(function):
  return [name for name in inspect.signature(function).parameters if name != 'self']


@pytest.mark.parametrize('name', ARTIFACTS)
def test_an_artifact_has_every_name_of_the_contract(name):
  artifact = ARTIFACTS[name]
  assert isinstance(artifact, artifacts.Artifact)
  kinds = [artifacts.Artifact]
  if grid.kind_of(artifact) is not training:
    assert isinstance(artifact, artifacts.Computed)
    kinds.append(artifacts.Computed)
  for kind in kinds:
    for member in ('rows', 'measure', 'draw', 'findings', 'check', 'expected_seconds'):
      if hasattr(kind, member):
        expected = arguments(getattr(kind, member))
        assert arguments(getattr(artifact, member)) == expected, member
  for text in (artifact.TITLE, artifact.ASKED, artifact.FOUND, artifact.CAPTION):
    assert isinstance(text, str)
    assert text
  for column in artifact.COLUMNS.values():
    assert isinstance(column, artifacts.Column)
    assert format(1.0, column.format)
  assert set(getattr(artifact, 'SEEDS', {})) <= set(scales.SCALES)
  assert set(getattr(artifact, 'SAYS', scales.SAYS)) == set(scales.SCALES)


@pytest.mark.parametrize('scale', scales.SCALES)
@pytest.mark.parametrize('name', ARTIFACTS)
def test_rows_are_distinct_and_runnable(name, scale):
  artifact = ARTIFACTS[name]
  rows = artifact.rows(scale)
  assert len({row.name for row in rows}) == len(rows) > 0
  for row in rows:
    assert row.paper.keys() <= artifact.COLUMNS.keys()
    if grid.kind_of(artifact) is training:
      config_lib.validate(training.make_settings(row, 0))
    else:
      assert artifact.expected_seconds(row.changes | {'seed': 0}) > 0


def test_every_file_of_the_paper_and_the_studies_that_is_an_artifact_is_registered():
  for package in ('paper', 'studies'):
    for path in (ROOT / 'rethink_gen' / package).glob('*.py'):
      is_artifact = 'def rows(scale' in path.read_text()
      assert is_artifact == (path.stem in ARTIFACTS), path
