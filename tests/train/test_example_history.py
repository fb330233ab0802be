import functools

import helpers
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from rethink_gen import train
from rethink_gen.errors import BadInput
from rethink_gen.train import (
  compiled,
  evaluation,
  example_history,
  loading,
  loop,
  metrics,
  summaries,
  vmapped,
)

make_config = functools.partial(
  helpers.make_config, num_epochs=6, record_examples=True, **{'model.width': 64}
)


def read(workdir):
  with np.load(workdir / example_history.EXAMPLES) as file:
    return {name: file[name] for name in file}


@given(st_numpy.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 5))))
def test_the_history_of_an_example_by_hand(fitted):
  nothing = np.zeros(fitted.shape[1], np.float32)
  found = example_history.summarize(
    fitted, evaluation.Examples(nothing, fitted[-1], nothing)
  )
  for example, history in enumerate(fitted.T):
    first, last, forgotten, before = 0, 0, 0, False
    for epoch, right in enumerate(history, 1):
      if right and not before:
        first, last = first or epoch, epoch
      forgotten += before and not right
      before = right
    forgotten = forgotten if first else np.inf  # never learned: arXiv:1812.05159, section 3
    names = ('first_fitted', 'last_fitted', 'forgotten', 'right')
    assert [found[n][example] for n in names] == [first, last, forgotten, history[-1]]


def test_an_older_file_has_its_never_fitted_examples_as_forgotten_most(tmp_path):
  old = {'first_fitted': [2, 0, 1], 'last_fitted': [2, 0, 5], 'forgotten': [0, 0, 2]}
  np.savez(tmp_path / example_history.EXAMPLES, **{n: np.int32(v) for n, v in old.items()})
  assert example_history.read(tmp_path)['forgotten'].tolist() == [0, np.inf, 2]


@pytest.mark.slow
def test_what_is_examined_is_what_is_evaluated(tmp_path):
  """Loss and accuracy of the last record are means of the recorded examples."""
  config = make_config()
  train.run(config, tmp_path)
  found, last = read(tmp_path), metrics.read_records(tmp_path)[-1]
  assert found['loss'].mean() == pytest.approx(last['train_loss'], rel=1e-5)
  assert found['right'].mean() == pytest.approx(last['train_accuracy'])
  assert {len(values) for values in found.values()} == {200}
  # A margin is positive where the label is guessed, and only there.
  np.testing.assert_array_equal(found['margin'] > 0, found['right'])
  rows = np.load(tmp_path / example_history.FITTED)
  fitted = np.unpackbits(rows, axis=1, count=200)
  accuracies = [r['train_accuracy'] for r in metrics.read_records(tmp_path)]
  np.testing.assert_allclose(fitted.mean(1), accuracies)


def test_the_margin_is_the_labels_logit_less_the_largest_other(tmp_path):
  config = make_config()
  dataset, _ = loading.load(config)
  state, _, _, examine = compiled.build(config, dataset)
  program = compiled.make_program(config, dataset)
  inputs = program.to_inputs(dataset.x_train)
  logits = program.model.apply({'params': state.params}, inputs, train=False)
  found = examine(state)
  for number, own in enumerate(np.asarray(logits)):
    label, margin = dataset.y_train[number], found.margin[number]
    assert margin == pytest.approx(own[label] - max(np.delete(own, label)), abs=1e-5)


def test_a_stopped_run_has_the_same_history(tmp_path, monkeypatch):
  whole = train.run(make_config(), tmp_path / 'whole')
  train_epoch = loop.train_epoch

  def stopping(config, state, pace, update, received):
    found = yield from train_epoch(config, state, pace, update, received)
    received.append(15)  # after every epoch
    return found

  monkeypatch.setattr(loop, 'train_epoch', stopping)
  interruptions = 0
  while True:
    try:
      train.run(make_config(), tmp_path / 'stopped')
      break
    except train.Interrupted:
      interruptions += 1
  assert interruptions >= whole['epochs'] - 1
  a, b = read(tmp_path / 'whole'), read(tmp_path / 'stopped')
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_runs_together_have_the_histories_of_runs_alone(tmp_path):
  configs = {tmp_path / str(seed): make_config(seed=seed) for seed in range(2)}
  vmapped.run(configs)
  for folder, config in configs.items():
    train.run(config, tmp_path / f'{folder.name}_alone')
    one, other = read(folder), read(tmp_path / f'{folder.name}_alone')
    for name in ('first_fitted', 'last_fitted', 'forgotten', 'right'):
      np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_allclose(one['margin'], other['margin'], rtol=1e-3, atol=1e-3)


def test_a_lost_history_is_refused(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(summaries, 'summarize', None)  # it ends before summary.json
    with pytest.raises(TypeError):
      train.run(make_config(), tmp_path)
  (tmp_path / example_history.FITTED).write_bytes(b'torn')
  with pytest.raises(BadInput, match='does not hold the 6 epochs'):
    train.run(make_config(), tmp_path)
