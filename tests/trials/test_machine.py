"""What a process may use, and what happens beyond."""

import subprocess
import sys
from pathlib import Path

import pytest

from trials import machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc and /sys")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group of its own, in the place of this machine's."""
    monkeypatch.setattr(machine, "_groups", lambda _controller: [tmp_path])
    return tmp_path


def test_there_is_a_core_and_memory() -> None:
    assert machine.cores() >= 1
    free = machine.free_memory()
    assert free is not None
    assert free > 0
    assert machine.resident() > 2**20


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "100000 100000\n"},
        {"cpu.max": "150000 100000\n"},
        {"cpu.max": "50000 100000\n"},
        {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"},
    ],
)
def test_a_containers_share_of_the_cores(groups: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (groups / name).write_text(text)
    assert machine.cores() == 1


@pytest.mark.parametrize("files", [{}, {"cpu.max": "max 100000\n"}, {"cpu.cfs_quota_us": "-1\n"}])
def test_a_container_without_a_share_has_all(
    groups: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(64)))
    for name, text in files.items():
        (groups / name).write_text(text)
    assert machine.cores() == 64


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "3000000", "memory.current": "2500000", "memory.stat": "anon 7\ninactive_file 500000\n"},
        {
            "memory.limit_in_bytes": "3000000",
            "memory.usage_in_bytes": "2500000",
            "memory.stat": "inactive_file 7\ntotal_inactive_file 500000\n",
        },
    ],
)
def test_a_containers_memory(groups: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (groups / name).write_text(text)
    assert machine.free_memory() == 1_000_000


def test_workers_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 100 * 2**30)
    one, four = machine.memory_share(1), machine.memory_share(4)
    assert one is not None
    assert four is not None
    assert 4 * four < one < 100 * 2**30
    monkeypatch.setattr(machine, "free_memory", lambda: 2**30)
    assert machine.memory_share(4) == 2**30


def test_kills_are_counted(groups: Path) -> None:
    before = machine.oom_kills()
    (groups / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert machine.oom_kills() == before + 2


HOARD = """\
import numpy, torch
from trials import machine
ceiling, kinds = machine.Ceiling(300 * 2**20), []
for allocate in (lambda: torch.ones(2**24), lambda: numpy.ones(2**23), lambda: bytearray(2**26)):
    hoard = []
    try:
        with ceiling.held():
            while True:
                hoard.append(allocate())
    except (MemoryError, RuntimeError) as error:
        kinds.append((type(error).__name__, len(hoard)))
torch.ones(2**28)
print(kinds)
"""


def test_beyond_the_ceiling_an_allocation_fails_and_the_process_goes_on() -> None:
    told = subprocess.run([sys.executable, "-c", HOARD], capture_output=True, text=True, check=True).stdout
    assert told == "[('RuntimeError', 4), ('MemoryError', 4), ('MemoryError', 4)]\n"


class TestGrowth:
    @pytest.fixture
    def growth(self, monkeypatch: pytest.MonkeyPatch) -> "Grown":
        return Grown(monkeypatch)

    def test_of_the_first_trials_is_none(self, growth: "Grown") -> None:
        assert growth.over(600, 3000, 6000, 6000, 8000) == [False] * 4

    def test_of_half_as_much_again_counts(self, growth: "Grown") -> None:
        assert growth.over(600, 900, 1000, 1500, 1510, 1530) == [False, False, False, False, True]
        assert growth.over(600, 2000, 2000, 2900, 3100) == [False, False, False, True]

    def test_what_a_trial_without_memory_left_behind_counts_at_once(self, growth: "Grown") -> None:
        assert growth.over(600, 6000, ran_out=True) == [True]
        assert growth.over(600, 700, ran_out=True) == [False]


class Grown:
    """A process that holds so many MB before its first trial and after each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def over(self, first: int, *after: int, ran_out: bool = False) -> list[bool]:
        self._patch.setattr(machine, "resident", lambda: first * 2**20)
        growth, told = machine.Growth(), []
        for held in after:
            self._patch.setattr(machine, "resident", lambda held=held: held * 2**20)
            told.append(growth.after(ran_out=ran_out))
        return told
