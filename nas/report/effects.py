"""Effects of the operators of a study: accuracy from its finished trials, cost from the cost table.

`nas.algorithms.operator_effects` fits them; here records become its design matrix.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from nas.algorithms import operator_effects
from nas.algorithms.arrays import FloatArray
from nas.algorithms.imputation import can_be_imputed
from nas.records.record import MEMBER, Record
from nas.records.trial_attributes import RUNG
from nas.samplers.encoding import CostFunction
from nas.words import with_unit
from search_spaces import STOCK, Architecture, SearchSpace, Slot, Space
from search_spaces.scaling import MACRO
from search_spaces.slot import ScalingFactor
from trials import Ending

RungAccuracies = Mapping[int, Mapping[int, float]]
"""Accuracies at rungs, by trial and epoch."""
LEAST_ARCHITECTURES = 5
"""Fewest finished architectures for which effects are estimated."""
_LEAST_DEGREES = 4
"""Fewest degrees of freedom for which effects are estimated."""
_POINTS = 100.0
"""Points of mAP in an accuracy of 1."""


class Significance(StrEnum):
    """On which side of 0 the 95 % interval of an effect lies, if it does not contain 0."""

    BETTER = "better"
    UNCLEAR = "not told apart from noise"
    WORSE = "worse"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Effect of an operator in a slot, or of a value of a scaling factor, compared with the stock model.

    Attributes:
        slot: name of the slot, such as `4` or `after-9`, or of the scaling factor.
        layers: all layers of the slot, or the one that an insertion follows; empty for a scaling factor.
        operator: its name, or the value of the scaling factor.
        effect_points: posterior mean of the effect on mAP50-95, in points.
        lower_points: lower end of the 95 % interval.
        upper_points: upper end.
        verdict: on which side of 0 that interval lies.
        trials: number of trials that had it.
        gflops_percent_least: change of the stock model's GFLOPs in per cent if this slot alone is replaced, by the
            cheapest of the choices that these trials had.
        gflops_percent_most: the same by the costliest.
        latency_percent_least: change of the stock model's predicted latency; None without a latency table.
        latency_percent_most: the same by the slowest.
        aliases: effects of exactly the same trials, such as `UIB 6`; only the sum of aliased effects is estimated.
        member: name of the member that has the slot, among several, with whose stock model it is compared.
    """

    slot: str
    layers: tuple[int, ...]
    operator: str
    effect_points: float
    lower_points: float
    upper_points: float
    verdict: Significance
    trials: int
    gflops_percent_least: float | None
    gflops_percent_most: float | None
    latency_percent_least: float | None
    latency_percent_most: float | None
    aliases: tuple[str, ...] = ()
    member: str = ""

    def as_row(self) -> dict[str, Any]:
        """Return the values of `COLUMNS`, in their order; behind them the member, among several."""
        row = {name: getattr(self, name) for name in (*COLUMNS, *([MEMBER] if self.member else []))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}


COLUMNS = tuple(one.name for one in fields(Effect) if one.name != MEMBER)
"""Columns that `nas effects --format json` and `--format csv` print."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Effects of all operators that a finished trial of a study had.

    Attributes:
        rows: better ones first, then unclear ones, then worse ones, each by the posterior mean; empty if the study has
            too few trials.
        trials: number of finished trials.
        architectures: number of their architectures.
        seeds: number of their seeds.
        stopped: number of trials that have no final score because they were stopped early.
        imputed: number of those whose final score is imputed from that at their last rung; the others do not count.
        residual_points: standard deviation of what the effects do not explain, in points; None without rows.
        by_member: the same of each member alone, by its name; empty where there is only one. The numbers above are
            then sums, but that of the seeds, and there is no residual of all.
    """

    rows: tuple[Effect, ...]
    trials: int
    architectures: int
    seeds: int
    stopped: int
    imputed: int = 0
    residual_points: float | None
    by_member: Mapping[str, "Effects"] = field(default_factory=dict)

    @property
    def is_too_few(self) -> bool:
        """Whether the finished trials are too few for an estimate, among several members for one of any."""
        if self.by_member:
            return all(one.is_too_few for one in self.by_member.values())
        return self.architectures < LEAST_ARCHITECTURES or self.trials - self.seeds < _LEAST_DEGREES

    def remarks(self) -> list[str]:
        """Return what the effects rest on and assume, one sentence a line; of each member by itself."""
        if self.by_member:
            return [f"{name}: {line}" for name, one in self.by_member.items() for line in one.remarks()]
        basis = f"{with_unit(self.trials, 'finished trial')} of {with_unit(self.architectures, 'architecture')}"
        if self.is_too_few:
            least = f"at least {LEAST_ARCHITECTURES} architectures, and {_LEAST_DEGREES} trials more than seeds"
            return [f"Too few trials to estimate effects from: {basis} ({least} are needed)."]
        clear = sum(row.verdict is not Significance.UNCLEAR for row in self.rows)
        assumed = "effects of slots add up (else these are their means over what was tried)"
        lines = [
            f"From {basis}: {clear} of {len(self.rows)} effects are told apart from noise.",
            f"Assumed: {assumed}; an operator's parameters do not matter.",
            f"The residual, of interactions and noise, has a standard deviation of {self.residual_points:.1f} points.",
        ]
        aliased = sum(bool(row.aliases) for row in self.rows)
        if aliased:
            lines.append(
                f"{aliased} effects had exactly the trials of another: of such effects only the sum is estimated."
            )
        if self.imputed:
            lines.append(
                f"{with_unit(self.imputed, 'trial')} stopped early: final scores are imputed from those at their "
                "last rung, and the intervals contain what is uncertain about them."
            )
        if left := self.stopped - self.imputed:
            lines.append(
                f"{with_unit(left, 'trial')} stopped early, without a final score: the effects are those among "
                "the better trials, too near to 0, and intervals contain the true ones less often."
            )
        return lines


