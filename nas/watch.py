"""Whether a trial in another process still gets on, judged from outside: some hang where no deadline is looked at."""

from dataclasses import dataclass

GRACE_SECONDS, GRACE_SHARE = 30.0, 0.5
"""Beyond --trial-timeout, the greater of both: costs are measured before the training's clock starts, the last epoch
is validated after its last look at it."""
IDLE_SECONDS = 30 * 60.0
BUSY_SECONDS = 120 * 60.0
"""Without a step: of one who does nothing, and of one who computes. Validating 5000 images on one core takes v9c more
than an hour, and shows no step."""
_BUSY_SHARE = 0.01


@dataclass(kw_only=True)
class Watch:
    """One trial, watched since `began`.

    Args:
        began: by the watcher's clock, in seconds.
        timeout: of the trial; None is without end.
    """

    trial: int
    began: float
    timeout: float | None
    _sign: int | None = None
    _signed: float = 0.0
    _computed: float = 0.0

    def verdict(self, now: float, *, sign: int, computed: float) -> str | None:
        """Why the trial should be ended, in words; None if it lives.

        Args:
            now: by the same clock.
            sign: of life; any other number than last time will do.
            computed: CPU seconds of the process, in all.
        """
        if sign != self._sign:
            self._sign, self._signed, self._computed = sign, now, computed
        if self.timeout is not None:
            allowed = self.timeout + max(GRACE_SECONDS, GRACE_SHARE * self.timeout)
            if now - self.began > allowed:
                return (
                    f"hung: still at it {now - self.began:.0f} s after it began, where {self.timeout:g} s are allowed"
                )
        silent = now - self._signed
        busy = computed - self._computed > _BUSY_SHARE * silent
        if silent > (BUSY_SECONDS if busy else IDLE_SECONDS):
            return f"hung: no step in {silent / 60:.0f} min, {'computing' if busy else 'doing nothing'}"
        return None
