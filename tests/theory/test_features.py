import math

import numpy as np
import pytest

from rethink_gen.theory import features


@pytest.fixture
def gray():
  return np.random.default_rng(0).integers(0, 256, (3, 9, 8, 1), np.uint8)


@pytest.fixture
def color():
  return np.random.default_rng(1).integers(0, 256, (7, 8, 7, 3), np.uint8)


def test_gabor_filters_see_their_wave_and_not_uniform_light():
  bank = features.gabor_bank(5.0, 4)
  assert bank.shape == (13, 13, 1, 8)
  np.testing.assert_allclose((bank**2).sum((0, 1, 2)), 1, rtol=1e-5)
  np.testing.assert_allclose(bank.sum((0, 1, 2)), 0, atol=1e-5)
  reach = np.arange(-6, 7)
  wave = np.cos(2 * np.pi * reach / 5)[None, :] * np.ones((13, 1))  # along x
  answers = np.abs((bank[:, :, 0] * wave[..., None]).sum((0, 1)))
  assert answers.argmax() == 0  # the even filter of direction 0


def test_gabor_features_are_those_of_a_direct_loop(gray):
  wavelengths, orientations, window, stride = (3.0, 4.5), 3, 4, 2
  ours = features.gabor(gray, wavelengths, orientations, window, stride)
  n, height, width, _ = gray.shape
  for image, found in zip(gray[..., 0] / 255, ours, strict=True):
    expected = []
    for wavelength in wavelengths:
      bank = features.gabor_bank(wavelength, orientations)[:, :, 0].astype(np.float64)
      reach = len(bank) // 2
      light = np.pad(image, reach)  # darkness around
      magnitude = np.empty((height, width, orientations))
      for y in range(height):
        for x in range(width):
          patch = light[y : y + len(bank), x : x + len(bank)]
          answers = np.einsum('yx,yxo->o', patch, bank)
          magnitude[y, x] = np.hypot(answers[:orientations], answers[orientations:])
      for y in range(0, height - window + 1, stride):
        for x in range(0, width - window + 1, stride):
          square = magnitude[y : y + window, x : x + window]
          expected.extend(np.sqrt(square.mean((0, 1))))
    expected = np.array(expected) / np.linalg.norm(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_patches_are_squares_of_the_images_normalized(color):
  every = []
  for image in color.astype(np.float64):
    for y in range(6):
      for x in range(5):
        patch = image[y : y + 3, x : x + 3].ravel()
        scale = math.sqrt(patch.var() + features.SMALL_VARIANCE)
        every.append((patch - patch.mean()) / scale)
  drawn = features.draw_patches(color, 3, 50, np.random.default_rng(0))
  distances = np.abs(drawn[:, None] - np.array(every)).max(2)
  assert distances.min(1).max() < 1e-4
  assert len(set(distances.argmin(1))) > 25


def test_whitened_patches_are_uncorrelated(monkeypatch):
  monkeypatch.setattr(features, 'SMALL_EIGENVALUE', 1e-6)
  rng = np.random.default_rng(0)
  patches = rng.standard_normal((2_000, 6)) @ rng.standard_normal((6, 6)) + 3
  mean, matrix = features.whitening(patches)
  np.testing.assert_allclose(np.cov(((patches - mean) @ matrix).T), np.eye(6), atol=1e-3)
  np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)  # ZCA: nearest to the pixels


def test_convolutional_features_are_those_of_a_direct_loop(color):
  size, filters, seed = 3, 4, 5
  (found, _), *rest = features.convolutional(color, color[:2], filters, size, seed, 4)
  assert not rest
  rng = np.random.default_rng(seed)
  mean, matrix = features.whitening(
    features.draw_patches(color, size, features.PATCHES, rng)
  )
  chosen = (features.draw_patches(color, size, filters, rng) - mean) @ matrix
  chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
  expected = []
  for image in color.astype(np.float64):
    answers = np.empty((6, 5, filters))
    for y in range(6):
      for x in range(5):
        patch = image[y : y + size, x : x + size].ravel()
        patch = (patch - patch.mean()) / math.sqrt(patch.var() + features.SMALL_VARIANCE)
        answers[y, x] = chosen @ ((patch - mean) @ matrix)
    features_of_image = []
    for sign in (1, -1):
      rectified = np.maximum(sign * answers - features.THRESHOLD, 0)
      for rows in (slice(0, 3), slice(3, 6)):
        for columns in (slice(0, 3), slice(3, 5)):
          features_of_image.extend(rectified[rows, columns].mean((0, 1)))
    expected.append(features_of_image)
  expected = np.array(expected)
  expected = (expected - expected.mean(0)) / np.sqrt(expected.var(0) + 1e-8)
  np.testing.assert_allclose(found[:, :-1], expected / math.sqrt(8 * filters), atol=2e-3)
  np.testing.assert_allclose(found[:, -1], 1)


def test_blocks_of_filters_do_not_change_the_features(color):
  def kernel(filters, block):
    blocks = list(features.convolutional(color, color[:2], filters, 3, 0, block))
    train, other = (np.concatenate(parts, 1) for parts in zip(*blocks, strict=True))
    np.testing.assert_allclose(other, train[:2], atol=1e-6)
    return blocks, train @ train.T

  few, _ = kernel(4, 2)
  many, gram = kernel(6, 2)
  for one, other in zip(few, many, strict=False):
    # Up to the number of filters that a kernel is divided by.
    np.testing.assert_allclose(one[0] * 4**0.5, other[0] * 6**0.5, atol=1e-5)
  assert np.trace(gram) / len(gram) == pytest.approx(2, abs=0.01)  # 1, and the intercept


def test_batches_do_not_change_the_features(gray, monkeypatch):
  whole = features.gabor(gray, (3.0,), 2, 4, 2)
  monkeypatch.setattr(features, 'BATCH', 2)
  np.testing.assert_allclose(features.gabor(gray, (3.0,), 2, 4, 2), whole, atol=1e-6)
