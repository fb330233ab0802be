"""Draws what a network has memorized: notebooks/memorized.png, the picture in the README.

  python -m rethink_gen.main --config=configs/mlp_3x512_random.py
  python -m rethink_gen.main --config=configs/mlp_3x512.py
  python notebooks/memorized.py

Needs matplotlib (`pip install -e '.[notebooks]'`), and the two runs where the first two
commands leave them.
"""

import json
import pathlib
import sys

import jax
import matplotlib.pyplot as plt
from ml_collections import config_dict

from rethink_gen import checkpoint, models, train
from rethink_gen.data import preprocess, sources

CLASSES = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
RUNS = {'random labels': 'runs/mlp_3x512_random', 'true labels': 'runs/mlp_3x512'}


def main():
  for run in RUNS.values():
    if not pathlib.Path(run, 'summary.json').exists():
      sys.exit(f'There is no finished run in {run}; run the commands in {__file__} first.')
  figure = plt.figure(figsize=(11, 4.2), layout='constrained')
  pictures, curves = figure.subfigures(1, 2, width_ratios=[1.35, 1])
  draw_pictures(pictures, pathlib.Path(RUNS['random labels']))
  draw_curves(curves, RUNS)
  figure.savefig(pathlib.Path(__file__).with_suffix('.png'), dpi=110)


def draw_pictures(figure, run):
  """The first ten training images, their random labels and the probability given them."""
  config = config_dict.ConfigDict(json.loads((run / 'config.json').read_text()))
  dataset, _ = train.load(config)
  state, _, _, _ = train.build(config, dataset)
  with checkpoint.open_manager(run) as manager:
    state = checkpoint.restore(manager, state)
  if not int(state.step):
    sys.exit(f'{run} has no checkpoint; run the commands in {__file__} first.')
  model = models.create(config.model, dataset.num_classes)
  inputs = preprocess.preprocess(dataset.x_train[:10], (28, 28))
  logits = model.apply({'params': state.params}, inputs, train=False)
  probabilities = jax.nn.softmax(logits)
  truth = sources.load(config.dataset.name, config.dataset.data_dir).y_train
  for i, axes in enumerate(figure.subplots(2, 5).ravel()):
    label = int(dataset.y_train[i])
    colour = 'black' if label == truth[i] else 'firebrick'
    axes.imshow(dataset.x_train[i])
    title = f'{CLASSES[label]}\n{probabilities[i, label]:.1%}'
    axes.set_title(title, color=colour, fontsize=10)
    axes.axis('off')
  figure.suptitle('Random labels, learned by heart (red: not the true one)', fontsize=11)


def draw_curves(figure, runs):
  """Training and test accuracy by epoch, for both runs."""
  axes = figure.subplots()
  for (name, run), colour in zip(runs.items(), ('firebrick', 'steelblue'), strict=True):
    lines = (pathlib.Path(run) / 'metrics.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for split, style in (('train', '-'), ('test', '--')):
      axes.plot(
        [record['epoch'] for record in records],
        [100 * record[f'{split}_accuracy'] for record in records],
        style,
        color=colour,
        label=f'{name}, {"training" if split == "train" else "test"}',
      )
  axes.axhline(10, color='gray', linewidth=0.8, linestyle=':', label='chance')
  axes.set(xlabel='epoch', ylabel='accuracy (%)', ylim=(0, 102))
  axes.legend(fontsize=8, loc='center right', bbox_to_anchor=(1, 0.72))
  axes.spines[['top', 'right']].set_visible(False)


if __name__ == '__main__':
  main()
