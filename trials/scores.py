"""Costs, scores and outcome of a candidate's trial."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import ScoreError
from trials.provenance import Provenance

if TYPE_CHECKING:
    from search_spaces import Architecture


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share of a model's parameters that were transferred from another model.

    Attributes:
        share: of the deployed model.
        layers: each layer that was not transferred completely, by its label (`8`, `after-8`), with the share of its
            parameters that were.
        new: names of the parameters that were not transferred completely, including those of an auxiliary branch.
        is_narrowed: whether some channels of wider layers were chosen.
    """

    share: float = 0.0
    layers: tuple[tuple[str, float], ...] = ()
    new: frozenset[str] = frozenset()
    is_narrowed: bool = False


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of a candidate, which need no training.

    Attributes:
        params: of the deployed graph.
        gflops: of the deployed graph, one image at the deployment size.
        latency_ms: median over the timed iterations; None if not measured.
        latency_spread_ms: interquartile range of the iterations.
        latency_steady: whether the iterations agree well enough for the median to be meaningful.

    Raises:
        ScoreError: a cost is not finite or not above 0.
    """

    params: int
    gflops: float
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    latency_steady: bool = True

    def __post_init__(self) -> None:
        for name in ("params", "gflops", "latency_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ScoreError(f"{name}: a cost is above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracy of a candidate, in 0..1, and its costs.

    Raises:
        ScoreError: an accuracy is not from 0 to 1.
    """

    map50_95: float
    map50: float
    costs: Costs

    def __post_init__(self) -> None:
        for name in ("map50_95", "map50"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ScoreError(f"{name}: an accuracy is from 0 to 1, got {value}")

    def value(self, objective: str) -> float:
        """Return `map50_95`, `map50`, `gflops`, `params` or `latency_ms`."""
        owner = self if objective in {field.name for field in fields(self)} else self.costs
        return float(getattr(owner, objective))


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy on the images that judge, in 0..1."""

    map50_95: float
    map50: float


class Ending(StrEnum):
    """How a trial ended. The value is stored, the advice is shown."""

    FINISHED = "finished"
    STOPPED = "stopped"
    OVER_LIMIT = "over_limit"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    BROKEN = "broken"

    @property
    def advice(self) -> str:
        """One sentence for the user: the cause, and the remedy if there is one."""
        return _ADVICE[self]


_ADVICE = {
    Ending.FINISHED: "the whole budget was trained",
    Ending.STOPPED: "stopped at a rung: others were better by then",
    Ending.OVER_LIMIT: "over a limit, known before training",
    Ending.DIVERGED: "a loss became NaN or infinite; lower the recipe's learning rate, or raise its warm-up",
    Ending.OUT_OF_MEMORY: (
        "the GPU or the host, as the detail says, ran out of memory; lower --batch or --image-size, or on the host "
        "raise --trial-memory"
    ),
    Ending.TIMED_OUT: "the trial took longer than --trial-timeout, or hung; raise it, or lower --epochs",
    Ending.CRASHED: "its process died, twice; its last output is in the study's folder, in workers",
    Ending.BROKEN: "an error, probably ours; the traceback lies in the trial's folder, in error.txt",
}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        losses: by name, mean over the epoch.
        map50_95: of the EMA; None if the epoch was not validated.
    """

    epoch: int
    losses: dict[str, float]
    map50_95: float | None
    map50: float | None
    seconds: float


GoOn = Callable[[int, Epoch], bool]
"""Called after every epoch with its number, from 1; returns whether the training goes on."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one candidate's trial.

    Attributes:
        costs: None if the trial failed before they were measured.
        scores: of the EMA after the last epoch of the budget; None unless finished.
        epochs: those that were trained, in order.
        coverage: what was transferred from `Budget.weights`; nothing if trained from scratch.
        detail: one line on what happened, if the ending alone does not say it.
        weights: checkpoint in fp32, if one was written.
        judged: accuracy on images that no search reads; None unless the training was judged.
        provenance: conditions under which another training has the same result.
    """

    architecture: "Architecture"
    ending: Ending
    costs: Costs | None = None
    scores: Scores | None = None
    epochs: tuple[Epoch, ...] = ()
    seconds: float = 0.0
    coverage: Coverage = field(default_factory=Coverage)
    detail: str = ""
    weights: Path | None = None
    judged: Accuracy | None = None
    provenance: Provenance | None = field(default=None, compare=False)
