"""Verdict of a confirmation as a table of its finalists, and remarks below it."""

from collections.abc import Iterator, Sequence

from nas.algorithms.paired_comparison import Finding
from nas.report.trust import FINDINGS
from nas.report.verdict import JudgedFinalist, LeftOut, Verdict
from nas.words import decimal, digits_of, signed, trained_in_words

_COSTS = {"gflops": "GFLOPs", "params": "params", "latency_ms": "latency"}
_VERDICTS = {**FINDINGS, Finding.PENDING: "pending"}


def verdict_table(verdict: Verdict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and rows of the finalists, those that are left out with the reason; empty without finalists."""
    if not verdict.finalists:
        return (), []
    beside = any(one.stock for one in verdict.finalists)
    bar = "it" if beside else "stock"  # one of several stock models is named
    cost = _COSTS[verdict.finalists[0].cost]
    names = ("trial", f"points over {bar}", "95 % interval", f"{cost} of {bar}", "verdict")
    columns = (*names[:1], *(["beside stock of"] if beside else []), *names[1:], "architecture")
    rows = [
        (_trial(one), *([one.stock] if beside else []), *_figures(one), _VERDICTS[one.finding], one.summary)
        for one in verdict.finalists
    ]
    blank = [""] * (len(columns) - 3)
    rows += [(_trial(one), *blank, f"left out: {one.reason}", one.summary) for one in verdict.left_out]
    return columns, rows


def fresh_cells(verdict: Verdict) -> dict[int, tuple[str, str]]:
    """Return the difference with its interval and the verdict of each finalist, by its trial in the search.

    The stock model beside which it is, of several, is named.
    """
    cells = {}
    for one in verdict.finalists:
        if one.trial is not None:
            difference, interval, _ = _figures(one)
            beside = f" beside {one.stock}" if one.stock else ""
            cells[one.trial] = (f"{difference} ({interval}){beside}", _VERDICTS[one.finding])
    return cells


def remarks(verdict: Verdict) -> list[str]:
    """Return what the figures rest on, and which seeds would tell more, one sentence each."""
    if not verdict.finalists:
        return [one.sentence for one in verdict.left_out]
    trained = trained_in_words(len(verdict.seeds), verdict.planned, verdict.epochs)
    intervals = f"{trained}: an interval is of one finalist alone, the verdicts are of all together"
    return [intervals, *_further(verdict), *_own(verdict), *verdict.remarks()]


def _trial(one: JudgedFinalist | LeftOut) -> str:
    number = "" if one.trial is None else str(one.trial)
    return f"{number} {one.member}".strip()


def _figures(one: JudgedFinalist) -> tuple[str, str, str]:
    """Return the difference, its interval, and the share of the stock model's cost."""
    digits = digits_of(one.difference)
    interval = f"{decimal(one.low, digits)} to {decimal(one.high, digits)}"
    share = "" if one.cost_change is None else f"{1 + one.cost_change:.1%}"
    return signed(one.difference, digits), interval, share


def _further(verdict: Verdict) -> Iterator[str]:
    """Yield what further seeds would tell, once for all finalists of which it is the same."""
    named: dict[str, list[str]] = {}
    for one in verdict.finalists:
        if one.further is not None:
            named.setdefault(one.further.sentence, []).append(_trial(one) or one.summary)
    for sentence, trials in named.items():
        yield f"trial{'s' if len(trials) > 1 else ''} {_joined(trials)}: {sentence}"


def _own(verdict: Verdict) -> Iterator[str]:
    """Yield how finalists compare with the stock model of their own member, where that is another one."""
    for one in verdict.finalists:
        if one.own is not None and one.own.member != one.stock and one.finding is not Finding.BETTER:
            yield f"trial {_trial(one) or one.summary}: {one.own.sentence}"


def _joined(names: Sequence[str]) -> str:
    """Return names as a list in a sentence: `6, 5 and 8`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
