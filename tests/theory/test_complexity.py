import itertools
import math
import signal

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_gen import config as config_lib
from rethink_gen import train
from rethink_gen.errors import BadInput
from rethink_gen.theory import complexity
from rethink_gen.train import compiled, loading, loop
from rethink_gen.train import networks as networks_lib

WIDTHS = st.lists(st.integers(1, 4), min_size=3, max_size=5)


def make_params(widths, seed=0):
  """Parameters of a fully connected network, like the package's MLP."""
  generator = np.random.default_rng(seed)
  return {
    f'Dense_{number}': {
      'kernel': generator.standard_normal((n, m)).astype(np.float32),
      'bias': generator.standard_normal(m).astype(np.float32),
    }
    for number, (n, m) in enumerate(itertools.pairwise(widths))
  }


def make_config(**changes):
  config = config_lib.default()
  sizes = {'dataset.num_train': 32, 'dataset.num_test': 32, 'batch_size': 16}
  config.update_from_flattened_dict(
    sizes
    | {'num_epochs': 2, 'model.width': 8}
    | {k.replace('__', '.'): v for k, v in changes.items()}
  )
  return config


def make_data(config):
  return loading.load(config)[0]


@settings(deadline=None)
@given(WIDTHS, st.integers(0, 99))
def test_path_norm_is_that_of_all_paths(widths, seed):
  params = make_params(widths, seed)
  total = 0.0
  for start in range(len(widths)):  # at an input, or at the bias of layer `start`
    for path in itertools.product(*(range(width) for width in widths[start:])):
      product = 1.0 if start == 0 else params[f'Dense_{start - 1}']['bias'][path[0]]
      for number, (i, j) in enumerate(itertools.pairwise(path), start):
        product *= float(params[f'Dense_{number}']['kernel'][i, j])
      total += float(product) ** 2
  assert complexity.path_norm(params) == pytest.approx(math.sqrt(total), rel=1e-5)


@settings(deadline=None)
@given(WIDTHS, st.integers(0, 99))
def test_spectral_norms_are_the_largest_singular_values(widths, seed):
  params = make_params(widths, seed)
  for number, norm in enumerate(complexity.spectral_norms(params)):
    kernel = params[f'Dense_{number}']['kernel'].astype(float)
    values = np.linalg.svd(kernel, compute_uv=False)
    assert norm == pytest.approx(values[0], rel=1e-9)
    # By definition: no direction is stretched more, and this holds without the SVD.
    assert norm**2 == pytest.approx(np.linalg.eigvalsh(kernel @ kernel.T)[-1], rel=1e-6)


def test_spectral_complexity_by_hand():
  def layer(kernel):
    return {'kernel': np.array(kernel, float), 'bias': np.zeros(2)}

  params = {'Dense_0': layer([[3, 0], [0, 4]]), 'Dense_1': layer([[2, 0], [0, 1]])}
  initial = {'Dense_0': layer([[0, 0], [0, 0]]), 'Dense_1': layer([[2, 0], [0, 0]])}
  # Spectral norms 4 and 2; |A - M|_{2,1} is 3 + 4 and 1.
  by_hand = 8 * ((7 / 4) ** (2 / 3) + (1 / 2) ** (2 / 3)) ** 1.5
  assert complexity.spectral_complexity(params, initial) == pytest.approx(by_hand)
  assert complexity.spectral_complexity(params, params) == 0


def test_the_2_1_norm_is_over_incoming_weights_of_units():
  params = {'Dense_0': {'kernel': np.array([[3.0, 0], [4.0, 0]]), 'bias': np.zeros(2)}}
  initial = jax.tree.map(np.zeros_like, params)
  # One unit of norm 5, the spectral norm as well: R_A = 5 * (5 / 5). By rows it were 7.
  assert complexity.spectral_complexity(params, initial) == pytest.approx(5)


def test_frobenius_norm_and_distance_by_hand():
  params = {'a': np.array([3.0, 0.0], np.float32), 'b': np.array([[4.0]], np.float32)}
  moved = jax.tree.map(lambda leaf: leaf + 1, params)
  assert complexity.frobenius_norm(params) == pytest.approx(5)
  assert complexity.distance(params, params) == 0
  assert complexity.distance(moved, params) == pytest.approx(math.sqrt(3))


