"""What a command that waits says meanwhile: one live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Progress:
    """Tells on standard error what is waited for, and what is done."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._began = time.monotonic()
        self._status = self._console.status("")
        self._said = ""

    def waiting(self, what: str) -> None:
        """Shows what is waited for now; said once, however often it is called."""
        if what == self._said:
            return
        self._said = what
        if self._console.is_terminal:
            self._status.update(what)
            self._status.start()
        else:
            self._console.print(what)

    def done(self, what: str) -> None:
        """Says that something is finished, with the seconds since the start."""
        self._console.print(f"{what} [dim]({time.monotonic() - self._began:.0f} s)[/dim]")

    def close(self) -> None:
        self._status.stop()


@contextmanager
def progress() -> Iterator[Progress]:
    shown = Progress()
    try:
        yield shown
    finally:
        shown.close()
