"""Training on images that are decoded on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import stop_after

from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.data import streaming, synthetic
from rethink_gen.errors import BadInput
from rethink_gen.train import compiled, loading, loop

COUNT, TEST_COUNT = 70, 21  # no multiples of the batch


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp('tfds')
  synthetic.generate(data_dir, COUNT, TEST_COUNT, (24, 48))
  return data_dir


def make_config(data_dir, **changes):
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'dataset.name': 'generated_images',
      'dataset.data_dir': str(data_dir),
      'dataset.streaming': True,
      'dataset.crop_size': 24,
      'model.width': 64,
      'batch_size': 16,
      'num_epochs': 3,
    }
    | changes
  )
  return config


def test_a_streamed_run_fits_random_labels_and_reports_all_examples(data_dir, tmp_path):
  config = make_config(
    data_dir, num_epochs=60, eval_every=30, **{'corruption.mode': 'random_labels'}
  )
  summary = train.run(config, tmp_path)
  assert summary['train_accuracy'] == 1.0
  assert (summary['num_train'], summary['num_test']) == (COUNT, TEST_COUNT)
  assert summary['labels_changed'] is None
  assert summary['train_top5_accuracy'] == 1.0
  assert summary['steps_per_epoch'] == COUNT // 16


def test_evaluation_is_over_every_example_once(data_dir):
  """Accuracies and loss of the padded, streamed batches, against all images at once."""
  config = make_config(data_dir)
  source, _ = loading.load(config)
  state, _, evaluate, _ = compiled.build(config, source)
  measured = evaluate(state)
  batches = list(streaming.evaluation_batches(source, config, source.test, 0, 1))
  images, labels = (
    np.concatenate([batch[i][batch[2]] for batch in batches]) for i in range(2)
  )
  assert len(labels) == TEST_COUNT
  x = images.reshape(TEST_COUNT, -1) / np.float32(127.5) - 1
  for name in sorted(state.params):
    layer = state.params[name]
    x = np.asarray(x @ layer['kernel'] + layer['bias'])
    x = np.maximum(x, 0) if name != max(state.params) else x
  x = x.astype(np.float64)
  ranks = (x > np.take_along_axis(x, labels[:, None], 1)).sum(1)
  losses = np.log(np.exp(x).sum(1)) - x[np.arange(TEST_COUNT), labels]
  np.testing.assert_allclose(measured['test_loss'], losses.mean(), rtol=1e-4)
  assert measured['test_accuracy'] == pytest.approx((ranks == 0).mean())
  assert measured['test_top5_accuracy'] == pytest.approx((ranks < 5).mean())


@pytest.mark.parametrize('value', [0.0, np.nan])
def test_a_network_that_says_nothing_guesses_the_first_class_or_none(data_dir, value):
  config = make_config(data_dir, **{'dataset.num_test': 20})
  source, _ = loading.load(config)
  state, _, evaluate, _ = compiled.build(config, source)
  params = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), state.params)
  measured = evaluate(state._replace(params=params))
  labels = [int(record['label']) for record in source.test.records][:20]
  expected = (np.mean(np.array(labels) < n) if value == 0 else 0 for n in (1, 5))
  names = ('test_accuracy', 'test_top5_accuracy')
  assert [measured[name] for name in names] == pytest.approx(list(expected))


def test_a_stopped_streamed_run_goes_on_at_the_next_example(
  figures, data_dir, tmp_path, monkeypatch
):
  monkeypatch.setattr(loop, 'SECONDS_PER_CALL', 0.0)  # a step a call
  changes = {f'regularization.random_{what}': True for what in ('crop', 'flip')}
  config = make_config(data_dir, **changes)
  train.run(config, tmp_path / 'whole')
  stop_after(monkeypatch, 5)
  for _ in range(2):
    with pytest.raises(train.Interrupted):
      train.run(config, tmp_path / 'stopped')
  train.run(config, tmp_path / 'stopped')
  assert figures(tmp_path / 'stopped') == figures(tmp_path / 'whole')


def test_a_batch_larger_than_the_data_is_refused(data_dir, tmp_path):
  with pytest.raises(BadInput, match=f'batch_size is 128.*{COUNT}'):
    train.run(make_config(data_dir, batch_size=128), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
