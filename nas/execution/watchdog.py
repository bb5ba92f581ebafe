"""Watchdog of a training in another process; some trainings hang where they check no deadline themselves."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from nas.records.trial_files import TrialFiles

GRACE_SECONDS, GRACE_SHARE = 30.0, 0.5
"""Allowed beyond --trial-timeout, the greater of both: costs are measured before the training's clock starts, and the
last epoch is validated after the training has checked it."""
IDLE_SECONDS = 30 * 60.0
BUSY_SECONDS = 120 * 60.0
"""Allowed without a heartbeat, for an idle process and for one that computes. Validating 5000 images on one core takes
v9c more than an hour, without a heartbeat. On a GPU a process that waits for a kernel computes, too: it has the time of
an idle one."""
_BUSY_SHARE = 0.01

_LONGEST_PAUSE = 60.0
"""Seconds between two looks of a supervisor that was awake; it looks about once a second."""


class AwakeClock:
    """Clock that stands still while this process is stopped (SIGSTOP) or its machine sleeps.

    Its workers are then stopped as well, and did not hang. The time of day plays no part: it may jump.

    Args:
        monotonic: in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last, self._now = monotonic(), 0.0

    def read(self) -> float:
        """Return the seconds in which this process was awake; to be called about once a second."""
        last, self._last = self._last, self._monotonic()
        passed = self._last - last
        self._now += passed if passed < _LONGEST_PAUSE else 0.0
        return self._now


@dataclass(frozen=True)
class Training:
    """Training of a trial or of the stock model.

    Attributes:
        timeout: in seconds; None allows any time.
        on_gpu: whether it computes on a GPU.
    """

    files: TrialFiles
    timeout: float | None
    on_gpu: bool = False


@dataclass(kw_only=True)
class Watchdog:
    """Watchdog of one training.

    Attributes:
        began: when it began to watch, in seconds of the caller's clock.
    """

    training: Training
    began: float
    _heartbeat: int | None = None
    _beat_at: float = 0.0
    _cpu_seconds: float = 0.0

    def reason_to_kill(self, now: float, *, heartbeat: int, cpu_seconds: float) -> str | None:
        """Return why the training should be killed; None if it makes progress.

        Args:
            now: in seconds of the same clock as `began`.
            heartbeat: a number that changes with every heartbeat.
            cpu_seconds: CPU time of the process so far.
        """
        if heartbeat != self._heartbeat:
            self._heartbeat, self._beat_at, self._cpu_seconds = heartbeat, now, cpu_seconds
        timeout = self.training.timeout
        if timeout is not None and now - self.began > timeout + max(GRACE_SECONDS, GRACE_SHARE * timeout):
            return f"hung: still running {now - self.began:.0f} s after its start; {timeout:g} s are allowed"
        silent = now - self._beat_at
        busy = cpu_seconds - self._cpu_seconds > _BUSY_SHARE * silent
        if silent > (BUSY_SECONDS if busy and not self.training.on_gpu else IDLE_SECONDS):
            busy_with = "waiting for the GPU" if self.training.on_gpu else "computing"
            return f"hung: no step in {silent / 60:.0f} min, {busy_with if busy else 'doing nothing'}"
        return None
