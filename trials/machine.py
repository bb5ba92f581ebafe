"""What of this machine a process may use, within its control group: cores and memory, and what it does use.

Read from Linux' /proc and /sys; elsewhere cores are counted, and memory is neither known nor limited.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LINUX = sys.platform == "linux"
_GROUPS = Path("/sys/fs/cgroup")
_HEADROOM = 0.9
_IDLE_WORKER = 700 * 2**20
"""What a worker holds before its first trial: 590 MB were measured with PyTorch 2.14, of which some is shared."""
_LEAST = 2**30
_PR_SET_PDEATHSIG = 1
"""`linux/prctl.h`."""
_GROWTH, _GROWTH_BYTES = 1.5, 512 * 2**20


def cores() -> int:
    """How many cores this process may keep busy."""
    allowed = len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count() or 1
    quotas = [share for group in _groups("cpu") if (share := _cpu_quota(group)) is not None]
    return max(1, int(min([allowed, *quotas])))


def free_memory() -> int | None:
    """Bytes that can be allocated here without swapping or being killed; None if nobody says."""
    told = _table(Path("/proc/meminfo")).get("MemAvailable")
    if told is None:
        return None
    rooms = [room for group in _groups("memory") if (room := _room(group)) is not None]
    return max(0, min([told * 1024, *rooms]))


def memory_share(workers: int) -> int | None:
    """Bytes that each of so many workers may allocate for its trials, so that all of them have enough.

    At least 1 GiB, which a trial needs: where there is less, the kernel decides.
    """
    free = free_memory()
    return None if free is None else max(_LEAST, int((free - workers * _IDLE_WORKER) * _HEADROOM / workers))


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory, as far as it can be read."""
    kills = _table(Path("/proc/vmstat")).get("oom_kill", 0)
    for group in _groups("memory"):
        kills += sum(_table(group / name).get("oom_kill", 0) for name in ("memory.events", "memory.oom_control"))
    return kills


def resident() -> int:
    """Bytes of memory that this process occupies; 0 if nobody says."""
    return _table(Path("/proc/self/status")).get("VmRSS", 0) * 1024


def cpu_seconds(process: int) -> float:
    """What a process has computed so far; 0 if nobody says."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def end_with(parent: int) -> None:
    """Let this process die when its parent does, in the midst of whatever it computes then.

    On Linux the kernel kills it (`prctl`, PR_SET_PDEATHSIG); elsewhere a thread looks once a second.

    Args:
        parent: the process that started this one, which may be gone by now.
    """
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            return
    threading.Thread(target=_die_after, args=(parent,), daemon=True, name="parent watch").start()


def _die_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


class Ceiling:
    """How much memory this process may have while a trial runs: what it has now, and so much more.

    Beyond it an allocation fails, in Python, NumPy and PyTorch alike, and the process goes on. What counts is private
    and writable (RLIMIT_DATA); of address space (RLIMIT_AS) CUDA alone reserves more than any machine has.

    Args:
        more: bytes; None is without end.
    """

    def __init__(self, more: int | None) -> None:
        now = _table(Path("/proc/self/status")).get("VmData")
        self._bytes = None if more is None or now is None else now * 1024 + more

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold this process to it for a while."""
        if self._bytes is None:
            yield
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bounds = [self._bytes, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class Growth:
    """Whether this process keeps more and more memory, from trial to trial."""

    def __init__(self) -> None:
        self._trials = 0
        self._usual = resident()

    def after(self, *, ran_out: bool) -> bool:
        """Whether it holds half as much again as is usual, and 512 MB.

        Usual is what it held after its second trial, when images are decoded and libraries warm.

        Args:
            ran_out: whether the trial had no memory left; what it left behind is no usual amount.
        """
        self._trials += 1
        now = resident()
        if self._trials <= 2 and not ran_out:
            self._usual = now
        return now > max(_GROWTH * self._usual, self._usual + _GROWTH_BYTES)


def _table(path: Path) -> dict[str, int]:
    """A file of names and whole numbers, line by line; empty if it cannot be read."""
    found = {}
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, *rest = line.replace(":", " ").split()
            if rest and rest[0].isdecimal():
                found[name] = int(rest[0])
    return found


def _number(path: Path) -> int | None:
    """A file with one whole number; None if it is not there, or says `max`."""
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    return None


def _groups(controller: str) -> list[Path]:
    """The folders of this process's control group and of those around it, in version 2 and in version 1."""
    folders: list[Path] = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = _GROUPS / controllers if controllers else _GROUPS
            inside = root / path.lstrip("/")
            folders += [folder for folder in (inside, *inside.parents) if folder.is_relative_to(root)]
    return [folder for folder in folders if folder.is_dir()]


def _cpu_quota(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _room(group: Path) -> int | None:
    """What a control group may still allocate; the files that it has read are given up for that."""
    for limit_file, used_file, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(group / limit_file), _number(group / used_file)
        if limit is not None and used is not None:
            return limit - used + _table(group / "memory.stat").get(cached, 0)
    return None
