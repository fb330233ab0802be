"""`main` with an Inception of two narrow modules, one of each kind: sooner compiled."""

import runpy

from rethink_gen.models import inception

MODULES = ((8, 8), 16)

if __name__ == '__main__':
  inception.MODULES = MODULES
  runpy.run_module('rethink_gen.main', run_name='__main__', alter_sys=True)
