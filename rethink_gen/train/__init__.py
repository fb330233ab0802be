"""Training: a run's loop, its gradient step, and everything stored in its folder."""

from rethink_gen.train.loop import run as run
from rethink_gen.train.signals import Interrupted as Interrupted