@dataclass(frozen=True)
class _Term:
    """Column of the design matrix: an operator in a slot, or a value of a scaling factor.

    Attributes:
        group: 0 for operators, 1 for scaling factors; each group has a scale of effects.
    """

    slot: str
    operator: str
    layers: tuple[int, ...] = ()
    group: int = 0

    def __str__(self) -> str:
        return f"{self.operator} {self.slot}" if self.layers else f"{self.slot} {self.operator}"


def rung_accuracies(attributes: Mapping[int, Mapping[str, Any]]) -> RungAccuracies:
    """Return the best accuracy of each trial up to each rung that it reached, by trial and epoch.

    Args:
        attributes: user attributes of Optuna's trials, by trial.
    """
    reached = {
        trial: {name: values for name, values in each.items() if name.startswith(RUNG)}
        for trial, each in attributes.items()
    }
    return {
        number: {int(name.removeprefix(RUNG)): float(values[0]) for name, values in rungs.items()}
        for number, rungs in reached.items()
        if rungs
    }


def estimate(
    records: Sequence[Record], space: Space, figures: CostFunction, rungs: RungAccuracies = MappingProxyType({})
) -> Effects:
    """Return the effect of each operator in each slot on accuracy and cost; of several members each by itself.

    What an operator does in a slot is compared with the stock model of its member, so each member is estimated from its
    own trials alone.

    Args:
        records: all trials of a study.
        space: of the study.
        figures: returns the costs of an architecture: `gflops`, and `latency_ms` if it is predicted.
        rungs: accuracies at the rungs, by trial and epoch.
    """
    if isinstance(space, SearchSpace):
        return _of_one(records, space, figures, rungs)
    found = {
        member.short_name: _of_one([one for one in records if one.member == member.short_name], member, figures, rungs)
        for member in space.members
    }
    return Effects(
        rows=tuple(replace(row, member=name) for name, one in found.items() for row in one.rows),
        trials=sum(one.trials for one in found.values()),
        architectures=sum(one.architectures for one in found.values()),
        seeds=max(one.seeds for one in found.values()),
        stopped=sum(one.stopped for one in found.values()),
        imputed=sum(one.imputed for one in found.values()),
        residual_points=None,
        by_member=found,
    )


def _of_one(records: Sequence[Record], space: SearchSpace, figures: CostFunction, rungs: RungAccuracies) -> Effects:
    """Return the effects in one space.

    Accuracy is estimated from all finished trials, repeats with other seeds included, by an additive Bayesian model
    (`nas.algorithms.operator_effects`). Final accuracies of trials that were stopped at a rung are imputed.
    """
    finished = [record for record in records if record.finished and record.map50_95 is not None]
    stopped = [record for record in records if record.ending == Ending.STOPPED]
    counted = Effects(
        rows=(),
        trials=len(finished),
        architectures=len({record.fingerprint for record in finished}),
        seeds=len({record.repeat for record in finished}),
        stopped=len(stopped),
        residual_points=None,
    )
    if counted.is_too_few:
        return counted
    imputed = _imputable(finished, stopped, rungs)
    used = [*finished, *imputed]
    differing = [_differing(space, record.picks) for record in used]
    trials = {term: tuple(i for i, one in enumerate(differing) if term in one) for term in _terms(space)}
    terms = [term for term in trials if trials[term]]
    fitted = _fit(used, differing, terms, rungs if imputed else {})
    intervals = _POINTS * np.array([fitted.means, fitted.lower, fitted.upper]).T
    stock = figures(space.stock)
    costs = {architecture: figures(architecture) for one in differing for architecture in one.values()}
    rows = [
        replace(
            _effect(term, interval, [costs[differing[trial][term]] for trial in trials[term]], stock),
            aliases=tuple(str(other) for other in terms if trials[other] == trials[term] and other != term),
        )
        for term, interval in zip(terms, intervals.tolist(), strict=True)
    ]
    order = list(Significance)
    rows.sort(key=lambda row: (order.index(row.verdict), -row.effect_points))
    return replace(counted, rows=tuple(rows), imputed=len(imputed), residual_points=_POINTS * fitted.residual)


