"""Inception, partially corrupted labels (Figure 1b, 1c)

python -m rethink_gen.main --config=configs/inception_partial.py
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'partial_labels'
  config.corruption.label_noise = 0.5
  return config
