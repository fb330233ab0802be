"""One run on several processes: how they find each other, and what they must agree on.

Every process runs the same program on its own devices, and all see one mesh of all devices.
Anything known to only one of them (a signal, a clock, a file) must be shared before it
decides anything; otherwise one process enters a collective operation that another never
reaches. The first process reads and writes the files, in a folder that all of them share.
With a single process, nothing here communicates.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rethink_gen.errors import BadInput

# How long the others wait for a silent process before they stop with a message.
HEARTBEAT_SECONDS = 30
# How long the first process to finish waits for the last.
SHUTDOWN_SECONDS = 60
FROM_ENVIRONMENT = {
  'coordinator_address': ('JAX_COORDINATOR_ADDRESS', str),
  'num_processes': ('JAX_NUM_PROCESSES', int),
  'process_id': ('JAX_PROCESS_ID', int),
}


def initialize() -> None:
  """Joins the other processes of the job; must be called before any computation.

  JAX finds them by itself on SLURM, TPU pods and GKE and under Open MPI, and elsewhere from
  JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES, JAX_PROCESS_ID.

  Raises:
    BadInput: if they cannot be found.
  """
  # Its handler would swallow SIGTERM, which a run handles itself.
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
      f'--distributed could not join the other processes ({reason}); start it with SLURM '
      'or on a TPU pod, or set JAX_COORDINATOR_ADDRESS to host:port of the first process, '
      'JAX_NUM_PROCESSES, and JAX_PROCESS_ID, which starts at 0.'
    ) from None


def is_primary() -> bool:
  """Whether this is the process that reads and writes the run's files."""
  return jax.process_index() == 0


def on_primary(function: Callable) -> Any:
  """Calls function() on the first process and returns its result, JSON types, on all.

  Raises:
    BadInput: on all processes, if function() raises it.
  """

  def answer():
    return json.dumps(function()) if is_primary() else ''

  return json.loads(_gather_texts(answer)[0])


def on_all(function: Callable) -> Any:
  """Calls function() on every process; if any raises BadInput, all of them do."""
  result = None

  def call():
    nonlocal result
    result = function()
    return ''

  _gather_texts(call)
  return result


def _gather_texts(function):
  """The texts that function() returns on all processes; raises BadInput as `on_all`."""
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


def exchange(text: str) -> list[str]:
  """The texts of all processes, ordered by process index."""
  if jax.process_count() == 1:
    return [text]
  content = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(content)))
  padded = np.pad(content, (0, int(sizes.max()) - len(content)))
  rows = multihost_utils.process_allgather(padded)
  return [
    bytes(row[:size]).decode() for row, size in zip(rows, sizes.tolist(), strict=True)
  ]


def agree(number: int, received: list[int]) -> tuple[int, int]:
  """(the first process's `number`, a signal that any process has received or 0)."""
  mine = np.array([number, received[0] if received else 0])
  if jax.process_count() == 1:
    return tuple(mine.tolist())
  every = multihost_utils.process_allgather(mine)
  return int(every[0, 0]), int(every[:, 1].max())
