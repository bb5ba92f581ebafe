"""Whether a training in another process gets on, judged from outside: some hang where no deadline is looked at."""

from dataclasses import dataclass

from nas.records.trial_files import TrialFiles

GRACE_SECONDS, GRACE_SHARE = 30.0, 0.5
"""Beyond --trial-timeout, the greater of both: costs are measured before the training's clock starts, the last epoch
is validated after its last look at it."""
IDLE_SECONDS = 30 * 60.0
BUSY_SECONDS = 120 * 60.0
"""Without a step: of one who does nothing, and of one who computes. Validating 5000 images on one core takes v9c more
than an hour, and shows no step."""
_BUSY_SHARE = 0.01


@dataclass(frozen=True)
class Training:
    """A trial's, or the stock model's own.

    Attributes:
        timeout: in seconds; None is without end.
    """

    files: TrialFiles
    timeout: float | None


@dataclass(kw_only=True)
class Watch:
    """One training, watched since `began` by the watcher's clock, in seconds."""

    training: Training
    began: float
    _sign: int | None = None
    _signed: float = 0.0
    _computed: float = 0.0

    def verdict(self, now: float, *, sign: int, computed: float) -> str | None:
        """Why the training should be ended, in words; None if it lives.

        Args:
            now: by the same clock.
            sign: of life; any other number than last time will do.
            computed: CPU seconds of the process, in all.
        """
        if sign != self._sign:
            self._sign, self._signed, self._computed = sign, now, computed
        timeout = self.training.timeout
        if timeout is not None and now - self.began > timeout + max(GRACE_SECONDS, GRACE_SHARE * timeout):
            return f"hung: still at it {now - self.began:.0f} s after it began, where {timeout:g} s are allowed"
        silent = now - self._signed
        busy = computed - self._computed > _BUSY_SHARE * silent
        if silent > (BUSY_SECONDS if busy else IDLE_SECONDS):
            return f"hung: no step in {silent / 60:.0f} min, {'computing' if busy else 'doing nothing'}"
        return None
