"""Inception fits CIFAR-10 with Gaussian noise in place of the images (Figure 1a).

  python -m rethink_gen.main --config=configs/inception_gaussian.py

Paper: training error reaches zero.
All 50,000 images call for a GPU; see RESULTS.md for what was measured.
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'gaussian'
  return config
