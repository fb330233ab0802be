import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_gen.errors import BadInput
from rethink_gen.theory import hashing


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(2, 10), st.integers(0, 99))
def test_a_table_of_digests_fits_any_labels_and_knows_no_other_image(count, classes, seed):
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 256, (2 * count, 4, 4, 3), np.uint8)
  labels = generator.integers(0, classes, count)
  known, unknown = np.split(hashing.digest_hash(images, 64), 2)
  table = hashing.store(known, labels, classes)
  assert (hashing.look_up(table, known, 0) == labels).all()
  assert (hashing.look_up_nearest(table, known) == labels).all()
  assert (hashing.look_up(table, unknown, -1) == -1).all()


def test_a_digest_is_that_of_the_bytes_of_an_image():
  images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
  expected = hashlib.blake2b(bytes(range(12, 24)), digest_size=4).digest()
  assert hashing.digest_hash(images, 32)[1].tobytes() == expected


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 999))
def test_a_table_by_brute_force(count, values, seed):
  generator = np.random.default_rng(seed)
  hashes, asked = generator.integers(0, values, (2, count, 2), np.uint8)  # some the same
  labels = generator.integers(0, 3, count)
  table = hashing.store(hashes, labels, 3)
  keys = [key.tobytes() for key in hashes]
  assert len(table.labels) == len(set(keys))

  def most_common(key):
    mine = [label for k, label in zip(keys, labels, strict=True) if k == key]
    return max(range(3), key=lambda label: (mine.count(label), -label))

  def distance(key, other):
    return (int.from_bytes(key) ^ int.from_bytes(other)).bit_count()

  for key, exact, nearest in zip(
    (row.tobytes() for row in asked),
    hashing.look_up(table, asked, 9),
    hashing.look_up_nearest(table, asked),
    strict=True,
  ):
    assert exact == (most_common(key) if key in keys else 9)
    assert nearest == most_common(min(sorted(set(keys)), key=lambda k: distance(key, k)))


def test_sign_hash_against_a_direct_loop():
  generator = np.random.default_rng(0)
  images = generator.integers(0, 256, (5, 2, 2, 1), np.uint8)
  center = images.mean(0)
  normals = hashing.random_projections(4, 16, seed=1)
  hashes = hashing.sign_hash(images, center, normals)
  assert hashes.shape == (5, 2)
  for image, row in zip(images, hashes, strict=True):
    flat = (image - center).reshape(-1)
    bits = [int(sum(flat * normals[:, bit]) > 0) for bit in range(16)]
    assert np.unpackbits(row).tolist() == bits


@pytest.mark.parametrize('angle', [0.0, 0.3, 1.0, np.pi / 2, 3.0, np.pi])
def test_bits_differ_as_often_as_the_angle_says(angle):
  pair = np.array([[1.0, 0, 0], [np.cos(angle), np.sin(angle), 0]])
  bits = 2**15
  projections = hashing.random_projections(3, bits, seed=0)
  one, other = np.unpackbits(hashing.sign_hash(pair, np.zeros(3), projections), axis=1)
  share = angle / np.pi
  assert abs((one != other).mean() - share) <= 4 * np.sqrt(share * (1 - share) / bits)


def test_signs_do_not_depend_on_contrast():
  images = np.random.default_rng(0).standard_normal((3, 2, 2, 1))
  projections = hashing.random_projections(4, 64, seed=0)
  one, other = (
    hashing.sign_hash(scale * images, np.zeros((2, 2, 1)), projections) for scale in (1, 7)
  )
  assert (one == other).all()


def test_stored_bits_by_hand():
  hashes = np.array([[1, 2], [1, 2], [3, 4]], np.uint8)
  table = hashing.store(hashes, np.array([0, 0, 1]), 10)
  assert hashing.stored_bits(table) == 2 * (16 + 4)  # ten classes in four bits
  assert hashing.most_common(np.array([2, 1, 2]), 10) == 2


def test_bad_input_is_refused():
  for bits in (0, 7, 520, 8.0):
    with pytest.raises(BadInput, match='multiple of 8'):
      hashing.digest_hash(np.zeros((1, 2, 2, 1), np.uint8), bits)
  with pytest.raises(BadInput, match='multiple of 8'):
    hashing.random_projections(4, 12, seed=0)
  with pytest.raises(BadInput, match='at least one'):
    hashing.store(np.zeros((0, 2), np.uint8), np.zeros(0, int), 10)
