"""The direction of imports: a file imports only what lies on a lower floor, or its own."""

import ast

import pytest
from helpers import ROOT

# From the ground up. A package may import its own modules and those of lower floors.
FLOORS = (
  {
    'errors',
    'interrupt',
    'memory',
    'output',
    'paths',
    'files',
    'text',
    'progress',
    'sharding',
    'ops',
  },
  {'models', 'data', 'theory'},
  {'config'},
  {'train'},
  {'cli'},
  {'main', 'runs', 'estimate', 'reporting', 'paper', 'studies'},
  {'reproduce', 'audit'},
)
# What else there is, from a package to another on its own floor.
BESIDE = {
  *(('paths', 'errors'), ('progress', 'text'), ('ops', 'sharding')),
  *(('paper', 'reporting'), ('studies', 'reporting'), ('studies', 'paper')),
}
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}
FILES = sorted((ROOT / 'rethink_gen').rglob('*.py'))


def parts(path):
  """('train', 'loop') of rethink_gen/train/loop.py."""
  return path.relative_to(ROOT / 'rethink_gen').with_suffix('').parts


def imports(path):
  """The modules of the package that a file imports, as tuples without 'rethink_gen'."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      package, *rest = name.split('.')
      if package == 'rethink_gen' and rest:
        yield tuple(rest)


@pytest.mark.parametrize('path', FILES, ids=lambda path: '/'.join(parts(path)))
def test_imports_point_down(path):
  own = parts(path)[0]
  if own == '__init__':  # of the package itself, which imports what it is asked for
    return
  for first, *_ in imports(path):
    is_lower = FLOOR[first] < FLOOR[own]
    assert first == own or is_lower or (own, first) in BESIDE, (own, first)


def test_no_two_files_import_each_other():
  modules = {parts(path): path for path in FILES}
  graph = {}
  for own, path in modules.items():
    names = list(imports(path))
    graph[own] = {m for m in modules if any(m == name[: len(m)] for name in names)} - {own}
  done = set()

  def visit(module, trail):
    assert module not in trail, ' -> '.join('.'.join(m) for m in (*trail, module))
    if module not in done:
      for other in graph[module]:
        visit(other, (*trail, module))
      done.add(module)

  for module in graph:
    visit(module, ())


def test_theory_knows_nothing_of_training():
  for path in FILES:
    if parts(path)[0] == 'theory':
      assert not {name[0] for name in imports(path)} & {'train', 'config', 'data', 'models'}
