"""inception fits CIFAR-10 with random labels (Table 1: 100.0 train, 9.78 test).

python -m rethink_gen.main --config=configs/inception_random.py
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'random_labels'
  return config
