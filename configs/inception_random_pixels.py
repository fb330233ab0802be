"""Inception fits CIFAR-10 with a new permutation of the pixels per image (Figure 1a).

  python -m rethink_gen.main --config=configs/inception_random_pixels.py

Paper: training error reaches zero.
Here, at laptop scale (`--artifact=figure1a`): 100 % of 1,000 images after 14 or 15 epochs,
three seeds, in about 7 minutes on one CPU core. All 50,000 call for a GPU (RESULTS.md).
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'random_pixels'
  return config
