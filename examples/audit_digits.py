"""Would your own small convolutional network fit random labels? On handwritten digits.

  python examples/audit_digits.py

The report is in runs/audit_digits; repeating the command reads the stored results.
"""

import flax.linen as nn
import optax
from sklearn import datasets, model_selection

import rethink_gen


class SmallNet(nn.Module):
  """Two convolutions with batch normalization, and dropout before the last layer."""

  @nn.compact
  def __call__(self, images, train):
    x = images / 16
    for features in (16, 32):
      x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
    x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
    x = nn.Dropout(0.1, deterministic=not train)(x)
    return nn.Dense(10)(x)


def main():
  digits = datasets.load_digits()
  images = digits.images[..., None].astype('float32')  # with a channel axis
  x_train, x_test, y_train, y_test = model_selection.train_test_split(
    images, digits.target, test_size=0.2, random_state=0
  )
  result = rethink_gen.randomization_test(
    *(SmallNet(), x_train, y_train, x_test, y_test),
    optimizer=optax.adam(2e-3),
    num_epochs=150,
    workdir='runs/audit_digits',
  )
  print(result)


if __name__ == '__main__':
  main()
