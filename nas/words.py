"""Numbers in words."""

_MINUTE, _HOUR = 60, 3600
_TENTH = 0.1
_TWO_DIGITS = 10
_UNITS = ((24 * _HOUR, "days"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"


def span(seconds: float) -> str:
    """Return a duration that is only estimated, with two digits: `40 s`, `12 min`, `6.5 h`, `3.2 days`."""
    number, unit = _in_unit(seconds, seconds)
    return f"{number} {unit}"


def spans(low: float, high: float) -> str:
    """Return a range of estimated durations: `5 to 8 h`, `50 min to 2 h`."""
    (least, small), (most, large) = _in_unit(low, low), _in_unit(high, high)
    if _in_unit(low, high)[0] != "0":
        least, small = _in_unit(low, high)
    if (least, small) == (most, large):
        return f"{most} {large}"
    return f"{least} to {most} {large}" if small == large else f"{least} {small} to {most} {large}"


def _in_unit(seconds: float, like: float) -> tuple[str, str]:
    """Return a duration with two digits, in the unit that suits another."""
    divisor, unit = next(one for one in _UNITS if like >= one[0] * 2 or one[0] == 1)
    number = max(seconds, 1.0) / divisor
    return (f"{number:.0f}" if number >= _TWO_DIGITS or unit == "s" else f"{number:.1f}".removesuffix(".0")), unit


def digits_of(points: float) -> int:
    """Return how many decimals a difference in points is shown with: one, below a tenth two."""
    return 1 if abs(points) >= _TENTH else 2


def decimal(value: float, digits: int) -> str:
    """Return a number with so many decimals, and without the sign of a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float, digits: int) -> str:
    """Return a difference with so many decimals and its sign; that of a zero is `+`."""
    text = decimal(value, digits)
    return text if text.startswith("-") else f"+{text}"


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
