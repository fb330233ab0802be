import itertools
import math

import numpy as np
import pytest

from rethink_gen.theory import significance

RANDOM = np.random.default_rng(0)


def test_chance_is_the_better_of_two_guesses_that_do_not_look():
  y_test = np.array([0, 0, 0, 1, 2])
  cases = [
    ([0, 0, 1, 2], 0, 0.6),  # the most frequent class of the training labels
    ([1, 1, 0, 2], 1, 1 / 3),  # is rare in the test set: a uniform guess does better
    ([1, 1, 0, 0, 2], 0, 0.6),  # of two, the one that is harder to beat
  ]
  for y_train, guess, best in cases:
    arrays = np.array(y_train), y_test, 3
    assert significance.constant_guess(*arrays) == guess
    assert significance.constant_accuracy(*arrays) == np.mean(y_test == guess)
    assert significance.chance(*arrays) == best
  assert significance.largest_share(y_test) == 0.6


@pytest.mark.parametrize('seed', range(5))
def test_no_function_of_the_inputs_is_better_than_the_best_accuracy(seed):
  random = np.random.default_rng(seed)
  x, y = random.integers(3, size=(9, 1)), random.integers(3, size=9)
  functions = itertools.product(range(3), repeat=3)
  brute = max(np.mean(np.array(f)[x[:, 0]] == y) for f in functions)
  groups = significance.group_inputs(x)
  assert significance.best_accuracy(groups, y) == pytest.approx(brute)
  assert (groups[:, None] == groups).tolist() == (x == x[:, 0]).tolist()


def test_zeros_of_both_signs_are_one_input():
  x = np.array([[0.0, 1], [-0.0, 1], [0.0, 2]])
  assert significance.group_inputs(x).tolist() == [0, 0, 1]
  assert significance.group_inputs(np.array([[True], [False], [True]])).tolist() == [
    0,
    1,
    0,
  ]


def test_the_permutation_test_keeps_its_level_on_noise():
  trials, level = 400, 0.1
  p = np.array(
    [
      significance.permutation_test(
        RANDOM.integers(5, size=(2, 40)), RANDOM.integers(5, size=40), 199, seed
      )
      for seed in range(trials)
    ]
  )
  # Ties make it conservative: it rejects at most as often, but for four standard errors.
  error = 4 * np.sqrt(level * (1 - level) / trials)
  assert (p <= level).mean() < level + error
  # And not so much that nothing is ever rejected.
  assert (p <= level).mean() > level / 2 - error
  assert p.min() >= 1 / 200


def test_the_permutation_test_is_exact_where_all_permutations_can_be_counted():
  labels = np.array([0, 0, 1, 1, 1])
  # One in ten ways to place two zeros is all right.
  p = significance.permutation_test(labels, labels, permutations=20_000)
  assert p == pytest.approx(0.1, abs=0.01)
  assert significance.permutation_test(1 - labels, labels, permutations=99) == 1.0


@pytest.mark.parametrize('seed', range(20))
def test_the_sign_flip_test_counts_all_flips(seed):
  differences = np.random.default_rng(seed).integers(-3, 5, size=seed % 10)
  flips = itertools.product((-1, 1), repeat=len(differences))
  sums = [np.dot(np.abs(differences), flip) for flip in flips]
  brute = np.mean(np.array(sums) >= differences.sum())
  assert significance.sign_flip_test(differences) == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize(
  ('only_first', 'only_second', 'both'), [(0, 0, 3), (5, 1, 2), (1, 5, 0), (4, 4, 1)]
)
def test_mcnemar_is_twice_the_binomial_tail(only_first, only_second, both):
  first = np.array([1] * only_first + [0] * only_second + [1] * both + [0], bool)
  second = np.array([0] * only_first + [1] * only_second + [1] * both + [0], bool)
  discordant = only_first + only_second
  most = max(only_first, only_second)
  tail = sum(math.comb(discordant, k) for k in range(most, discordant + 1))
  assert significance.mcnemar(first, second) == pytest.approx(
    min(1, 2 * tail / 2**discordant), abs=1e-12
  )
  assert significance.mcnemar(second, first) == significance.mcnemar(first, second)


def test_better_than_is_the_upper_half_of_mcnemar():
  first, second = RANDOM.random((2, 60)) < [[0.8], [0.4]]
  better = significance.better_than(first, second)
  assert better == pytest.approx(significance.mcnemar(first, second) / 2)
  assert significance.better_than(second, first) > 0.99
  # The same predictions with every seed are no more evidence than one of them.
  assert significance.better_than([first] * 3, second) == pytest.approx(better)


def test_the_largest_p_value_is_that_of_the_least_overlap():
  count = 6
  patterns = [np.array(p) for p in itertools.product((0, 1), repeat=count)]
  for right in range(count + 1):
    for other in range(right):
      first = np.arange(count) < right
      brute = max(significance.better_than(first, p) for p in patterns if p.sum() == other)
      found = significance.better_than_at_most(right, other, count)
      assert found == pytest.approx(brute, abs=1e-12), (right, other)
  assert significance.better_than_at_most(3, 3, count) == 1
  assert significance.better_than_at_most(2, 3, count) == 1


def test_a_large_test_set_is_no_trouble():
  first = np.arange(10_000) < 5_200
  second = np.arange(10_000) >= 5_000
  expected = 0.5 * math.erfc((199 / np.sqrt(9_800)) / np.sqrt(2))
  assert significance.better_than(first, second) == pytest.approx(expected, rel=0.01)
  assert significance.better_than_at_most(5_200, 5_000, 10_000) == pytest.approx(
    significance.better_than(first, second), rel=1e-6
  )


def test_guessing_is_a_binomial():
  tail = sum(math.comb(7, k) * 0.3**k * 0.7 ** (7 - k) for k in range(4, 8))
  assert significance.better_than_guessing(4, 7, 0.3) == pytest.approx(tail)
  assert significance.better_than_guessing(0, 7, 0.3) == 1


def test_holm_is_the_closed_test_of_bonferroni():
  p = np.array([0.04, 0.01, 0.2, 0.03])
  np.testing.assert_allclose(significance.holm(p), [0.09, 0.04, 0.2, 0.09])

  def bonferroni(subset):
    return min(1, len(subset) * p[list(subset)].min())

  for i in range(len(p)):
    subsets = (
      s for k in range(1, 5) for s in itertools.combinations(range(4), k) if i in s
    )
    brute = max(map(bonferroni, subsets))
    assert significance.holm(p)[i] == pytest.approx(brute)


def test_holm_keeps_the_level_of_all_tests_together():
  p = RANDOM.random((4_000, 4))
  rejected = np.mean([significance.holm(row).min() <= 0.05 for row in p])
  assert rejected == pytest.approx(1 - (1 - 0.05 / 4) ** 4, abs=0.015)
  assert np.mean(p.min(1) <= 0.05) > 0.15  # what it is a correction of
