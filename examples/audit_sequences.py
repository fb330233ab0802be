"""Would a recurrent network fit random labels? Digits as sequences of eight rows.

  python examples/audit_sequences.py

The report is in runs/audit_sequences. A position is a row here, so whole rows are permuted.
"""

import flax.linen as nn
import optax
from sklearn import datasets, model_selection

import rethink_gen


class Recurrent(nn.Module):
  """A GRU of 128 units that reads a digit from top to bottom: (n, 8, 8) -> (n, 10)."""

  @nn.compact
  def __call__(self, rows):
    states = nn.RNN(nn.GRUCell(128))(rows)
    return nn.Dense(10)(states[:, -1])


def main():
  digits = datasets.load_digits()
  data = model_selection.train_test_split(
    (digits.images / 16).astype('float32'), digits.target, test_size=0.2, random_state=0
  )
  x_train, x_test, y_train, y_test = data
  result = rethink_gen.randomization_test(
    *(Recurrent(), x_train, y_train, x_test, y_test),
    optimizer=optax.adam(3e-3),
    num_epochs=200,
    seeds=2,
    workdir='runs/audit_sequences',
  )
  print(result)


if __name__ == '__main__':
  main()
