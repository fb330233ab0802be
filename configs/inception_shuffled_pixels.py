"""Inception, shuffled_pixels (Figure 1a)

python -m rethink_gen.main --config=configs/inception_shuffled_pixels.py
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'shuffled_pixels'
  return config
