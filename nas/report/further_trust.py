"""Trust in a further search of a kind, from those that were made: in words and as values for JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.algorithms.further_search import FurtherShrinkage
from nas.algorithms.seed_noise import SeedNoise
from nas.report.in_words import InWords
from nas.report.noise_in_words import by_number, least_differences, noise_in_words, shown_by_search
from nas.words import with_unit


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Mean difference of the finalists of a search to the stock model, in points.

    Attributes:
        before: in the search.
        after: with fresh seeds.
        remark: what else has changed; empty if only seeds have.
    """

    before: float
    after: float
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class FurtherTrust(InWords):
    """How far the ranking of a further search can be believed; accuracies are mAP50-95 in points.

    Attributes:
        architectures: number of finished ones, by study.
        cost: name of the cost that the trend is over.
        seeds: with which members of a front are trained.
        base_epochs: of the stock model; None if it is not trained before all trials.
        noise: between seeds, pooled over all repeats of all studies; None if there are no repeats.
        shrinkage: predicted, of a further search; None without noise, or for too few architectures.
        measured: by study, where it was confirmed.
        measure: commands that measure noise, of the studies without repeats.
    """

    architectures: Mapping[str, int]
    cost: str
    epochs: int
    base_epochs: int | None
    seeds: int
    noise: SeedNoise | None
    shrinkage: FurtherShrinkage | None
    measured: Mapping[str, Measured]
    measure: tuple[str, ...]

    @property
    def least_differences(self) -> Mapping[int, float] | None:
        """True difference of two models that such a search detects, by number of its seeds; None without noise."""
        return None if self.noise is None else least_differences(self.noise)

    def lines(self) -> list[str]:
        """Return the report in words."""
        names = " and ".join(f"{name} ({with_unit(n, 'architecture')})" for name, n in self.architectures.items())
        base = "" if self.base_epochs is None else f"--base-epochs {self.base_epochs} "
        heading = f"Trust in a further search like {names}, {base}--epochs {self.epochs}"
        parts = [("noise", "not measured" if self.noise is None else noise_in_words(self.noise))]
        if self.least_differences is not None:
            parts.append(("tells", shown_by_search(self.least_differences)))
        if self.shrinkage is not None:
            parts.append(("spread", self._spread(self.shrinkage)))
            parts.append(("shrinks", self._shrinks(self.shrinkage)))
        parts += [("measured", _measured(name, one)) for name, one in self.measured.items()]
        return [heading, *(f"{name:<9} {text}" for name, text in parts), "", *self.recommendation()]

    def recommendation(self) -> list[str]:
        """Return what to expect of the front of a further search, and what would make the interval narrower."""
        if self.noise is None:
            return [f"Noise is not measured, so nothing can be predicted: {self.measure[0]}"]
        if self.shrinkage is None:
            return ["Too few architectures have finished in one of the searches to predict anything."]
        points = f"{self.shrinkage.expected:.1f} points ({self.shrinkage.low:.1f} to {self.shrinkage.high:.1f})"
        found = f"Of what the finalists of a further search have over stock, expect {points} to be luck."
        more = f" More repeats make that narrower: {', '.join(self.measure)}" if self.measure else ""
        return [found + more]

    def _spread(self, found: FurtherShrinkage) -> str:
        return f"true accuracies of architectures deviate {found.spread:.1f} points from their trend over {self.cost}"

    def _shrinks(self, found: FurtherShrinkage) -> str:
        return (
            f"finalists of a further search are expected to have {found.expected:.1f} points less over stock with "
            f"{found.seeds} fresh seeds ({found.low:.1f} to {found.high:.1f} will be measured in 95 %)"
        )

    def as_document(self) -> dict[str, Any]:
        """Return the report as values for JSON, with its words."""
        return {
            **asdict(self),
            "least_differences": by_number(self.least_differences),
            "recommendation": self.recommendation(),
            "lines": self.lines(),
        }


def _measured(name: str, found: Measured) -> str:
    """Return what a confirmation has measured."""
    change = f"{abs(found.before - found.after):.1f} {'less' if found.before >= found.after else 'more'}"
    remark = f" ({found.remark})" if found.remark else ""
    return f"{name}: {found.before:+.1f} points over stock, {found.after:+.1f} with fresh seeds{remark}: {change}"
