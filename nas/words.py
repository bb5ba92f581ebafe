"""Numbers in words."""

_MINUTE, _HOUR = 60, 3600
_TENTH = 0.1


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"


def digits_of(points: float) -> int:
    """Return how many decimals a difference in points is shown with: one, below a tenth two."""
    return 1 if abs(points) >= _TENTH else 2


def decimal(value: float, digits: int) -> str:
    """Return a number with so many decimals, and without the sign of a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def with_unit(number: int, noun: str) -> str:
    """Return a number with its noun: `1 epoch`, `2 epochs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def more_seeds_than_asked(asked: int | None, planned: int) -> list[str]:
    """Return a line if an earlier call has enqueued more seeds than this one asks for; none of them is dropped."""
    if asked is None or asked >= planned:
        return []
    return [f"seeds     {planned}, not {asked}: an earlier call has asked for {planned}, and seeds are only added"]


def trained_in_words(seeds: int, planned: int, epochs: int) -> str:
    """Return with what compared models were trained: `3 of 5 fresh seeds, 20 epochs, 95 % intervals`."""
    number = str(seeds) if seeds == planned else f"{seeds} of {planned}"
    return f"{number} fresh seeds, {with_unit(epochs, 'epoch')}, 95 % intervals"
