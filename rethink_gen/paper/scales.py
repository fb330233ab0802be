"""How much data, and how long, at each scale: what an artefact's rows start from."""

# The paper gives no coefficient. This one is the largest of those tried with which the
# MLP 1x512 still fits random labels as in the paper (RESULTS.md).
WEIGHT_DECAY = 0.0005

SCALES = ('smoke', 'laptop', 'full')
SAYS = {
  'smoke': (
    'Smoke scale: 96 handwritten digits and four epochs. It shows that everything runs, '
    'and nothing about the question.'
  ),
  'laptop': (
    'Laptop scale: the MLPs train on all of CIFAR-10 as in the paper (in figures 1(b) and '
    '1(c) on 2,000 images); AlexNet and Inception train on the first few hundred images, '
    'in smaller batches, and are tested on the first of the test set (each row says how '
    'many). Their training accuracies can be set beside the paper; their test accuracies '
    'are those of a far smaller training set, and cannot.'
  ),
  'full': 'Full scale: all of CIFAR-10, as in the paper.',
}
SMOKE = {
  'dataset.name': 'digits',
  'dataset.num_train': 96,
  'dataset.num_test': 100,
  'batch_size': 32,
  'num_epochs': 4,
}
LAPTOP = {
  'inception_no_bn': {
    'dataset.num_train': 256,
    'dataset.num_test': 2_000,
    'batch_size': 16,
    'num_epochs': 60,
    'eval_every': 20,
    'checkpoint_every': 5,
  },
  'inception': {
    'dataset.num_train': 256,
    'dataset.num_test': 2_000,
    'batch_size': 32,
    'num_epochs': 30,
    'eval_every': 10,
    'checkpoint_every': 5,
  },
  'alexnet': {
    'dataset.num_train': 512,
    'dataset.num_test': 2_000,
    'batch_size': 64,
    'num_epochs': 80,
    'eval_every': 20,
    'checkpoint_every': 10,
  },
  'mlp': {},
}
# Inception: as far as figure 1(a) goes, 25,000 steps, after which it no longer moves.
FULL = {'inception_no_bn': {}, 'inception': {'num_epochs': 65}, 'alexnet': {}, 'mlp': {}}


def changes(scale, config):
  """{field: value} that brings configs/CONFIG.py to a scale; it runs all its epochs."""
  by_family = {'smoke': dict.fromkeys(FULL, SMOKE), 'laptop': LAPTOP, 'full': FULL}[scale]
  family = next(family for family in by_family if config.startswith(family))
  return {'stop_at_train_accuracy': None} | by_family[family]


def every_epoch(scale):
  """What makes a curve of accuracies: on a laptop at the expense of test images."""
  return {'eval_every': 1} | ({'dataset.num_test': 500} if scale == 'laptop' else {})


def noise_level(scale, config):
  """What figures 1(b) and 1(c) change: it takes 33 runs, evaluated after every epoch."""
  laptop = {
    'inception': {'dataset.num_train': 128, 'dataset.num_test': 500, 'num_epochs': 40},
    'alexnet': {'dataset.num_train': 256, 'dataset.num_test': 500, 'batch_size': 32},
    'mlp_1x512': {'dataset.num_train': 2_000, 'num_epochs': 100, 'checkpoint_every': 10},
  }
  return {'eval_every': 1} | (laptop[config] if scale == 'laptop' else {})
