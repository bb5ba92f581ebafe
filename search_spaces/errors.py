"""Every error that this project raises on purpose.

NasError                    a problem with a known cure; the command line shows its text and exits with 2
├── SpecError               the user's file, flag or row is wrong: all mistakes at once, one a line, with addresses
├── LayerError              a layer of a model takes no image; `build.addressed` tells of which row it is
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


class LayerError(NasError):
    """A layer of a built model does not take what it is given.

    Args:
        reason: in one line.
        index: of the layer; None where the reason names its row.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        self.index, self.reason = index, reason
        super().__init__(reason if index is None else f"layer {index} {reason}")

    def __reduce__(self) -> tuple[type[Self], tuple[str, int | None]]:
        return type(self), (self.reason, self.index)


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


def in_one_line(error: BaseException) -> str:
    """Return an error's message in one short line, with its type where the message is empty or only a key."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text or type(error).__name__
    return text if len(text) <= _LINE else f"{text[:_LINE]} ..."


_LINE = 240
"""Characters of an error of others'."""


def shortened(value: object) -> str:
    """A value as an error message shows it: on one line, and not all of a long one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"


_LISTED = 40
"""More names than that are not listed in one line."""


def nearest(name: object, known: Iterable[object]) -> str:
    """The hint that ends a message about an unknown name: the nearest known one, or all of them."""
    names = [str(option) for option in known]
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
    return f"known: {', '.join(names)}" if len(names) <= _LISTED else f"nothing like it among {len(names)} known names"


_NEAR = 0.7
"""`difflib`'s ratio: 'UIBB' is .86 of 'UIB'; 'SimAM' is .5 of 'PSA', another attention."""

_BEGINNING = 3
"""Letters that stand for the one name that begins with them: 'onnx' for 'onnxruntime'."""

_LONGEST = 100
"""Characters of a name that are compared."""


def typo_of(name: str, known: Iterable[str]) -> str | None:
    """The known name that another is a slip of the keyboard of; None if it is rather a name of its own.

    Names of layers are short and alike: 'C3STR' is no slip of 'C3TR', nor 'PConv' of 'Conv', but another layer. A slip
    is another case, two neighbours exchanged, a letter doubled, or one small letter too many, too few or wrong.
    """
    if len(name) > _LONGEST:
        return None
    named = list(known)
    for is_slip in (_is_other_case, _is_other_order, _is_other_letter):
        for option in named:
            if is_slip(name, option):
                return option
    return None


def _is_other_case(name: str, option: str) -> bool:
    return _bare(name) == _bare(option)


def _bare(name: str) -> str:
    """A name without the prefix of PyTorch's layers, in small letters."""
    return name.casefold().removeprefix("torch.").removeprefix("nn.")


def _is_other_order(name: str, option: str) -> bool:
    """Whether two neighbouring characters are exchanged."""
    name, option = name.casefold(), option.casefold()
    if len(name) != len(option) or sorted(name) != sorted(option):
        return False
    differ = [index for index, (one, other) in enumerate(zip(name, option, strict=True)) if one != other]
    return len(differ) == 2 and differ[1] == differ[0] + 1


def _is_other_letter(name: str, option: str) -> bool:
    """Whether a small letter is wrong, missing or too many, or any character is doubled."""
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
