import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_gen.errors import BadInput
from rethink_gen.theory import boolean_functions
from rethink_gen.theory.boolean_functions import Prior

PRIOR = Prior(4, 2, 6, 'relu', 1.4, 0.1)
TRUTH_TABLES = st.text('01', min_size=1, max_size=40)


def words_by_definition(text):
  """The words of the exhaustive history, every shorter piece compared at every place."""
  words, start = [], 0
  while start < len(text):
    end = start + 1
    while end < len(text) and any(
      text[place : place + end - start] == text[start:end] for place in range(start)
    ):
      end += 1
    words.append(text[start:end])
    start = end
  return words


@given(TRUTH_TABLES)
def test_words_are_those_of_the_definition(text):
  words = words_by_definition(text)
  assert ''.join(words) == text
  assert boolean_functions.lz_words(text) == len(words)


def test_known_numbers_of_words():
  # 0 . 001 . 10 . 100 . 1000 . 101, the example of Lempel & Ziv (1976).
  assert boolean_functions.lz_words('0001101001000101') == 6
  assert words_by_definition('0001101001000101') == '0 001 10 100 1000 101'.split()
  assert boolean_functions.lz_words('01' * 64) == 3  # 0 . 1 . the rest


def test_known_complexities():
  assert boolean_functions.lz_complexity('0' * 128) == 7
  assert boolean_functions.lz_complexity('1' * 128) == 7
  # 0 . 1...1, and 1 . 1...10: two words each way, or three with the last one cut off.
  assert boolean_functions.lz_complexity('0' + '1' * 127) == 17.5
  generator = np.random.default_rng(0)
  random = boolean_functions.complexities(generator.integers(0, 256, (300, 16), np.uint8))
  assert 146 < random.mean() < 152


@given(TRUTH_TABLES)
def test_complexity_does_not_see_order_or_sign(text):
  complexity = boolean_functions.lz_complexity(text)
  opposite = text.translate(str.maketrans('01', '10'))
  assert boolean_functions.lz_complexity(text[::-1]) == complexity
  assert boolean_functions.lz_complexity(opposite) == complexity


@given(st.binary(min_size=1, max_size=16))
def test_text_and_bytes_are_inverse(content):
  function = np.frombuffer(content, np.uint8)
  text = boolean_functions.as_text(function)
  assert int(text, 2) == int.from_bytes(content)
  assert (boolean_functions.as_function(text) == function).all()


@settings(deadline=None)
@given(st.integers(0, 3), st.sampled_from([1, 2, 8, 16]), st.integers(0, 999))
def test_counts_by_brute_force(num_chunks, width, seed):
  generator = np.random.default_rng(seed)
  chunks = [
    generator.integers(0, 2, (generator.integers(1, 30), width), np.uint8)
    for _ in range(num_chunks + 1)
  ]
  counts = boolean_functions.tally_all(chunks)
  expected = collections.Counter(row.tobytes() for chunk in chunks for row in chunk)
  keys = [row.tobytes() for row in counts.functions]
  assert keys == sorted(expected)
  assert counts.counts.tolist() == [expected[key] for key in keys]
  ranked = boolean_functions.by_rank(counts)
  assert ranked.counts.tolist() == sorted(expected.values(), reverse=True)
  assert all(
    expected[row.tobytes()] == count
    for row, count in zip(ranked.functions, ranked.counts, strict=True)
  )


@given(st.integers(0, 999))
def test_agreement_by_brute_force(seed):
  generator = np.random.default_rng(seed)
  functions = generator.integers(0, 256, (20, 2), np.uint8)
  examples = generator.permutation(16)[: generator.integers(1, 4)]
  tables = np.unpackbits(functions, axis=1)
  agreed = boolean_functions.agree(functions, functions[0], examples)
  assert agreed[0]
  assert agreed.tolist() == [(t[examples] == tables[0][examples]).all() for t in tables]


@pytest.mark.parametrize('activation', ['relu', 'tanh'])
@pytest.mark.parametrize('depth', [0, 1, 3])
def test_functions_against_a_loop_over_networks_and_inputs(depth, activation):
  prior = PRIOR._replace(depth=depth, activation=activation)
  found = boolean_functions.sample(prior, seed=3, first=5, count=7)
  keys = boolean_functions._keys(3, boolean_functions.SAMPLED, np.arange(5, 12))
  layers = [
    (np.asarray(w), np.asarray(b)) for w, b in boolean_functions.initialize(prior, keys)
  ]
  apply = {'relu': lambda x: np.maximum(x, 0), 'tanh': np.tanh}[activation]
  for network, function in enumerate(found):
    text = ''
    for number in range(16):
      hidden = np.array([int(digit) for digit in f'{number:04b}'], np.float32)
      for place, (weights, biases) in enumerate(layers):
        hidden = hidden @ weights[network] + biases[network, 0]
        if place < depth:
          hidden = apply(hidden)
      text += '01'[int(hidden[0] > 0)]
    assert boolean_functions.as_text(function) == text