def test_layers_are_in_order_however_many_and_convolutions_are_refused():
  params = make_params(range(1, 14))
  shuffled = {name: params[name] for name in sorted(params)}  # Dense_10 before Dense_2
  assert [len(kernel) for kernel, _ in complexity.layers(shuffled)] == list(range(1, 13))
  with pytest.raises(BadInput, match='fully connected'):
    complexity.path_norm({'Conv_0': {'kernel': np.ones((3, 3, 1, 2)), 'bias': np.ones(2)}})
  with pytest.raises(BadInput, match='fully connected'):
    complexity.path_norm({'ConvModule_0': {'Conv_0': {'kernel': np.ones((3, 3, 1, 2))}}})


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_rademacher_complexity_of_a_finite_class_by_all_signs(count, functions, seed):
  values = np.random.default_rng(seed).choice([-1, 1], (functions, count))
  signs = np.array(list(itertools.product([-1, 1], repeat=count)))
  found = complexity.rademacher(lambda drawn: values[(values @ drawn).argmax()], signs)
  by_definition = [
    max(sum(s * h for s, h in zip(drawn, function, strict=True)) for function in values)
    for drawn in signs
  ]
  np.testing.assert_allclose(found, np.array(by_definition) / count)
  # Massart's lemma bounds it for every finite class.
  assert found.mean() <= math.sqrt(2 * math.log(functions) / count) + 1e-12


@pytest.mark.parametrize('count', [1, 2, 5, 8])
def test_rademacher_complexity_where_it_is_known(count):
  signs = np.array(list(itertools.product([-1, 1], repeat=count)))
  one = complexity.rademacher(lambda drawn: np.ones(count), signs)
  assert one.mean() == pytest.approx(0, abs=1e-12)
  pair = complexity.rademacher(lambda drawn: np.full(count, np.sign(drawn.sum())), signs)
  walk = sum(math.comb(count, k) * abs(count - 2 * k) for k in range(count + 1))
  assert pair.mean() == pytest.approx(walk / 2**count / count)  # a random walk's |end|
  assert complexity.rademacher(lambda drawn: drawn, signs).tolist() == [1.0] * len(signs)


def test_signs_are_balanced_and_bad_ones_refused():
  signs = complexity.random_signs(20, 1_000, seed=0)
  assert set(np.unique(signs)) == {-1, 1}
  assert abs(signs.mean()) < 4 / math.sqrt(signs.size)
  assert (signs == complexity.random_signs(20, 1_000, seed=0)).all()
  for bad in (np.zeros((1, 3)), np.ones((0, 3)), np.ones((2, 0)), np.ones(3)):
    with pytest.raises(BadInput, match='must be -1 or'):
      complexity.rademacher(lambda drawn: drawn, bad)


def test_rademacher_bound_by_hand():
  assert complexity.rademacher_bound(1.0, 200, 1 - 2 / math.e) == pytest.approx(1.15)


def test_vc_bound_by_hand():
  # 3 inputs, 2 hidden units, 1 output: 8 + 3 parameters, 8 + 11 up to each layer.
  units = 1 * 2 + 2 * 1
  by_hand = 2 + 19 * math.log2(4 * math.e * units * math.log2(2 * math.e * units))
  assert complexity.vc_bound([3, 2]) == pytest.approx(by_hand)
  for bad in ([3], [], [0, 2], [3, 0]):
    with pytest.raises(BadInput, match='at least one hidden layer'):
      complexity.vc_bound(bad)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=6))
def test_vc_bound_lies_above_what_these_networks_shatter_and_grows(widths):
  bound = complexity.vc_bound(widths)
  # A unit whose bias keeps it active passes a linear function on: d + 1 inputs.
  assert bound >= widths[0] + 1
  if len(widths) == 2:
    assert bound >= widths[1]  # as many points on a line, by Theorem 1
  assert complexity.vc_bound([*widths[:-1], widths[-1] + 1]) > bound


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 99), st.floats(-5, 5))
def test_loss_changes_are_the_largest_over_labels(count, classes, seed, shift):
  generator = np.random.default_rng(seed)
  before, after = generator.normal(0, 5, (2, count, classes))

  def loss(logits, label):
    return 1 - math.exp(logits[label]) / sum(math.exp(value) for value in logits)

  by_definition = [
    max(abs(loss(before[i], y) - loss(after[i], y)) for y in range(classes))
    for i in range(count)
  ]
  changes = complexity.loss_changes(before, after + shift)
  np.testing.assert_allclose(changes, by_definition, atol=1e-12)
  assert (changes <= 1).all()
  assert not complexity.loss_changes(before, before).any()


