"""Readers of numbers that are typed with a unit: times, amounts of memory, large counts."""

import re
from collections.abc import Callable
from typing import TypeVar

import typer

from nas import ranges

Value = TypeVar("Value", int, float)

_TOO_LARGE = 1e30


def count(text: str) -> int:
    """Read a count: `2.5M`, `800k` or `2500000`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    if not match:
        raise typer.BadParameter(f"a number such as 2.5M or 2500000 is expected, got {ranges.shown(text)}")
    counted = round(_finite(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()])
    return _within("max_params", counted, text)


def seconds(text: str) -> float:
    """Read a time: `90`, `90s`, `30m` or `8h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise typer.BadParameter(f"a time such as 90s, 30m or 8h is expected, got {ranges.shown(text)}")
    return _within("timeout", _finite(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]], text)


def size(text: str) -> int:
    """Read an amount of memory: `8G`, `800M` or a number of bytes; units are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)(?:i?[bB])?", text.strip())
    if not match:
        raise typer.BadParameter(f"an amount such as 8G or 800M is expected, got {ranges.shown(text)}")
    return round(_finite(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def memory(text: str) -> int:
    """Read the memory of a worker, and check that a trial can be trained in it."""
    return _within("trial_memory", size(text), text)


def share_of(name: str) -> Callable[[str], float]:
    """Return the reader of an option that is a share of images: `15%` or `0.15`, in the range of that option."""

    def share(text: str) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)", text.strip())
        if not match:
            raise typer.BadParameter(f"a share such as 15% or 0.15 is expected, got {ranges.shown(text)}")
        return _within(name, _finite(match[1]) / (100 if match[2] else 1), text)

    return share


def number_or_auto(name: str, such_as: int) -> Callable[[str], int | str]:
    """Return the reader of an option that is a number in the range of that option, or `auto`."""

    def read(text: str) -> int | str:
        if text.strip() == "auto":
            return "auto"
        if not text.strip().isdecimal():
            raise typer.BadParameter(f"a number such as {such_as}, or auto, is expected, got {ranges.shown(text)}")
        return _within(name, int(text), text)

    return read


def _finite(digits: str) -> float:
    """Read digits; refuse a number that is too large for any option."""
    found = float(digits)
    if found > _TOO_LARGE:
        raise typer.BadParameter(f"input should be a number of fewer digits, got {ranges.shown(digits)}")
    return found


def _within(name: str, value: Value, typed: str) -> Value:
    """Check a value; a message shows what was typed."""
    problem = ranges.RANGES[name].problem(value, typed=typed.strip())
    if problem is not None:
        raise typer.BadParameter(problem)
    return value
