"""The small AlexNet on CIFAR-10 with true labels (Table 1: 100.0 train, 76.07 test).

python -m rethink_gen.main --config=configs/alexnet.py
"""

from configs import default


def get_config():
  config = default.get_config()
  config.model.name = 'alexnet'
  config.optimizer.learning_rate = 0.01
  return config
