"""Complexity measures: of a class of networks, and of what one network has learned.

Zhang et al. 2017, Section 2.2: Rademacher complexity, the VC dimension and uniform
stability do not depend on the labels, so they cannot explain why the same network
generalizes on true labels but not on random ones. Margins, norms of the weights and the
distance from the initialization do depend on them. These grow while the training loss
falls, so networks are compared at equal training loss, not after equally many epochs.

Except for the Frobenius norm, the norms are defined for fully connected networks; all other
measures apply to any model.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rethink_gen.errors import BadInput

# Measures that do not depend on the labels.


def random_signs(draws: int, count: int, seed: int) -> np.ndarray:
  """int8 (draws, count) of -1 and +1, with equal probability."""
  return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (draws, count))


def rademacher(fit: Callable, signs: np.typing.ArrayLike) -> np.ndarray:
  """Values whose mean estimates the empirical Rademacher complexity, one per draw of signs.

  The complexity of the class H on x_1, ..., x_n (Section 2.2 of the paper) is
  R = E_s sup_{h in H} (1/n) sum_i s_i h(x_i) over uniformly random signs s. If `fit` finds
  the supremum, the mean of the returned values is an unbiased estimate of R; if it is a
  training run, which may not find it, of a lower bound.

  Args:
    fit: fit(signs (n,)) -> (n,), the values on the sample of a function in H that agrees
      with the signs as well as possible.
    signs: (draws, n) of -1 and +1.

  Returns:
    float64 (draws,): (1/n) sum_i s_i h(x_i).
  """
  signs = np.asarray(signs)
  if signs.ndim != 2 or not signs.size or not np.isin(signs, (-1, 1)).all():
    raise BadInput(
      f'The signs have the shape {signs.shape}, but they must be -1 or +1, one row per '
      'draw, with at least one draw and one example.'
    )
  return np.array([np.mean(drawn * np.asarray(fit(drawn), float)) for drawn in signs])


def rademacher_bound(complexity: float, count: int, confidence: float) -> float:
  """How far test error may exceed training error, given the Rademacher complexity.

  With probability `confidence` over samples of `count` examples every h in a class of
  functions with values -1 and +1 has test error <= training error + R
  + 3 sqrt(log(2 / (1 - confidence)) / (2 count)) (Bartlett & Mendelson 2002; Mohri,
  Rostamizadeh & Talwalkar, Foundations of Machine Learning, Theorem 3.5). A class that
  fits random signs has R = 1, and the bound is vacuous: no error exceeds 1.
  """
  return complexity + 3 * math.sqrt(math.log(2 / (1 - confidence)) / (2 * count))


def vc_bound(widths: Sequence[int]) -> float:
  """An upper bound on the VC dimension of fully connected ReLU networks.

  It concerns the class of all networks of these widths, whatever their parameters: they
  cannot label any larger set of inputs in every possible way. It says nothing about the
  network that training finds, nor that some set of this size can be labeled in every way.

  Bartlett, Harvey, Liaw & Mehrabian (arXiv:1703.02930), Theorem 7 with ReLU's two linear
  pieces: L + S log2(4 e R log2(2 e R)), which is O(W L log W), where W parameters lie in L
  layers, S is the sum over i of the parameters in layers 1 to i, and R the sum of i times
  the units of layer i. The constants are theirs. Their lower bound, of order
  W L log(W / L), is about existence: given enough layers and parameters, some ReLU network
  has such a VC dimension. It says nothing about a given network, and so not how loose this
  bound is for it.

  Args:
    widths: number of inputs, then units of each hidden layer. The output is one unit, whose
      sign is the class; comparing two outputs gives the same functions.

  Raises:
    BadInput: unless there are inputs and at least one hidden layer, none of them empty.
  """
  if len(widths) < 2 or min(widths) < 1:
    raise BadInput(
      f'The widths are {widths}, but there must be inputs and at least one hidden layer, '
      'none of them empty.'
    )
  sizes = [*widths, 1]
  parameters = [(n + 1) * m for n, m in zip(sizes, sizes[1:], strict=False)]
  up_to = sum(np.cumsum(parameters).tolist())
  units = sum(i * m for i, m in enumerate(sizes[1:], 1))
  inner = 2 * math.e * units
  return len(parameters) + up_to * math.log2(2 * inner * math.log2(inner))


def replace_one(dataset, index: int, image: np.ndarray, label: int):
  """The Dataset with the training example at `index` replaced."""
  x_train, y_train = dataset.x_train.copy(), dataset.y_train.copy()
  x_train[index], y_train[index] = image, label
  return dataset._replace(x_train=x_train, y_train=y_train)


def loss_changes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
  """How much the loss at each input changes, for the label where it changes most.

  The loss of label y is 1 - p_y, with p the softmax of the outputs, so it lies in [0, 1].
  An algorithm A is beta-uniformly stable if |loss(A(S), z) - loss(A(S'), z)| <= beta for
  all examples z = (x, y) and all samples S and S' that differ in one example (in Bousquet &
  Elisseeff 2002, Definition 6, S' lacks one example; replacing one at most doubles beta).
  The supremum includes samples with random labels, so beta is the same number for true and
  for random labels. The largest change in a trial is a lower bound on it; the mean over
  fresh inputs is an average stability, which may depend on the labels.

  Args:
    before, after: (n, classes), outputs of networks trained with and without the
      replacement.

  Returns:
    float64 (n,), within [0, 1].
  """
  return np.abs(_softmax(before) - _softmax(after)).max(-1)


def _softmax(logits):
  exponentials = np.exp(np.float64(logits) - np.max(logits, -1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


# Measures that depend on the labels, through the network that was trained on them.


def layers(params: Any) -> list[tuple[np.ndarray, np.ndarray]]:
  """[(kernel (inputs, units), bias (units,))] from input to output, float64.

  Raises:
    BadInput: unless all layers are fully connected.
  """
  names = sorted(params, key=lambda name: int(name.rpartition('_')[2]))
  if any(
    set(params[n]) != {'kernel', 'bias'} or params[n]['kernel'].ndim != 2 for n in names
  ):
    raise BadInput(
      'The norms are those of fully connected layers, but this network has others '
      f'({", ".join(names)}); set config.model.name to mlp.'
    )
  return [
    (np.asarray(params[n]['kernel'], float), np.asarray(params[n]['bias'], float))
    for n in names
  ]


def spectral_norms(params: Any) -> list[float]:
  """[largest singular value of each kernel]; their product bounds the Lipschitz constant.

  Bartlett, Foster & Telgarsky (arXiv:1706.08498), Section 1, for ReLU networks.
  """
  return [float(np.linalg.norm(kernel, 2)) for kernel, _ in layers(params)]


def spectral_complexity(params: Any, initial: Any) -> float:
  """R_A of arXiv:1706.08498, equation (1.2), with the initial weights as reference.

  (prod_i |A_i|) (sum_i (|A_i - M_i|_{2,1} / |A_i|)^{2/3})^{3/2}, where A_i are kernels, M_i
  their initial values, |.| the spectral norm and |.|_{2,1} the sum over units of the 2-norm
  of their incoming weights. As in the paper, biases are left out.
  """
  norms = spectral_norms(params)
  moved = [
    np.linalg.norm(kernel - start, axis=0).sum()
    for (kernel, _), (start, _) in zip(layers(params), layers(initial), strict=True)
  ]
  ratios = [(m / norm) ** (2 / 3) for m, norm in zip(moved, norms, strict=True)]
  return float(math.prod(norms) * sum(ratios) ** 1.5)


def path_norm(params: Any) -> float:
  """sqrt of the sum over all paths of the product of their squared weights.

  Neyshabur, Tomioka & Srebro (arXiv:1503.00036), phi_2: a path leads to an output from an
  input or from a bias, which counts as a unit that is always 1. Computed as a forward pass
  of ones through the squared weights.
  """
  first, *_ = layers(params)
  sums = np.ones(len(first[0]))
  for kernel, bias in layers(params):
    sums = sums @ kernel**2 + bias**2
  return float(np.sqrt(sums.sum()))


def frobenius_norm(params: Any) -> float:
  """sqrt of the sum of all squared parameters, for any model."""
  return float(
    np.sqrt(sum(np.sum(np.square(leaf, dtype=float)) for leaf in jax.tree.leaves(params)))
  )


def distance(params: Any, initial: Any) -> float:
  """The Frobenius norm of params - initial, as measured in arXiv:1901.01672."""
  return frobenius_norm(jax.tree.map(np.subtract, params, initial))


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """float64 (n,): f(x)_y - max_{j != y} f(x)_j; negative where the label is not fitted.

  Args:
    logits: (n, classes).
    labels: int (n,).
  """
  others = np.array(logits, float)
  of_label = others[np.arange(len(labels)), labels]
  others[np.arange(len(labels)), labels] = -np.inf
  return of_label - others.max(-1)


def normalized(margin: float, complexity: float, inputs: jax.Array | np.ndarray) -> float:
  """A margin divided by |X| R_A / n (arXiv:1706.08498, Section 2).

  Their bound on test error is of the order of 1 over this, plus the fraction of training
  examples with a smaller margin.

  Args:
    margin: margin of the outputs.
    complexity: R_A, from `spectral_complexity`.
    inputs: (n, h, w, c), as the network sees them; |X| is their Frobenius norm.
  """
  return margin * len(inputs) / (float(np.linalg.norm(inputs)) * complexity)
