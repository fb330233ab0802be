"""Inception without batch normalization, true labels (Table 1: 100.0 train, 82.00 test).

python -m rethink_gen.main --config=configs/inception_no_bn.py
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.model.batch_norm = False
  config.optimizer.learning_rate = 0.01
  return config
