"""What several tests train, in seconds, and how they stop it on the way."""

import contextlib

from rethink_gen import config as config_lib
from rethink_gen import train


def make_config(**changes):
  """200 digits, random labels, four epochs of six steps."""
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'optimizer.learning_rate': 0.1,
      'dataset.num_train': 200,
      'corruption.mode': 'random_labels',
      'model.width': 32,
      'batch_size': 32,
      'num_epochs': 4,
    }
    | changes
  )
  return config


def stop_after(monkeypatch, calls):
  """From now on a signal arrives after every so many calls of the compiled epoch."""
  train_epoch, count = train.train_epoch, 0

  def stopping(config, state, pace, update, received):
    def counting(*shown):
      nonlocal count
      count += 1
      if count % calls == 0:
        received.append(15)
      update(*shown)

    return train_epoch(config, state, pace, counting, received)

  monkeypatch.setattr(train, 'train_epoch', stopping)


def record_lines(lines):
  """A progress, as of `train.run`, whose lines are added to a list."""

  @contextlib.contextmanager
  def progress(*_):
    yield (lambda *_: None), lambda line, step=None: lines.append(line)

  return progress
