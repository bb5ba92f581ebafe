"""Locks on files, also where something else lies in a lock's place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.locks import Lock, is_held
from search_spaces.errors import EnvironmentProblem

PLACES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "missing": lambda path: path.symlink_to("nowhere"),
    "elsewhere": lambda path: path.symlink_to(__file__),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_plain_file_is_named_and_is_held_by_nobody(place: str, tmp_path: Path) -> None:
    path = tmp_path / "supervisor.lock"
    PLACES[place](path)
    assert not is_held(path)
    with pytest.raises(EnvironmentProblem, match=f"^{path}: no plain file, as a lock is "):
        Lock(path).take()
    assert not (tmp_path / "nowhere").exists()


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = Lock(path), Lock(path)
    assert first.take()
    assert is_held(path)
    assert not second.take(wait=False)
    first.release()
    assert not is_held(path)
    assert second.take(wait=False)
    second.release()


def test_lock_leaves_the_text_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1234")
    with Lock(path).held():
        assert path.read_text() == "1234"
