"""Errors that this project raises, in one tree.

NasError                    a problem that the user can solve; the command line shows its text and exits with 2
├── SpecError               the user's file, option or row has mistakes: all at once, one a line, with addresses
├── LayerError              a layer of a model does not take its input; `build.addressed` adds the address of its row
├── DataError               the data set cannot be trained on
├── EnvironmentProblem      this machine lacks something: a device, a writable folder, a package
│   └── GpuError            this process can compute nothing more on its GPU
├── CostError               a cost could not be counted
├── LatencyError            a latency could not be measured, or is missing in a table
├── EstimateError           the time that a search takes could not be measured
├── ScoreError              an invalid score: NaN, or a cost of 0
└── StudyError              the study cannot do what was requested
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Self

from search_spaces.printable import printable


class NasError(Exception):
    """Problem that the user can solve; the text says how."""


class SpecError(NasError):
    """Mistakes in what the user wrote.

    Args:
        mistakes: one line each, `address: what is wrong, got X (what would be right)`.
    """

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes = (mistakes,) if isinstance(mistakes, str) else tuple(mistakes)
        super().__init__("\n".join(self.mistakes))

    def within(self, place: str) -> Self:
        """Return the same mistakes, each with `place` before its address."""
        return type(self)([f"{place}: {mistake}" for mistake in self.mistakes])


class LayerError(NasError):
    """Layer of a built model that does not take its input.

    Args:
        reason: in one line.
        index: of the layer; None if the reason names its row.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        self.index, self.reason = index, reason
        super().__init__(reason if index is None else f"layer {index} {reason}")

    def __reduce__(self) -> tuple[type[Self], tuple[str, int | None]]:
        return type(self), (self.reason, self.index)


class DataError(NasError):
    """Mistake in the data set; the text has the file, and what would be right."""


class EnvironmentProblem(NasError):  # noqa: N818 - EnvironmentError is Python's old name of OSError
    """Lack of this machine, such as a device or a writable folder; the text says what to do."""


class GpuError(EnvironmentProblem):
    """Failure of a GPU after which this process can compute nothing more on it.

    Args:
        is_lost: whether no other process could, either.
    """

    def __init__(self, line: str, *, is_lost: bool) -> None:
        super().__init__(line)
        self.is_lost = is_lost


class CostError(NasError):
    """Failure to count a cost. It is never replaced by a number such as 0."""


class LatencyError(NasError):
    """Failure to measure a latency, or to find it in a table. It is never replaced by a number such as 0."""


class EstimateError(NasError):
    """Failure to measure how long trainings take. It is never replaced by a number."""


class ScoreError(NasError):
    """Invalid score: NaN, or a cost of 0."""


class StudyError(NasError):
    """Request that a study cannot fulfil."""


def unwrapped(text: object) -> str:
    """Return a text, such as an error's message, in one line, with single spaces and no control characters."""
    return printable(" ".join(str(text).split()))


def in_one_line(error: BaseException) -> str:
    """Return an error's message in one short line, with its type where the message is empty or only a key."""
    text = unwrapped(error)
    text = f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text or type(error).__name__
    return text if len(text) <= _LINE else f"{text[:_LINE]} ..."


_LINE = 240
"""Most characters of another library's error message."""


def shortened(value: object) -> str:
    """Return a value for an error message: on one line, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"


_LISTED = 40
"""Most names that a message lists."""


def nearest(name: object, options: Iterable[object]) -> str:
    """Return the hint that ends a message about an unknown name: the most similar option, or else all of them."""
    names = [str(option) for option in options]
    near = typo_of(str(name), names)
    if near is None:
        folded = {option.casefold(): option for option in reversed(names)}
        close = difflib.get_close_matches(str(name).casefold()[:_LONGEST], folded, n=1, cutoff=_NEAR)
        begun = [
            option for option in folded if len(str(name)) >= _BEGINNING and option.startswith(str(name).casefold())
        ]
        near = folded[(close or begun)[0]] if close or len(begun) == 1 else None
    if near is not None:
        return f"did you mean {near!r}?"
    return f"one of {', '.join(names)}" if len(names) <= _LISTED else f"nothing similar among {len(names)} names"


_NEAR = 0.7
"""Least similarity of a suggestion, as `difflib`'s ratio: .86 for 'UIBB' and 'UIB'; .5 for 'SimAM' and 'PSA'."""

_BEGINNING = 3
"""Least number of letters that suggest the only name that begins with them: 'onnx' for 'onnxruntime'."""

_LONGEST = 100
"""Most characters of a name that are compared."""


def typo_of(name: str, options: Iterable[str]) -> str | None:
    """Return the option of which a name is a typing error; None if it is more likely another name.

    Names of layers are short and similar: 'C3STR' is no typing error of 'C3TR', nor 'PConv' of 'Conv', but another
    layer. Typing errors are: another case, two neighbours exchanged, a letter doubled, or one small letter too many,
    too few or wrong.
    """
    if len(name) > _LONGEST:
        return None
    names = list(options)
    for is_typo in (_is_other_case, _is_other_order, _is_other_letter):
        for option in names:
            if is_typo(name, option):
                return option
    return None


def _is_other_case(name: str, option: str) -> bool:
    return _bare(name) == _bare(option)


def _bare(name: str) -> str:
    """Return a name without the prefix of PyTorch's layers, in small letters."""
    return name.casefold().removeprefix("torch.").removeprefix("nn.")


def _is_other_order(name: str, option: str) -> bool:
    """Return whether two neighbouring characters are exchanged."""
    name, option = name.casefold(), option.casefold()
    if len(name) != len(option) or sorted(name) != sorted(option):
        return False
    differ = [index for index, (one, other) in enumerate(zip(name, option, strict=True)) if one != other]
    return len(differ) == 2 and differ[1] == differ[0] + 1


def _is_other_letter(name: str, option: str) -> bool:
    """Return whether a small letter is wrong, missing or too many, or any character is doubled."""
    if abs(len(name) - len(option)) > 1:
        return False
    short, long = sorted((name, option), key=len)
    start = next((index for index, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) == len(long):
        return short[start + 1 :] == long[start + 1 :] and _is_small(short[start] + long[start])
    doubled = start > 0 and long[start] == long[start - 1]
    return short[start:] == long[start + 1 :] and (doubled or _is_small(long[start]))


def _is_small(letters: str) -> bool:
    return letters.isalpha() and letters.islower()
