"""The fields of every config, with their defaults; rethink_gen/config.py explains them.

Every other file imports the config closest to its own and changes what its name says.
"""

from rethink_gen import config as config_lib


def get_config():
  return config_lib.default()
