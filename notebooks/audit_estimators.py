"""A random forest and a support vector machine: which of them memorizes random labels?

  python notebooks/audit_estimators.py

The reports are in runs/audit_RandomForestClassifier and runs/audit_SVC.
"""

from sklearn import datasets, ensemble, model_selection, svm

import rethink_gen


def main():
  digits = datasets.load_digits()
  data = model_selection.train_test_split(
    digits.data, digits.target, test_size=0.2, random_state=0
  )
  x_train, x_test, y_train, y_test = data
  for estimator in (ensemble.RandomForestClassifier(), svm.SVC()):
    name = type(estimator).__name__
    result = rethink_gen.randomization_test(
      *(estimator, x_train, y_train, x_test, y_test), workdir=f'runs/audit_{name}'
    )
    print(f'\n{name}\n\n{result}\n')


if __name__ == '__main__':
  main()
