import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import linear_model

from rethink_gen.audit import adapters, estimators, flax_modules, randomizations, testing
from rethink_gen.errors import BadInput
from rethink_gen.train import compiled

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
X = RANDOM.random((40, 5), np.float32)
Y = np.arange(40) % 2


def make(model, x=X, optimizer=None, training_argument=None):
  dataset, _ = randomizations.make_dataset(x, Y, x, Y)
  dataset = adapters.adapt(model, dataset)
  length = (None, None) if estimators.is_estimator(model) else (1, 20)
  config = testing.make_config(model, dataset, *length, 0.99)
  return adapters.make_learner(model, dataset, optimizer, config, training_argument)


# Estimators.


def test_an_estimator_is_known_by_its_parameters_but_not_by_its_random_state():
  svm = linear_model.SGDClassifier
  assert make(svm(random_state=1)).digest == make(svm(random_state=2)).digest
  assert make(svm(alpha=1)).digest != make(svm(alpha=2)).digest


# Networks.


class Named(nn.Module):
  """Dropout under an argument of another name."""

  @nn.compact
  def __call__(self, x, is_train=False):
    return nn.Dense(2)(nn.Dropout(0.9, deterministic=not is_train)(x))


class Opposite(nn.Module):
  """Batch normalization, of which the argument says when it is not trained."""

  @nn.compact
  def __call__(self, x, evaluated=True):
    return nn.Dense(2)(nn.BatchNorm(use_running_average=evaluated)(x))


class Field(nn.Module):
  """A field instead of an argument."""

  train: bool = False

  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(nn.Dropout(0.9)(x, not self.train))


class Two(nn.Module):
  """Two of the known names, of which both decide."""

  @nn.compact
  def __call__(self, x, train=False, deterministic=True):
    x = nn.BatchNorm(use_running_average=not train)(x)
    return nn.Dense(2)(nn.Dropout(0.9, deterministic=deterministic)(x))


class Options(nn.Module):
  """Whatever is given by name."""

  @nn.compact
  def __call__(self, x, **options):
    return nn.Dense(2)(nn.Dropout(0.9)(x, deterministic=not options.get('on', False)))


class Still(nn.Module):
  """Dropout that drops nothing."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(nn.Dropout(0.0, deterministic=True)(x))


def differs_in_training(model, argument):
  """Whether training changes the outputs, or what is not a parameter."""
  own = adapters.of_module(flax_modules.training_modes(model, argument, jnp.asarray(X)))
  variables = own.init(jax.random.key(0), X, train=False)
  outputs, updated = own.apply(
    variables, X, train=True, mutable=['any'], rngs={'dropout': jax.random.key(1)}
  )
  still = own.apply(variables, X, train=False)
  before, after = (jax.tree.leaves(v['batch_stats']) for v in (variables, updated))
  moved = any(not np.allclose(*pair) for pair in zip(before, after, strict=True))
  return moved or not np.allclose(outputs, still)


@pytest.mark.parametrize(
  ('model', 'argument'),
  [
    (Named(), 'is_train'),
    (Opposite(), 'evaluated'),
    (Field(), None),
    (Field(train=True), 'train'),
    (Two(), None),
    (Options(), 'on'),
  ],
)
def test_a_module_trains_in_training_mode(model, argument):
  assert differs_in_training(model, argument)


def test_two_arguments_are_both_given():
  evaluation, training = flax_modules.training_modes(Two(), None, jnp.asarray(X))
  assert evaluation[1] == {'train': False, 'deterministic': True}
  assert training[1] == {'train': True, 'deterministic': False}


def test_a_module_that_would_never_train_is_refused():
  for model in (Named(), Opposite(), Options()):
    with pytest.raises(BadInput, match='name of the one that does as training_argument'):
      make(model)
  assert not differs_in_training(Still(), None)
  make((Named().init, Named().apply))  # as it is said to be


@pytest.mark.parametrize(
  'model', [Named(), (Named().init, Named().apply), linear_model.SGDClassifier()]
)
def test_a_training_argument_that_is_not_there_is_refused(model):
  with pytest.raises(BadInput, match="training_argument is 'nothing'"):
    make(model, training_argument='nothing')


def test_layers_that_stay_as_they_are_are_said(caplog):
  class Partly(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      x = nn.BatchNorm(use_running_average=True)(x)
      return nn.Dense(2)(nn.Dropout(0.9)(x, not train))

  make(Partly())
  assert 'BatchNorm in Partly stays in evaluation mode' in caplog.text


class Tokens(nn.Module):
  rows: int = 10

  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(nn.Embed(self.rows, 4)(x).mean(1))


def test_tokens_beyond_the_vocabulary_are_refused():
  tokens = RANDOM.integers(0, 16, (40, 3))
  with pytest.raises(BadInput, match='is out of bounds for axis 0 with size 10'):
    make(Tokens(), tokens)
  make(Tokens(16), tokens)

  def apply(params, x):  # JAX would take the last row
    return params[x].mean(1)

  with pytest.raises(BadInput, match='out of bounds'):
    make((lambda key, x: jnp.ones((10, 2)), apply), tokens)


def test_outputs_that_are_no_numbers_before_training_are_refused():
  def apply(params, x):
    return jnp.log(x) @ params

  with pytest.raises(BadInput, match='its outputs for them are not finite'):
    make((lambda key, x: jnp.ones((5, 2)), apply), np.where(X < 0.1, 0, X))


# Optimizers.


def trained(optimizer, epochs=3):
  """The losses of a linear model's steps."""
  learner = make(nn.Dense(2), optimizer=optimizer)
  initialize, epoch, *_ = compiled.compile_program(learner.program)
  state, losses = initialize(jax.random.key(0)), []
  for number in range(1, epochs + 1):
    state = epoch(state, 2 * number, X, Y, jax.random.key(0), (0.0, 0.0))
    losses += state.losses.tolist()
  return losses


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.lbfgs(),
    optax.polyak_sgd(),
    optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    optax.MultiSteps(optax.sgd(0.5), 2),
  ],
)
def test_optimizers_that_ask_for_the_loss_train(optimizer):
  losses = trained(optimizer)
  assert np.isfinite(losses).all()


def test_a_line_search_sees_the_loss():
  # Each step of a line search on a batch gains on it, so three epochs gain over all.
  assert np.mean(trained(optax.lbfgs(), 6)[-2:]) < 0.9 * np.mean(trained(optax.lbfgs())[:2])


def test_an_optimizer_that_fails_is_not_called_a_model_that_does():
  lookahead = optax.lookahead(optax.sgd(0.1), 5, 0.5)
  with pytest.raises(BadInput, match='The optimizer raises an error'):
    make(nn.Dense(2), optimizer=lookahead)


def test_code_that_is_called_from_the_program_is_part_of_the_model():
  def model(factor):
    def host(x):
      return np.asarray(x) * factor

    def apply(params, x):
      shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
      return jax.lax.stop_gradient(jax.pure_callback(host, shape, x)) @ params

    return (lambda key, x: jnp.ones((5, 2))), apply

  assert make(model(1)).digest == make(model(1)).digest
  assert make(model(1)).digest != make(model(2)).digest
