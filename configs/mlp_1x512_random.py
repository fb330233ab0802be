"""mlp_1x512 fits CIFAR-10 with random labels (Table 1: 99.34 train, 10.61 test).

python -m rethink_gen.main --config=configs/mlp_1x512_random.py
"""

from configs import mlp_1x512


def get_config():
  config = mlp_1x512.get_config()
  config.corruption.mode = 'random_labels'
  config.num_epochs = 80
  return config
