"""The shape of every config, with its defaults; rethink_gen/config.py says what it means.

Every other file imports its nearest relative and changes what its own name says.
"""

from rethink_gen import config as config_lib


def get_config():
  return config_lib.default()
