"""Progress of reading a data set."""

import time
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how many of how many files are done."""

_SILENT_SECONDS = 2.0
_SECONDS_BETWEEN = 0.1


def delayed(progress: Progress | None) -> Progress:
    """Return a progress that is silent for two seconds, then reports ten times a second at most."""
    reported = time.monotonic() + _SILENT_SECONDS - _SECONDS_BETWEEN

    def report(done: int, total: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if progress is not None and now > reported + _SECONDS_BETWEEN:
            reported = now
            progress(done, total)

    return report
