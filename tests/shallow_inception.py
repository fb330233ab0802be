"""`main` with an Inception of two narrow modules, one of each kind: sooner compiled.

Its convolutions are small, but on one device computed in blocks, as those of long runs are.
"""

import runpy

from rethink_gen.models import inception, layers

MODULES = ((16, 16), 16)

if __name__ == '__main__':
  inception.MODULES = MODULES
  layers.FEWEST_MULTIPLICATIONS = 0
  runpy.run_module('rethink_gen.main', run_name='__main__', alter_sys=True)
