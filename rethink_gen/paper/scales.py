"""How much data, and how long, at each scale: what an artifact's rows start from."""

from rethink_gen import config as config_lib

# The paper gives no coefficient. With this one the MLP 1x512 lost 0.11 points of its
# training accuracy on random labels, with 0.0005 0.44, in the paper 0.13 (one run each;
# Appendix E has both).
WEIGHT_DECAY = 0.0001

SCALES = ('smoke', 'laptop', 'full')
SAYS = {
  'smoke': (
    'Smoke scale: 96 handwritten digits and two epochs. It shows that everything runs, '
    'and nothing about the question.'
  ),
  'laptop': (
    'Laptop scale: the MLPs train on all of CIFAR-10 as in the paper (in figures 1(b) and '
    '1(c) on 10,000 images); AlexNet trains on its first 5,000 images and Inception on its '
    'first 1,000, in batches of 32, and both are tested on the first 1,000 or 2,000 of the '
    'test set. Whether they fit can be set beside the paper; their accuracy on true labels '
    'is that of a smaller training set, and so has no number of the paper beside it.'
  ),
  'full': 'Full scale: all of CIFAR-10, as in the paper.',
}
DIGITS = {
  'dataset.name': 'digits',
  'dataset.num_train': 96,
  'dataset.num_test': 96,  # as many: one compilation serves both evaluations
  'batch_size': 32,
  'num_epochs': 2,
}
SMOKE = {
  # Two modules, one of each kind, compile in seconds.
  'inception': DIGITS | {'model.modules': '16+16 16'},
  'alexnet': DIGITS,
  'mlp': DIGITS,
}
# On two cores the work is in the images, not in the steps: batches of 32 fit a subset in
# fewer epochs than the paper's 128.
INCEPTION = {
  'dataset.num_train': 1_000,
  'dataset.num_test': 1_000,
  'batch_size': 32,
  'num_epochs': 30,
  'eval_every': 3,
}
LAPTOP = {
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
# Inception: as far as figure 1(a) goes, 25,000 steps, after which it no longer moves.
FULL = {
  'inception': {'num_epochs': 65},
  'alexnet': {},
  'mlp': {},
}


def changes(scale, config):
  """{field: value} that brings configs/CONFIG.py to a scale."""
  by_model = {'smoke': SMOKE, 'laptop': LAPTOP, 'full': FULL}[scale]
  model = config_lib.named(config).model.name
  return {'stop_at_train_accuracy': None} | by_model[model]


def comparable(paper, changes):
  """What of the paper's numbers can stand beside a row: on a subset, no test accuracy.

  Args:
    paper: {column: number}.
    changes: {field: value} of the row. On random labels any test accuracy can: it is that
      of guessing.
  """
  if 'dataset.num_train' not in changes:
    return paper
  return {column: value for column, value in paper.items() if 'test' not in column}


def noise_level(scale, config):
  """What figures 1(b) and 1(c) change: many runs, each until it fits."""
  laptop = {
    'inception': {'num_epochs': 40},
    'alexnet': {'num_epochs': 60},
    'mlp_1x512': {'dataset.num_train': 10_000, 'num_epochs': 200, 'eval_every': 5},
  }
  return laptop[config] if scale == 'laptop' else {'eval_every': 1}
