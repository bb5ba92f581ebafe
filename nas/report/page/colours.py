"""Colours of operators in drawings: an operator has the same one on all pages."""

from zlib import crc32

from search_spaces.operators import OPERATORS

_HUES = (221, 45, 21, 292, 160, 192, 0, 262, 84, 330, 175, 142)
"""In degrees: blue, yellow, orange, purple and so on."""
_LIGHTNESS = (53, 38, 68)
"""In per cent: further operators have the hues anew, darker and then lighter."""


def colour_of(operator: str) -> str:
    """Return the colour of an operator for CSS and SVG: by its place in this package, else by its name alone.

    One of a user's file may share its colour with another.
    """
    packaged = [name for name, record in OPERATORS.items() if record.source is None]
    place = packaged.index(operator) if operator in packaged else crc32(operator.encode())
    lightness = _LIGHTNESS[place // len(_HUES) % len(_LIGHTNESS)]
    return f"hsl({_HUES[place % len(_HUES)]}, 80%, {lightness}%)"
