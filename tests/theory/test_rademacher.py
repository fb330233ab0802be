import itertools
import math

import numpy as np
import pytest

from rethink_gen.theory import complexity, rademacher

RANDOM = np.random.default_rng(0)


def sign_patterns(x):
  """All (sign(w x_i + b))_i of points on a line, each of at least one w and b."""
  cuts = [-np.inf, *x, np.inf]
  one_way = {tuple(np.where(x > cut, 1, -1)) for cut in cuts}
  other_way = {tuple(np.where(x < cut, 1, -1)) for cut in cuts}
  return np.array(sorted(one_way | other_way))


def exact(patterns):
  """The Rademacher complexity of a set of sign patterns, over all signs."""
  signs = np.array(list(itertools.product((-1, 1), repeat=patterns.shape[1])))
  return (signs @ patterns.T).max(1).mean() / patterns.shape[1]


def test_on_a_line_the_bounds_enclose_the_exact_complexity():
  x = RANDOM.standard_normal(7)
  space = rademacher.basis(x[:, None])
  assert space.shape == (7, 2)
  patterns = sign_patterns(x)
  fits = []
  for signs in itertools.product((-1, 1), repeat=7):
    least, best = rademacher.fit_signs(space, np.array(signs))
    assert least <= best <= (patterns @ signs).max() / 7 + 1e-12
    fits.append(best)
  assert np.mean(fits) == pytest.approx(exact(patterns), abs=0.04)
  assert exact(patterns) <= rademacher.upper_bound(7, 2) < 1


@pytest.mark.parametrize('dimension', [1, 2, 3])
def test_the_upper_bound_holds_for_every_sign_pattern_of_a_space(dimension):
  space = RANDOM.standard_normal((8, dimension))
  weights = RANDOM.standard_normal((20_000, dimension))
  patterns = np.unique(np.where(weights @ space.T > 0, 1, -1), axis=0)
  limit = sum(math.comb(8, k) for k in range(dimension + 1))
  assert len(patterns) <= limit
  found = exact(patterns)
  assert found <= rademacher.upper_bound(8, dimension)
  # Nothing is lost but the union: with as many patterns as Massart's lemma is larger.
  assert rademacher.upper_bound(8, dimension) <= math.sqrt(2 * math.log(limit) / 8)


def test_a_space_of_all_vectors_has_complexity_one():
  x = RANDOM.standard_normal((12, 30))
  space = rademacher.basis(x)
  assert space.shape == (12, 12)
  signs = complexity.random_signs(1, 12, 0)[0]
  assert rademacher.fit_signs(space, signs) == (1, 1)
  assert rademacher.upper_bound(12, 12) == 1


def test_the_basis_spans_the_functions_and_nothing_else():
  x = RANDOM.standard_normal((40, 3)) * [1, 1e-6, 1e6] + [0, 5, 1e8]
  x = np.column_stack([x, x[:, 0] + x[:, 1], np.full(40, 7.0)])
  space = rademacher.basis(x)
  assert space.shape == (40, 4)
  np.testing.assert_allclose(space.T @ space, np.eye(4), atol=1e-12)
  outputs = (x[:, 0] - 3 * x[:, 3] + 2) / 3
  np.testing.assert_allclose(space @ (space.T @ outputs), outputs, atol=1e-6)


def test_the_ascent_is_better_than_least_squares_on_random_signs():
  x = RANDOM.standard_normal((300, 10))
  space = rademacher.basis(x)
  fits = [rademacher.fit_signs(space, s) for s in complexity.random_signs(4, 300, 1)]
  least, best = np.mean(fits, 0)
  assert best > least + 0.03
  assert best < rademacher.upper_bound(300, 11)
