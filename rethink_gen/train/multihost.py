"""Several processes, one run: how they find each other, and what they must agree on.

Every process runs the same program on its own devices, and all see one mesh of all devices.
What one of them alone knows, a signal, a clock, a file, must be the same on all before it
decides anything: otherwise one enters a collective operation that another never reaches.
Files are read and written by the first process, in a folder that all of them share. With a
single process each function here is plain.
"""

import json
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from rethink_gen.errors import BadInput

# How long a silent process is waited for before the others stop with a message.
HEARTBEAT_SECONDS = 30
# How long the first to finish waits for the last.
SHUTDOWN_SECONDS = 60
FROM_ENVIRONMENT = {
  'coordinator_address': ('JAX_COORDINATOR_ADDRESS', str),
  'num_processes': ('JAX_NUM_PROCESSES', int),
  'process_id': ('JAX_PROCESS_ID', int),
}


def initialize():
  """Joins the other processes of the job; comes before anything is computed.

  JAX finds them on SLURM, TPU pods and GKE, under Open MPI, and elsewhere from
  JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES, JAX_PROCESS_ID.

  Raises:
    BadInput: when they cannot be found.
  """
  # Its handler would swallow SIGTERM, which a run answers by itself.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    given = {
      name: kind(os.environ[variable])
      for name, (variable, kind) in FROM_ENVIRONMENT.items()
      if variable in os.environ
    }
    jax.distributed.initialize(
      **given,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
  except (ValueError, RuntimeError, IndexError) as error:  # an address without a port
    reason = ' '.join(str(error).split())[:200]
    raise BadInput(
      f'--distributed could not join the other processes ({reason}); start it by SLURM or '
      'on a TPU pod, or set JAX_COORDINATOR_ADDRESS to host:port of the first process, '
      'JAX_NUM_PROCESSES, and JAX_PROCESS_ID from 0 on.'
    ) from None


def is_primary():
  """Whether this is the process that reads and writes the run's files."""
  return jax.process_index() == 0


def on_primary(function):
  """What function() returns on the first process, on all; JSON's types.

  Raises:
    BadInput: on all, when it does there.
  """

  def answer():
    return json.dumps(function()) if is_primary() else ''

  return json.loads(_gather_texts(answer)[0])


def on_all(function):
  """function() on every process, or BadInput on every one when any of them raises it."""
  result = None

  def call():
    nonlocal result
    result = function()
    return ''

  _gather_texts(call)
  return result


def _gather_texts(function):
  """The texts of all processes, or BadInput on all of them."""
  try:
    text, refused = function(), ''
  except BadInput as error:
    if jax.process_count() == 1:
      raise
    text, refused = '', str(error)
  texts = [json.loads(each) for each in exchange(json.dumps([text, refused]))]
  for _, sentence in texts:
    if sentence:
      raise BadInput(sentence)
  return [text for text, _ in texts]


def exchange(text):
  """The texts of all processes, in their order."""
  if jax.process_count() == 1:
    return [text]
  content = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(content)))
  padded = np.pad(content, (0, int(sizes.max()) - len(content)))
  rows = multihost_utils.process_allgather(padded)
  return [
    bytes(row[:size]).decode() for row, size in zip(rows, sizes.tolist(), strict=True)
  ]


def agree(number, received):
  """(the number of the first process, a signal that any process has received, or 0)."""
  mine = np.array([number, received[0] if received else 0])
  if jax.process_count() == 1:
    return tuple(mine.tolist())
  every = multihost_utils.process_allgather(mine)
  return int(every[0, 0]), int(every[:, 1].max())
