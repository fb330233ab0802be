"""`main` with an Inception of narrow modules and few: all its layers, sooner compiled."""

import runpy

from rethink_gen.models import inception

MODULES = (*4 * ((8, 8),), 16, (8, 8))  # 12 convolutions, so that one's name has two digits

if __name__ == '__main__':
  inception.MODULES = MODULES
  runpy.run_module('rethink_gen.main', run_name='__main__', alter_sys=True)
