"""Texts of files that may come from anyone, made safe where they are shown: a terminal, HTML, Markdown.

A control character in the name of a class can clear a terminal, set its title or write into its clipboard; one that
changes the direction of text can show `exe.txt` for `txt.exe`. HTML and Markdown in a name become links, images and
scripts of the page that shows it.
"""

import re
from html import escape

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters of ASCII and Latin-1 except tab and new line, those of Unicode's text direction, surrogates."""
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#!~&])")


def printable(text: str) -> str:
    r"""Return a text with control characters as they are written in Python: `\x1b` for escape."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def html(text: str) -> str:
    """Return a text for the body or an attribute of HTML."""
    return escape(printable(text))


def markdown(text: str) -> str:
    """Return a text for a line of Markdown or a cell of its tables: no link, no HTML, no new line."""
    return _MARKDOWN.sub(r"\\\1", printable(" ".join(text.split())))
