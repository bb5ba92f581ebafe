"""Folders of commands that were killed are deleted by the next command, and no others."""

import os
import tempfile
from pathlib import Path

import pytest

from nas.locks import Lock
from nas.workflows import scratch
from nas.workflows.scratch import scratch_folder

OLD = 1_000_000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(place: Path, name: str, *, age: int = OLD) -> Path:
    """Make the folder that a killed command has left."""
    folder = place / name
    (folder / "ray" / "study").mkdir(parents=True)
    (folder / scratch._LOCK).touch()
    changed = folder.stat().st_mtime - age
    os.utime(folder, (changed, changed))
    return folder


def test_folder_is_empty_and_is_deleted_at_the_end(place: Path) -> None:
    with scratch_folder("check") as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        assert folder.parent.name.startswith("nas-check-")
    assert list(place.iterdir()) == []


def test_folder_of_a_killed_command_is_deleted_by_the_next(place: Path) -> None:
    left(place, "nas-ray-killed")
    with scratch_folder("check") as folder:
        assert list(place.iterdir()) == [folder.parent]


def test_folders_of_live_commands_and_of_others_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = left(place, "nas-ray-live")
    left(place, "nas-ray-young", age=0)
    (left(place, "nas-without-lock") / scratch._LOCK).unlink()
    os.utime(place / "nas-without-lock", (OLD, OLD))
    left(place, "of-another-program")
    (place / "nas-link").symlink_to(left(place, "elsewhere"))
    before = sorted(place.iterdir())
    with Lock(live / scratch._LOCK).held(), scratch_folder("check"):
        pass
    assert sorted(place.iterdir()) == before
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    with scratch_folder("check"):
        pass
    assert sorted(place.iterdir()) == before
