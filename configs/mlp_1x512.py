"""MLP 1x512 on CIFAR-10 with true labels (Table 1: 100.0 train, 50.51 test).

python -m rethink_gen.main --config=configs/mlp_1x512.py
"""

from configs import default


def get_config():
  config = default.get_config()
  config.model.name = 'mlp'
  config.model.depth = 1
  config.model.width = 512
  config.optimizer.learning_rate = 0.01
  config.num_epochs = 60
  return config
