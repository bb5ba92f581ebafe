"""Ablation of a trial: what each of its slots is worth, over fresh paired seeds, beside what it costs.

A slot is worth the accuracy of the trial less that of the trial with the stock layer put back there. Where slots
interact, these do not add up to what the whole trial is worth over the stock model. Tests and intervals are those of
`nas.algorithms.paired_comparison`, with Holm's correction over all slots and the whole trial.
"""

from dataclasses import asdict, dataclass
from typing import Any

from nas.algorithms.paired_comparison import Finding
from nas.report.in_words import InWords
from nas.report.verdict import SIGN_TEST_SEEDS
from nas.words import digits_of, trained_in_words

_COSTS = {"gflops": ("GFLOPs", 1.0, 2), "params": ("M parameters", 1e-6, 3), "latency_ms": ("ms", 1.0, 2)}
"""Unit of each cost in words, factor to that unit, and digits."""
_WORDS = {
    Finding.BETTER: "",
    Finding.WORSE: ", harmful",
    Finding.UNDECIDED: ", not told apart from noise",
    Finding.PENDING: " so far, judged when all seeds have finished",
}


@dataclass(frozen=True, kw_only=True)
class SlotWorth:
    """Worth of a slot of a trial: the trial less the trial with stock there, in points of mAP50-95.

    Attributes:
        slot: its name, or that of a scaling factor; `all` for the whole trial less the stock model.
        layers: of the slot; empty for a scaling factor and for the whole trial.
        choice: operator with its parameters, or value of the scaling factor.
        title: slot and choice in words.
        finding: better, worse, equivalent or undecided, for all rows together; pending while trainings run.
        difference: mean over the seeds.
        low: lower end of the 95 % interval, for this row alone.
        high: upper end of it.
        p_better: of "not better with it", after Holm's correction; likewise `p_worse` and `p_equivalent`.
        margin: points within which a difference does not matter.
        gflops: what it adds to the GFLOPs, exact; likewise `params`.
        latency_ms: what it adds to the predicted latency; None without a latency table.
        fingerprint: of the architecture with stock there.
    """

    slot: str
    layers: tuple[int, ...]
    choice: str
    title: str
    finding: Finding
    difference: float
    low: float
    high: float
    p_better: float
    p_worse: float
    p_equivalent: float
    margin: float
    gflops: float
    params: int
    latency_ms: float | None
    fingerprint: str

    @property
    def sentence(self) -> str:
        """Worth and costs in one line: `slot 12 DCNv4: +0.4 points (-0.1 to 0.9), ...; costs +0.31 GFLOPs`."""
        equal = f", no difference beyond {self.margin:g} points"
        words = _WORDS.get(self.finding, equal)
        return f"{self.title}: {self.points} points ({self.interval}){words}; costs {self.costs}"

    @property
    def points(self) -> str:
        """Difference with its sign."""
        return _signed(self.difference, digits_of(self.difference))

    @property
    def interval(self) -> str:
        """Interval in words: `-0.1 to 0.9`."""
        return " to ".join(
            _signed(value, digits_of(self.difference)).removeprefix("+") for value in (self.low, self.high)
        )

    @property
    def costs(self) -> str:
        """Differences of the costs in words, without those that round to 0: `+0.31 GFLOPs, +0.012 M parameters`."""
        changes = [
            f"{text} {unit}"
            for name, (unit, factor, digits) in _COSTS.items()
            if (value := getattr(self, name)) is not None and float(text := _signed(factor * value, digits))
        ]
        return ", ".join(changes) or "nothing"

    def as_row(self) -> dict[str, Any]:
        """Return the values for JSON and CSV."""
        return {**asdict(self), "layers": list(self.layers), "finding": str(self.finding), "sentence": self.sentence}


@dataclass(frozen=True, kw_only=True)
class LeftOutSlot:
    """Slot that is not judged, with the reason."""

    slot: str
    choice: str
    title: str
    reason: str

    @property
    def sentence(self) -> str:
        """Reason in one line."""
        return f"{self.title}: left out, {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Ablation(InWords):
    """Worth of each slot of a trial.

    Attributes:
        study: name of the search.
        trial: its number there.
        summary: of its architecture.
        seeds: with which the trial and every model that it is compared with were trained.
        planned: number of seeds that were enqueued.
        unfinished: number of trainings that have not ended.
        epochs: of each training.
        margin: points within which a difference does not matter.
        map50_95: of the trial, mean over the seeds; None while there is none.
        slots: judged slots, in their order.
        whole: the whole trial less the stock model; None if the stock model has no score.
        left_out: others.
        detectable: gain of one slot, in points, that such an ablation finds in 80 % of cases; None without `slots`.
        reason: why no slot is judged; empty if some are.
    """

    study: str
    trial: int
    summary: str
    seeds: tuple[int, ...]
    planned: int
    unfinished: int
    epochs: int
    margin: float
    map50_95: float | None
    slots: tuple[SlotWorth, ...]
    whole: SlotWorth | None
    left_out: tuple[LeftOutSlot, ...]
    detectable: float | None = None
    reason: str = ""

    @property
    def rows(self) -> tuple[SlotWorth, ...]:
        """Slots by what they are worth, the most first; then the whole trial."""
        ranked = sorted(self.slots, key=lambda one: -one.difference)
        return (*ranked, *([self.whole] if self.whole is not None else []))

    @property
    def title(self) -> str:
        """Heading: trial, seeds and epochs."""
        trained = trained_in_words(len(self.seeds), self.planned, self.epochs)
        return f"What each slot of trial {self.trial} of {self.study} is worth: {trained}"

    def lines(self) -> list[str]:
        """Return the ablation in words."""
        out = [one.sentence for one in self.left_out]
        if self.reason:
            return [f"No ablation of trial {self.trial} of {self.study}: {self.reason}", *out]
        return [self.title, *(one.sentence for one in self.rows), *self.remarks()]

    def remarks(self) -> list[str]:
        """Return what was left out and what the numbers rest on, one sentence a line."""
        remarks = [one.sentence for one in self.left_out]
        if self.whole is not None and len(self.slots) > 1 and not self.left_out:
            total = sum(one.difference for one in self.slots)
            remarks.append(
                f"The slots alone sum to {_signed(total, 1)} points, all together are worth "
                f"{_signed(self.whole.difference, 1)}: what is between them is interaction and noise."
            )
        if self.detectable is not None:
            remarks.append(
                f"Such an ablation finds a slot worth {self.detectable:.1f} points in 80 % of cases; "
                "more --seeds find less."
            )
        if self.slots:
            remarks.append("Measured on the images that the search chose by.")
        if len(self.seeds) < SIGN_TEST_SEEDS and self.slots:
            remarks.append(f"{len(self.seeds)} seeds are few: the intervals rest on normally distributed noise.")
        return remarks

    def as_document(self) -> dict[str, Any]:
        """Return the ablation as values for JSON, with its words."""
        return {
            **asdict(self),
            "seeds": list(self.seeds),
            "slots": [one.as_row() for one in self.slots],
            "whole": None if self.whole is None else self.whole.as_row(),
            "left_out": [{**asdict(one), "sentence": one.sentence} for one in self.left_out],
            "lines": self.lines(),
        }


def _signed(value: float, digits: int) -> str:
    """Format with a sign; a zero as +0.0."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text.replace("-", "+")
