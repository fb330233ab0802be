"""Inception V3 learns ImageNet, true labels, no regularizer (Table 2, Figure 2a).

  python -m rethink_gen.main --config=configs/imagenet_inception_v3.py \
      --config.dataset.workers=32

Paper: 99.53 / 100.0 % training, 59.80 / 80.38 % validation accuracy (top-1 / top-5).
Needs a TPU pod slice or several GPUs, and ImageNet prepared by TFDS. Not measured, for lack
of both. `python -m rethink_gen.estimate` with this config estimates what it would take.

The paper's 50 workers trained asynchronously, each on its own batches and on parameters
that the others were changing. That has no counterpart here: SGD is synchronous, with one
batch of 1,024 over all devices, a learning rate of 0.1 per 256 examples and a warm-up of
five epochs (arXiv:1706.02677). The decay, 0.94 every two epochs, and the auxiliary head are
those of TF-Slim's Inception V3, which the paper extends; label smoothing and parameter
averaging are omitted. The initialization is the one that TF-Slim uses for its Inceptions,
unlike its default for other networks: normal, with variance 2 / fan-in.
"""

from configs import default

STEPS_PER_EPOCH = 1_251  # 1,281,167 images in batches of 1,024


def get_config():
  config = default.get_config()
  config.dataset.name = 'imagenet2012'
  config.dataset.streaming = True
  config.dataset.crop_size = 299
  config.model.name = 'inception_v3'
  config.model.aux_head = True
  config.model.initialization = 'he_normal'
  config.optimizer.learning_rate = 0.4
  config.optimizer.warmup_steps = 5 * STEPS_PER_EPOCH
  config.optimizer.decay_factor = 0.94
  config.optimizer.decay_every_steps = 2 * STEPS_PER_EPOCH
  config.batch_size = 1_024
  config.num_epochs = 100
  config.eval_every = 2
  config.precision = 'bfloat16'
  return config
