"""Lines on stderr that name the work of a command, where there is no terminal for a spinner."""

import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

from rich.console import Console
from rich.status import Status

SECONDS = (2.0, 15.0)
"""Seconds until the first line, and between further ones."""


class LinesStatus(Status):
    """Status that prints a line if the work takes longer than two seconds, and later ones when the text has changed.

    Args:
        text: what is being done.
        seconds: until the first line, and between further ones; None for `SECONDS`.
    """

    def __init__(self, text: str, *, console: Console, seconds: tuple[float, float] | None = None) -> None:
        super().__init__(text, console=console)
        self._text, self._printed = text, ""
        self._seconds = SECONDS if seconds is None else seconds
        self._out, self._ended = console, threading.Event()

    def update(self, status: Any = None, **_appearance: Any) -> None:
        """Take another text; spinner, style and speed are of a terminal."""
        self._text = self._text if status is None else str(status)

    def start(self) -> None:
        """Begin to wait."""
        self._ended.clear()
        threading.Thread(target=self._print, name="activity", daemon=True).start()

    def stop(self) -> None:
        """Print nothing any more."""
        self._ended.set()

    def _print(self) -> None:
        seconds, further = self._seconds
        while not self._ended.wait(seconds):
            if self._text != self._printed:
                self._printed = self._text
                self._out.print(f"{self._text} ...", markup=False)
            seconds = further


class ImportAnnouncer:
    """Finder of modules that finds none: it calls a function before PyTorch is imported, which takes seconds.

    A thread could not print meanwhile: loading its libraries stops all threads.
    """

    def __init__(self, announce: Callable[[], None]) -> None:
        self._announce = announce

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Let the next finder find it."""
        if name == "torch":
            sys.meta_path.remove(self)
            self._announce()
        return None
