"""What a child process says on its standard error, kept for the message of the error that it ends with."""

import tempfile

_TAIL_BYTES = 4096
_TAIL_LINES = 4
_LINE_CHARACTERS = 240


class ChildLog:
    """A file that a child process writes its standard error to; nothing of it is left when it is closed."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child

    def told(self) -> str:
        """Return the last lines as the end of a sentence, "" if nothing was said."""
        size = self.file.seek(0, 2)
        self.file.seek(max(0, size - _TAIL_BYTES))
        lines = self.file.read().decode("utf-8", "replace").splitlines()
        lines = [line.strip()[:_LINE_CHARACTERS] for line in lines if line.strip()][-_TAIL_LINES:]
        return f" Its last words: {' / '.join(lines)}" if lines else ""

    def close(self) -> None:
        """Forget what was said."""
        self.file.close()
