"""Every error that this project raises on purpose.

NasError                    a problem with a known cure; the command line shows its text and exits with 2
├── SpecError               the user's file, flag or row is wrong: all mistakes at once, one a line, with addresses
├── DataError               the data set cannot be trained on
├── EnvironmentProblem      this machine lacks something: a device, a writable folder, a package
├── CostError               a cost could not be counted
├── LatencyError            a latency could not be measured, or a table cannot tell it
├── ScoreError              a score that is no score: NaN, or a cost of 0
└── StudyError              the study cannot do what was asked of it
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Self


class NasError(Exception):
    """A problem with a known cure, told in its text."""


class SpecError(NasError):
    """What the user wrote is wrong.

    Args:
        mistakes: one line each, `address: what is wrong, got X (what would be right)`.
    """

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes = (mistakes,) if isinstance(mistakes, str) else tuple(mistakes)
        super().__init__("\n".join(self.mistakes))

    def within(self, place: str) -> Self:
        """The same mistakes, each with `place` before its address."""
        return type(self)([f"{place}: {mistake}" for mistake in self.mistakes])


class DataError(NasError):
    """The data set cannot be trained on; the text says which file, and what would be right."""


class EnvironmentProblem(NasError):  # noqa: N818 - EnvironmentError is Python's old name of OSError
    """This machine lacks something that the command needs; the text names the cure."""


class CostError(NasError):
    """A cost could not be counted. Never replaced by a neutral number."""


class LatencyError(NasError):
    """A latency could not be measured, or a table cannot tell it. Never replaced by a neutral number."""


class ScoreError(NasError):
    """A score that is no score: NaN, or a cost of 0."""


class StudyError(NasError):
    """The study cannot do what was asked of it."""


_LISTED = 40
"""More names than that are not listed in one line."""


def nearest(name: object, known: Iterable[object]) -> str:
    """The hint that ends a message about an unknown name: the nearest known one, or all of them."""
    names = [str(option) for option in known]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if len(names) <= _LISTED else f"nothing like it among {len(names)} known names"
