"""mlp_3x512 fits CIFAR-10 with random labels (Table 1: 100.0 train, 10.48 test).

python -m rethink_gen.main --config=configs/mlp_3x512_random.py
"""

from configs import mlp_3x512


def get_config():
  config = mlp_3x512.get_config()
  config.corruption.mode = 'random_labels'
  return config
