"""An MLP memorizes random labels of handwritten digits, or with `:true` learns true ones.

  python -m rethink_gen.main --config=configs/quickstart.py
  python -m rethink_gen.main --config=configs/quickstart.py:true

Needs no data set and no GPU. Both reach 100 % training accuracy in about ten seconds on two
CPU cores: random labels after about 50 epochs, with chance-level test accuracy, true labels
after about 8, with 97 %.
"""

from configs import default


def get_config(labels='random'):
  if labels not in ('random', 'true'):
    raise ValueError(f"quickstart.py takes ':random' or ':true', not ':{labels}'")
  config = default.get_config()
  config.dataset.crop_size = 8  # the whole image
  config.corruption.mode = 'random_labels' if labels == 'random' else 'none'
  config.model.name = 'mlp'
  config.model.depth = 3
  config.optimizer.learning_rate = 0.1
  config.num_epochs = 300
  config.stop_at_train_accuracy = 1.0
  config.eval_every = 5
  return config
