"""Files that may come from anyone: pipes, devices, folders, links without end, sizes without end."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.bench import tables
from nas.study.study_file import StudyFile
from search_spaces import Architecture, space_file
from search_spaces.errors import NasError
from search_spaces.files import YAML_BYTES, is_plain, is_special, read_json, read_plain, read_plain_text
from search_spaces.model_reader import read_model
from search_spaces.operators import modules
from search_spaces.yaml_text import read_yaml
from trials.data import data_yaml, holdout, image_files, splits
from trials.latency import timings


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has at most a hundred characters
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


PLACES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "missing": lambda _path: None,
    "large": _large,
    "socket": _socket,
}
READERS: dict[str, Callable[[Path], object]] = {
    "a.yaml": read_yaml,
    "model.yaml": Architecture.read,
    "base.yaml": lambda path: read_model(str(path)),
    "space.yaml": space_file.load,
    "data.yaml": data_yaml.parse,
    "list.txt": lambda path: image_files._listed(path, path.parent),
    "ops.py": modules.load,
    "latency.csv": timings.read,
    "bench.csv": tables.read_yolobench,
    "study.json": lambda path: StudyFile.read(path.parent),
    "holdout.json": holdout.read,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, name: str, place: str) -> None:
    path = tmp_path / name
    PLACES[place](path)
    began = time.monotonic()
    with pytest.raises(NasError) as refused:
        READERS[name](path)
    assert len(str(refused.value).splitlines()) == 1
    assert time.monotonic() - began < 30


def test_label_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    _large(tmp_path / "labels" / "a.txt")
    with pytest.raises(NasError, match=r"labels/a.txt: cannot be read \(larger than 16 MB\)"):
        splits.labeled_image(str(tmp_path / "images" / "a.jpg"), tmp_path / "images")


@pytest.mark.parametrize("place", PLACES)
def test_json_of_no_plain_file_is_none(tmp_path: Path, place: str) -> None:
    path = tmp_path / "a.json"
    PLACES[place](path)
    assert read_json(path) is None
    assert is_plain(path) is (place == "large")
    assert is_special(path) is (place in {"pipe", "endless", "socket"})


def test_size_of_yaml_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\n" + "# x\n" * (YAML_BYTES // 4), encoding="utf-8")
    with pytest.raises(NasError, match="larger than 2 MB"):
        read_yaml(path)


def test_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é\r\nb\rc\n".encode())
    assert read_plain(path) == "é\r\nb\rc\n".encode()
    assert read_plain_text(path) == "é\nb\nc\n"
    (tmp_path / "link").symlink_to(path)
    assert read_plain_text(tmp_path / "link") == "é\nb\nc\n"


def test_name_that_no_file_can_have_is_no_file() -> None:
    assert not is_plain(Path("x" * 5000))
    assert not is_plain(Path("a\0b"))
