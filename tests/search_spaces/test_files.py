"""Atomic writes, the temporary files that are left over, and paths that no file can have."""

from pathlib import Path

import pytest

from search_spaces.files import NAME_BYTES, PATH_BYTES, atomic_path, leftovers, path_problem, write_atomically


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


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a" * NAME_BYTES, ""),
        ("a" * (NAME_BYTES + 1), "too long for a file's name"),
        ("é" * (NAME_BYTES // 2 + 1), "too long for a file's name"),
        (f"/data/{'a' * NAME_BYTES}/b", ""),
        ("/a" * (PATH_BYTES // 2), ""),
        ("/a" * (PATH_BYTES // 2) + "b", "too long for a file's name"),
        ("a\0b", "a NUL character in it"),
    ],
)
def test_paths_that_no_file_can_have(path: str, problem: str) -> None:
    assert path_problem(path) == problem
