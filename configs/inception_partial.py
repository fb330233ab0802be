r"""Inception fits CIFAR-10 with partially corrupted labels (Figure 1b, 1c).

  python -m rethink_gen.main --config=configs/inception_partial.py \
      --config.corruption.label_noise=0.3

Paper: the training error reaches zero at every level of label noise, while the test error
rises from that of the network on true labels to 0.9.
All 50,000 images call for a GPU; see RESULTS.md for what was measured.
"""

from configs import inception


def get_config():
  config = inception.get_config()
  config.corruption.mode = 'partial_labels'
  config.corruption.label_noise = 0.5
  return config
