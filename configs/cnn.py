"""The five-layer convolutional network of arXiv:1912.02292 on CIFAR-10, of any width.

  python -m rethink_gen.main --config=configs/cnn.py --config.model.width=16

The study `double_descent_cnn` trains it in many widths, also with label noise. SGD without
momentum; the learning rate is 0.1/sqrt(1 + floor(step / 512)) for 500,000 steps, which have
not been run. Here, 6,000 steps on 2,000 images at width 10: test error 59.5 ± 0.5 %, three
seeds, 2 to 5 minutes each on one CPU core (docs/studies.md).
"""

from configs import default


def get_config():
  config = default.get_config()
  config.dataset.name = 'cifar10'
  config.dataset.crop_size = 32  # the whole image
  config.model.name = 'cnn'
  config.optimizer.name = 'inverse_sqrt_sgd'
  config.optimizer.learning_rate = 0.1
  config.optimizer.momentum = 0.0
  config.optimizer.decay_factor = 1.0
  config.num_epochs = 1282
  config.eval_every = 10
  return config
