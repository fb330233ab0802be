"""Measures of a network's complexity, those of the class and those of what it learned.

Zhang et al. 2017, Section 2.2: Rademacher complexity, the VC dimension and uniform
stability do not look at the labels, so they cannot say why the same network generalizes
on true labels and not on random ones. Margins, norms of the weights and the distance from
the initialization do look at them. They grow while the training loss falls, so networks
are compared where their training loss is the same, not after as many epochs.

The norms are of fully connected networks. Training, outputs, Rademacher complexity and
stability are of any model of the package.
"""

import math

import jax
import numpy as np

from rethink_gen.errors import BadInput

# What does not depend on the labels.


def random_signs(draws, count, seed):
  """int8 (draws, count) of -1 and +1, each as likely."""
  return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (draws, count))


def rademacher(fit, signs):
  """What the empirical Rademacher complexity of a class is the mean of, a value a draw.

  The complexity of the class H on x_1, ..., x_n (Section 2.2 of the paper) is
  R = E_s sup_{h in H} (1/n) sum_i s_i h(x_i) over uniformly random signs s. Where `fit`
  finds the supremum, the mean of what is returned is an unbiased estimate of R; where it
  is a training that need not find it, of a lower bound.

  Args:
    fit: fit(signs (n,)) -> (n,), the values on the sample of a function in H that agrees
      with the signs as well as it can.
    signs: (draws, n) of -1 and +1.

  Returns:
    float64 (draws,): (1/n) sum_i s_i h(x_i).
  """
  signs = np.asarray(signs)
  if signs.ndim != 2 or not signs.size or not np.isin(signs, (-1, 1)).all():
    raise BadInput(
      f'The signs are of shape {signs.shape}, but they must be -1 or +1, a row a draw, '
      'with at least one draw and one example.'
    )
  return np.array([np.mean(drawn * np.asarray(fit(drawn), float)) for drawn in signs])


def rademacher_bound(complexity, count, confidence):
  """How far test error may exceed training error, as Rademacher complexity has it.

  With probability `confidence` over samples of `count` examples every h in a class of
  functions with values -1 and +1 has test error <= training error + R
  + 3 sqrt(log(2 / (1 - confidence)) / (2 count)) (Bartlett & Mendelson 2002; Mohri,
  Rostamizadeh & Talwalkar, Foundations of Machine Learning, Theorem 3.5). A class that
  fits random signs has R = 1, and an error below 1 needs no proof: the bound is vacuous.
  """
  return complexity + 3 * math.sqrt(math.log(2 / (1 - confidence)) / (2 * count))


