import subprocess
import sys
import textwrap
import threading

import jax
import numpy as np
import optax
import pytest
from sklearn import ensemble, pipeline, preprocessing, svm

from rethink_gen.audit import identity

HELPERS = 'RATE = 1\n\ndef help(x):\n  return x + RATE\n\ndef other(x):\n  return x\n'
MODEL = """
import helpers

SHIFT = 0.5
UNUSED = 1

class Base:
  offset = 0

class Model(Base):
  def __init__(self, names):
    self.names = names

  def fit(self, x, y):
    import local
    self.mean = y.mean() + SHIFT + helpers.help(x)
    local.work()

  @property
  def half(self):
    return [v for v in range(3) if v in {'p', 'q', 'r'}]
"""
LOCAL = 'def work():\n  return 1\n'
PRINT = """
import sys
sys.path.insert(0, sys.argv[1])
import model
from rethink_gen.audit import identity
print(identity.digest(model.Model({'alpha', 'beta', 'gamma', 'delta'})))
"""


@pytest.fixture
def digest(tmp_path):
  """digest(file, before, after): of the model with that edit, in a process of its own."""

  def run(name=None, before='', after=''):
    files = {'helpers': HELPERS, 'model': MODEL, 'local': LOCAL}
    for file, text in files.items():
      assert file != name or before in text
      text = text.replace(before, after) if file == name else text
      (tmp_path / f'{file}.py').write_text(text)
    command = [sys.executable, '-B', '-c', PRINT, str(tmp_path)]
    return subprocess.check_output(command, text=True).strip()

  return run


@pytest.mark.slow
def test_it_is_the_same_in_every_process_and_changes_with_the_code(digest):
  first = digest()
  assert digest() == first
  assert digest('model', 'UNUSED = 1', 'UNUSED = 2  # with a comment') == first
  edits = [
    ('model', 'y.mean() +', 'y.mean() -'),
    ('model', 'SHIFT = 0.5', 'SHIFT = 0.6'),
    ('model', 'offset = 0', 'offset = 1'),
    ('model', 'range(3)', 'range(4)'),
    ('helpers', 'RATE = 1', 'RATE = 2'),
    ('helpers', 'x + RATE', 'x * RATE'),
    ('local', 'return 1', 'return 2'),
  ]
  assert len({first, *(digest(*edit) for edit in edits)}) == 1 + len(edits)


def scaled(factor):
  return lambda x: factor * x


DIFFERENT = {
  'parameter': (svm.SVC(C=1), svm.SVC(C=2)),
  'step': tuple(
    pipeline.make_pipeline(preprocessing.MinMaxScaler(clip=clip), svm.SVC())
    for clip in (True, False)
  ),
  'closure': (scaled(1), scaled(2)),
  'jitted': (jax.jit(scaled(1)), jax.jit(scaled(2))),
  'array': (np.arange(3), np.arange(3.0)),
  'jax array': (jax.numpy.arange(3), jax.numpy.arange(4)),
  'optimizer': (optax.adam(1e-3), optax.adam(2e-3)),
  'set': ({1, 2}, {1, 3}),
  'kind of set': ({1, 2}, frozenset({1, 2})),
  'ufunc': (np.exp, np.log),
  'key': (jax.random.key(0), jax.random.key(1)),
}


@pytest.mark.parametrize('case', DIFFERENT)
def test_what_differs_is_told_apart(case):
  one, other = DIFFERENT[case]
  assert identity.digest(one) == identity.digest(one)
  assert identity.digest(one) != identity.digest(other)


def test_equal_objects_are_one():
  forests = [ensemble.RandomForestClassifier(7) for _ in range(2)]
  assert identity.digest(forests[0]) == identity.digest(forests[1])
  assert identity.digest(scaled(3)) == identity.digest(scaled(3))


def test_a_circle_ends():
  circle = [1]
  circle.append(circle)
  assert identity.digest(circle) != identity.digest([1])


def test_what_cannot_be_known_is_said():
  with pytest.raises(identity.Unknown, match='lock'):
    identity.digest({'a': [threading.Lock()]})


def test_code_of_a_notebook_is_followed():
  def make(body):
    space = {'__name__': '__main__'}
    exec(textwrap.dedent(body), space)
    return space['f']

  bodies = ('K = 1\ndef f(x): return x + K', 'K = 2\ndef f(x): return x + K')
  assert identity.digest(make(bodies[0])) == identity.digest(make(bodies[0]))
  assert identity.digest(make(bodies[0])) != identity.digest(make(bodies[1]))
