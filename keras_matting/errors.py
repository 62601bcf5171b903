"""The errors that a user may meet; every message says what was expected, what came, and the remedy."""


class MattingError(Exception):
    """Something the user can mend; the command line prints it as one sentence, without a traceback."""


def first_line(error: BaseException | str) -> str:
    """Return the first line of another library's message, cut to a readable length; its type if it has none."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines and lines[0] else type(error).__name__


def ended(sentence: str) -> str:
    """Return a sentence that may end in words of another message with one mark at its end: its own, or a full stop."""
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


class UsageError(MattingError):
    """A wrong name, path or option."""


class LackingError(UsageError):
    """Something asked for that this installation cannot do until whoever runs it mends that."""


class ImageError(MattingError):
    """A photo that cannot be read, or is too large to be read safely."""


class WeightsError(MattingError):
    """A checkpoint that does not fit the model, or does not have the expected content."""


class EngineError(MattingError):
    """An engine that cannot run on this machine, or whose artefact is missing or does not fit."""
