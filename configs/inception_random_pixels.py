"""Inception, random_pixels (Figure 1a)

python -m rethink_gen.main --config=configs/inception_random_pixels.py
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'random_pixels'
  return config