def test_loss_changes_of_huge_outputs_are_numbers():
  logits = np.array([[1e4, -1e4]], np.float32)
  assert complexity.loss_changes(logits, logits[:, ::-1]) == pytest.approx([1])


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 99))
def test_margins_by_definition(count, classes, seed):
  generator = np.random.default_rng(seed)
  logits = generator.standard_normal((count, classes))
  labels = generator.integers(0, classes, count)
  before = logits.copy()
  for row, label, margin in zip(
    logits, labels, complexity.margins(logits, labels), strict=True
  ):
    assert margin == row[label] - max(v for j, v in enumerate(row) if j != label)
    assert (margin > 0) == (row.argmax() == label)
  assert (logits == before).all()


@settings(deadline=None)
@given(st.floats(0.1, 10))
def test_a_normalized_margin_does_not_depend_on_the_scale_of_a_layer(factor):
  params, initial = make_params([4, 5, 3], 0), make_params([4, 5, 3], 1)
  inputs = np.random.default_rng(2).standard_normal((7, 1, 1, 4))

  def value(scale):
    scaled, start = (
      tree | {'Dense_1': jax.tree.map(lambda leaf: scale * leaf, tree['Dense_1'])}
      for tree in (params, initial)
    )
    (first, first_bias), (last, last_bias) = complexity.layers(scaled)
    hidden = np.maximum(inputs.reshape(7, 4) @ first + first_bias, 0)
    margin = complexity.margins(hidden @ last + last_bias, np.zeros(7, int)).max()
    return complexity.normalized(
      margin, complexity.spectral_complexity(scaled, start), inputs
    )

  assert value(factor) == pytest.approx(value(1.0), rel=1e-5)


def test_replacing_one_example_leaves_the_others_and_the_original():
  dataset = make_data(make_config())
  replaced = complexity.replace_one(dataset, 3, dataset.x_test[0], 7)
  assert (replaced.x_train[3] == dataset.x_test[0]).all()
  assert replaced.y_train[3] == 7
  others = np.arange(32) != 3
  assert (replaced.x_train[others] == dataset.x_train[others]).all()
  assert (replaced.y_train[others] == dataset.y_train[others]).all()
  assert (dataset.x_train == make_data(make_config()).x_train).all()


def test_a_network_is_trained_once_and_is_that_of_a_run(tmp_path, monkeypatch):
  config = make_config()
  dataset = make_data(config)
  network = networks_lib.train_network(config, dataset, tmp_path)
  summary = train.run(config, tmp_path / 'run')
  right = networks_lib.outputs(network, dataset.x_test).argmax(-1) == dataset.y_test
  assert right.mean() == pytest.approx(summary['test_accuracy'])
  initial = compiled.build(config, dataset)[0].params
  assert complexity.distance(network.initial, jax.device_get(initial)) == 0
  assert complexity.distance(network.params, network.initial) > 0

  elsewhere = networks_lib.train_network(config, dataset, tmp_path / 'other')
  monkeypatch.setattr(loop, 'train_epoch', None)
  again = networks_lib.train_network(config, dataset, tmp_path)
  for other in (elsewhere, again):  # the same bits: what is left is the replaced example
    assert complexity.distance(other.params, network.params) == 0


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
  """{corruption mode: Network} at a training loss of 1, and their folder."""
  folder = tmp_path_factory.mktemp('stopped')
  networks = {}
  for mode in ('none', 'random_labels'):
    changes = {'optimizer__learning_rate': 0.003, 'corruption__mode': mode}
    config = make_config(num_epochs=300, **changes)
    networks[mode] = networks_lib.train_network(config, make_data(config), folder, loss=1.0)
  return networks, folder


def test_networks_stop_at_one_training_loss_whatever_the_labels(stopped):
  networks, _ = stopped
  for network in networks.values():
    x, y = network.dataset.x_train, network.dataset.y_train
    logits = networks_lib.outputs(network, x).astype(float)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    assert 1 - networks_lib.TOLERANCE <= losses.mean() <= 1 + 1e-6
  # After as many epochs their losses would differ.
  assert networks['none'].step < networks['random_labels'].step
  # The step before was above it, and the path is that of training.
  network = networks['none']
  state, train_to, evaluate, _ = compiled.build(network.config, network.dataset)
  for step in range(1, network.step):
    state = train_to(state, step)
  assert evaluate(state)['train_loss'] > 1
  state = train_to(state, network.step)
  assert complexity.distance(jax.device_get(state.params), network.params) == 0