def vc_bound(widths):
  """An upper bound on the VC dimension of the fully connected ReLU networks.

  It is about the class of all networks of these widths, whatever their parameters: no set
  of more inputs is labeled in every way by them. It says nothing of the network that
  training finds, and not that a set of this size exists.

  Bartlett, Harvey, Liaw & Mehrabian (arXiv:1703.02930), Theorem 7 with ReLU's two linear
  pieces: L + S log2(4 e R log2(2 e R)), which is O(W L log W), where W parameters lie in L
  layers, S is the sum over i of the parameters in layers 1 to i, and R the sum of i times
  the units of layer i. No constant is left open; theirs are taken. Their lower bound, of
  the order of W L log(W / L), is about existence: for enough layers and parameters there
  is some ReLU network with such a VC dimension. It says nothing of a given network, and
  so not how loose this bound is for it.

  Args:
    widths: inputs, units of each hidden layer. The output is one unit, whose sign is the
      class; two outputs that are compared are the same functions.

  Raises:
    BadInput: unless there are an input, at least one hidden layer and a unit in each.
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


def replace_one(dataset, index, image, label):
  """The Dataset with another training example in place of one."""
  x_train, y_train = dataset.x_train.copy(), dataset.y_train.copy()
  x_train[index], y_train[index] = image, label
  return dataset._replace(x_train=x_train, y_train=y_train)


def loss_changes(before, after):
  """How much the loss at each input changes, at the label where it changes most.

  The loss of label y is 1 - p_y, of the softmax p of the outputs, so it lies in [0, 1]. An
  algorithm A is beta-uniformly stable if |loss(A(S), z) - loss(A(S'), z)| <= beta for all
  examples z = (x, y) and all samples S and S' that differ in one example (Bousquet &
  Elisseeff 2002, Definition 6, has S' one example short; replacing one is at most twice
  that). The supremum is over samples with random labels too, so beta is one number for
  true labels and for random ones. The largest change in a trial is a lower bound of it;
  the mean over fresh inputs is an average stability, which may depend on the labels.

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


# What depends on the labels, through the network that was trained on them.


def layers(params):
  """[(kernel (inputs, units), bias (units,))] from input to output, float64.

  Raises:
    BadInput: unless the parameters are of fully connected layers alone.
  """
  names = sorted(params, key=lambda name: int(name.rpartition('_')[2]))
  if any(
    set(params[n]) != {'kernel', 'bias'} or params[n]['kernel'].ndim != 2 for n in names
  ):
    raise BadInput(
      'The norms are those of fully connected layers, and this network has others '
      f'({", ".join(names)}); take config.model.name mlp.'
    )
  return [
    (np.asarray(params[n]['kernel'], float), np.asarray(params[n]['bias'], float))
    for n in names
  ]


def spectral_norms(params):
  """[largest singular value of each kernel]; their product bounds the Lipschitz constant.

  Bartlett, Foster & Telgarsky (arXiv:1706.08498), Section 1, for ReLU networks.
  """
  return [float(np.linalg.norm(kernel, 2)) for kernel, _ in layers(params)]


def spectral_complexity(params, initial):
  """R_A of arXiv:1706.08498, equation (1.2), with the initial weights as reference.

  (prod_i |A_i|) (sum_i (|A_i - M_i|_{2,1} / |A_i|)^{2/3})^{3/2}, where A_i are kernels, M_i
  what they were at the start, |.| the spectral norm and |.|_{2,1} the sum over units of the
  2-norm of their incoming weights. As there, biases are left out.
  """
  norms = spectral_norms(params)
  moved = [
    np.linalg.norm(kernel - start, axis=0).sum()
    for (kernel, _), (start, _) in zip(layers(params), layers(initial), strict=True)
  ]
  ratios = [(m / norm) ** (2 / 3) for m, norm in zip(moved, norms, strict=True)]
  return float(math.prod(norms) * sum(ratios) ** 1.5)


def path_norm(params):
  """sqrt of the sum over all paths of the product of their squared weights.

  Neyshabur, Tomioka & Srebro (arXiv:1503.00036), phi_2: a path leads from an input, or
  from a bias as from a unit that is always 1, to an output. As a forward pass of ones
  through the squared weights.
  """
  first, *_ = layers(params)
  sums = np.ones(len(first[0]))
  for kernel, bias in layers(params):
    sums = sums @ kernel**2 + bias**2
  return float(np.sqrt(sums.sum()))


def frobenius_norm(params):
  """sqrt of the sum of all squared parameters, of any model."""
  return float(
    np.sqrt(sum(np.sum(np.square(leaf, dtype=float)) for leaf in jax.tree.leaves(params)))
  )


def distance(params, initial):
  """The Frobenius norm of all that training moved (arXiv:1901.01672 measures it so)."""
  return frobenius_norm(jax.tree.map(np.subtract, params, initial))


def margins(logits, labels):
  """float64 (n,): f(x)_y - max_{j != y} f(x)_j; negative where the label is not fitted.

  Args:
    logits: (n, classes).
    labels: int (n,).
  """
  others = np.array(logits, float)
  of_label = others[np.arange(len(labels)), labels]
  others[np.arange(len(labels)), labels] = -np.inf
  return of_label - others.max(-1)


def normalized(margin, complexity, inputs):
  """A margin over |X| R_A / n (arXiv:1706.08498, Section 2).

  Their bound on test error is of the order of 1 over this, plus the share of training
  examples with a smaller margin.

  Args:
    margin: of the outputs.
    complexity: R_A, as `spectral_complexity` gives it.
    inputs: (n, h, w, c), as the network sees them; |X| is their Frobenius norm.
  """
  return margin * len(inputs) / (float(np.linalg.norm(inputs)) * complexity)
