"""Verdict of a confirmation in values, in words and as JSON; `nas.report.judging` makes it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Self

from nas.algorithms.paired_comparison import LEVEL, Comparison, Finding, level_of_look
from nas.report.further_seeds import FurtherSeeds
from nas.report.in_words import InWords
from nas.words import decimal, digits_of, signed, trained_in_words, with_unit

SIGN_TEST_SEEDS = 5
"""Fewest pairs with which a one-sided sign test can reach 5 %: 1 / 2 ** 5."""
CHOSEN_BY = "the images that the search chose by"
SAMPLE_COUNTS = "a verdict counts the sample of images, too, and needs more"
"""Remark on figures that are of seeds alone."""
_WORDS = {"gflops": ("fewer", "GFLOPs"), "params": ("fewer", "parameters"), "latency_ms": ("less", "latency")}
_LEAST_CHANGE = 0.0005
"""Half of the smallest change of a cost that is shown, a tenth of a per cent."""


@dataclass(frozen=True, kw_only=True)
class OwnStock:
    """A finalist beside the stock model of its own member, in a study of several.

    Attributes:
        member: name of the member.
        finding: better, worse, equivalent or undecided, for all finalists together; pending while trainings run.
            Better only where that stock model costs no more than the finalist.
        difference: in points of mAP50-95.
        low: lower end of the 95 % interval, for this finalist alone.
        high: upper end of it.
    """

    member: str
    finding: Finding
    difference: float
    low: float
    high: float

    @classmethod
    def of(cls, result: Comparison, member: str) -> Self:
        """Return what a comparison says."""
        return cls(
            member=member, finding=result.finding, difference=result.difference, low=result.low, high=result.high
        )

    @property
    def sentence(self) -> str:
        """Words on a finalist that is not better than every stock model that costs no more."""
        numbers = f"{self.difference:+.1f} points, {self.low:.1f} to {self.high:.1f}"
        if self.finding is Finding.BETTER:
            return f"it beats its own stock model only ({self.member}: {numbers})"
        return f"beside its own stock model {self.member}: {numbers}"


@dataclass(frozen=True, kw_only=True)
class CheapestStock:
    """The cheapest of the stock models that are judged: it is taken unless a costlier one is better.

    Attributes:
        trial: its number in the search; None if the search has no such trial.
        map50_95_by_seed: its accuracy with each seed of the verdict, in their order, of 1.
    """

    trial: int | None
    member: str
    fingerprint: str
    map50_95_by_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class JudgedFinalist:
    """A finalist beside the stock model; accuracies are mAP50-95 in points.

    In a study of several members that is, of the stock models that cost no more, the one that it is least clearly
    better than; if all cost more, that of its member. A finalist that is a stock model itself is beside the others.

    Attributes:
        trial: its number in the search; None if the search has no such trial.
        finding: better, worse, equivalent or undecided, for all finalists together; pending while trainings run.
        difference: mean over the fresh seeds of its accuracy less the stock model's.
        low: lower end of the 95 % interval, for this finalist alone.
        high: upper end of it.
        seed_error: standard error of the difference from the noise between seeds.
        image_error: standard error from the sample of images; None where no matches on them are stored.
        p_better: of "not better", after Holm's correction; likewise `p_worse` and `p_equivalent`.
        map50_95_by_seed: its accuracy with each seed of the verdict, in their order, of 1.
        search_difference: the same difference in the search, whose scores selected it; None if it has none there.
        cost: name of the cost that the search weighs against accuracy.
        cost_change: relative to the stock model's, -0.058 for 5.8 % less; None if it is not known.
        further: seeds that would tell more; None if it is told apart.
        stock: member of that stock model; empty where there is one.
        own: the finalist beside the stock model of its own member; None where there is one, or that has failed.
        member: name of the finalist where it is a stock model itself; else empty.
    """

    trial: int | None
    fingerprint: str
    summary: str
    finding: Finding
    difference: float
    low: float
    high: float
    seed_error: float
    image_error: float | None
    p_better: float
    p_worse: float
    p_equivalent: float
    map50_95_by_seed: tuple[float, ...]
    search_difference: float | None
    cost: str
    cost_change: float | None
    margin: float
    further: FurtherSeeds | None
    stock: str = ""
    own: OwnStock | None = None
    member: str = ""

    @property
    def sentence(self) -> str:
        """Finding in one line."""
        name = _named(self.trial, self.summary, self.member)
        if not self.stock:
            return f"{name}: {self._finding}"
        if self.finding is Finding.BETTER:
            return f"{name}: no stock model of these is as accurate at its cost: beside {self.stock} {self._finding}"
        if self.costs_less_than_all:
            return f"{name}: every stock model of these costs more; beside its own, {self.stock}, {self._finding}"
        own = "" if self.own is None or self.own.member == self.stock else f"; {self.own.sentence}"
        return f"{name}: beside {self.stock} {self._finding}{own}"

    @property
    def costs_less_than_all(self) -> bool:
        """Whether it costs less than every one of several stock models, so that it is beside that of its member."""
        return self.own is not None and self.own.member == self.stock and (self.cost_change or 0.0) < 0

    @property
    def bar(self) -> str:
        """Stock models that it has to be better than, in words."""
        if not self.stock:
            return "the stock model"
        if self.costs_less_than_all:
            return f"its own stock model {self.stock} (every one of these costs more)"
        return "the stock models that cost no more"

    def as_document(self) -> dict[str, Any]:
        """Return the values for JSON, with the finding in words; those on several stock models where there are some."""
        by_seed = list(self.map50_95_by_seed)
        values = {**asdict(self), "finding": str(self.finding), "map50_95_by_seed": by_seed, "sentence": self.sentence}
        if self.own is not None:
            values["own"] |= {"finding": str(self.own.finding)}
        return {name: value for name, value in values.items() if value or name not in {"stock", "own", "member"}}

    @property
    def _finding(self) -> str:
        digits = digits_of(self.difference)
        difference, low, high = (decimal(value, digits) for value in (self.difference, self.low, self.high))
        gained = signed(self.difference, digits)
        match self.finding:
            case Finding.BETTER:
                return f"better by {difference} points ({low} to {high}){self.saved}"
            case Finding.WORSE:
                difference, low, high = (decimal(-one, digits) for one in (self.difference, self.high, self.low))
                return f"worse by {difference} points ({low} to {high}){self.saved}"
            case Finding.EQUIVALENT:
                return f"as accurate within {self.margin:g} points{self.saved}"
            case Finding.PENDING:
                return f"{gained} points so far ({low} to {high}); judged when all seeds have finished"
            case _:
                further = f": {self.further.sentence}" if self.further else ""
                return f"not told apart ({gained}, {low} to {high}){self.saved}{further}"

    @property
    def saved(self) -> str:
        """Difference of the cost, as the end of a sentence; empty if there is none."""
        if self.cost_change is None or abs(self.cost_change) < _LEAST_CHANGE:
            return ""
        less, noun = _WORDS[self.cost]
        return f", with {100 * abs(self.cost_change):.1f} % {less if self.cost_change < 0 else 'more'} {noun}"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A finalist that is not compared, with the reason; `member` is the name of a stock model among several."""

    trial: int | None
    fingerprint: str
    summary: str
    reason: str
    member: str = ""

    @property
    def sentence(self) -> str:
        """Reason in one line."""
        return f"{_named(self.trial, self.summary, self.member)}: left out, {self.reason}"

    def as_document(self) -> dict[str, Any]:
        """Return the values for JSON, with the reason in words."""
        values = {name: value for name, value in asdict(self).items() if value or name != "member"}
        return {**values, "sentence": self.sentence}


