"""Inception V3 learns ImageNet with all of its regularizers (Table 2, Figure 2a).

  python -m rethink_gen.main --config=configs/imagenet_inception_v3_regularized.py \
      --config.dataset.workers=32

Augmentation (crops, flips, colors), dropout and weight decay. The rates of the last two are
those of TF-Slim's Inception V3, since the paper does not state them.
Paper: 92.18 / 99.21 % training, 77.84 / 93.92 % validation accuracy (top-1 / top-5).
Hardware and cost: as for configs/imagenet_inception_v3.py. Not measured.
"""

from configs import imagenet_inception_v3


def get_config():
  config = imagenet_inception_v3.get_config()
  config.regularization.random_crop = True
  config.regularization.random_flip = True
  config.regularization.color_jitter = True
  config.regularization.dropout_rate = 0.2
  config.regularization.weight_decay = 0.00004
  return config
