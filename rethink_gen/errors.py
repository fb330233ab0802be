"""The one error a user can cause."""


class BadInput(ValueError):
  """What the user gave cannot be used.

  The message is one sentence: what was wrong, what is accepted, what to do. The command
  line prints it without a traceback and exits with status 2.
  """
