"""The peer of the benchmarks computes what it is compared with."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_config

from benchmarks import starts
from rethink_gen import models
from rethink_gen.data import preprocess, sources
from rethink_gen.errors import BadInput
from rethink_gen.models import initialization
from rethink_gen.train import optimizers, sgd

pytestmark = pytest.mark.slow

PARAMETERS = {
  'mlp_1x512': 1_209_866,
  'mlp_3x512': 1_735_178,
  'alexnet': 1_387_786,
  'inception': 1_649_402,
  'inception_no_bn': 1_649_402,
}
BATCH, STEPS = 8, 4


@pytest.fixture(scope='module')
def torch():
  return pytest.importorskip(
    'torch', reason="needs PyTorch: pip install -e '.[benchmarks]'"
  )


@pytest.fixture(scope='module')
def dataset():
  """Noise of CIFAR-10's shape: STEPS batches."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (BATCH * STEPS, 32, 32, 3), np.uint8)
  labels = random.integers(0, 10, BATCH * STEPS).astype(np.int32)
  return sources.Dataset(images, labels, images[:1], labels[:1], 10)


def ordered(params):
  """The innermost dicts of a linen module's parameters, in the order of its layers."""

  def order(name):
    kind, number = name.split('_')
    # A convolution comes before its normalization, all of them before the linear layers.
    return ('Conv', 'ConvModule', 'BatchNorm', 'Dense').index(kind), int(number)

  for name in sorted(params, key=order):
    inner = params[name]
    yield from ordered(inner) if name.startswith('ConvModule') else [inner]


def copy_weights(torch, params, network):
  """Into the network what linen's layers hold, layer by layer."""
  learning = [
    module
    for module in network.modules()
    if any(p.requires_grad for p in module.parameters(recurse=False))
  ]
  with torch.no_grad():
    for layer, values in zip(learning, ordered(params), strict=True):
      if 'kernel' in values:
        kernel = np.asarray(values['kernel'])  # (h, w, in, out) or (in, out)
        last = kernel.ndim - 1
        order = (last, last - 1, *range(last - 1))
        layer.weight.copy_(torch.tensor(kernel.transpose(order).copy()))
      if 'bias' in values:
        layer.bias.copy_(torch.tensor(np.asarray(values['bias'])))


@pytest.mark.parametrize('name', PARAMETERS)
def test_torch_computes_the_same(torch, dataset, name):
  """Parameters, logits, and the losses of steps of SGD over a decay of its rate."""
  from benchmarks import peer_torch

  config = importlib.import_module(f'configs.{name}').get_config()
  config.batch_size = BATCH
  config.optimizer.learning_rate = 0.01
  config.optimizer.decay_every_steps = 2
  config.optimizer.decay_factor = 0.5
  model = models.create(config, dataset.num_classes)
  tx = optimizers.make_tx(config, optimizers.rates(config))
  key = jax.random.key(0)
  state = sgd.make_initialize(model, tx, (28, 28, 3), STEPS)(key)
  training = peer_torch.build(config, dataset, 'eager')
  copy_weights(torch, state.params, training.network)

  own = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  theirs = sum(p.numel() for p in training.network.parameters() if p.requires_grad)
  assert own == theirs == PARAMETERS[name]

  images = jnp.asarray(dataset.x_train)
  inputs = preprocess.preprocess(images, (28, 28))
  prepared = peer_torch.prepare(torch.tensor(dataset.x_train), (28, 28))
  np.testing.assert_allclose(prepared, inputs, atol=1e-5)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, inputs)
  training.network.eval()
  with torch.no_grad():
    their_logits = training.network(prepared.to(peer_torch.DEVICE)).cpu()
  np.testing.assert_allclose(their_logits, logits, rtol=1e-3, atol=1e-3)

  @jax.jit
  def step(state, inputs, labels):
    return sgd.train_step(model, tx, state, inputs, labels, key)

  for some in np.arange(BATCH * STEPS).reshape(STEPS, BATCH):
    state = step(state, inputs[some], dataset.y_train[some])
  training.train(torch.arange(BATCH * STEPS, device=peer_torch.DEVICE))
  np.testing.assert_allclose(training.losses.cpu(), state.losses, rtol=1e-3)


def test_a_start_is_measured_on_training_data_alone():
  """The trial of initializations: a loss and dead units, or the step of divergence."""
  config = make_config(**{'corruption.mode': 'none'})
  found = starts.measure(config, 9)  # six steps an epoch
  assert 0 < found['loss'] <= found['highest_loss'] < 10
  assert (found['diverged_at'], found['dead_units']) == (None, found['dead_units/linear_1'])
  assert not any('test' in name for name in found)
  config.optimizer.learning_rate = 1e30
  diverged = starts.measure(config, 9)
  assert diverged['loss'] is None
  assert 1 < diverged['diverged_at'] <= 9
  done = {('mlp', 0.1, 'he_normal', seed, 9): found for seed in (0, 1)}
  done |= {('mlp', 1e30, 'he_normal', 0, 9): diverged}
  _, _, both, one = starts.make_table(done).splitlines()
  assert both.startswith('| mlp | 0.1 | he_normal | 9 | 2 | ')
  assert f'1 diverged, the first at step {diverged["diverged_at"]}' in one


def test_a_trial_of_what_is_not_known_is_refused():
  with pytest.raises(BadInput, match="--rules has 'orthogonal', but it takes glorot"):
    starts.check('rules', ['orthogonal'], initialization.RULES)
