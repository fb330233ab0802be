"""An .npz file and your own model, from the command line: tumors with 30 measurements.

  python examples/audit_npz.py
  python -m rethink_gen.audit --data=runs/tumors.npz \
      --model=examples.audit_npz:make_model --workdir=runs/audit_tumors

The first command writes the file; it has no test set, so part of it is held out.
"""

import pathlib

import flax.linen as nn
import numpy as np
from sklearn import datasets


def make_model(num_classes):
  """A network with two hidden layers."""
  hidden = [layer for _ in range(2) for layer in (nn.Dense(256), nn.relu)]
  return nn.Sequential([*hidden, nn.Dense(num_classes)])


def main():
  tumors = datasets.load_breast_cancer()
  x = (tumors.data - tumors.data.mean(0)) / tumors.data.std(0)
  path = pathlib.Path('runs', 'tumors.npz')
  path.parent.mkdir(exist_ok=True)
  np.savez(path, x_train=x.astype(np.float32), y_train=tumors.target)
  print(f'{len(x)} tumors, of which 357 are benign, are in {path}.')


if __name__ == '__main__':
  main()
