"""Classifiers that store a hash of each training image and its label.

They address the objection that classification carries little information: n labels of C
classes are n log2 C bits, and a table that recognizes n images needs little more. Such a
table fits any labels. Whether it generalizes to new images depends on the hash: a digest of
the bytes keeps nothing of what images look like; the signs of random projections keep the
angles between them.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np

from rethink_gen.errors import BadInput

BLOCK = 1_000  # hashes compared with the whole table at a time


class Table(NamedTuple):
  """The distinct hashes of a training set, each with a label."""

  hashes: np.ndarray  # uint8 (entries, bytes), in lexicographic order
  labels: np.ndarray  # int32 (entries,)
  num_classes: int


def digest_hash(images: np.ndarray, bits: int) -> np.ndarray:
  """uint8 (n, bits / 8): BLAKE2b digests of the images' bytes.

  Args:
    images: (n, h, w, c), of any dtype.
    bits: a multiple of 8, from 8 to 512.
  """
  check_bits(bits, 512)
  digests = [
    hashlib.blake2b(image.tobytes(), digest_size=bits // 8).digest() for image in images
  ]
  return np.frombuffer(b''.join(digests), np.uint8).reshape(len(images), bits // 8)


def random_projections(size: int, bits: int, seed: int) -> np.ndarray:
  """float32 (size, bits) of standard normals, for `sign_hash`."""
  check_bits(bits)
  return np.random.default_rng(seed).standard_normal((size, bits), np.float32)


def sign_hash(
  images: np.ndarray, center: np.ndarray, projections: np.ndarray
) -> np.ndarray:
  """uint8 (n, bits / 8): which side of random hyperplanes through `center` images lie on.

  Two images at an angle of t, seen from the center, differ in a bit with probability t / pi
  (Goemans & Williamson 1995; as a hash, Charikar 2002).

  Args:
    images: (n, ...), any numbers.
    center: (...), one image; the mean training image, because all images are bright.
    projections: float32 (size, bits), the planes' normals, from `random_projections`.
  """
  hashes = []
  for first in range(0, len(images), BLOCK):
    block = (images[first : first + BLOCK] - center).astype(np.float32)
    sides = block.reshape(len(block), -1) @ projections > 0
    hashes.append(np.packbits(sides, axis=1))
  return np.concatenate(hashes)


def check_bits(bits: int, most: float = math.inf) -> None:
  """Raises BadInput unless `bits` is a positive multiple of 8, and at most `most`."""
  if not isinstance(bits, int) or bits % 8 or not 8 <= bits <= most:
    limit = '' if most == math.inf else f', at most {most}'
    raise BadInput(f'A hash cannot have {bits} bits; use a positive multiple of 8{limit}.')


def store(hashes: np.ndarray, labels: np.ndarray, num_classes: int) -> Table:
  """The Table of a training set; images with the same hash share their most common label.

  Args:
    hashes: uint8 (n, bytes), n at least 1.
    labels: int (n,), each in [0, num_classes).
  """
  if not len(hashes):
    raise BadInput('There is no image to store; give at least one.')
  distinct, entry = np.unique(hashes, axis=0, return_inverse=True)
  counts = np.zeros((len(distinct), num_classes), np.int64)
  np.add.at(counts, (entry.reshape(-1), labels), 1)
  return Table(distinct, counts.argmax(1).astype(np.int32), num_classes)


def look_up(table: Table, hashes: np.ndarray, guess: int) -> np.ndarray:
  """int32 (n,): the label stored with the same hash, or `guess` if there is none."""
  stored = {
    key.tobytes(): label for key, label in zip(table.hashes, table.labels, strict=True)
  }
  found = [stored.get(key.tobytes(), guess) for key in hashes]
  return np.array(found, np.int32)


def look_up_nearest(table: Table, hashes: np.ndarray) -> np.ndarray:
  """int32 (n,): the label stored with the hash that differs in the fewest bits.

  Ties go to the first in the table's order.
  """
  stored = _signs(table.hashes)
  found = []
  for first in range(0, len(hashes), BLOCK):
    # Products of signs count agreeing bits minus differing ones, as exact integers.
    agreement = _signs(hashes[first : first + BLOCK]) @ stored.T
    found.append(table.labels[agreement.argmax(1)])
  return np.concatenate(found)


def _signs(hashes):
  """float32 (n, bits) of -1 and +1."""
  return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def stored_bits(table: Table) -> int:
  """Bits of all hashes and labels; a label takes ceil(log2 classes)."""
  label_bits = math.ceil(math.log2(table.num_classes))
  return len(table.labels) * (8 * table.hashes.shape[1] + label_bits)


def most_common(labels: np.ndarray, num_classes: int) -> int:
  """The most frequent label, to guess for unknown images."""
  return int(np.bincount(labels, minlength=num_classes).argmax())
