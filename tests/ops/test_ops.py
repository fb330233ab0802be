import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rethink_gen.ops import blocked_conv, conv, im2col, normalization, winograd
from rethink_gen.ops import pool as pool_lib


def plain_convolve(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=conv.DIMENSIONS
  )


def normal(*shape):
  """The same numbers each time; jax.random would be compiled for every shape."""
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def with_gradients(function, cotangent, *arguments):
  """(value, gradients of its product with the cotangent, one for each argument)."""
  value, pull_back = jax.vjp(function, *arguments)
  return value, *pull_back(cotangent)


def test_small_convolutions_are_left_to_xla():
  """Inception's last one: in batches of 8 it gains, of 4 it would only compile."""
  kernel = normal(3, 3, 336, 160)
  assert conv.in_blocks(normal(8, 7, 7, 336), kernel, 1)
  assert not conv.in_blocks(normal(4, 7, 7, 336), kernel, 1)
  assert not conv.in_blocks(normal(8, 7, 7, 336), kernel, 2)


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('kernel_size', [(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (3, 1)])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_convolution_and_its_gradients_are_autodiffs(
  monkeypatch, size, kernel_size, stride, padding
):
  """With XLA's convolution and in blocks, all compiled together."""
  x, kernel = normal(2, size, size + 3, 3), normal(*kernel_size, 3, 4)

  def expected(x, kernel):
    return plain_convolve(x, kernel, stride, padding)

  def ours(x, kernel):
    return conv.convolve(x, kernel, stride, padding)

  @jax.jit
  def compute(cotangent):
    found = [with_gradients(expected, cotangent, x, kernel)]
    for in_blocks in (True, False):
      monkeypatch.setattr(conv, 'in_blocks', lambda *_, in_blocks=in_blocks: in_blocks)
      found.append(with_gradients(ours, cotangent, x, kernel))
    return found

  cotangent = normal(*jax.eval_shape(expected, x, kernel).shape)
  expected, *both = compute(cotangent)
  for ours in both:
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(ours[1:], expected[1:], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_convolution_can_be_vectorized_over_runs():
  """Several runs' kernels at once, as an ensemble needs it."""
  x, kernel = normal(3, 2, 6, 6, 2), normal(3, 3, 3, 2, 4)

  def loss(x, kernel):
    return (conv.convolve(x, kernel, 2) ** 2).sum()

  gradient = jax.grad(loss, 1)
  together = jax.jit(jax.vmap(gradient))(x, kernel)
  one_by_one = jnp.stack([*map(jax.jit(gradient), x, kernel)])
  np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-4)


def test_blocks_hold_what_fits_and_all_of_the_images(monkeypatch):
  """Of six images in twos, threes, and one by one where not even one fits."""
  x, kernel = normal(6, 5, 5, 2), normal(3, 3, 2, 4)
  expected = plain_convolve(x, kernel, 1, 'SAME')
  of_one = 5 * 5 * 2 * 9 * 4  # bytes
  for most, block in ((2 * of_one, 2), (5 * of_one, 3), (1, 1), (99 * of_one, 6)):
    monkeypatch.setattr(im2col, 'BYTES', most)
    assert blocked_conv._blocks(x, im2col, kernel.shape, 1).shape[:2] == (6 // block, block)
    ours = blocked_conv.convolve(x, kernel, 1, ((1, 1), (1, 1)))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('taps', winograd.POINTS)
@pytest.mark.parametrize(
  ('sizes', 'padding'),
  [((7, 8), ((1, 1), (1, 1))), ((5, 9), ((0, 0), (0, 0))), ((6, 5), ((5, 0), (0, 2)))],
)
def test_winograds_convolution_and_its_gradients_are_exact(
  monkeypatch, taps, sizes, padding
):
  """Against XLA's in float64: odd and even sizes, less padding and more than the taps."""
  monkeypatch.setattr(winograd, 'BYTES', 1)  # a block an image
  monkeypatch.setattr(winograd, 'suits', lambda *_: True)
  x, kernel = normal(2, *sizes, 3).astype(float), normal(taps, taps, 3, 2).astype(float)

  def plain(x, kernel):
    return plain_convolve(x, kernel, 1, padding)

  def ours(x, kernel):
    return blocked_conv.convolve(x, kernel, 1, padding)

  with jax.enable_x64(True):
    cotangent = normal(*jax.eval_shape(plain, x, kernel).shape).astype(float)
    # LLVM without its optimizations takes a third of the time.
    found, expected = jax.jit(
      lambda: [with_gradients(each, cotangent, x, kernel) for each in (ours, plain)],
      compiler_options={'xla_backend_optimization_level': 0},
    )()
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('images', 'taps', 'channels'), [((41, 7, 7), 3, (240, 160)), ((16, 14, 14), 5, (64, 64))]
)
def test_winograds_convolution_is_about_as_exact_as_xlas(images, taps, channels):
  """In float32, at the widest convolutions of Inception and AlexNet, against float64.

  So are its gradients: of XLA's errors, up to 2e-6, none is more than tripled.
  """
  x = normal(*images, channels[0])
  kernel = normal(taps, taps, *channels) / np.sqrt(taps**2 * channels[0])
  assert winograd.suits(x, kernel.shape, 1)
  cotangent = normal(*images, channels[1])

  def plain(x, kernel):
    return plain_convolve(x, kernel, 1, 'SAME')

  def ours(x, kernel):
    return blocked_conv.convolve(x, kernel, 1, 2 * ((taps // 2, taps // 2),))

  with jax.enable_x64(True):
    exact = with_gradients(plain, *map(np.float64, (cotangent, x, kernel)))
    exact = [np.asarray(each) for each in exact]
  for convolve, limits in ((plain, (3e-6, 3e-6, 3e-6)), (ours, (3e-6, 3e-6, 6e-6))):
    found = with_gradients(convolve, cotangent, x, kernel)
    for each, expected, limit in zip(found, exact, limits, strict=True):
      assert np.abs(each - expected).max() < limit * np.abs(expected).max()


def test_only_convolutions_that_gain_are_winograds():
  def suits(dtype=jnp.float32, taps=3, channels=(64, 64), stride=1):
    x = jax.ShapeDtypeStruct((128, 28, 28, channels[0]), dtype)
    return winograd.suits(x, (taps, taps, *channels), stride)

  assert suits()
  assert suits(channels=(96, 16))
  assert suits(taps=5)
  assert not suits(taps=7)
  assert not suits(stride=2)
  assert not suits(channels=(3, 96))
  assert not suits(dtype=jnp.bfloat16)


@pytest.mark.parametrize('size', [7, 8, 28])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_max_pool_and_its_gradient_are_flaxs(size, padding):
  x = normal(2, size, size, 3)  # no ties

  def flax_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding)

  def our_pool(x):
    return pool_lib.max_pool(x, padding)

  @jax.jit
  def compute(x, weights):
    return [with_gradients(pool, weights, x) for pool in (our_pool, flax_pool)]

  weights = normal(*jax.eval_shape(flax_pool, x).shape)
  (ours, gradient), (expected, expected_gradient) = compute(x, weights)
  np.testing.assert_array_equal(ours, expected)
  np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


def test_max_pool_after_relu_has_flaxs_gradient_though_zeros_tie():
  x = normal(4, 8, 8, 3)

  def gradient(pool):
    return jax.jit(jax.grad(lambda x: (pool(nn.relu(x)) ** 2).sum()))(x)

  expected = gradient(lambda x: nn.max_pool(x, (3, 3), (2, 2), 'SAME'))
  np.testing.assert_allclose(gradient(pool_lib.max_pool), expected, rtol=1e-6, atol=1e-6)


def test_local_response_normalization_is_the_formula():
  """Against a loop over channels, with more channels than the window and fewer."""
  for channels in (3, 20):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, channels)).astype(np.float32) * 30
    expected = np.empty_like(x)
    for c in range(channels):
      near = x[..., max(0, c - 4) : c + 5]
      expected[..., c] = x[..., c] / (1 + 0.001 / 9 * (near**2).sum(-1)) ** 0.75
    ours = jax.jit(normalization.local_response_normalization)(x)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
