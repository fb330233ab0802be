"""Inception V3 memorizes ImageNet with random labels, no regularizer (Table 2).

  python -m rethink_gen.main --config=configs/imagenet_inception_v3_random.py \
      --config.dataset.workers=32

Paper: 95.20 / 99.14 % training, 0.11 / 0.56 % validation accuracy (top-1 / top-5).
Hardware and cost: as for configs/imagenet_inception_v3.py. Not measured.
"""

from configs import imagenet_inception_v3


def get_config():
  config = imagenet_inception_v3.get_config()
  config.corruption.mode = 'random_labels'
  return config
