"""Exit statuses and messages, shared by all verbs."""

import sys

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def say(message):
    """Tell the user something on standard error; standard output is for results."""
    if sys.stderr is not None:  # closed; print would take standard output for it
        print(message, file=sys.stderr, flush=True)
