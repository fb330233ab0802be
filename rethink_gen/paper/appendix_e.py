"""Appendix E: networks fit random labels even with explicit regularizers."""

from collections.abc import Iterator

from rethink_gen.paper import scales
from rethink_gen.reporting import drawing, tables
from rethink_gen.reporting.artifacts import Column, Row, Runs

TITLE = 'Appendix E: regularizers do not prevent memorization'
ASKED = (
  'Do weight decay, random crops or augmentation stop a network from fitting random labels?'
)
FOUND = (
  "They do not, with one exception: with weight decay, the paper's AlexNet fails to "
  'converge. The paper does not give the coefficient.'
)
COLUMNS = {'train_accuracy': Column('training accuracy', '%', '.2f')}
DECAY = {'regularization.weight_decay': scales.WEIGHT_DECAY}
CROP = {'regularization.random_crop': True}
# In addition to the coefficient that all other rows use.
LARGER_DECAY = {'regularization.weight_decay': 0.0005}
# From TensorFlow's CIFAR-10 tutorial, whose network the paper's small AlexNet resembles.
TUTORIAL_DECAY = {
  'regularization.weight_decay': 0.004,
  'regularization.weight_decay_on': 'hidden_linear',
}
FLIP_AND_ROTATE = {
  'regularization.random_flip': True,
  'regularization.random_rotation': 25.0,
}
FAILED = 'the paper: failed to converge'
# (name, config, regularizer, the paper's training accuracy in percent, note)
PAPER = (
  ('inception_random_decay', 'inception_random', DECAY, 100.0, ''),
  ('alexnet_random_decay', 'alexnet_random', DECAY, None, FAILED),
  ('alexnet_random_tutorial_decay', 'alexnet_random', TUTORIAL_DECAY, None, FAILED),
  ('mlp_3x512_random_decay', 'mlp_3x512_random', DECAY, 100.0, ''),
  ('mlp_1x512_random_decay', 'mlp_1x512_random', DECAY, 99.21, ''),
  (
    'mlp_1x512_random_decay_0.0005',
    'mlp_1x512_random',
    LARGER_DECAY,
    99.21,
    'a coefficient of 0.0005 instead',
  ),
  ('inception_random_crop', 'inception_random', CROP, 99.93, ''),
  ('inception_random_flip_rotate', 'inception_random', FLIP_AND_ROTATE, 99.28, ''),
)
CAPTION = (
  'Training accuracy on random labels. With crops, flips or rotations it is the running '
  'average over the augmented batches of the last epoch, otherwise the accuracy on the '
  'whole training set. Open circles: the paper. Dots: ours.'
)


def rows(scale: str) -> list[Row]:
  return [
    Row(
      name,
      config,
      scales.changes(scale, config) | regularizer,
      {} if paper is None else {'train_accuracy': paper},
      note,
    )
    for name, config, regularizer, paper, note in PAPER
  ]


def is_augmented(name: str) -> bool:
  return name.endswith(('crop', 'rotate'))


def measure(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
  run = runs[name, seed]
  last = run.records[-1]
  return {
    'train_accuracy': 100
    * last['running_accuracy' if is_augmented(name) else 'train_accuracy']
  }


def draw(entries: list[dict], runs: Runs):
  del runs
  label = 'training accuracy on random labels (%)'
  return drawing.beside_the_paper(entries, {'train_accuracy': label})


def findings(entries: list[dict]) -> Iterator[str]:
  for entry in entries:
    if (accuracy := entry['ours']['train_accuracy']) is not None:
      verdict = 'fitted' if accuracy >= 99 else 'not fitted'
      yield f'{entry["name"]}: {verdict} ({tables.number(accuracy, "%", ".2f")} %).'
