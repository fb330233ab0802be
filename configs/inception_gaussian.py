"""Inception, gaussian (Figure 1a)

python -m rethink_gen.main --config=configs/inception_gaussian.py
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'gaussian'
  return config
