"""The error for invalid user input."""


class BadInput(ValueError):
  """The user's input cannot be used.

  The message is one sentence: what was wrong, what is accepted, what to do. The command
  line prints it without a traceback and exits with status 2.
  """
