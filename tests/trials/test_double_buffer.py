import os
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor

from trials.training import double_buffer
from trials.training.double_buffer import DoubleBufferedFile

PAGE = 4096


def rows(number: int, length: int = 2000) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    floats, counts = torch.rand(length, generator=generator), torch.randint(9, (48,), generator=generator)
    return [floats, counts, floats[:32].bfloat16(), floats[:64] > 0.5, floats[:0]]


def assert_holds(file: DoubleBufferedFile, number: int, length: int = 2000) -> None:
    found = file.read()
    assert found is not None
    state, read = found
    assert state == {"epoch": number}
    assert all(torch.equal(*pair) for pair in zip(read, rows(number, length), strict=True))
    assert [row.dtype for row in read] == [row.dtype for row in rows(number)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


@pytest.fixture
def written(path: Path) -> DoubleBufferedFile:
    """Return a file that was written three times."""
    file = DoubleBufferedFile(path)
    for number in (1, 2, 3):
        file.write({"epoch": number}, rows(number))
    return file


class TestReading:
    def test_read_returns_the_last_write(self, path: Path) -> None:
        file = DoubleBufferedFile(path)
        assert file.read() is None
        for number in range(1, 6):
            file.write({"epoch": number}, rows(number))
            assert_holds(DoubleBufferedFile(path), number)
            assert_holds(file, number)

    def test_another_process_reads_and_continues_writing(self, path: Path) -> None:
        for number in range(1, 6):
            file = DoubleBufferedFile(path)
            if number > 1:
                assert_holds(file, number - 1)
            file.write({"epoch": number}, rows(number))
        assert_holds(DoubleBufferedFile(path), 5)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 5000, bytes(50000), b"\n" * 9000])
    def test_another_kind_of_file_is_read_as_none(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert DoubleBufferedFile(path).read() is None

    def test_nan_and_infinity_are_restored(self, path: Path) -> None:
        file = DoubleBufferedFile(path)
        file.write({"epoch": float("inf")}, [torch.tensor([float("nan"), -0.0])])
        found = DoubleBufferedFile(path).read()
        assert found is not None
        assert found[0] == {"epoch": float("inf")}
        assert found[1][0].view(torch.int64).equal(torch.tensor([float("nan"), -0.0]).view(torch.int64))


class TestWriting:
    def test_write_overwrites_in_place(self, written: DoubleBufferedFile, path: Path) -> None:
        before = path.stat()
        written.write({"epoch": 4}, rows(4))
        after = path.stat()
        assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)
        assert {each.name for each in path.parent.iterdir()} == {"file.bin"}

    def test_write_of_more_numbers_makes_a_new_file(self, written: DoubleBufferedFile, path: Path) -> None:
        written.write({"epoch": 4}, rows(4, length=4000))
        assert_holds(DoubleBufferedFile(path), 4, length=4000)
        written.write({"epoch": 5}, rows(5, length=4000))
        assert_holds(DoubleBufferedFile(path), 5, length=4000)

    def test_write_of_a_longer_state_makes_a_new_file(self, written: DoubleBufferedFile, path: Path) -> None:
        for count in (10, 3000, 30000):
            state = {"epochs": list(range(count))}
            for _ in range(3):
                written.write(state, rows(1))
                found = DoubleBufferedFile(path).read()
                assert found is not None
                assert found[0] == state


class DyingError(BaseException):
    """In place of `kill -9`."""


class Dying:
    """File whose process is killed after so many bytes."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def seek(self, place: int) -> None:
        self._file.seek(place)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def write(self, data: Any) -> None:
        content = bytes(data)
        self._file.write(content[: self._left])
        if len(content) > self._left:
            raise DyingError
        self._left -= len(content)


@pytest.mark.parametrize("left", [0, 1, 63, 64, 65, 5000, 8063, 8064, 8576, 8600, 9000, 12671])
@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_previous_write_is_read_after_a_kill_within_a_write(
    path: Path, left: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half has a header of 4096 bytes, whose first 64 are written twice, and 8512 bytes of numbers."""
    file, write_half = DoubleBufferedFile(path), double_buffer._write_half
    for number in range(1, times + 1):
        file.write({"epoch": number}, rows(number))
    monkeypatch.setattr(
        double_buffer,
        "_write_half",
        lambda file, *rest: write_half(Dying(file, left), *rest),  # type: ignore[arg-type]
    )
    with pytest.raises(DyingError):
        file.write({"epoch": times + 1}, rows(times + 1))
    monkeypatch.undo()
    again = DoubleBufferedFile(path)
    only_blanks_are_missing = times > 1 and left >= 9000
    assert_holds(again, times + only_blanks_are_missing)
    again.write({"epoch": 9}, rows(9))  # over the torn half, not over the intact one
    assert_holds(DoubleBufferedFile(path), 9)


def test_pages_of_two_writes_after_a_power_failure_are_not_read_as_one(written: DoubleBufferedFile, path: Path) -> None:
    old = path.read_bytes()
    written.write({"epoch": 4}, rows(4, 2000))
    new = path.read_bytes()
    pages = [page for page in range(0, len(new), PAGE) if new[page : page + PAGE] != old[page : page + PAGE]]
    assert len(pages) >= 3
    rng = random.Random(0)
    for _ in range(50):
        stored = rng.sample(pages, rng.randrange(len(pages)))
        mixed = bytearray(old)
        for page in stored:
            mixed[page : page + PAGE] = new[page : page + PAGE]
        path.write_bytes(mixed)
        assert_holds(DoubleBufferedFile(path), 3)


class TestPowerFailure:
    def test_last_half_is_flushed_before_the_other_is_overwritten(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_disk = []
        monkeypatch.setattr(os, "fsync", lambda _: on_disk.append(DoubleBufferedFile(path).read()))
        monkeypatch.setattr(double_buffer, "_SYNC_SHARE", float("inf"))
        file = DoubleBufferedFile(path)
        for number in (1, 2, 3):
            file.write({"epoch": number}, rows(number))
        assert [found and found[0] for found in on_disk] == [{"epoch": 1}, {"epoch": 2}]

    def test_slow_disk_is_not_waited_for_in_short_epochs(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now, syncs = 0.0, []

        def slow_sync(_: int) -> None:
            nonlocal now
            syncs.append(now)
            now += 1.0

        monkeypatch.setattr(os, "fsync", slow_sync)
        monkeypatch.setattr(time, "monotonic", lambda: now)
        file = DoubleBufferedFile(path)
        for number in range(60):
            file.write({"epoch": number}, rows(number))
            now += 10.0
        waited = len(syncs) / now
        assert 0 < waited < 0.04
        now += 100.0
        file.write({"epoch": 60}, rows(60))
        assert syncs[-1] == now - 1.0  # after a long epoch
