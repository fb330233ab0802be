r"""Inception without batch normalization memorizes random labels (Table 1).

  python -m rethink_gen.main --config=configs/inception_no_bn_random.py
  python -m rethink_gen.main --config=configs/inception_no_bn_random.py \
      --config.dataset.num_train=256 --config.batch_size=64 \
      --config.num_epochs=150 --config.eval_every=50

Paper: 100.0 % training, 10.12 % test accuracy.
All 50,000 images call for a GPU; see RESULTS.md for what was measured.
The second command fits 256 images completely on CPU (RESULTS.md).
"""

from configs import inception_no_bn


def get_config():
  config = inception_no_bn.get_config()
  config.corruption.mode = 'random_labels'
  config.stop_at_train_accuracy = 1.0
  config.eval_every = 10
  return config
