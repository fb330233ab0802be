"""Chance levels and significance tests: pure functions of labels and predictions.

Chance is the accuracy of guessing without looking at the inputs. `chance` takes the better
of two guesses that a learner can make after seeing the training labels: always their most
frequent class, or each class with the same probability.
"""

import hashlib

import numpy as np


def constant_guess(y_train: np.ndarray, y_test: np.ndarray, num_classes: int) -> int:
  """The most frequent class of the training labels, an int.

  Ties go to the class that is most frequent in the test labels, because a model that is to
  beat the constant guess has to beat each of them.

  Args:
    y_train, y_test: int (n,) and (m,), each in [0, num_classes).
    num_classes: the number of classes.
  """
  in_train = np.bincount(y_train, minlength=num_classes)
  in_test = np.bincount(y_test, minlength=num_classes)
  return int(np.where(in_train == in_train.max(), in_test, -1).argmax())


def constant_accuracy(y_train: np.ndarray, y_test: np.ndarray, num_classes: int) -> float:
  """The fraction of the test labels that `constant_guess` gets right."""
  return float(np.mean(y_test == constant_guess(y_train, y_test, num_classes)))


def chance(y_train: np.ndarray, y_test: np.ndarray, num_classes: int) -> float:
  """The better of `constant_accuracy` and the 1 / num_classes of a uniform guess."""
  return max(constant_accuracy(y_train, y_test, num_classes), 1 / num_classes)


def largest_share(labels: np.ndarray) -> float:
  """The fraction that has the most frequent label: the best accuracy of a constant guess.

  Args:
    labels: int (n,), not negative.
  """
  return float(np.bincount(labels).max() / len(labels))


def group_inputs(x: np.ndarray) -> np.ndarray:
  """int (n,): group numbers 0, 1, ... in order of appearance, the same for equal inputs.

  Args:
    x: numbers (n, ...).
  """
  numbers = {}
  # Adding zero turns -0.0 into 0.0, which it equals.
  digests = (hashlib.blake2b((row + row.dtype.type(0)).tobytes()).digest() for row in x)
  return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], int)


def best_accuracy(groups: np.ndarray, labels: np.ndarray) -> float:
  """The highest accuracy that a function of the inputs can have on their labels.

  Equal inputs get the same prediction, so the best one for each group is its most frequent
  label.

  Args:
    groups: int (n,), from `group_inputs`.
    labels: int (n,).
  """
  pairs, counts = np.unique(np.stack([groups, labels]), axis=1, return_counts=True)
  most = np.zeros(pairs[0].max() + 1, np.int64)
  np.maximum.at(most, pairs[0], counts)
  return float(most.sum() / len(labels))


def permutation_test(
  predictions: np.ndarray, labels: np.ndarray, permutations: int = 9_999, seed: int = 0
) -> float:
  """The p-value of an accuracy if labels and predictions were unrelated, one-sided.

  The labels are permuted against the predictions, which stay fixed. If b of B random
  permutations give an accuracy as high or higher, p = (b + 1) / (B + 1), which makes a test
  at any level valid for every B (Phipson & Smyth 2010, Statistical Applications in Genetics
  and Molecular Biology 9, 39). The null hypothesis concerns these predictions: a model
  trained on random labels may by luck give many similar inputs their true class, and is
  then above chance.

  Args:
    predictions: int (n,), or (seeds, n) to test the mean accuracy; all seeds are permuted
      alike, because they predict the same examples.
    labels: int (n,).
    permutations: B.
    seed: seed of the permutations.

  Returns:
    A float in [1 / (B + 1), 1].
  """
  predictions = np.atleast_2d(predictions)
  classes = int(max(predictions.max(), labels.max())) + 1
  # In integers, so that rounding cannot hide an equally high accuracy.
  votes = np.zeros((len(labels), classes), np.int64)
  for own in predictions:
    votes[np.arange(len(labels)), own] += 1
  observed = votes[np.arange(len(labels)), labels].sum()
  random = np.random.default_rng(seed)
  permuted = np.array(labels)
  as_high = 0
  for _ in range(permutations):
    random.shuffle(permuted)
    as_high += votes[np.arange(len(labels)), permuted].sum() >= observed
  return (int(as_high) + 1) / (permutations + 1)


