"""Two linear classifiers of digits, one heavily penalized, did not fit random labels.

  python examples/audit_linear.py

The reports are in runs/audit_linear and runs/audit_linear_penalized.
"""

import flax.linen as nn
import optax
from sklearn import datasets, model_selection

import rethink_gen

PENALTY = 0.1  # w of the penalty w/2 |weights|^2


def main():
  digits = datasets.load_digits()
  data = model_selection.train_test_split(
    (digits.data / 16).astype('float32'), digits.target, test_size=0.2, random_state=0
  )
  x_train, x_test, y_train, y_test = data
  optimizers = {
    'linear': optax.adam(1e-2),
    'linear_penalized': optax.chain(
      optax.add_decayed_weights(PENALTY), optax.sgd(0.1, momentum=0.9)
    ),
  }
  for name, optimizer in optimizers.items():
    result = rethink_gen.randomization_test(
      *(nn.Dense(10), x_train, y_train, x_test, y_test),
      optimizer=optimizer,
      num_epochs=150,
      fit_accuracy=0.95,
      workdir=f'runs/audit_{name}',
    )
    print(f'\n{name}\n\n{result}\n')


if __name__ == '__main__':
  main()
