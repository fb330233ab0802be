"""Draws what a network has memorized: examples/memorized.png, the figure in the README.

  python -m rethink_gen.main --config=configs/mlp_3x512_random.py
  python -m rethink_gen.main --config=configs/mlp_3x512.py
  python examples/memorized.py

Needs the two runs of the first two commands in their default folders.
"""

import pathlib
import sys

import jax
import matplotlib.pyplot as plt

from rethink_gen import runs
from rethink_gen.data import sources
from rethink_gen.errors import BadInput

CLASSES = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
RUNS = {'random labels': 'runs/mlp_3x512_random', 'true labels': 'runs/mlp_3x512'}


def main():
  figure = plt.figure(figsize=(11, 4.2), layout='constrained')
  pictures, curves = figure.subfigures(1, 2, width_ratios=[1.35, 1])
  draw_pictures(pictures, RUNS['random labels'])
  draw_curves(curves, RUNS)
  figure.savefig(pathlib.Path(__file__).with_suffix('.png'), dpi=110)


def draw_pictures(figure, run):
  """The first ten training images, their random labels and the predicted probabilities."""
  run = runs.open(run)
  dataset = run.dataset()
  probabilities = jax.nn.softmax(run.predict(dataset.x_train[:10]))
  truth = sources.load(run.config.dataset.name, run.config.dataset.data_dir).y_train
  for i, axes in enumerate(figure.subplots(2, 5).ravel()):
    label = int(dataset.y_train[i])
    color = 'black' if label == truth[i] else 'firebrick'
    axes.imshow(dataset.x_train[i])
    title = f'{CLASSES[label]}\n{probabilities[i, label]:.1%}'
    axes.set_title(title, color=color, fontsize=10)
    axes.axis('off')
  figure.suptitle('Random labels, memorized (red: not the true label)', fontsize=11)


def draw_curves(figure, folders):
  """Training and test accuracy by epoch, for both runs."""
  axes = figure.subplots()
  for (name, run), color in zip(folders.items(), ('firebrick', 'steelblue'), strict=True):
    evaluations = runs.open(run).metrics
    for split, style in (('train', '-'), ('test', '--')):
      axes.plot(
        evaluations.epoch,
        100 * evaluations[f'{split}_accuracy'],
        style,
        color=color,
        label=f'{name}, {"training" if split == "train" else "test"}',
      )
  axes.axhline(10, color='gray', linewidth=0.8, linestyle=':', label='chance')
  axes.set(xlabel='epoch', ylabel='accuracy (%)', ylim=(0, 102))
  axes.legend(fontsize=8, loc='center right', bbox_to_anchor=(1, 0.72))
  axes.spines[['top', 'right']].set_visible(False)


if __name__ == '__main__':
  try:
    main()
  except BadInput as error:
    sys.exit(f'{error} The commands are at the top of {__file__}.')
