"""Limits of YAML texts: no document is much larger than its text."""

import time
from pathlib import Path

import pytest

from search_spaces.errors import SpecError
from search_spaces.yaml_text import parse_yaml, read_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]\n" for before, one in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGED = (
    "a: &a {"
    + ", ".join(f"k{i}: {i}" for i in range(9))
    + "}\n"
    + "".join(
        f"{one}: &{one} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
        for before, one in zip("abcdefghi", "bcdefghij", strict=True)
    )
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "not YAML: line 6: aliases repeat more than 100,000 values"),
        (MERGED, "not YAML: line 5: aliases repeat more than 100,000 values"),
        ("a: &a [*a]\n", "not YAML: line 1: the alias *a is inside the anchor that it names"),
        ("a: " + 100 * "[" + 100 * "]", "not YAML: line 1: nested deeper than 64 levels"),
        (100_000 * "[", "not YAML: line 1: nested deeper than 64 levels"),
        (f"a: {400 * '9'}\n", "not YAML: line 1: a number of 400 digits, where at most 18 are expected"),
        (f"a: {9000 * '9'}\n", "not YAML: line 1: a number of 9000 digits, where at most 18 are expected"),
        ("a: 2020-13-45\n", "not YAML: month must be in 1..12"),
        ("a: 1\na: 2\n", "not YAML: line 2: the key 'a' appears twice"),
        (
            "a:\n\t- 1\n",
            "not YAML: line 2: found character '\\t' that cannot start any token (write spaces, not tabs)",
        ),
        (
            "a:\n  - [1\uff0c [2]]\n",
            "not YAML: line 2: expected ',' or ']', but got '[' (punctuation of another keyboard: , and : are meant)",
        ),
        (
            "a: [1\uff0c\n  [2]]\n",
            "not YAML: line 2: expected ',' or ']', but got '[' (punctuation of another keyboard: , and : are meant)",
        ),
        (
            "a: [1, \t[2]]\n",
            "not YAML: line 1: found character '\\t' that cannot start any token (write spaces, not tabs)",
        ),
        ("a: [1 [2]] # \uff0c\n", "not YAML: line 1: expected ',' or ']', but got '['"),
        ("a: !!python/object/apply:os.getcwd []\n", None),
        ("", "empty: a mapping is expected"),
        ("# nothing\n", "empty: a mapping is expected"),
        ("- 1\n", "a mapping is expected, got list"),
        ("a: *b\n", "not YAML: line 1: found undefined alias 'b'"),
    ],
)
def test_invalid_yaml_is_refused_quickly(text: str, expected: str | None) -> None:
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        parse_yaml(text)
    assert time.process_time() - began < 1
    (mistake,) = caught.value.mistakes
    assert mistake == (expected or mistake)
    assert len(mistake) < 200


def test_small_aliases_are_expanded() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {d: 3}}\n") == {
        "a": [1, 2],
        "b": [[1, 2], [1, 2]],
        "c": {"d": 3},
    }


def test_yaml_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: größe\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.yaml: not a text file \(UTF-8 is expected\)$"):
        read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "marked.yaml").write_text("a: 1\n", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "marked.yaml") == {"a": 1}


def test_duplicate_yaml_keys_can_be_allowed() -> None:
    assert parse_yaml("a: 1\na: 2\n", unique_keys=False) == {"a": 2}
