r"""Would this model fit random labels? The paper's randomization tests, for any model.

  python -m rethink_gen.audit --data=my.npz --model=my_package.my_module:make_model
  python -m rethink_gen.audit --data=my.npz --estimator=sklearn.svm:SVC
  python -m rethink_gen.audit --data=digits --model=mlp --learning_rate=0.1

--data is an .npz file with x_train, y_train and optionally x_test, y_test: examples along
the first axis, labels 0, 1, ... Without a test set, a fifth is held out. It can also be
digits, or a TFDS data set such as cifar10. --model is MODULE:FUNCTION, where
function(num_classes) returns a Flax linen module or a pair (init, apply), or the name of
one of the package's own models. --estimator is MODULE:CLASS or MODULE:FUNCTION; called
without arguments, it must return an object with fit and predict.

The model is trained on the true labels, on labels with an increasing fraction replaced at
random (uniformly over the classes, or with --random_labels=shuffled by the labels of other
examples), and on inputs that are shuffled or replaced by noise, with several seeds each.
The folder --workdir, by default one in runs/audit named after data and model, gets
results.json, figure.png and report.html. The same command resumes where it stopped; with
more seeds or levels, only the new ones are run.

In Python: `rethink_gen.randomization_test(model, x_train, y_train, x_test, y_test)`.
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before the slow imports

import functools
import importlib
import math
import pathlib

import numpy as np
import optax
from absl import flags

from rethink_gen import cli, errors, models
from rethink_gen import config as config_lib
from rethink_gen.audit import flax_modules, randomizations, testing
from rethink_gen.data import sources
from rethink_gen.errors import BadInput
from rethink_gen.train import optimizers


def define_flags() -> None:
  """Defines the flags.

  On call, not at import, so that importing this module cannot clash with the caller's
  flags.
  """
  cli.define_path(
    'data', 'digits', 'An .npz file with x_train and y_train, digits, or a TFDS data set.'
  )
  flags.DEFINE_string(
    'model',
    None,
    'MODULE:FUNCTION, where function(num_classes) returns a Flax module or (init, apply), '
    f"or one of the package's own models: {', '.join(models.MODELS)}.",
  )
  flags.DEFINE_string(
    'estimator', None, 'MODULE:CLASS in the style of scikit-learn, such as sklearn.svm:SVC.'
  )
  flags.DEFINE_float(
    'learning_rate',
    None,
    "Learning rate of Adam (default 0.001), or of SGD for the package's own models.",
  )
  flags.DEFINE_integer(
    'epochs',
    None,
    'Maximum number of epochs; by default enough for 3,000 steps, but at least 30.',
  )
  flags.DEFINE_integer(
    'batch_size', None, 'Batch size; 128 by default, fewer if the training set is smaller.'
  )
  flags.DEFINE_integer('num_train', None, 'Train on the first N examples; all by default.')
  flags.DEFINE_string(
    'training_argument',
    None,
    "The argument of a Flax module's call that says whether it is being trained, unless "
    f'its name is one of {", ".join(flax_modules.TRAINING)}.',
  )
  flags.DEFINE_integer('seeds', 3, 'Number of seeds.')
  flags.DEFINE_list(
    'noise_levels',
    [f'{level:g}' for level in testing.NOISE_LEVELS],
    'Probabilities that a label is replaced by a random one; 0 and 1 are always included.',
  )
  flags.DEFINE_enum(
    'random_labels',
    'uniform',
    list(randomizations.LABELS),
    'Whether random labels are drawn uniformly over the classes, or are the true labels, '
    'shuffled.',
  )
  flags.DEFINE_float(
    'fit_accuracy', testing.FIT_ACCURACY, 'The training accuracy that counts as a fit.'
  )
  cli.define_path(
    'workdir', None, 'Folder for runs and report; by default one in runs/audit.'
  )


def main(_) -> None:
  cli.setup()
  given = flags.FLAGS
  workdir = given.workdir or pathlib.Path('runs', 'audit')
  result = cli.call(functools.partial(_audit, given), workdir)
  print(f'\n{result}')


def _audit(given, _):
  if given.estimator:
    for flag in ('learning_rate', 'epochs', 'batch_size', 'training_argument'):
      if given[flag].value is not None:
        raise BadInput(
          f'--{flag} is {given[flag].value}, but an estimator is trained by its own fit '
          f'method; leave --{flag} out.'
        )
  x_train, y_train, x_test, y_test = read_data(given.data)
  x_train, y_train, classes = first(x_train, y_train, given.num_train)
  optimizer = None
  if given.learning_rate is not None and not 0 < given.learning_rate < math.inf:
    raise BadInput(
      f'--learning_rate is {given.learning_rate}, but it must be a positive finite number.'
    )
  if given.estimator:
    model = _imported('--estimator', given.estimator)
  elif ':' in given.model:
    model = _imported('--model', given.model, classes)
    if given.learning_rate is not None:
      optimizer = optax.adam(given.learning_rate)
  else:
    model = given.model
    if given.learning_rate is not None and model in models.MODELS:
      optimizer = optimizers.make_tx(
        config_lib.default(), optimizers.Rates(given.learning_rate, 0.0)
      )
  return testing.randomization_test(
    model,
    x_train,
    y_train,
    x_test,
    y_test,
    optimizer=optimizer,
    num_epochs=given.epochs,
    batch_size=given.batch_size,
    noise_levels=given.noise_levels,
    random_labels=given.random_labels,
    seeds=given.seeds,
    fit_accuracy=given.fit_accuracy,
    training_argument=given.training_argument,
    workdir=given.workdir,
  )


def first(
  x: np.ndarray, y: np.ndarray, count: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
  """(x, y, classes): the first `count` training examples or all, and the class count.

  Raises:
    BadInput: if there are fewer examples, or if the first `count` do not cover all classes.
  """
  classes = np.unique(y)
  if count is None:
    return x, y, len(classes)
  if not 1 <= count <= len(y):
    raise BadInput(
      f'--num_train is {count}, but there are {len(y):,} training examples; take from 1 to '
      'that many.'
    )
  missing = np.setdiff1d(classes, y[:count])
  if len(missing):
    raise BadInput(
      f'--num_train={count} takes the first {count:,} examples, which cover only '
      f'{len(classes) - len(missing)} of {len(classes)} classes; take more, or shuffle the '
      'examples in the file if they are sorted by class.'
    )
  return x[:count], y[:count], len(classes)


def read_data(name: str) -> tuple[np.ndarray | None, ...]:
  """(x_train, y_train, x_test, y_test) from an .npz file or a data set by name."""
  if not name.endswith('.npz'):
    return sources.load(name)[:4]
  arrays = sources.read_npz(name)
  if missing := [key for key in sources.KEYS[:2] if key not in arrays]:
    raise BadInput(
      f'{name} has no array {", ".join(missing)}; it must hold x_train and y_train, and '
      'may hold x_test and y_test.'
    )
  return tuple(arrays.get(key) for key in sources.KEYS)


def _imported(flag, path, *arguments):
  """The result of calling the function or class MODULE:NAME with the arguments."""
  module, _, name = path.partition(':')
  try:
    return getattr(importlib.import_module(module), name)(*arguments)
  except Exception as error:  # The user's code can raise anything.
    raise BadInput(
      f'{flag}={path} does not give a model ({type(error).__name__}: '
      f'{errors.reason(error)}); give the MODULE:NAME of something '
      'that can be imported and called.'
    ) from error


def parse(argv: list[str]) -> list[str]:
  """Parses absl's flags from the command line; reports any error in one sentence."""
  define_flags()
  rest = cli.parse_flags(argv)
  cli.refuse_rest(rest)
  if bool(flags.FLAGS.model) == bool(flags.FLAGS.estimator):
    cli.refuse(
      'Give either --model or --estimator, such as --model=mlp or '
      '--estimator=sklearn.svm:SVC; --help lists the flags.'
    )
  return rest


if __name__ == '__main__':
  cli.run(main, parse)
