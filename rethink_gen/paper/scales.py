"""Scales: how much data an artifact's rows train on, and for how long."""

from typing import Any

from rethink_gen import config as config_lib

# The paper gives no coefficient. On random labels, this one cost the MLP 1x512 0.11 points
# of training accuracy and 0.0005 cost 0.44, against 0.13 in the paper (one run each;
# Appendix E has both).
WEIGHT_DECAY = 0.0001

SCALES = ('smoke', 'laptop', 'full')
SAYS = {
  'smoke': (
    'Smoke scale: 96 handwritten digits and two epochs. This shows that everything runs, '
    'but says nothing about the question.'
  ),
  'laptop': (
    'Laptop scale: the MLPs train on all of CIFAR-10 as in the paper (on 10,000 images in '
    'figures 1(b) and 1(c)); AlexNet trains on the first 5,000 images and is tested on the '
    'first 2,000, Inception on the first 1,000 each, both in batches of 32, Inception at a '
    'learning rate of 0.03. Whether they fit is comparable to the paper; their accuracy on '
    "true labels is that of a smaller training set, so it is shown without the paper's "
    'number.'
  ),
  'full': 'Full scale: all of CIFAR-10, as in the paper.',
}
DIGITS = {
  'dataset.name': 'digits',
  'dataset.num_train': 96,
  'dataset.num_test': 96,  # the same size, so that both evaluations compile once
  'batch_size': 32,
  'num_epochs': 2,
}
SMOKE: dict[str, dict[str, Any]] = {
  # Two modules, one of each kind, which compile in seconds.
  'inception': DIGITS | {'model.modules': '16+16 16'},
  'alexnet': DIGITS,
  'mlp': DIGITS,
}
# On two cores, the cost is in the number of images, not of steps, and batches of 32 fit a
# subset in fewer epochs than the paper's 128. With them, Inception needs a smaller learning
# rate: after 18 epochs, it fits 22 % of random labels at the paper's 0.1 and 85 % at 0.03
# (one run each).
INCEPTION: dict[str, Any] = {
  'dataset.num_train': 1_000,
  'dataset.num_test': 1_000,
  'batch_size': 32,
  'optimizer.learning_rate': 0.03,
  'num_epochs': 30,
  'eval_every': 3,
}
# Figures 1(a), 1(b) and 1(c) ask when Inception fits, not what comes after.
INCEPTION_UNTIL_IT_FITS: dict[str, Any] = {'num_epochs': 40, 'stop_at_train_accuracy': 1.0}
LAPTOP: dict[str, dict[str, Any]] = {
  'inception': INCEPTION,
  'alexnet': {
    'dataset.num_train': 5_000,
    'dataset.num_test': 2_000,
    'batch_size': 32,
    'num_epochs': 60,
    'eval_every': 10,
    'stop_at_train_accuracy': 1.0,
  },
  'mlp': {'eval_every': 20},
}
# Inception: 25,000 steps, where figure 1(a) ends and the loss no longer changes.
FULL: dict[str, dict[str, Any]] = {
  'inception': {'num_epochs': 65},
  'alexnet': {},
  'mlp': {},
}


def changes(scale: str, config: str) -> dict[str, Any]:
  """{field: value} to change in configs/CONFIG.py for a scale."""
  by_model = {'smoke': SMOKE, 'laptop': LAPTOP, 'full': FULL}[scale]
  model = config_lib.named(config).model.name
  return {'stop_at_train_accuracy': None} | by_model[model]


def comparable(paper: dict[str, float], changes: dict[str, Any]) -> dict[str, float]:
  """The paper's numbers that a row can be compared to: on a subset, no test accuracy.

  Args:
    paper: {column: number}.
    changes: {field: value} of the row; {} on random labels, where the test accuracy is that
      of guessing and always comparable.
  """
  if 'dataset.num_train' not in changes:
    return paper
  return {column: value for column, value in paper.items() if 'test' not in column}


def noise_level(scale: str, config: str) -> dict[str, Any]:
  """{field: value} specific to figures 1(b) and 1(c): many runs, each until it fits."""
  laptop: dict[str, dict[str, Any]] = {
    'inception': INCEPTION_UNTIL_IT_FITS,
    'alexnet': {'num_epochs': 60},
    'mlp_1x512': {'dataset.num_train': 10_000, 'num_epochs': 200, 'eval_every': 5},
  }
  return laptop[config] if scale == 'laptop' else {'eval_every': 1}