def test_a_network_depends_on_the_seed_and_its_number_only():
  together = boolean_functions.sample(PRIOR, 1, 0, 60)
  parts = [boolean_functions.sample(PRIOR, 1, first, 20) for first in (0, 20, 40)]
  assert (together == np.concatenate(parts)).all()
  assert (together[33:40] == boolean_functions.sample(PRIOR, 1, 33, 7)).all()
  assert (together != boolean_functions.sample(PRIOR, 2, 0, 60)).any()


def test_parameters_have_the_standard_deviations_asked_for():
  prior = Prior(7, 1, 50, 'relu', 2.0, 0.3)
  keys = jax.random.split(jax.random.key(0), 400)
  (weights, biases), (output, _) = boolean_functions.initialize(prior, keys)
  assert weights.shape == (400, 7, 50)
  assert biases.shape == (400, 1, 50)
  assert np.std(weights) == pytest.approx(2 / 7**0.5, rel=0.02)
  assert np.std(output) == pytest.approx(2 / 50**0.5, rel=0.02)
  assert np.std(biases) == pytest.approx(0.3, rel=0.02)


def test_zipf_adds_up_to_one():
  ranks = np.arange(1, 2**16 + 1)
  # The sum of 1 / r exceeds ln N by Euler's constant, 0.577.
  assert boolean_functions.zipf(ranks, 16).sum() == pytest.approx(1.052, abs=1e-3)


def fitted(count=30, **changes):
  generator = np.random.default_rng(0)
  targets = np.repeat(generator.random((1, 16)) < 0.5, count, axis=0)
  examples = np.repeat(generator.permutation(16)[None, :8], count, axis=0)
  arguments = {'batch_size': 4, 'learning_rate': 0.5, 'max_epochs': 500} | changes
  prior = PRIOR._replace(width=20)
  found = boolean_functions.fit(prior, 0, targets, examples, **arguments)
  return found, targets, examples


@pytest.mark.slow
def test_trained_networks_fit_their_examples():
  found, targets, examples = fitted()
  tables = np.unpackbits(found.functions, axis=1).astype(bool)
  right = (tables == targets)[np.arange(30)[:, None], examples].all(1)
  assert (right == (found.epochs >= 0)).all()
  assert right.mean() > 0.9
  assert len(set(found.epochs.tolist())) > 1  # each stops on its own


@pytest.mark.slow
def test_networks_are_trained_alike_in_any_company(monkeypatch):
  together, *_ = fitted()
  monkeypatch.setattr(boolean_functions, 'CHUNK', 10)
  apart, *_ = fitted()
  assert (together.functions == apart.functions).all()
  assert (together.epochs == apart.epochs).all()


@pytest.mark.slow
def test_what_cannot_be_fitted_is_given_up():
  found, *_ = fitted(max_epochs=1, learning_rate=1e-6)
  assert (found.epochs == -1).any()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'num_inputs': 2}, 'num_inputs is 2'),
    ({'num_inputs': 13}, 'from 3 to 12'),
    ({'depth': -1}, 'depth is -1'),
    ({'width': 2.5}, 'width is 2.5'),
    ({'activation': 'sine'}, "activation is 'sine'"),
    ({'weight_std': 0.0}, 'weight_std is 0.0'),
    ({'bias_std': -1.0}, 'bias_std is -1.0'),
    ({'bias_std': float('nan')}, 'bias_std is nan'),
  ],
)
def test_bad_distributions_are_refused(changes, words):
  with pytest.raises(BadInput, match=words):
    boolean_functions.check_prior(PRIOR._replace(**changes))


def test_bad_input_is_refused():
  for text in ('', '012', 'ab'):
    with pytest.raises(BadInput, match='only 0 and 1'):
      boolean_functions.lz_complexity(text)
  for size in (0, 3, 16):
    with pytest.raises(BadInput, match=f'batch_size is {size}'):
      fitted(batch_size=size)
