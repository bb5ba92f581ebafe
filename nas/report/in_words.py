"""A result that prints as its lines: in a program by `print`, in a notebook as the value of a cell."""

from abc import ABC, abstractmethod
from typing import Any


class InWords(ABC):
    """Base class of results that can be said in words."""

    @abstractmethod
    def lines(self) -> list[str]:
        """Return the result in words."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython calls it so
        """Print it in IPython."""
        printer.text(str(self))
