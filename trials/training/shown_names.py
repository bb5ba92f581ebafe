"""Messages of Ultralytics under `nas yolo`, which have names of classes: these do not steer the terminal."""

import logging
import re

from ultralytics.utils import LOGGER

from search_spaces.printable import printable

_COLOUR = re.compile(r"(\x1b\[[0-9;]*[mK])")
"""Ultralytics' own control sequences: colours, and the end of a line cleared. In a name, too, they are harmless."""


def guard() -> None:
    """Show control characters in messages as text, in this process from now on."""
    LOGGER.addFilter(_shown)


def _shown(record: logging.LogRecord) -> bool:
    parts = _COLOUR.split(record.getMessage())
    record.msg, record.args = "".join(one if _COLOUR.fullmatch(one) else printable(one) for one in parts), None
    return True
