"""Numbers in words."""

_MINUTE, _HOUR = 60, 3600


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"
