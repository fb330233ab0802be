"""Inception without batch normalization learns CIFAR-10, true labels (Table 1).

  python -m rethink_gen.main --config=configs/inception_no_bn.py

Paper: 100.0 % training, 82.00 % test accuracy.
All 50,000 images call for a GPU; see RESULTS.md for what was measured.
The learning rate is the paper's 0.1. With He-normal kernels, training diverged at step 6
(RESULTS.md); with Glorot-uniform ones, it has not been measured here yet.
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.model.batch_norm = False
  return config
