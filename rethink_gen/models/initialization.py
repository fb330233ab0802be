"""Parameter initialization: one named rule for all layers of a network."""

import flax.linen as nn

RULES = ('glorot_uniform', 'lecun_normal', 'he_normal', 'tensorflow_tutorial')

# TensorFlow's CIFAR-10 tutorial, the source of the small AlexNet's linear layers and
# response normalization: standard deviations of normal distributions truncated at two of
# them, and the bias of hidden layers after the first convolution.
TUTORIAL_CONVOLUTION = 0.05
TUTORIAL_LINEAR = 0.04
TUTORIAL_BIAS = 0.1


def initializers(rule, layer):
  """{'kernel_init': ..., 'bias_init': ...} for a layer, the arguments of linen modules.

  Args:
    rule: one of RULES. `glorot_uniform` (Glorot and Bengio 2010) was the default for every
      layer of TF-Slim, the library of the paper's code base, in 2016; `lecun_normal` and
      `he_normal` (arXiv:1502.01852) draw from a truncated normal distribution of variance
      1 / fan-in and 2 / fan-in. Biases are zero with these three.
    layer: 'first' (the first convolution), 'convolution', 'linear' or 'output'. The
      tutorial's rule distinguishes them: the kernel of 'output' has a standard deviation of
      1 / fan-in, and neither 'first' nor 'output' has a bias above zero.
  """
  if rule != 'tensorflow_tutorial':
    kernel_init = getattr(nn.initializers, rule)()
    return {'kernel_init': kernel_init, 'bias_init': nn.initializers.zeros}
  scales = {'linear': TUTORIAL_LINEAR, 'output': None}
  scale = scales.get(layer, TUTORIAL_CONVOLUTION)
  bias = TUTORIAL_BIAS if layer in ('convolution', 'linear') else 0.0

  def kernel_init(key, shape, *dtype):
    return nn.initializers.truncated_normal(scale or 1 / shape[0])(key, shape, *dtype)

  return {'kernel_init': kernel_init, 'bias_init': nn.initializers.constant(bias)}