def _imputable(finished: Sequence[Record], stopped: Sequence[Record], rungs: RungAccuracies) -> list[Record]:
    """Return the stopped trials whose final accuracy can be imputed."""
    both = [*finished, *stopped]
    can = can_be_imputed(_final(both), _at_rungs(both, rungs))
    return [record for record, is_imputed in zip(both, can.tolist(), strict=True) if is_imputed]


def _final(records: Sequence[Record]) -> FloatArray:
    """Return the final accuracies; NaN for a trial that was stopped."""
    return np.array([record.map50_95 if record.finished else np.nan for record in records], dtype=np.float64)


def _at_rungs(records: Sequence[Record], rungs: RungAccuracies) -> FloatArray:
    """Return the accuracies at the rungs, `(trials, rungs)`; NaN where a trial did not get there."""
    epochs = sorted({epoch for reached in rungs.values() for epoch in reached})
    rows = [[rungs.get(record.trial, {}).get(epoch, np.nan) for epoch in epochs] for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(records), len(epochs))


def _effect(
    term: _Term, interval: Sequence[float], changed: Sequence[Mapping[str, float]], stock: Mapping[str, float]
) -> Effect:
    """Return the effect of a term, without its aliases.

    Args:
        term: an operator in a slot, or a value of a scaling factor.
        interval: posterior mean of the effect on accuracy, lower and upper end of its interval, in points.
        changed: costs of the stock model with the choice of each trial that had the term.
        stock: costs of the stock model.
    """
    mean, lower, upper = interval
    gflops, latency = (_range_of_change(name, changed, stock) for name in ("gflops", "latency_ms"))
    return Effect(
        slot=term.slot,
        layers=term.layers,
        operator=term.operator,
        effect_points=mean,
        lower_points=lower,
        upper_points=upper,
        verdict=Significance.BETTER if lower > 0 else Significance.WORSE if upper < 0 else Significance.UNCLEAR,
        trials=len(changed),
        gflops_percent_least=gflops[0],
        gflops_percent_most=gflops[1],
        latency_percent_least=latency[0],
        latency_percent_most=latency[1],
    )


def _terms(space: SearchSpace) -> list[_Term]:
    """Return all terms of a space, in its order."""
    return [
        *(_term(slot, operator) for slot in space.slots for operator in slot.operators if operator != STOCK.operator),
        *(_value(factor, value) for factor in space.scaling_factors for value in factor.values),
    ]


def _term(slot: Slot, operator: str) -> _Term:
    return _Term(slot.name, operator, slot.layers)


def _value(factor: ScalingFactor, value: float) -> _Term:
    return _Term(factor.name, f"{value:g}", group=1)


def _differing(space: SearchSpace, picks: Mapping[str, Any]) -> dict[_Term, Architecture]:
    """Return where an architecture differs from the stock model, and the stock model with that difference alone."""
    alone: dict[_Term, Architecture] = {}
    for slot in space.slots:
        for operator, parameters in picks.get(slot.name, {}).items():  # tied layers have the same pick
            choice = slot.nearest(operator, parameters)
            alone[_term(slot, operator)] = space.with_choice(space.stock, slot, choice)
    for factor in space.scaling_factors:
        value = picks.get(MACRO, {}).get(factor.name, factor.stock)
        if value != factor.stock:
            alone[_value(factor, value)] = space.with_factor(space.stock, factor, value)
    return alone


def _fit(
    used: Sequence[Record], differing: Sequence[Collection[_Term]], terms: Sequence[_Term], rungs: RungAccuracies
) -> operator_effects.Effects:
    architectures = {fingerprint: index for index, fingerprint in enumerate(record.fingerprint for record in used)}
    return operator_effects.fit(
        np.array([[float(term in one) for term in terms] for one in differing]).reshape(len(used), len(terms)),
        _final(used),
        groups=np.array([term.group for term in terms], dtype=np.intp),
        architectures=np.array([architectures[record.fingerprint] for record in used], dtype=np.intp),
        seeds=np.array([record.repeat for record in used], dtype=np.intp),
        rungs=_at_rungs(used, rungs) if rungs else None,
    )


def _range_of_change(
    name: str, changed: Sequence[Mapping[str, float]], stock: Mapping[str, float]
) -> tuple[float, float] | tuple[None, None]:
    """Return the least and the most that a cost differs from the stock model's, in per cent; None without that cost."""
    if name not in stock:
        return None, None
    percents = [100.0 * (one[name] / stock[name] - 1.0) for one in changed]
    return min(percents), max(percents)
