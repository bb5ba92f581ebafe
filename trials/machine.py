"""Cores and memory of this machine that a process may use, within its control group, and that it does use.

Read from Linux' /proc and /sys; on other systems cores are counted, and memory is neither read nor limited.
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
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_HEADROOM = 0.9
_IDLE_WORKER = 700 * 2**20
"""Bytes of a worker before its first trial: 590 MB were measured with PyTorch 2.14, of which some is shared."""
_LEAST = 2**30
_PR_SET_PDEATHSIG = 1
"""`linux/prctl.h`."""
_GROWTH, _GROWTH_BYTES = 1.5, 512 * 2**20


def cores() -> int:
    """Return the number of cores that this process may keep busy: its affinity, and the CPU quota of its container.

    The quota is that of the control group and of those around it (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`), rounded
    down.
    """
    allowed = len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count() or 1
    quotas = [share for group in _groups("cpu") if (share := _cpu_quota(group)) is not None]
    return max(1, int(min([allowed, *quotas])))


def free_memory() -> int | None:
    """Return the bytes that can be allocated here without swapping or being killed; None if they cannot be read."""
    available_kb = _table(Path("/proc/meminfo")).get("MemAvailable")
    if available_kb is None:
        return None
    in_groups = [free for group in _groups("memory") if (free := _free_in(group)) is not None]
    return max(0, min([available_kb * 1024, *in_groups]))


def memory_share(workers: int) -> int | None:
    """Return the bytes that each of so many workers may allocate for its trials; None if memory cannot be read.

    At least 1 GiB, which a trial needs: where there is less, the kernel decides which process it kills.
    """
    free = free_memory()
    return None if free is None else max(_LEAST, int((free - workers * _IDLE_WORKER) * _HEADROOM / workers))


def oom_kills() -> int:
    """Return how many processes the kernel has killed because memory ran out; 0 if it cannot be read."""
    kills = _table(Path("/proc/vmstat")).get("oom_kill", 0)
    for group in _groups("memory"):
        kills += sum(_table(group / name).get("oom_kill", 0) for name in ("memory.events", "memory.oom_control"))
    return kills


def resident() -> int:
    """Return the bytes of memory that this process occupies (resident set); 0 if they cannot be read."""
    return _table(Path("/proc/self/status")).get("VmRSS", 0) * 1024


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process in seconds; 0 if it cannot be read."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def end_with(parent: int) -> None:
    """Kill this process as soon as its parent has ended.

    On Linux the kernel does (`prctl`, PR_SET_PDEATHSIG); on other systems a thread checks once a second.

    Args:
        parent: the process that started this one; it may have ended already.
    """
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            return
    threading.Thread(target=_kill_after, args=(parent,), daemon=True, name="parent watch").start()


def _kill_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


class MemoryLimit:
    """Limit on the memory of this process while a trial runs: its present amount and some bytes more.

    Beyond it an allocation fails, in Python, NumPy and PyTorch alike, and the process goes on. Private writable memory
    counts (RLIMIT_DATA); of address space (RLIMIT_AS) CUDA alone reserves more than any machine has.

    Args:
        more: bytes; None for no limit.
    """

    def __init__(self, more: int | None) -> None:
        now = _table(Path("/proc/self/status")).get("VmData")
        self._bytes = None if more is None or now is None else now * 1024 + more

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the limit within a `with` block."""
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


class MemoryGrowth:
    """Growth of this process's memory from trial to trial."""

    def __init__(self) -> None:
        self._trials = 0
        self._usual = resident()

    def after(self, *, ran_out: bool) -> bool:
        """Return whether the process holds 1.5 times its usual memory after a trial, and at least 512 MB more.

        Usual is its memory after the second trial, when images are decoded and libraries warm.

        Args:
            ran_out: whether the trial ran out of memory; then its remains do not count as usual.
        """
        self._trials += 1
        now = resident()
        if self._trials <= 2 and not ran_out:
            self._usual = now
        return now > max(_GROWTH * self._usual, self._usual + _GROWTH_BYTES)


def _table(path: Path) -> dict[str, int]:
    """Read a file of a name and a whole number per line; empty if it cannot be read."""
    values = {}
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, *rest = line.replace(":", " ").split()
            if rest and rest[0].isdecimal():
                values[name] = int(rest[0])
    return values


def _number(path: Path) -> int | None:
    """Read a file of one whole number; None if it is missing, or says `max`."""
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    return None


def _groups(controller: str) -> list[Path]:
    """Return the folders of this process's control group and of those around it, of cgroup v2 and v1."""
    folders: list[Path] = []
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = _GROUPS / controllers if controllers else _GROUPS
            inside = root / path.lstrip("/")
            folders += [folder for folder in (inside, *inside.parents) if folder.is_relative_to(root)]
    return [folder for folder in folders if folder.is_dir()]


def _cpu_quota(group: Path) -> float | None:
    """Return the cores that a control group may use, such as 1.5; None without a quota."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _free_in(group: Path) -> int | None:
    """Return the bytes that a control group may still allocate, cached files included; None without a limit."""
    for limit_file, used_file, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(group / limit_file), _number(group / used_file)
        if limit is not None and used is not None:
            return limit - used + _table(group / "memory.stat").get(cached, 0)
    return None
