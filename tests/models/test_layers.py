import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rethink_gen.models import blocks, layers


def plain_convolve(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=layers.DIMENSIONS
  )


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('kernel_size', [(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (3, 1)])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('in_blocks', [True, False])
def test_convolution_and_its_gradients_are_autodiffs(
  monkeypatch, size, kernel_size, stride, padding, in_blocks
):
  monkeypatch.setattr(layers, 'in_blocks', lambda: in_blocks)
  x_key, kernel_key, key = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(x_key, (2, size, size + 3, 3))
  kernel = jax.random.normal(kernel_key, (*kernel_size, 3, 4))
  expected, expected_vjp = jax.vjp(
    lambda *a: plain_convolve(*a, stride, padding), x, kernel
  )
  ours, our_vjp = jax.vjp(lambda *a: layers.convolve(*a, stride, padding), x, kernel)
  cotangent = jax.random.normal(key, expected.shape)
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
  for a, b in zip(our_vjp(cotangent), expected_vjp(cotangent), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_convolution_can_be_vectorized_over_runs():
  """Several runs' kernels at once, as an ensemble needs it."""
  x = jax.random.normal(jax.random.key(0), (3, 2, 6, 6, 2))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 4))

  def loss(x, kernel):
    return (layers.convolve(x, kernel, 2) ** 2).sum()

  together = jax.vmap(jax.grad(loss, 1))(x, kernel)
  one_by_one = jnp.stack([jax.grad(loss, 1)(*pair) for pair in zip(x, kernel, strict=True)])
  np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-4)


def test_blocks_hold_what_fits_and_all_of_the_images(monkeypatch):
  """Of six images in twos, threes, and one by one where not even one fits."""
  x = jax.random.normal(jax.random.key(0), (6, 5, 5, 2))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))
  expected = plain_convolve(x, kernel, 1, 'SAME')
  of_one = 5 * 5 * 2 * 9 * 4  # bytes
  for patches, block in ((2 * of_one, 2), (5 * of_one, 3), (1, 1), (99 * of_one, 6)):
    monkeypatch.setattr(blocks, 'PATCHES', patches)
    assert blocks._blocks(x, kernel.shape, 1).shape[:2] == (6 // block, block)
    ours = blocks.convolve(x, kernel, 1, ((1, 1), (1, 1)))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', [7, 8, 28])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_max_pool_and_its_gradient_are_flaxs(size, padding):
  x = jax.random.normal(jax.random.key(0), (2, size, size, 3))  # no ties

  def flax_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding)

  np.testing.assert_array_equal(layers.max_pool(x, padding), flax_pool(x))
  weights = jax.random.normal(jax.random.key(1), flax_pool(x).shape)
  ours = jax.grad(lambda x: (weights * layers.max_pool(x, padding)).sum())(x)
  expected = jax.grad(lambda x: (weights * flax_pool(x)).sum())(x)
  np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_max_pool_after_relu_has_flaxs_gradient_though_zeros_tie():
  x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))

  def gradient(pool):
    return jax.grad(lambda x: (pool(nn.relu(x)) ** 2).sum())(x)

  expected = gradient(lambda x: nn.max_pool(x, (3, 3), (2, 2), 'SAME'))
  np.testing.assert_allclose(gradient(layers.max_pool), expected, rtol=1e-6, atol=1e-6)


def test_local_response_normalization_is_the_formula():
  """Against a loop over channels, with more channels than the window and fewer."""
  for channels in (3, 20):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, channels)).astype(np.float32) * 30
    expected = np.empty_like(x)
    for c in range(channels):
      near = x[..., max(0, c - 4) : c + 5]
      expected[..., c] = x[..., c] / (1 + 0.001 / 9 * (near**2).sum(-1)) ** 0.75
    ours = layers.local_response_normalization(jnp.array(x))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
