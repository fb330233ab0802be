"""Which of a random forest and two support vector machines memorize random labels?

  python examples/audit_estimators.py

The two SVMs differ only in C: whether a model fits random labels depends on its settings.
The reports are in runs/audit_RandomForestClassifier, runs/audit_SVC and runs/audit_SVC_100.
"""

from sklearn import datasets, ensemble, model_selection, svm

import rethink_gen


def main():
  digits = datasets.load_digits()
  data = model_selection.train_test_split(
    digits.data, digits.target, test_size=0.2, random_state=0
  )
  x_train, x_test, y_train, y_test = data
  estimators = {
    'RandomForestClassifier': ensemble.RandomForestClassifier(),
    'SVC': svm.SVC(),
    'SVC_100': svm.SVC(C=100),
  }
  for name, estimator in estimators.items():
    result = rethink_gen.randomization_test(
      *(estimator, x_train, y_train, x_test, y_test), workdir=f'runs/audit_{name}'
    )
    print(f'\n{name}\n\n{result}\n')


if __name__ == '__main__':
  main()
