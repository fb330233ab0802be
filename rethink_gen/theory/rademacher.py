"""Lower and upper bounds on the empirical Rademacher complexity of linear classifiers.

The class consists of the functions x -> sign(w x + b), on a sample x_1, ..., x_n. Their
signs do not depend on the norm of w, so bounds for weights of bounded norm do not apply;
what bounds the complexity is the dimension of the space of the vectors
(w x_1 + b, ..., w x_n + b).
"""

import math
from collections.abc import Callable

import numpy as np

STEPS, TEMPERATURES = 60, 8  # of the ascent; more would gain less than 0.01 on digits
LARGEST = 5e10  # n r^2 of a sample whose decomposition takes a minute on two cores


def basis(inputs: np.typing.ArrayLike) -> np.ndarray:
  """float64 (n, r): orthonormal columns that span all functions w x + b on the sample.

  Args:
    inputs: (n, d), any numbers.
  """
  inputs = np.asarray(inputs, float)
  scale = inputs.std(0)
  scaled = (inputs - inputs.mean(0)) / np.where(scale > 0, scale, 1)
  left, values, _ = np.linalg.svd(
    np.column_stack([np.ones(len(inputs)), scaled]), full_matrices=False
  )
  # The same as in numpy's matrix_rank.
  tolerance = values[0] * max(len(inputs), inputs.shape[1] + 1) * np.finfo(float).eps
  return left[:, values > tolerance]


def is_linear(function: Callable, inputs: np.ndarray) -> bool:
  """Whether f(a + b - c) = f(a) + f(b) - f(c) holds on thirds of the inputs.

  It does for w x + b, and hardly ever by chance for anything else.

  Args:
    function: function(inputs (k, ...)) -> (k, ...), numbers.
    inputs: float (n, ...), n at least 3.
  """
  third = len(inputs) // 3
  a, b, c = (inputs[i * third : (i + 1) * third] for i in range(3))
  together, *parts = (np.asarray(function(x), float) for x in (a + b - c, a, b, c))
  scale = max(np.abs(part).max() for part in parts)
  error = np.abs(parts[0] + parts[1] - parts[2] - together).max()
  return bool(error <= 1e-3 * scale)  # also False if it is NaN


def agreement(signs: np.ndarray, outputs: np.ndarray) -> float:
  """(1/n) sum_i s_i sign(f_i) for outputs f, where the sign of 0 is -1."""
  return float(np.mean(signs * np.where(outputs > 0, 1, -1)))


def fit_signs(space: np.ndarray, signs: np.ndarray) -> tuple[float, float]:
  """The best agreement with the signs found by least squares and by ascent from there.

  The ascent is on the mean of s_i tanh(f_i / t), which approaches the agreement as t falls.
  It may not find the supremum, so this is a lower bound on it.

  Args:
    space: float (n, r), from `basis`.
    signs: (n,) of -1 and +1.

  Returns:
    (agreement of least squares, best agreement), floats in [-1, 1].
  """
  weights = space.T @ signs
  first = best = agreement(signs, space @ weights)
  for temperature in 2.0 ** -np.arange(TEMPERATURES):
    for _ in range(STEPS):
      outputs = space @ weights
      outputs /= np.sqrt(np.mean(outputs**2)) or 1.0
      best = max(best, agreement(signs, outputs))
      slopes = signs * (1 - np.tanh(outputs / temperature) ** 2)
      step = space.T @ slopes
      length = np.linalg.norm(step)
      if not length:
        break
      weights /= np.linalg.norm(weights) or 1.0
      weights += 0.1 * temperature * step / length
  return first, best


def upper_bound(count: int, dimension: int) -> float:
  """An upper bound on the complexity of the signs of an r-dimensional space on n points.

  There are at most sum_{k <= r} C(n, k) sign patterns (Sauer-Shelah lemma; r is the VC
  dimension of the signs), and R = E max over them of (1/n) sum_i s_i h_i. This is Massart's
  lemma with the exact binomial tail instead of Hoeffding's: E max is at most the sum over
  the values v of min(1, patterns * P(agreement >= v)) times their spacing.

  Args:
    count: n, at least 1.
    dimension: r, from 1 to n.
  """
  from scipy import special  # slow to import

  k = np.arange(dimension + 1)
  choose = (
    special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1)
  )
  patterns = float(special.logsumexp(choose))
  if patterns >= count * math.log(2) - 1e-9:
    return 1.0
  right = np.arange(count + 1)  # number of right signs; the agreement is 2 right/n - 1
  ways = (
    special.gammaln(count + 1)
    - special.gammaln(right + 1)
    - special.gammaln(count - right + 1)
    - count * math.log(2)
  )
  tails = np.logaddexp.accumulate(ways[::-1])[::-1]  # log P(at least this many right)
  reached = np.exp(np.minimum(0, patterns + tails[1:]))
  return float(min(1.0, 2 * reached.sum() / count - 1))
