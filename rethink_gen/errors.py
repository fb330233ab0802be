"""The error for invalid user input, and how it quotes other errors."""

import re


class BadInput(ValueError):
  """The user's input cannot be used.

  The message is one sentence: what was wrong, what is accepted, what to do. The command
  line prints it without a traceback and exits with status 2.
  """


def reason(error: Exception | str) -> str:
  """The first sentence of an error's message, short enough to quote in another."""
  sentence = re.split(r'[.:]?\s*(?:\n|$|\.\s)', str(error).strip(), maxsplit=1)[0]
  return sentence[:200] or type(error).__name__
