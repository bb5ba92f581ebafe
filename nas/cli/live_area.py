"""Live display that a terminal may narrow: Rich's leaves lines behind where the terminal breaks those it has drawn."""

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.live_render import LiveRender
from rich.segment import ControlType, Segment

_ERASED = "\r\x1b[K\x1b[C\x1b[J\r"
"""Erases this line and those below. From the second column: tmux takes the whole screen, erased from its first one, for
text to scroll back to."""


class LiveArea(Live):
    """Live display whose cursor waits at its first line, so that drawing anew needs no count of lines.

    Rich leaves the cursor at the last line, and goes up as many lines as it has drawn. A terminal that is narrowed
    breaks these into more, but keeps the cursor at its place in the text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._live_render = _FromItsTop(self.get_renderable(), vertical_overflow=self.vertical_overflow)


class _FromItsTop(LiveRender):
    """Drawing that ends with the cursor at its first line."""

    def position_cursor(self) -> Control:
        """Erase the last drawing."""
        return _control(_ERASED)

    def restore_cursor(self) -> Control:
        """Erase it at the end, when Rich has gone to the next line."""
        return _control(f"\x1b[A{_ERASED}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from super().__rich_console__(console, options)
        lines_up = self._shape[1] - 1 if self._shape is not None else 0
        yield _control(f"\x1b[{lines_up}A\r" if lines_up > 0 else "\r")


def _control(text: str) -> Control:
    """Return control codes for which Rich has no names."""
    control = Control()
    control.segment = Segment(text, None, [(ControlType.CARRIAGE_RETURN,)])
    return control