def test_a_stopped_network_is_read_and_an_interrupted_one_resumed(stopped, monkeypatch):
  networks, folder = stopped
  network = networks['none']
  elsewhere = folder / 'interrupted'
  again = networks_lib.train_network(network.config, network.dataset, folder, loss=1.0)
  assert again.step == network.step
  assert complexity.distance(again.params, network.params) == 0
  with monkeypatch.context() as patch:
    due = itertools.count()

    def interrupt(*_):
      if next(due) == 5:
        signal.raise_signal(signal.SIGTERM)
      return False

    patch.setattr(loop, 'is_checkpoint_due', interrupt)
    with pytest.raises(train.Interrupted):
      networks_lib.train_network(network.config, network.dataset, elsewhere, loss=1.0)
  [saved] = elsewhere.glob('*/checkpoints')
  assert [path.name for path in saved.iterdir() if path.name.isdigit()] == ['12']
  resumed = networks_lib.train_network(network.config, network.dataset, elsewhere, loss=1.0)
  assert resumed.step == network.step
  assert complexity.distance(resumed.params, network.params) == 0


@pytest.mark.slow
def test_a_last_step_that_leads_too_far_is_shortened(tmp_path):
  config = make_config(num_epochs=100, model__width=64, optimizer__learning_rate=0.05)
  data = make_data(config)
  network = networks_lib.train_network(config, data, tmp_path, loss=0.3)
  state, train_to, evaluate, _ = compiled.build(config, data)
  losses = {}
  for step in range(1, network.step + 1):
    before, state = jax.tree.map(np.array, state.params), train_to(state, step)
    losses[step] = evaluate(state)['train_loss']
  assert losses[step - 1] > 0.3
  assert losses[step] < 0.3 * (1 - networks_lib.TOLERANCE)
  moved = complexity.distance(network.params, before)
  whole = complexity.distance(jax.device_get(state.params), before)
  rest = complexity.distance(jax.device_get(state.params), network.params)
  assert 0 < moved < whole
  assert moved + rest == pytest.approx(whole, rel=1e-4)  # on the way, not beside it
  found = evaluate(state._replace(params=network.params))['train_loss']
  assert 0.3 * (1 - networks_lib.TOLERANCE) <= found <= 0.3 * (1 + 1e-6)


@pytest.mark.parametrize(
  ('changes', 'loss', 'words'),
  [
    ({'num_epochs': 2}, 0.3, 'after 2 epochs, still above 0.3'),
    ({}, 9.0, 'before the first step, at or below 9'),
  ],
)
def test_a_training_loss_that_is_not_met_is_refused(changes, loss, words, tmp_path):
  config = make_config(**changes)
  with pytest.raises(BadInput, match=words):
    networks_lib.train_network(config, make_data(config), tmp_path, loss)


def test_other_labels_other_images_or_another_config_are_another_network():
  config = make_config()
  dataset = make_data(config)
  names = {
    networks_lib.digest(config, dataset),
    networks_lib.digest(config, dataset._replace(y_train=dataset.y_train[::-1])),
    networks_lib.digest(config, dataset._replace(x_train=dataset.x_train[::-1])),
    networks_lib.digest(make_config(model__width=9), dataset),
    networks_lib.digest(make_config(seed=1), dataset),
  }
  assert len(names) == 5
  moved = make_config(dataset__data_dir='/elsewhere')
  assert networks_lib.digest(moved, dataset) in names


@pytest.mark.slow
def test_any_model_of_the_package_is_trained_on_random_signs(tmp_path):
  alexnet = {'model__name': 'alexnet', 'model__width': None}
  config = make_config(num_epochs=1, **alexnet)
  images = make_data(config).x_train
  fit = networks_lib.sign_fit(config, images, tmp_path)
  found = complexity.rademacher(fit, complexity.random_signs(1, len(images), seed=0))
  assert found.shape == (1,)
  assert -1 <= found[0] <= 1


def test_bad_configs_and_training_that_diverges_are_refused(tmp_path):
  dataset = make_data(make_config())
  with pytest.raises(BadInput, match='batch_size'):
    networks_lib.train_network(make_config(batch_size=64), dataset, tmp_path)
  with pytest.raises(BadInput, match='num_epochs'):
    networks_lib.train_network(make_config(num_epochs=0), dataset, tmp_path)
  diverging = make_config(optimizer__learning_rate=1e30)
  with pytest.raises(BadInput, match='diverged'):
    networks_lib.train_network(diverging, dataset, tmp_path)
