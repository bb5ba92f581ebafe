"""Trust in the ranking of a search: its noise, agreement and budget, in words and as values for JSON.

Noise between seeds, the least difference that seeds tell, what the front will lose when it is trained again, whether
short and long trainings agree, and whether the budget is long enough; then one recommendation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nas.algorithms.paired_comparison import Finding
from nas.algorithms.rank_agreement import Agreement
from nas.algorithms.seed_noise import SeedNoise, confirmed_difference, least_difference, seeds_to_confirm
from nas.algorithms.shrinkage import Shrinkage
from nas.defaults import MARGIN, MOST_FRESH_SEEDS, SEEDS
from nas.report.budget import Budgets, seeds_that_detect
from nas.report.in_words import InWords
from nas.report.noise_in_words import by_number, least_differences, noise_in_words, shown_by_search
from nas.report.slope import Slope, Steepness
from nas.report.verdict import CHOSEN_BY, SAMPLE_COUNTS
from nas.words import with_unit

CONFIRMED_NUMBERS = (SEEDS, 2 * SEEDS)
"""Numbers of fresh seeds for which it is shown what a confirmation finds."""
FINDINGS = {
    Finding.BETTER: "better",
    Finding.EQUIVALENT: "as accurate",
    Finding.UNDECIDED: "not told apart",
    Finding.WORSE: "worse",
}
"""Findings of a verdict in words, the best first."""
_POOLED = "(By the noise of all trainings together; the verdict's lines go by that of each finalist.)"
"""Why a number of seeds may be another one than in the verdict."""
_LONGER = 3
"""Factor of the epochs that are recommended where nothing was learned."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Agreement of the orders after a shorter and a longer training.

    Attributes:
        shorter: epochs.
        longer: epochs.
        where: `rung`, or the study with the longer trainings.
    """

    shorter: int
    longer: int
    where: str
    agreement: Agreement

    @property
    def sentence(self) -> str:
        """Agreement in one line."""
        found = self.agreement
        given = "" if found.partial is None else f", {found.partial:.2f} with the influence of cost removed"
        counts = f"{with_unit(found.models, 'model')}: {found.same} pairs alike, {found.inverted} inverted"
        between = f"after {self.shorter} and {self.longer} epochs ({self.where})"
        return f"{between}: Kendall's tau {found.tau:.2f}{given} ({counts})"


@dataclass(frozen=True, kw_only=True)
class Trust(InWords):
    """How far the ranking of a search can be believed; accuracies are mAP50-95 in points.

    Attributes:
        architectures: finished ones.
        noise: between seeds; None if no architecture was trained twice.
        noise_epochs: of the trainings that it was measured with; None if they are those of the search.
        image_error: standard error of a finalist's difference from the sample of images that judge; None before a
            confirmation, or if that stores no matches on them.
        best: trial of the most accurate model of the front; None if that is the stock model, or there is none. Of
            several members that of the largest gain.
        best_difference: to the stock model, of several to the most accurate one that costs no more; if all cost more,
            to that of its member.
        best_seeds: of the best and the stock model, the fewer.
        shrinkage: predicted, of the finalists of the confirmation, or before it of the front by search scores; None
            without noise, or for too few architectures.
        measured: mean differences of the finalists in the search and with fresh seeds; None before a confirmation.
        changes: what else than the seed differs between trainings of search and confirmation, in words.
        confirmed_epochs: of the trainings of the confirmation; None before it.
        findings: numbers of finalists by what the verdict says of them, the best first; empty before a verdict.
        orders: of shorter and longer trainings.
        slope: of the stock model; None while it is not measured. Of several members the one that decides on the budget.
        slopes: of the stock model of each of several members whose is measured; empty where there is one.
        members: names of several members; empty where there is one.
        finalists: of the confirmation; before it those that it would have, at most eight.
        measure: command that measures noise and slope.
        confirm: command that judges the front.
        no_noise: why the noise is not measured; empty if it is.
        no_slope: why the slope is not measured; empty if it is.
        images: what it means that the search has read a part of the images, in words; empty if it has read all.
        nothing_learned: warning if the stock model has learned nothing, so that nothing can be compared; else empty.
    """

    study: str
    architectures: int
    seeds: int
    epochs: int
    base_epochs: int | None
    noise: SeedNoise | None
    noise_epochs: int | None
    image_error: float | None
    best: int | None
    best_difference: float | None
    best_seeds: int
    shrinkage: Shrinkage | None
    measured: tuple[float, float] | None
    confirmed_epochs: int | None
    orders: tuple[Order, ...]
    slope: Slope | None
    finalists: int
    measure: str
    confirm: str
    no_noise: str = ""
    no_slope: str = ""
    images: str = ""
    changes: tuple[str, ...] = ()
    findings: Mapping[Finding, int] = field(default_factory=dict)
    nothing_learned: tuple[str, ...] = ()
    slopes: tuple[Slope, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def _bar(self) -> str:
        """Stock models that gains are measured from, in words."""
        return "the stock models at equal cost" if self.members else "stock"

    @property
    def least_differences(self) -> Mapping[int, float] | None:
        """True difference of two models that the search detects, by number of its seeds; None without noise."""
        return None if self.noise is None else least_differences(self.noise)

    @property
    def confirmed_differences(self) -> Mapping[int, float] | None:
        """True gain of a finalist that a confirmation finds, by number of fresh seeds; None without noise."""
        if self.noise is None:
            return None
        return {seeds: self._confirmed(self.noise, seeds) for seeds in CONFIRMED_NUMBERS}

    def _confirmed(self, noise: SeedNoise, seeds: int) -> float:
        finalists, image_error = max(1, self.finalists), self.image_error or 0.0
        return confirmed_difference(noise, seeds, finalists=finalists, image_error=image_error)

    @property
    def least(self) -> float | None:
        """Minimum detectable difference with the seeds of the front's best; None without noise."""
        return None if self.noise is None else least_difference(self.noise, max(1, self.best_seeds))

    def lines(self) -> list[str]:
        """Return the report in words."""
        shown = [f"{name:<9} {text}" for name, text in self.parts()]
        return [f"Trust in {self.study}: {self.basis}", *shown, "", *self.recommendation()]

    @property
    def basis(self) -> str:
        """Number of ranked architectures, and their budget, in words."""
        base = "" if self.base_epochs is None else f"--base-epochs {self.base_epochs} "
        budget = f"{base}--epochs {self.epochs}, {with_unit(self.seeds, 'seed')}"
        members = f" of {', '.join(self.members)}" if self.members else ""
        return f"{with_unit(self.architectures, 'architecture')}{members}, {budget}"

    def parts(self) -> list[tuple[str, str]]:
        """Return what is known of the ranking, each with a short name; empty if nothing was learned."""
        if self.nothing_learned:
            return []
        parts = {
            "images": self.images,
            "noise": self._noise(),
            "tells": self._shown_by_search(),
            "confirm": self._found_by_confirmation(),
            "shrinks": self._shrinkage(),
            "measured": self._measured(),
        }
        slopes = [("slope", one.sentence) for one in self.slopes or [self.slope] if one is not None]
        if self.no_slope:
            slopes.append(("slope", f"not measured: {self.no_slope} ({self.measure})"))
        orders = [("order", one.sentence) for one in self.orders]
        return [*((name, text) for name, text in parts.items() if text), *slopes, *orders]

    def recommendation(self) -> list[str]:
        """Return what to do: a sentence on the ranking, and the budget."""
        return [*(self.nothing_learned or [self._on_ranking()]), self._on_budget()]

    def _on_ranking(self) -> str:
        """Return whether the front's best can be told from the stock model, and what would tell."""
        if self.noise is None:
            return f"Noise is not measured, so no difference can be told from it: {self.measure}"
        detected = f"This ranking tells differences above {self.least:.1f} points"
        if self.best is None or self.best_difference is None:
            bar = self._bar if self.members else "the stock model"
            found = f"nothing that was tried scores above {bar}"
        else:
            found = f"the front's best is {self.best_difference:+.1f}{f' over {self._bar}' if self.members else ''}"
        if self.findings:
            return f"{detected}; {found}. {self._judged(self.noise)}"
        if self.best is None or self.best_difference is None:
            return f"{detected}; {found}."
        if self._is_detected:
            return f"{detected}; {found}: more, but selected by these seeds. Judge it: {self.confirm}"
        return f"{detected}; {found}: not told apart. {self._further(self.noise)}"

    def _judged(self, noise: SeedNoise) -> str:
        """Return what the verdict says of how many finalists, and which seeds would tell the others apart."""
        each = ", ".join(f"{number} {FINDINGS[finding]}" for finding, number in self.findings.items())
        further = f" {self._further(noise)} {_POOLED}" if Finding.UNDECIDED in self.findings else ""
        return f"Fresh seeds have judged {with_unit(self.finalists, 'finalist')}: {each}.{further}"

    @property
    def _is_detected(self) -> bool:
        """Whether the front's best differs from the stock model by more than its seeds detect."""
        return self.best_difference is not None and self.least is not None and self.best_difference > self.least

    @property
    def _wanted(self) -> float:
        """Points that a confirmation is to detect: what is expected of the front, at least the margin."""
        gain = self.shrinkage.fresh if self.shrinkage else self.best_difference
        return gain if gain is not None and gain > MARGIN else MARGIN

    def _seeds_needed(self, noise: SeedNoise, image_error: float) -> int | None:
        """Return with how many fresh seeds a confirmation detects these points; None if a thousand do not."""
        return seeds_to_confirm(noise, self._wanted, finalists=max(1, self.finalists), image_error=image_error)

    def _further(self, noise: SeedNoise) -> str:
        """Return with how many seeds a confirmation would tell what is expected of the front."""
        number, wanted = self._seeds_needed(noise, self.image_error or 0.0), f"{self._wanted:.1f} points"
        if number is not None and number <= MOST_FRESH_SEEDS:
            seeds = max(number, SEEDS)
            return f"{seeds} fresh seeds would tell {wanted} {self._where}: {self.confirm} --seeds {seeds}"
        if number is None and self._seeds_needed(noise, 0.0) is not None:
            return f"No number of seeds would tell {wanted} {self._where}: these images are too few."
        return f"No sensible number of seeds (at most {MOST_FRESH_SEEDS}) would tell {wanted} {self._where}."

    @property
    def _where(self) -> str:
        """What figures of a confirmation are of: which images, or seeds alone."""
        if self.image_error is not None:
            return "on the images that judge"
        if self.confirmed_epochs:
            return f"on {CHOSEN_BY}"
        return f"by the noise between seeds alone ({SAMPLE_COUNTS})"

    def _on_budget(self) -> str:
        """Return the budget of a search that would rank better, or that it is as it should be."""
        if self.nothing_learned:
            grown = Budgets(
                epochs=_LONGER * self.epochs, base_epochs=_LONGER * self.base_epochs if self.base_epochs else None
            )
            return f"budget: at least {grown.options}"
        if self.slope is not None and self.slope.favours_fast and self.slope.advised is None:
            return f"budget: longer; {self.slope.budget_later}"
        longer = self._longer
        seeds = self.seeds if self.noise is None else max(self.seeds, seeds_that_detect(self.noise))
        if longer is not None or seeds != self.seeds:
            options = (longer or Budgets(epochs=self.epochs, base_epochs=self.base_epochs)).options
            return f"budget: {options} --seeds {seeds}"
        missing = [name for name, found in (("noise", self.noise), ("slope", self.slope)) if found is None]
        if self.slope is not None and self.slope.finding is Steepness.NOT_TOLD:
            return "budget: as it is (whether it is long enough cannot be told)"
        return "budget: as it is" + (f" ({' and '.join(missing)} not measured)" if missing else "")

    @property
    def _longer(self) -> Budgets | None:
        """Longer trainings that would rank better: by the slope, or doubled where seeds alone do not suffice."""
        if self.slope is not None and self.slope.advised is not None:
            return self.slope.advised
        if self.noise is None or self.best is None or self._is_detected:
            return None
        number = self._seeds_needed(self.noise, 0.0)
        if number is not None and number <= MOST_FRESH_SEEDS:
            return None
        return self._grown(2)

    def _grown(self, factor: int) -> Budgets:
        """Return the budget with so many times as many epochs."""
        base = None if self.base_epochs is None else factor * self.base_epochs
        return Budgets(epochs=factor * self.epochs, base_epochs=base)

    def _noise(self) -> str:
        if self.noise is None:
            return f"not measured: {self.no_noise} ({self.measure})"
        where = "" if self.noise_epochs is None else f", measured with --epochs {self.noise_epochs}"
        return f"{noise_in_words(self.noise)}{where}"

    def _shown_by_search(self) -> str:
        return "" if self.least_differences is None else shown_by_search(self.least_differences)

    def _found_by_confirmation(self) -> str:
        if self.confirmed_differences is None:
            return ""
        each = [f"{points:.1f} with {n} fresh seeds" for n, points in self.confirmed_differences.items()]
        models = with_unit(max(1, self.finalists), "finalist")
        return f"true gains that a confirmation of {models} finds, in points, {self._where}: {', '.join(each)}"

    def _shrinkage(self) -> str:
        if self.shrinkage is None:
            return ""
        found = self.shrinkage
        single = self.finalists == 1
        who, other = "the finalist is" if single else "the finalists are", ""
        if self.confirmed_epochs is None:
            who, other = "the front by search scores is", "; nas confirm takes that by expected scores"
        return (
            f"{who} {found.difference:+.1f} points over {self._bar}{'' if single else ' on average'}, "
            f"{found.fresh:+.1f} expected with "
            f"{found.seeds} fresh seeds: {found.expected:.1f} less ({found.low:.1f} to {found.high:.1f}){other}"
        )

    def _measured(self) -> str:
        if self.measured is None:
            return ""
        before, after = self.measured
        how = f" ({', '.join(self.changes)})" if self.changes else ""
        fresh = f"{after:+.1f} with fresh seeds{how}"
        change = f"{abs(before - after):.1f} {'less' if before >= after else 'more'}"
        who = "the finalist was" if self.finalists == 1 else "finalists were on average"
        return f"{who} {before:+.1f} points over {self._bar}, {fresh}: {change}"

    def as_document(self) -> dict[str, Any]:
        """Return the report as values for JSON, with its words."""
        values = asdict(self)
        if not self.members:
            del values["members"], values["slopes"]
        several = {"slopes": [one.as_document() for one in self.slopes], "members": list(self.members)}
        return {
            **values,
            **(several if self.members else {}),
            "nothing_learned": list(self.nothing_learned),
            "least_differences": by_number(self.least_differences),
            "confirmed_differences": by_number(self.confirmed_differences),
            "least": self.least,
            "orders": [{**asdict(one), "sentence": one.sentence} for one in self.orders],
            "slope": self.slope.as_document() if self.slope else None,
            "recommendation": self.recommendation(),
            "lines": self.lines(),
        }
