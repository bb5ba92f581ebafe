"""Cores and memory that a process may use, and what happens beyond."""

import subprocess
import sys
from pathlib import Path

import pytest

from trials import machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc and /sys")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only control group of this process, an empty folder."""
    monkeypatch.setattr(machine, "_groups", lambda _controller: [tmp_path])
    return tmp_path


def test_process_has_a_core_and_memory() -> None:
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
def test_a_quota_limits_the_cores(groups: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (groups / name).write_text(text)
    assert machine.cores() == 1


@pytest.mark.parametrize("files", [{}, {"cpu.max": "max 100000\n"}, {"cpu.cfs_quota_us": "-1\n"}])
def test_process_without_a_quota_has_all_allowed_cores(
    groups: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(64)))
    for name, text in files.items():
        (groups / name).write_text(text)
    assert machine.cores() == 64


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/docker/a\n", {"docker/a/cpu.max": "300000 100000\n"}, 3),
        ("0::/docker/a\n", {"docker/a/cpu.max": "max 100000\n", "docker/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "600000 100000\n"}, 6),
        (
            "4:cpu,cpuacct:/a\n3:memory:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "500000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            5,
        ),
        ("3:memory:/a\n", {"memory/a/cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_quota_is_that_of_the_control_group_and_its_parents(
    own: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(8)))
    assert machine.cores() == cores


def test_cores_are_counted_in_one_place() -> None:
    root = Path(machine.__file__).parents[1]
    counting = {
        str(path.relative_to(root))
        for package in ("nas", "trials", "search_spaces")
        for path in (root / package).rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in ("cpu_count", "sched_getaffinity"))
    }
    assert counting == {"trials/machine.py"}


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
def test_a_control_group_limits_the_free_memory(groups: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (groups / name).write_text(text)
    assert machine.free_memory() == 1_000_000


def test_workers_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 100 * 2**30)
    one, four = machine.memory_share(1), machine.memory_share(4)
    assert one is not None
    assert four is not None
    assert 4 * four < one < 100 * 2**30
    monkeypatch.setattr(machine, "free_memory", lambda: 2**30)
    assert machine.memory_share(4) == 2**30


def test_out_of_memory_kills_are_counted(groups: Path) -> None:
    before = machine.oom_kills()
    (groups / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert machine.oom_kills() == before + 2


HOARD = """\
import numpy, torch
from trials import machine
limit, kinds = machine.MemoryLimit(300 * 2**20), []
for allocate in (lambda: torch.ones(2**24), lambda: numpy.ones(2**23), lambda: bytearray(2**26)):
    hoard = []
    try:
        with limit.applied():
            while True:
                hoard.append(allocate())
    except (MemoryError, RuntimeError) as error:
        kinds.append((type(error).__name__, len(hoard)))
torch.ones(2**28)
print(kinds)
"""


def test_allocation_beyond_the_limit_fails_and_the_process_continues() -> None:
    printed = subprocess.run([sys.executable, "-c", HOARD], capture_output=True, text=True, check=True).stdout
    assert printed == "[('RuntimeError', 4), ('MemoryError', 4), ('MemoryError', 4)]\n"


class TestMemoryGrowth:
    @pytest.fixture
    def growth(self, monkeypatch: pytest.MonkeyPatch) -> "FakeMemory":
        return FakeMemory(monkeypatch)

    def test_memory_growth_of_the_first_trials_is_ignored(self, growth: "FakeMemory") -> None:
        assert growth.over(600, 3000, 6000, 6000, 8000) == [False] * 4

    def test_memory_growth_by_half_is_detected(self, growth: "FakeMemory") -> None:
        assert growth.over(600, 900, 1000, 1500, 1510, 1530) == [False, False, False, False, True]
        assert growth.over(600, 2000, 2000, 2900, 3100) == [False, False, False, True]

    def test_memory_left_by_a_trial_out_of_memory_is_detected_at_once(self, growth: "FakeMemory") -> None:
        assert growth.over(600, 6000, ran_out=True) == [True]
        assert growth.over(600, 700, ran_out=True) == [False]


class FakeMemory:
    """Process with given MB of memory before its first trial and after each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def over(self, first: int, *after: int, ran_out: bool = False) -> list[bool]:
        self._patch.setattr(machine, "resident", lambda: first * 2**20)
        growth, found = machine.MemoryGrowth(), []
        for megabytes in after:
            self._patch.setattr(machine, "resident", lambda megabytes=megabytes: megabytes * 2**20)
            found.append(growth.after(ran_out=ran_out))
        return found