def sign_flip_test(differences: np.ndarray) -> float:
  """P(sum_i s_i |d_i| >= sum_i d_i) for uniformly random signs s, exact to 1e-12.

  This is the one-sided p-value if differences are as likely positive as negative. If each
  is -1, 0 or 1, it is that of the exact sign test, and so of McNemar's test.

  Args:
    differences: int (n,).
  """
  sizes, counts = np.unique(np.abs(differences), return_counts=True)
  observed, largest = int(np.sum(differences)), int(sizes @ counts)
  # The characteristic function of the sum, at the frequencies of a discrete transform long
  # enough that all values of the sum stay distinct.
  length = 2 * largest + 1
  angles = 2 * np.pi * np.arange(length) / length
  function = np.ones(length)
  for size, number in zip(sizes, counts, strict=True):
    function *= np.cos(size * angles) ** number
  density = np.fft.fft(function).real / length  # at 0, 1, ..., largest, -largest, ..., -1
  at_least = np.roll(density, largest)[observed + largest :].sum()
  return float(np.clip(at_least, 0, 1))


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
  """McNemar's exact test, two-sided: do two classifiers differ on the same test set?

  Under the null hypothesis, where exactly one of the two is right, each is with probability
  1/2, so the p-value is twice a binomial tail, and at most 1.

  Args:
    right, other: bool (n,), which examples each of them gets right.
  """
  differences = np.subtract(right, other, dtype=int)
  return min(1.0, 2 * sign_flip_test(differences * np.sign(differences.sum() or 1)))


def better_than(right: np.ndarray, other: np.ndarray) -> float:
  """The one-sided p-value if classifiers are on average no better than another.

  With one classifier, this is McNemar's exact test. With several, trained with different
  seeds, the signs of an example's differences are flipped together, which tests their mean
  accuracy on this test set.

  Args:
    right: bool (n,) or (seeds, n), which examples the classifiers get right.
    other: bool (n,), which ones the other gets right.
  """
  right = np.atleast_2d(right).astype(int)
  return sign_flip_test(right.sum(0) - len(right) * np.asarray(other, int))


def better_than_at_most(right: int, other: int, count: int) -> float:
  """The largest p-value that `better_than` can give for these numbers of right examples.

  For cases where it is known how many examples two classifiers get right, but not which.
  The fewer they share, the less a difference means. If the first is no better, it is 1.

  Args:
    right, other: ints from 0 to count.
    count: number of test examples.
  """
  from scipy import special  # slow to import

  if right <= other:
    return 1.0
  one_right = min(right + other, 2 * count - right - other)  # at most, with just one right
  return float(special.bdtrc((one_right + right - other) // 2 - 1, one_right, 0.5))


def better_than_guessing(right: int, count: int, probability: float) -> float:
  """P(X >= right) for binomial X: the p-value if a model is no better than random guessing.

  Args:
    right: how many of the `count` examples are right.
    probability: probability that a guess is right.
  """
  from scipy import special  # slow to import

  return float(special.bdtrc(right - 1, count, probability))


def holm(p_values: np.typing.ArrayLike) -> np.ndarray:
  """float (k,): p-values adjusted for multiple testing (Holm 1979).

  Rejecting those at or below a level keeps the probability of one or more false rejections
  at or below that level, whatever the dependence between the tests.
  """
  p_values = np.asarray(p_values, float)
  order = np.argsort(p_values)
  factors = len(p_values) - np.arange(len(p_values))
  adjusted = np.empty_like(p_values)
  adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
  return adjusted
