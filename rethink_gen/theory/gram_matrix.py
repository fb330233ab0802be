"""The Gram matrix of a kernel for tens of thousands of examples, spread over devices.

The Gram matrix K is symmetric, and half of it is stored. Its rows and columns are cut into
B blocks; row i keeps the blocks i, i+1, ..., i + B//2 (modulo B), side by side in one
panel, so that all rows have the same length. Panels are distributed over the devices. If B
is even, the last block of each panel is stored twice, and each copy counts half. So 60,000
examples take 7.7 GB in float32, not 14.4. Each panel is a separate array and never copied.

Rounding to float32 moves the eigenvalues of K. On MNIST's pixels in [0, 1] with a bandwidth
of 0.02, compared with float64 from the same float32 features:

| n | norm of the error in K | smallest eigenvalue of K | its change by rounding |
|---|---|---|---|
| 500 | 3.4e-6 | 5.2e-2 | less than 2e-7 |
| 1,000 | 8.5e-6 | 2.1e-2 | less than 2e-7 |
| 2,000 | 1.7e-5 | 1.1e-2 | less than 2e-7 |

On Gabor wavelets with a bandwidth of 8, the last row is 1.5e-5, 4.1e-3 and 7e-7. The root
mean square error of an entry is 2e-8 to 4e-8, the largest 2e-6; but the errors are not
independent, and their norm grows about like n. The smallest eigenvalue falls about like
1 / n. Extrapolated by a factor of 30, to n = 60,000, norm and eigenvalue would meet near
4e-4. So it is not shown that rounding leaves the K of all of MNIST positive definite.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rethink_gen import sharding
from rethink_gen.progress import progress_lines

BLOCK = 2_048  # most examples in a block; gives panels a good size for matrix products
REPLICATED, ROWS = PartitionSpec(), PartitionSpec('data')
# By default, a GPU rounds the inputs of float32 products to ten bits.
einsum = functools.partial(jnp.einsum, precision='highest')


class Layout(NamedTuple):
  """How the Gram matrix is cut into blocks and panels."""

  examples: int
  size: int  # examples per block; the last block is padded with zeros
  panels: int  # per device
  devices: int

  @property
  def padded(self) -> int:
    return self.size * self.panels * self.devices

  @property
  def width(self) -> int:
    """Columns of a panel."""
    return self.size * (self.panels * self.devices // 2 + 1)


class Gram(NamedTuple):
  """The kernel of the training examples with themselves, the test examples and landmarks.

  Panel j of device d is block row j * devices + d; a global array stacks the panels j of
  all devices, sharded by rows.
  """

  layout: Layout
  panels: tuple[jax.Array, ...]  # float32 (devices * size, width) each
  tests: tuple[jax.Array, ...]  # float32 (some test examples, padded) each, in order
  landmarks: tuple[jax.Array, ...]  # float32 (devices * size, landmarks) each


def make_layout(examples: int) -> Layout:
  """The Layout for all devices, in blocks of BLOCK examples or somewhat fewer."""
  devices = sharding.mesh().size
  panels = math.ceil(examples / (devices * BLOCK))
  return Layout(examples, math.ceil(examples / (devices * panels)), panels, devices)


def kernel(
  rows: jax.Array | np.ndarray,
  columns: jax.Array | np.ndarray,
  bandwidth: float | None = None,
) -> jax.Array:
  """(a, d), (b, d) -> (a, b): exp(-bandwidth |x - x'|^2), or <x, x'> if it is None."""
  products = einsum('ad,bd->ab', rows, columns)
  if bandwidth is None:
    return products
  squares = jnp.sum(rows**2, 1)[:, None] + jnp.sum(columns**2, 1) - 2 * products
  return jnp.exp(-bandwidth * jnp.maximum(squares, 0))


def add(
  gram: Gram | None,
  features: np.ndarray,
  test_features: np.ndarray,
  landmarks: np.ndarray,
  bandwidth: float | None = None,
  say: Callable | None = None,
) -> Gram:
  """Adds the kernel of these features to a Gram, which is donated.

  For a linear kernel, the features may be added in parts, one per call, so that memory does
  not grow with their number.

  Args:
    gram: the Gram accumulated so far, or None.
    features: float32 (n, d) of the training examples.
    test_features: float32 (m, d).
    landmarks: int (k,) into the training examples, sorted.
    bandwidth: bandwidth of a Gaussian kernel; None: the linear kernel.
    say: called with a line of progress every few seconds, or None.
  """
  layout = gram.layout if gram else make_layout(len(features))
  mesh = sharding.mesh()
  # Duplicated, so that a row of blocks that wraps around the end is one slice.
  padded = np.zeros((layout.padded, features.shape[1]), np.float32)
  padded[: layout.examples] = features
  twice = jax.device_put(np.concatenate([padded, padded]), NamedSharding(mesh, REPLICATED))
  chosen = padded[landmarks]
  panels, sides, tests = [], [], []
  show = progress_lines(say, 'Gram matrix', layout.panels)
  for j in range(layout.panels):
    old = (gram.panels[j], gram.landmarks[j]) if gram else None
    panel, side = add_panel(old, twice, chosen, j, bandwidth, layout)
    panels.append(panel.block_until_ready())  # one at a time, to save memory
    sides.append(side)
    show(j + 1)
  for j, rows in enumerate(cut_tests(test_features, layout.devices)):
    before = gram.tests[j] if gram else None
    rows = jax.device_put(rows, NamedSharding(mesh, ROWS))
    tests.append(add_tests(before, rows, twice, bandwidth, layout).block_until_ready())
  return Gram(layout, tuple(panels), tuple(tests), tuple(sides))


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def add_panel(
  old: tuple[jax.Array, jax.Array] | None,
  twice: jax.Array,
  chosen: jax.Array | np.ndarray,
  j: int,
  bandwidth: float | None,
  layout: Layout,
) -> tuple[jax.Array, jax.Array]:
  """Panel j and its columns for the landmarks, added to the old ones unless None."""

  def local(old, twice, chosen, j):
    start = (j * layout.devices + jax.lax.axis_index('data')) * layout.size
    rows = jax.lax.dynamic_slice_in_dim(twice, start, layout.size)
    columns = jax.lax.dynamic_slice_in_dim(twice, start, layout.width)
    row = start + jnp.arange(layout.size) < layout.examples
    column = (start + jnp.arange(layout.width)) % layout.padded < layout.examples
    panel = kernel(rows, columns, bandwidth) * (row[:, None] & column)
    side = kernel(rows, chosen, bandwidth) * row[:, None]
    new = panel, side
    return new if old is None else jax.tree.map(jnp.add, old, new)

  specs = (ROWS, REPLICATED, REPLICATED, REPLICATED)
  return on_devices(local, specs, (ROWS, ROWS))(old, twice, chosen, j)


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def add_tests(
  old: jax.Array | None,
  rows: jax.Array,
  twice: jax.Array,
  bandwidth: float | None,
  layout: Layout,
) -> jax.Array:
  """float32 (len(rows), padded): the kernel with all training examples, added to old."""
  columns = jnp.arange(layout.padded) < layout.examples
  new = kernel(rows, twice[: layout.padded], bandwidth) * columns
  return new if old is None else old + new


def cut_tests(features: np.ndarray, devices: int) -> np.ndarray:
  """Parts of at most BLOCK examples; the last is padded so that devices share equally."""
  parts = math.ceil(len(features) / BLOCK)
  size = math.ceil(len(features) / parts / devices) * devices
  filled = np.pad(features, ((0, parts * size - len(features)), (0, 0)))
  return filled.reshape(parts, size, -1)


def on_devices(function: Callable, in_specs, out_specs) -> Callable:
  return jax.shard_map(
    function, mesh=sharding.mesh(), in_specs=in_specs, out_specs=out_specs, check_vma=False
  )


def multiply(
  panels: tuple[jax.Array, ...], vectors: jax.Array, layout: Layout
) -> jax.Array:
  """K times every row of vectors: (classes, padded) -> (classes, padded).

  Every panel is used twice: for its own rows and, transposed, for its columns.
  """
  twice = jnp.concatenate([vectors, vectors], 1)
  images = jnp.zeros((layout.devices, *twice.shape))
  for j, panel in enumerate(panels):  # compiled once, not once per panel
    images = multiply_panel(images, panel, twice, j, layout)
  return fold(images)


@functools.partial(jax.jit, static_argnames='layout', donate_argnums=0)
def multiply_panel(
  images: jax.Array, panel: jax.Array, twice: jax.Array, j: int, layout: Layout
) -> jax.Array:
  """Adds panel j's contribution to each device's image, (devices, classes, 2 padded)."""
  blocks = layout.panels * layout.devices
  weights = np.ones(layout.width, np.float32)
  if blocks % 2 == 0:
    weights[-layout.size :] = 0.5
  below = weights.copy()
  below[: layout.size] = 0  # the diagonal block is used once

  def local(images, panel, twice, j):
    begin = first_row(j, layout)
    around = jax.lax.dynamic_slice_in_dim(twice, begin, layout.width, 1) * weights
    own = jax.lax.dynamic_slice_in_dim(twice, begin, layout.size, 1)
    image = add_at(images[0], begin, einsum('bw,cw->cb', panel, around))
    return add_at(image, begin, einsum('bw,cb->cw', panel, own) * below)[None]

  specs = (ROWS, ROWS, REPLICATED, REPLICATED)
  return on_devices(local, specs, ROWS)(images, panel, twice, j)


@jax.jit
def fold(images: jax.Array) -> jax.Array:
  """(devices, classes, 2 padded) -> (classes, padded): sums devices and both halves."""
  first, second = jnp.split(jnp.sum(images, 0), 2, 1)
  return first + second


def first_row(j: int, layout: Layout) -> jax.Array:
  """The first row of panel j on this device."""
  return (j * layout.devices + jax.lax.axis_index('data')) * layout.size


def add_at(array: jax.Array, begin: jax.Array, values: jax.Array) -> jax.Array:
  old = jax.lax.dynamic_slice_in_dim(array, begin, values.shape[1], 1)
  return jax.lax.dynamic_update_slice_in_dim(array, old + values, begin, 1)
