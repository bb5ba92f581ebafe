"""Parse YAML: space files, model files and data files of users are read with this module only.

A small text can describe a huge document: nine aliases in an alias, nine levels deep, are 9**9 values (the "billion
laughs" attack). Aliases, depth and numbers are therefore limited while the text is parsed.
"""

from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import SpecError, unwrapped
from search_spaces.files import YAML_BYTES, read_plain_text

_FULL_WIDTH = "\uff0c\uff1a\u3001\uff3b\uff3d\u3010\u3011\uff08\uff09"
"""Punctuation of Chinese and Japanese keyboards, which YAML takes for text."""

_REPEATED = 100_000
"""Most values that aliases may repeat in one text; model files with anchors repeat dozens."""

_DEPTH = 64
"""Most levels of nested lists and mappings."""

_DIGITS = 18
"""Most digits of a whole number: as many as 64 bits hold."""


def read_yaml(path: Path, *, unique_keys: bool = True) -> dict[str, Any]:
    """Read a YAML file as a mapping.

    Args:
        unique_keys: refuse a mapping with the same key twice.

    Raises:
        SpecError: the file is missing, no text, no YAML, or no mapping.
    """
    text = read_text(path)
    try:
        return parse_yaml(text, unique_keys=unique_keys)
    except SpecError as error:
        raise error.within(str(path)) from None


def read_text(path: Path) -> str:
    """Read the text of a YAML file.

    Raises:
        SpecError: the file is missing, no plain file, no text, or too large.
    """
    try:
        return read_plain_text(path, most=YAML_BYTES, encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not a text file (UTF-8 is expected)") from None


def parse_yaml(text: str, *, unique_keys: bool = True) -> dict[str, Any]:
    """Parse YAML text as a mapping.

    Args:
        unique_keys: refuse a mapping with the same key twice.

    Raises:
        SpecError: no YAML, no mapping, a key twice, or beyond the limits.
    """
    try:
        document = yaml.load(text, Loader=UniqueKeysLoader if unique_keys else BoundedLoader)  # noqa: S506 - SafeLoaders
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        hint = " (write spaces, not tabs)" if "'\\t'" in str(error.problem) else ""
        last = error.problem_mark.line if error.problem_mark else 0
        written = text.splitlines()[max(last - 1, 0) : last + 1]  # a line may end what the one before has begun
        hint = hint_of_keyboard("".join(line.partition("#")[0] for line in written)) or hint
        raise SpecError(f"not YAML: {line}{error.problem}{hint}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a ValueError: the 13th month of a date
        raise SpecError(f"not YAML: {unwrapped(error)}") from None
    if document is None:
        raise SpecError("empty: a mapping is expected")
    if not isinstance(document, dict):
        raise SpecError(f"a mapping is expected, got {type(document).__name__}")
    return document


class BoundedLoader(yaml.SafeLoader):
    """SafeLoader with limits for repeated aliases, nesting and the length of numbers."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._sizes: dict[str, int] = {}
        self._values = self._repeated = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and count the values that aliases repeat."""
        event = self.peek_event()
        anchor, mark = event.anchor if isinstance(event, yaml.NodeEvent) else None, event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self._repeat(anchor, mark)
            return super().compose_node(parent, index)
        if self._depth == _DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {_DEPTH} levels", mark)
        before, self._values, self._depth = self._values, self._values + 1, self._depth + 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._sizes[anchor] = self._values - before
        return node

    def _repeat(self, anchor: str | None, mark: yaml.Mark) -> None:
        """Count the values of an alias."""
        if anchor in self.anchors and anchor not in self._sizes:
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{anchor} is inside the anchor that it names", mark
            )
        size = self._sizes.get(str(anchor), 1)
        self._values += size
        self._repeated += size
        if self._repeated > _REPEATED:
            raise yaml.composer.ComposerError(None, None, f"aliases repeat more than {_REPEATED:,} values", mark)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Construct a whole number of at most 64 bits."""
        if len(node.value) <= 4 * _DIGITS:
            value: int = super().construct_yaml_int(node)
            if abs(value) < 10**_DIGITS:
                return value
        problem = f"a number of {len(node.value)} digits, where at most {_DIGITS} are expected"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


BoundedLoader.add_constructor("tag:yaml.org,2002:int", BoundedLoader.construct_yaml_int)


class UniqueKeysLoader(BoundedLoader):
    """Loader that refuses a mapping with the same key twice; PyYAML would use the second."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Compose a mapping with unique keys."""
        node = super().compose_mapping_node(anchor)
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} appears twice", key.start_mark
                    )
                keys.add((key.tag, key.value))
        return node


def hint_of_keyboard(text: str) -> str:
    """Return the remedy for a text with punctuation of another keyboard, for the end of a message; empty for others."""
    return " (punctuation of another keyboard: , and : are meant)" if any(one in _FULL_WIDTH for one in text) else ""
