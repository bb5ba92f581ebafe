"""Judge an ablation: compare a trial with itself without each of its slots, over the seeds that all have."""

from collections.abc import Sequence
from statistics import fmean

from nas.algorithms.paired_comparison import Comparison, compare, detectable, level_of_look, paired_deviation
from nas.defaults import MARGIN
from nas.records.paired import PairedTrainings, failure
from nas.records.record import LEARNED, Record, has_learned
from nas.report.ablation import Ablation, LeftOutSlot, SlotWorth
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
    trial, left_out = ablated.architecture.fingerprint, _left_out(ablated, fresh)
    judged = [part for part, _ in ablated.parts if part.name not in left_out]
    compared = [*judged, *([] if failure(fresh, ablated.stock.fingerprint) else [ablated.whole])]
    names = dict.fromkeys((trial, *(part.without.fingerprint for part in compared)))
    paired = PairedTrainings.of(fresh, names)
    scores = [paired.trainings[trial][repeat].map50_95 or 0.0 for repeat in paired.repeats]
    accuracy = fmean(scores) if scores else None
    reason = failure(fresh, trial) or _reason(len(judged), paired, accuracy)
    level = None if paired.unfinished else level_of_look(look)
    results, least = ({}, None) if reason else _compared(paired, margin, level)
    rows = {
        part.name: _worth(part, ablated, results[part.without.fingerprint], figures, margin)
        for part in compared
        if results
    }
    return Ablation(
        study=ablated.study,
        trial=ablated.trial,
        summary=ablated.architecture.summary(),
        seeds=tuple(budget.seed + repeat for repeat in paired.repeats),
        planned=paired.planned,
        unfinished=paired.unfinished,
        epochs=budget.epochs,
        margin=margin,
        map50_95=accuracy,
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


def _compared(paired: PairedTrainings, margin: float, level: float | None) -> tuple[dict[str, Comparison], float]:
    """Compare the first of several models with the others.

    Args:
        paired: their trainings.
        margin: points within which a difference does not matter.
        level: of the tests; None while trainings run.

    Returns:
        The first one less each of the others, in points, by the other's fingerprint; and the difference that is found
        in 80 % of such comparisons.
    """
    # The difference of negative accuracies to the first one is the first one less the other.
    values = -paired.accuracies
    _, *others = paired.names
    results = dict(zip(others, compare(values, margin=margin, level=level), strict=True))
    return results, detectable(paired_deviation(values), len(paired.repeats), candidates=len(others))


def _left_out(ablated: Ablated, fresh: Sequence[Record]) -> dict[str, str]:
    """Return why slots are not judged, by name: they cannot be trained, or a training ended without a score."""
    reasons = {part.name: reason or failure(fresh, part.without.fingerprint) for part, reason in ablated.parts}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(judged: int, paired: PairedTrainings, accuracy: float | None) -> str:
    """Return why no slot can be judged; empty if all can."""
    if not judged:
        return "no slot is left"
    if paired.shortage:
        return paired.shortage
    return "" if has_learned(accuracy) else f"the trial has learned nothing (mAP50-95 below {LEARNED})"


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
