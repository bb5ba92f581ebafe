"""Atomic writes: the temporary files, and which of them are left over."""

from pathlib import Path

import pytest

from search_spaces.files import atomic_path, leftovers, write_atomically


def test_temporary_file_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with atomic_path(path, durable=False) as temporary:
        temporary.write_bytes(b"after")
        assert path.read_bytes() == b"before"
        assert leftovers(path) == [temporary]
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def write_and_fail(path: Path, error: type[BaseException]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"after")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_write_leaves_the_file_unchanged(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, "before")
    with pytest.raises(error):
        write_and_fail(path, error)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


def test_leftovers_are_the_temporary_files_of_one_file_and_their_journals(tmp_path: Path) -> None:
    of_it = [".a.db.0123.tmp", ".a.db.0123.tmp-journal"]
    for name in [*of_it, "a.db", ".a.db.lock", ".b.db.0123.tmp", "a.db.tmp"]:
        (tmp_path / name).touch()
    assert [path.name for path in leftovers(tmp_path / "a.db")] == of_it
    assert leftovers(tmp_path / "nowhere" / "a.db") == []
