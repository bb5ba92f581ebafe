"""Judge an ablation: compare a trial with itself without each of its slots, over the seeds that all have."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from nas.algorithms.paired_comparison import Comparison, compare, detectable, level_of_look, paired_deviation
from nas.defaults import MARGIN
from nas.records.paired import failure, scores_by_repeat
from nas.records.record import LEARNED, Record, has_learned
from nas.report.ablation import Ablation, LeftOutSlot, SlotWorth
from nas.report.verdict import LEAST_SEEDS
from nas.samplers.encoding import CostFunction
from nas.study.ablations import WHOLE, Ablated, Part
from trials import Budget


def judge(
    ablated: Ablated,
    fresh: Sequence[Record],
    figures: CostFunction,
    *,
    budget: Budget,
    margin: float = MARGIN,
    look: int = 1,
) -> Ablation:
    """Judge the slots of a trial.

    Compared are the seeds with which all models have finished. A slot is left out if a training without it ended
    without a score; if one of the trial itself did, nothing is compared.

    Args:
        ablated: the trial.
        fresh: all records of the study that trained its models.
        figures: returns the costs of an architecture: `gflops`, `params`, and `latency_ms` if it is predicted.
        budget: of each training, with the first seed.
        margin: points of mAP50-95 within which a difference does not matter.
        look: how often a result was due, this time included: once, and once more whenever seeds were added to it.
    """
    unfinished = sum(record.state in {"waiting", "running"} for record in fresh)
    test_level = None if unfinished else level_of_look(look)
    trial, left_out = ablated.architecture.fingerprint, _left_out(ablated, fresh)
    judged = [part for part, _ in ablated.parts if part.name not in left_out]
    compared = [*judged, *([] if failure(fresh, ablated.stock.fingerprint) else [ablated.whole])]
    names = list(dict.fromkeys((trial, *(part.without.fingerprint for part in compared))))
    scores = {name: scores_by_repeat(fresh, name) for name in names}
    common = sorted(set.intersection(*(set(each) for each in scores.values())))
    planned = 1 + max((record.repeat for record in fresh), default=-1)
    level = fmean(scores[trial][repeat] for repeat in common) if common else None
    reason = failure(fresh, trial) or _reason(len(judged), len(common), planned, level)
    results, least = ({}, None) if reason else _compared(scores, common, margin, test_level)
    rows = {
        part.name: _worth(part, ablated, results[part.without.fingerprint], figures, margin)
        for part in compared
        if results
    }
    return Ablation(
        study=ablated.study,
        trial=ablated.trial,
        summary=ablated.architecture.summary(),
        seeds=tuple(budget.seed + repeat for repeat in common),
        planned=planned,
        unfinished=unfinished,
        epochs=budget.epochs,
        margin=margin,
        map50_95=level,
        slots=tuple(rows[part.name] for part in judged if rows),
        whole=rows.get(WHOLE),
        left_out=tuple(
            LeftOutSlot(slot=part.name, choice=part.choice, title=part.title, reason=left_out[part.name])
            for part, _ in ablated.parts
            if part.name in left_out
        ),
        detectable=least,
        reason=reason,
    )


def _compared(
    scores: Mapping[str, Mapping[int, float]], repeats: Sequence[int], margin: float, level: float | None
) -> tuple[dict[str, Comparison], float]:
    """Compare the first of several models with the others, over these repeats.

    Args:
        scores: accuracies by fingerprint and repeat.
        repeats: that all models have.
        margin: points within which a difference does not matter.
        level: of the tests; None while trainings run.

    Returns:
        The first one less each of the others, in points, by the other's fingerprint; and the difference that is found
        in 80 % of such comparisons.
    """
    # The difference of negative accuracies to the first one is the first one less the other.
    values = -100 * np.array([[by_repeat[repeat] for repeat in repeats] for by_repeat in scores.values()])
    _, *others = scores
    results = dict(zip(others, compare(values, margin=margin, level=level), strict=True))
    return results, detectable(paired_deviation(values), len(repeats), candidates=len(others))


def _left_out(ablated: Ablated, fresh: Sequence[Record]) -> dict[str, str]:
    """Return why slots are not judged, by name: they cannot be trained, or a training ended without a score."""
    reasons = {part.name: reason or failure(fresh, part.without.fingerprint) for part, reason in ablated.parts}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(judged: int, seeds: int, planned: int, level: float | None) -> str:
    """Return why no slot can be judged; empty if all can."""
    if not judged:
        return "no slot is left"
    if seeds < LEAST_SEEDS:
        return f"all models have finished with {seeds} of {planned} seeds; the least are {LEAST_SEEDS}"
    if not has_learned(level):
        return f"the trial has learned nothing (mAP50-95 below {LEARNED})"
    return ""


def _worth(part: Part, ablated: Ablated, result: Comparison, figures: CostFunction, margin: float) -> SlotWorth:
    """Return what a part is worth by its comparison, and what it costs."""
    without = figures(part.without)
    added = {name: value - without[name] for name, value in figures(ablated.architecture).items()}
    return SlotWorth(
        slot=part.name,
        layers=part.layers,
        choice=part.choice,
        title="the whole trial over the stock model" if part.name == WHOLE else part.title,
        finding=result.finding,
        difference=result.difference,
        low=result.low,
        high=result.high,
        p_better=result.p_better,
        p_worse=result.p_worse,
        p_equivalent=result.p_equivalent,
        margin=margin,
        gflops=added["gflops"],
        params=round(added["params"]),
        latency_ms=added.get("latency_ms"),
        fingerprint=part.without.fingerprint,
    )
