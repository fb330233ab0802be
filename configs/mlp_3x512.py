"""MLP 3x512 on CIFAR-10 with true labels (Table 1: 100.0 train, 52.39 test).

python -m rethink_gen.main --config=configs/mlp_3x512.py
"""

from configs import mlp_1x512


def get_config():
  config = mlp_1x512.get_config()
  config.model.depth = 3
  return config
