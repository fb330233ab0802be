"""Training: the loop of a run, the gradient step, and all that a run's folder holds."""

from rethink_gen.train.loop import run as run
from rethink_gen.train.signals import Interrupted as Interrupted