@dataclass(frozen=True, kw_only=True)
class Verdict(InWords):
    """Verdict of a confirmation.

    Attributes:
        study: name of the search.
        confirmation: name of the study with the trainings.
        others: the other confirmations of the search, in words.
        from_scratch: whether the trainings start from random weights, unlike those of the search.
        other_images: on how many images they train, in words; empty if on those of the search.
        seeds: with which the stock model and every compared finalist were trained.
        planned: number of seeds that were enqueued.
        unfinished: number of trainings that have not ended.
        look: how often a verdict on the search was due, this time included.
        epochs: of each training.
        epochs_of_search: of each training of the search.
        margin: points within which accuracies count as equal.
        stock_map50_95: mean over the seeds, of several stock models the highest; None while there is none.
        stock_map50_95_by_seed: with each seed, in their order.
        finalists: compared ones, most accurate first.
        left_out: others.
        reason: why no finalist is compared; empty if some are.
        images: which images the accuracies were measured on.
        judged: whether these are images that no search has read.
        stocks: number of stock models; with several, a gain is one over all of them that cost no more.
        cheapest: of a study of stock models alone, the one that no other is compared with; None of other studies.
        not_compared: why stock models of the search were not trained again, by the member's name; empty text where
            today it would be.
        counts_images: whether intervals and tests count the sampling of these images, beside that of seeds.
    """

    study: str
    seeds: tuple[int, ...]
    planned: int
    unfinished: int
    look: int
    epochs: int
    epochs_of_search: int
    margin: float
    stock_map50_95: float | None
    stock_map50_95_by_seed: tuple[float, ...]
    finalists: tuple[JudgedFinalist, ...]
    left_out: tuple[LeftOut, ...]
    reason: str = ""
    images: str = CHOSEN_BY
    judged: bool = False
    counts_images: bool = False
    stocks: int = 1
    not_compared: Mapping[str, str] = field(default_factory=dict)
    cheapest: CheapestStock | None = None
    confirmation: str = ""
    others: tuple[str, ...] = ()
    from_scratch: bool = False
    other_images: str = ""

    @property
    def is_final(self) -> bool:
        """Whether finalists are judged, rather than waiting for trainings or impossible to compare."""
        return not self.reason and not self.unfinished

    @property
    def better(self) -> tuple[JudgedFinalist, ...]:
        """Finalists of which a gain is claimed."""
        return tuple(one for one in self.finalists if one.finding is Finding.BETTER)

    @property
    def best_trial(self) -> int | None:
        """Trial of the search with the largest gain that is claimed; None if there is none.

        Of stock models the one to take: the most accurate that is better than all cheaper ones, else the cheapest.
        """
        return self._best.trial if self._best is not None else None

    @property
    def best_fingerprint(self) -> str | None:
        """Fingerprint of that model."""
        return self._best.fingerprint if self._best is not None else None

    @property
    def _best(self) -> JudgedFinalist | CheapestStock | None:
        found = next((one for one in self.better if one.trial is not None), None)
        return self.cheapest if found is None and self.is_final else found

    @property
    def saving_trial(self) -> int | None:
        """Trial of the search that is as accurate and costs the least; None if none of them costs less than stock."""
        saving = [
            (one.cost_change, one.trial)
            for one in self.finalists
            if one.finding is Finding.EQUIVALENT and one.trial is not None and (one.cost_change or 0.0) < 0
        ]
        return min(saving)[1] if saving else None

    @property
    def wanted_seeds(self) -> int | None:
        """Seeds in all with which the verdict would say more, by its own lines; None if no more would.

        As many as would tell what is said of every finalist, and no fewer than make the tests safer.
        """
        further = [one.further.seeds for one in self.finalists if one.further and one.further.seeds is not None]
        wanted = max(SIGN_TEST_SEEDS, self.planned + max(further, default=0))
        return wanted if wanted > self.planned else None

    @property
    def shrinkage(self) -> tuple[float, float] | None:
        """Mean differences to the stock model in points: in the search, and with fresh seeds; None if not known."""
        both = [(one.search_difference, one.difference) for one in self.finalists if one.search_difference is not None]
        return (fmean(pair[0] for pair in both), fmean(pair[1] for pair in both)) if both else None

    @property
    def changes(self) -> tuple[str, ...]:
        """Differences between the search's trainings and these, apart from the seed, in words."""
        found = ["on other images"] if self.judged else []
        if self.epochs != self.epochs_of_search:
            found.append(f"after {self.epochs} epochs, not {self.epochs_of_search}")
        if self.from_scratch:
            found.append("from random weights")
        if self.other_images:
            found.append(self.other_images)
        return tuple(found)

    def lines(self) -> list[str]:
        """Return the verdict in words."""
        out = [one.sentence for one in self.left_out]
        if self.reason:
            return [f"No verdict on {self.study}: {self.reason}", *out]
        trained = trained_in_words(len(self.seeds), self.planned, self.epochs)
        beside = "the stock models that cost no more" if self.stocks > 1 else "the stock model"
        heading = f"Verdict on {self.study}, beside {beside}: {trained}"
        return [heading, *(one.sentence for one in self.finalists), *out, *self._taken(), *self.remarks()]

    @property
    def headline(self) -> str:
        """Verdict in one sentence."""
        if self.reason:
            return f"No verdict on {self.study}: {self.reason}"
        if self.unfinished:
            return f"No verdict yet: {with_unit(self.unfinished, 'training')} with fresh seeds to go"
        if taken := self._taken():
            return f"{taken[0][0].upper()}{taken[0][1:]}"
        if self.better:
            best, *others = self.better
            also = f", {with_unit(len(others), 'other')} too" if others else ""
            gained = f"{best.difference:.1f} points ({best.low:.1f} to {best.high:.1f})"
            return f"{_capital(best)} is better than {best.bar}, by {gained}{also}"
        first, *others = self.finalists
        bar = "the stock models that cost no more" if self.stocks > 1 else "the stock model"
        number = f"None of the {len(self.finalists)} finalists" if others else f"{_capital(first)}, the only finalist,"
        equal = next((one for one in self.finalists if one.trial == self.saving_trial), None)
        saves = "" if equal is None or equal.trial is None else f"; trial {equal.trial} is as accurate{equal.saved}"
        none = f"{number} is {'' if others else 'not '}better than {bar}"
        return f"{none}, as far as {with_unit(len(self.seeds), 'seed')} tell{saves}"

    def _taken(self) -> list[str]:
        """Return which of several stock models to take; empty of other studies, and while trainings run."""
        if self.cheapest is None or not self.is_final:
            return []
        cheapest = f"{self.cheapest.member}, the cheapest, has mAP50-95 {fmean(self.cheapest.map50_95_by_seed):.3f}"
        if not self.better:
            return [f"take {self.cheapest.member}: none that costs more is better than all cheaper ones; {cheapest}"]
        accurate, *others = self.better
        front = ", ".join([one.member for one in others] + [self.cheapest.member])
        figure = f"mAP50-95 {fmean(accurate.map50_95_by_seed):.3f}"
        return [f"take {accurate.member} ({figure}), or at less cost {front}; {cheapest}"]

    def remarks(self) -> list[str]:
        """Return what the verdict rests on, one sentence each."""
        remarks = []
        if self.shrinkage is not None:
            before, after = self.shrinkage
            how = f" ({', '.join(self.changes)})" if self.changes else ""
            several = sum(one.search_difference is not None for one in self.finalists) > 1
            were = "search scores of the finalists were" if several else "the finalist's search score was"
            bar = "stock" if self.cheapest is None else "a cheaper model"
            if self.cheapest is None and any(one.stock for one in self.finalists):
                bar = "these stock models" if several else "this stock model"
            on_average, fresh = (" on average", "fresh ones") if several else ("", "its fresh one")
            remarks.append(f"{were} {before:+.1f} points over {bar}{on_average}, {fresh} {after:+.1f}{how}")
        others = "" if self.judged else "; a test split or nas search --holdout gives images that no search has read"
        over = "" if self.counts_images else ", with intervals over seeds alone"
        remarks.append(f"judged on {self.images}{over}{others}")
        if self.others:
            remarks.append(f"this is {self.confirmation}; there is also {'; '.join(self.others)}")
        remarks += [self._not_trained] if self.not_compared else []
        if self.look > 1:
            remarks.append(
                f"verdict {self.look} on this search, with more seeds or finalists, or other trainings: tested at "
                f"{100 * level_of_look(self.look):g} %, so that all looks together claim a gain by chance in at most "
                f"{100 * LEVEL:g} %"
            )
        if len(self.seeds) < SIGN_TEST_SEEDS:
            remarks.append(
                f"{len(self.seeds)} seeds are few: intervals and tests assume normally distributed noise; "
                f"{SIGN_TEST_SEEDS} or more are safer"
            )
        return remarks

    @property
    def _not_trained(self) -> str:
        """Stock models of the search that were not trained again, each with the reason."""
        none = "may be the bar by the scores of today, but was none when this confirmation was begun"
        named = "; ".join(f"{member}, which {why or none}" for member, why in self.not_compared.items())
        were = "models that were" if len(self.not_compared) > 1 else "model that was"
        return f"stock {were} not trained again: {named}"

    def as_document(self) -> dict[str, Any]:
        """Return the verdict as values for JSON, with its words."""
        judged = [one.as_document() for one in self.finalists]
        left_out = [one.as_document() for one in self.left_out]
        before, after = self.shrinkage or (None, None)
        values = asdict(self)
        if self.stocks == 1:
            del values["stocks"]
        if self.not_compared:
            values |= {"not_compared": list(self.not_compared), "why_not_compared": dict(self.not_compared)}
        else:
            del values["not_compared"]
        if self.cheapest is None:
            del values["cheapest"]
        return {
            **values,
            "seeds": list(self.seeds),
            "stock_map50_95_by_seed": list(self.stock_map50_95_by_seed),
            "others": list(self.others),
            "finalists": judged,
            "left_out": left_out,
            "mean_search_difference": before,
            "mean_difference": after,
            "lines": self.lines(),
        }


def _capital(one: JudgedFinalist) -> str:
    """Return the name of a finalist as the beginning of a sentence."""
    name = _named(one.trial, one.summary, one.member)
    return f"{name[0].upper()}{name[1:]}"


def _named(trial: int | None, summary: str, member: str = "") -> str:
    if member:
        return member if trial is None else f"{member} (trial {trial})"
    return f"trial {trial}" if trial is not None else summary
