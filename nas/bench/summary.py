"""Summary of replays: medians over repeats, speedup over random search, and a figure of the curves.

A replay that ended before a share was reached needs more trials than it had (right-censored). It counts as infinite in
medians and quantiles, and is never left out.
"""

from collections.abc import Sequence
from itertools import cycle
from math import inf, isfinite

import numpy as np
from plotly import graph_objects

from nas import html_page
from nas.algorithms.arrays import FloatArray
from nas.bench.optimizers import RANDOM
from nas.bench.replay import Replay
from search_spaces.printable import html

TARGETS = (90, 95, 98)
"""Shares of the table's hypervolume, in percent."""
_SHARES_AFTER = (20, 40, 60)
_BOOTSTRAP_SAMPLES = 2000
_COLOURS = ("107,114,128", "37,99,235", "234,88,12", "22,163,74", "147,51,234", "8,145,178", "219,39,119", "202,138,4")

Row = dict[str, str | int | float | None]


def summarize(replays: Sequence[Replay], trials: int) -> list[Row]:
    """Return a row for each sampler; None stands for a number of trials above `trials`. The names never change.

    `share_20` is the median share after 20 trials; `trials_95` the median number of trials to 95 %, with the quartiles
    `_low` and `_high`; `fewer_95` the speedup over random search, with a bootstrap interval of 95 %. The speedup is
    None without random search among the samplers, and where a median is not finite.
    """
    grouped = by_sampler(replays)
    random = grouped.get(RANDOM)
    rows: list[Row] = []
    for sampler, group in grouped.items():
        row: Row = {"sampler": sampler, "repeats": len(group)}
        row |= {
            f"share_{count}": median([one.share_after(count) for one in group]) for count in reported_trials(trials)
        }
        for target in TARGETS:
            needed = trials_to(group, target)
            row |= _with_interval(f"trials_{target}", quartiles(needed))
            fewer = None if random is None else speedup(needed, trials_to(random, target))
            row |= _with_interval(f"fewer_{target}", fewer)
        row["reported"] = median([one.reported for one in group])
        row["inflation"] = median([one.inflation for one in group])
        expected = [one.expected for one in group if one.expected is not None]
        row["expected"] = median(expected) if expected else None
        rows.append(row)
    return rows


def by_sampler(replays: Sequence[Replay]) -> dict[str, list[Replay]]:
    """Group replays by sampler, ordered by repeat."""
    samplers = dict.fromkeys(replay.sampler for replay in replays)
    ordered = sorted(replays, key=lambda replay: replay.repeat)
    return {sampler: [replay for replay in ordered if replay.sampler == sampler] for sampler in samplers}


def reported_trials(trials: int) -> tuple[int, ...]:
    """Return the numbers of trials after which shares are reported."""
    return (*(count for count in _SHARES_AFTER if count < trials), trials)


def trials_to(replays: Sequence[Replay], target: int) -> FloatArray:
    """Return the number of trials of each replay to this percentage; infinite where it ended before, `(replays,)`."""
    return np.array([replay.trials_to(target / 100) for replay in replays])


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))


def quartiles(values: FloatArray) -> tuple[float, float, float]:
    """Return the median, the lower and the upper quartile; any may be infinite. Quartiles are not interpolated."""
    low, high = np.quantile(values, (0.25, 0.75), method="inverted_cdf")
    return float(np.median(values)), float(low), float(high)


def speedup(needed: FloatArray, by_random: FloatArray) -> tuple[float, float, float] | None:
    """Return the ratio of median trials, of random search to the sampler, with a bootstrap interval of 95 %.

    Repeats are resampled in pairs, because both samplers search the same problem in a repeat. An end of the interval is
    0 where the median of the sampler is infinite.

    Args:
        needed: trials of the sampler, `(repeats,)`.
        by_random: trials of random search, `(repeats,)`.

    Returns:
        Ratio, lower and upper end; None if the ratio is not above 0 and finite.
    """
    ratio = np.median(by_random) / np.median(needed)
    if not 0 < ratio < inf:
        return None
    drawn = np.random.default_rng(0).integers(len(needed), size=(_BOOTSTRAP_SAMPLES, len(needed)))
    ratios = np.median(by_random[drawn], axis=1) / np.median(needed[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975), method="inverted_cdf")
    return float(ratio), float(low), float(high)


def figure(title: str, replays: Sequence[Replay], trials: int) -> str:
    """Return an HTML page that needs no network: median share after each trial, with a band between the quartiles."""
    traces = []
    for (sampler, group), colour in zip(by_sampler(replays).items(), cycle(_COLOURS), strict=False):
        steps = range(1, max(min(len(one.shares), trials) for one in group) + 1)
        shares = 100 * np.array([[one.share_after(step) for step in steps] for one in group])
        low, middle, high = np.quantile(shares, (0.25, 0.5, 0.75), axis=0).round(3).tolist()
        traces += [
            graph_objects.Scatter(
                x=[*steps, *reversed(steps)],
                y=[*high, *reversed(low)],
                fill="toself",
                fillcolor=f"rgba({colour},0.15)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=sampler,
            ),
            graph_objects.Scatter(
                x=[*steps], y=middle, mode="lines", name=sampler, line={"color": f"rgb({colour})"}, legendgroup=sampler
            ),
        ]
    drawing = graph_objects.Figure(traces)
    drawing.update_layout(
        title={"text": html(title)}, template="plotly_white", margin={"l": 70, "r": 30, "t": 80, "b": 60}, hovermode="x"
    )
    drawing.update_xaxes(title_text="trials")
    drawing.update_yaxes(title_text="share of the hypervolume, %")
    return html_page.page(drawing, title, name="shares")


def _with_interval(name: str, found: tuple[float, float, float] | None) -> Row:
    """Return a value and the ends of its interval under their names; None where it is not finite."""
    ends = zip((name, f"{name}_low", f"{name}_high"), found or (inf,) * 3, strict=True)
    return {key: value if isfinite(value) else None for key, value in ends}
