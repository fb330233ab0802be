"""The small Inception on CIFAR-10 with true labels (Table 1: 100.0 train, 85.75 test).

python -m rethink_gen.main --config=configs/inception.py
"""

from configs import default


def get_config():
  config = default.get_config()
  config.model.name = 'inception'
  config.model.batch_norm = True
  return config
