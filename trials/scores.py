"""What a candidate is worth, and how its trial ended."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from search_spaces import Architecture
from search_spaces.errors import ScoreError
from trials.provenance import Provenance


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What of a deployed model came from another.

    Attributes:
        share: of its parameters.
        layers: the layers that did not come whole, as the base model calls them (`8`, `after-8`), each with the share
            of its parameters that came.
        new: names of the parameters that did not come, or not whole, the auxiliary half's among them.
    """

    share: float = 0.0
    layers: tuple[tuple[str, float], ...] = ()
    new: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What is known of a candidate before it is trained.

    Attributes:
        params: of the deployed graph.
        gflops: of the deployed graph, one image at the deployment size.
        latency_ms: median over the timed passes; None while nobody has asked for it. `latency_spread_ms` is the
            distance between their quartiles.
        latency_steady: whether the passes agree well enough for the median to mean something.
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
    """What a candidate is worth: accuracy in 0..1, and its costs."""

    map50_95: float
    map50: float
    costs: Costs

    def __post_init__(self) -> None:
        for name in ("map50_95", "map50"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ScoreError(f"{name}: an accuracy is from 0 to 1, got {value}")

    def value(self, objective: str) -> float:
        """One of `map50_95`, `map50`, `gflops`, `params`, `latency_ms`."""
        holder = self if objective in {field.name for field in fields(self)} else self.costs
        return float(getattr(holder, objective))


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
        """What happened, and what to do about it."""
        return _ADVICE[self]


_ADVICE = {
    Ending.FINISHED: "the whole budget was trained",
    Ending.STOPPED: "stopped at a rung: others were better by then",
    Ending.OVER_LIMIT: "over a limit, known before training",
    Ending.DIVERGED: "the loss left the finite numbers; lower the recipe's learning rate, or raise its warm-up",
    Ending.OUT_OF_MEMORY: (
        "the GPU or the host, as the detail says, ran out of memory; lower --batch or --image-size, or on the host "
        "raise --trial-memory"
    ),
    Ending.TIMED_OUT: "the trial took longer than --trial-timeout, or hung; raise it, or lower --epochs",
    Ending.CRASHED: "its process died, twice; what it said last is in the study's folder, in workers",
    Ending.BROKEN: "an error, probably ours; the traceback lies in the trial's folder, in error.txt",
}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        losses: by name, the mean over the epoch.
        map50_95: of the weights' moving average, where the epoch was validated.
    """

    epoch: int
    losses: dict[str, float]
    map50_95: float | None
    map50: float | None
    seconds: float


GoOn = Callable[[int, Epoch], bool]
"""Asked after every epoch, with its number from 1: whether the training goes on."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the trial of one candidate ended.

    Attributes:
        costs: None if the trial broke before they were known.
        scores: the moving average's at the last epoch of the budget; None unless finished.
        epochs: what was trained, in order.
        coverage: what came from `Budget.weights`; nothing from scratch.
        detail: one line on what happened, where the ending alone does not say it.
        weights: a checkpoint in fp32, if one was written.
        provenance: what must be equal for another training to end alike.
    """

    architecture: Architecture
    ending: Ending
    costs: Costs | None = None
    scores: Scores | None = None
    epochs: tuple[Epoch, ...] = ()
    seconds: float = 0.0
    coverage: Coverage = field(default_factory=Coverage)
    detail: str = ""
    weights: Path | None = None
    provenance: Provenance | None = field(default=None, compare=False)
