"""Inception fits CIFAR-10 with one permutation of the pixels for all images (Figure 1a).

  python -m rethink_gen.main --config=configs/inception_shuffled_pixels.py

Paper: training error reaches zero.
All 50,000 images call for a GPU; see RESULTS.md for what was measured.
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'shuffled_pixels'
  return config
