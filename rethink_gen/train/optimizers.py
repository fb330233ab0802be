"""The optimizer: the paper's momentum SGD or another, with its schedule and weight decay.

Learning rate and weight decay are arguments, so that runs which differ only in them share
a compiled program.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import config_dict

from rethink_gen import config as config_lib
from rethink_gen import models


class Rates(NamedTuple):
  """The hyperparameters in which runs of one compiled program may differ."""

  learning_rate: float | jax.Array
  weight_decay: float | jax.Array


def rates(config: config_dict.ConfigDict) -> Rates:
  """The Rates of a config."""
  return Rates(config.optimizer.learning_rate, config.regularization.weight_decay)


def make_tx(config: config_dict.ConfigDict, rates: Rates) -> optax.GradientTransformation:
  """The optimizer, whose learning rate drops by a factor every `decay_every_steps` steps.

  It first rises linearly during the warm-up, as large batches need (arXiv:1706.02677);
  warm-up steps count toward the decay too.

  The penalty weight_decay/2 * |w|^2 enters through its gradient, before momentum, and only
  on kernels, all or some of them: biases and batch normalization's offsets do not decay.

  Args:
    config: gives what is compiled in: optimizer, momentum, decay of the learning rate,
      warm-up, which kernels decay.
    rates: the learning rate and the weight decay, which may be traced.
  """
  decay = optax.exponential_decay(
    rates.learning_rate,
    config.optimizer.decay_every_steps,
    config.optimizer.decay_factor,
    staircase=True,
  )
  warmup = max(config.optimizer.warmup_steps, 1)

  everywhere = config.regularization.weight_decay_on == 'kernels'
  decays = is_kernel if everywhere else is_hidden_linear_kernel

  def schedule(count):
    return decay(count) * jnp.minimum((count + 1) / warmup, 1.0)

  return optax.chain(
    optax.add_decayed_weights(rates.weight_decay, mask=decays),
    config_lib.OPTIMIZERS[config.optimizer.name](schedule, config.optimizer.momentum),
  )


def is_kernel(params: Any) -> Any:
  """A tree of bool: which parameters are kernels."""
  return jax.tree.map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def is_hidden_linear_kernel(params: Any) -> Any:
  """A tree of bool: which parameters are kernels of linear layers except the output."""
  hidden = models.linear_layers(params)[:-1]
  return jax.tree.map_with_path(
    lambda path, _: path[0].key in hidden and path[-1].key == 'kernel', params
  )
