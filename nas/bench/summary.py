"""What replays say together: medians over repeats, how many times fewer trials than chance, and their curves.

A player that was stopped before it had a share has taken more trials than it was given. That is known of it, and
counts: such a repeat is never left out of a median.
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

TARGETS = (90, 95, 98)
"""Shares of the table's hypervolume, in percent."""
_LOOKS = (20, 40, 60)
_DRAWS = 2000
_COLOURS = ("107,114,128", "37,99,235", "234,88,12", "22,163,74", "147,51,234", "8,145,178", "219,39,119", "202,138,4")

Row = dict[str, str | int | float | None]


def summarize(replays: Sequence[Replay], trials: int) -> list[Row]:
    """A row for each sampler, with names that stay; None for a number of trials that is more than `trials`.

    `share_20` is the median share after 20 trials, `trials_95` the median number of trials to 95 %, between its
    quartiles `_low` and `_high`; `fewer_95` how many times fewer that is than chance's, between the ends of an interval
    of 95 %. Without chance among the samplers there is no such figure, nor where the median is not known.
    """
    grouped = by_sampler(replays)
    chance = grouped.get(RANDOM)
    rows: list[Row] = []
    for sampler, own in grouped.items():
        row: Row = {"sampler": sampler, "repeats": len(own)}
        row |= {f"share_{look}": median([one.share_after(look) for one in own]) for look in reported_trials(trials)}
        for target in TARGETS:
            taken = trials_to(own, target)
            row |= _named(f"trials_{target}", quartiles(taken))
            fewer = None if chance is None else speedup(taken, trials_to(chance, target))
            row |= _named(f"fewer_{target}", fewer)
        row["reported"] = median([one.reported for one in own])
        row["inflation"] = median([one.inflation for one in own])
        expected = [one.expected for one in own if one.expected is not None]
        row["expected"] = median(expected) if expected else None
        rows.append(row)
    return rows


def by_sampler(replays: Sequence[Replay]) -> dict[str, list[Replay]]:
    """Each sampler's, by repeat."""
    samplers = dict.fromkeys(replay.sampler for replay in replays)
    ordered = sorted(replays, key=lambda replay: replay.repeat)
    return {sampler: [replay for replay in ordered if replay.sampler == sampler] for sampler in samplers}


def reported_trials(trials: int) -> tuple[int, ...]:
    """After how many trials shares are told."""
    return (*(look for look in _LOOKS if look < trials), trials)


def trials_to(replays: Sequence[Replay], target: int) -> FloatArray:
    """How many trials each took to so many percent; infinite where it was stopped before."""
    return np.array([replay.trials_to(target / 100) for replay in replays])


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(np.median(values))


def quartiles(values: FloatArray) -> tuple[float, float, float]:
    """The median between two of the values, below and above which a quarter lies; any of them may be infinite."""
    low, high = np.quantile(values, (0.25, 0.75), method="inverted_cdf")
    return float(np.median(values)), float(low), float(high)


def speedup(taken: FloatArray, chances: FloatArray) -> tuple[float, float, float] | None:
    """The ratio of two medians, chance's to the player's, in an interval of 95 %; None if it is not known.

    Repeats are drawn again and again, the same of both, because both play the same game in a repeat. An end of the
    interval that rests on a median of more trials than were given is 0: the ratio is above that, and no more is known.
    """
    ratio = np.median(chances) / np.median(taken)
    if not 0 < ratio < inf:
        return None
    drawn = np.random.default_rng(0).integers(len(taken), size=(_DRAWS, len(taken)))
    ratios = np.median(chances[drawn], axis=1) / np.median(taken[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975), method="inverted_cdf")
    return float(ratio), float(low), float(high)


def figure(title: str, replays: Sequence[Replay], trials: int) -> str:
    """A page that needs no network: the median share after each trial, in a band between the quartiles."""
    drawn = []
    for (sampler, own), colour in zip(by_sampler(replays).items(), cycle(_COLOURS), strict=False):
        steps = range(1, max(min(len(one.shares), trials) for one in own) + 1)
        shares = 100 * np.array([[one.share_after(step) for step in steps] for one in own])
        low, middle, high = np.quantile(shares, (0.25, 0.5, 0.75), axis=0).round(3).tolist()
        drawn += [
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
    drawing = graph_objects.Figure(drawn)
    drawing.update_layout(
        title={"text": title}, template="plotly_white", margin={"l": 70, "r": 30, "t": 80, "b": 60}, hovermode="x"
    )
    drawing.update_xaxes(title_text="trials")
    drawing.update_yaxes(title_text="share of the hypervolume, %")
    return html_page.page(drawing, title, name="shares")


def _named(name: str, found: tuple[float, float, float] | None) -> Row:
    """A figure and its two ends as they are told."""
    ends = zip((name, f"{name}_low", f"{name}_high"), found or (inf,) * 3, strict=True)
    return {key: value if isfinite(value) else None for key, value in ends}
