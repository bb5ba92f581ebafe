"""How wrong a latency table is: real candidates, predicted and measured."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self

from search_spaces import Architecture
from search_spaces.errors import LatencyError
from trials.latency.deployed import Deployed
from trials.latency.latency_table import LatencyTable
from trials.latency.runtimes import Runtime

FEWEST = 2
"""Candidates of which an accuracy can be told."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One candidate.

    Attributes:
        measured_ms: its ratio to the stock model, timed in turns, times the stock model's entry in the table.
        steady: whether the stock model stayed where it was meanwhile.
    """

    architecture: Architecture
    predicted_ms: float
    measured_ms: float
    steady: bool

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured; above 0 where it promises too slow a model."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Of predictions, over several candidates.

    Attributes:
        median_error: of the errors' sizes, as a share; nine of ten are no larger than `p90_error`.
        bias: the median of the errors with their signs.
        tau: Kendall's, 1 where predictions order the candidates as measurements do, 0 where they tell nothing.
        steady: how many of the candidates were measured beside a stock model that stayed where it was.
    """

    candidates: int
    median_error: float
    p90_error: float
    bias: float
    tau: float
    steady: int

    @classmethod
    def of(cls, checked: Sequence[Checked]) -> Self:
        """What two or more candidates say.

        Raises:
            LatencyError: fewer than that.
        """
        if len(checked) < FEWEST:
            raise LatencyError(f"{FEWEST} candidates or more are expected, got {len(checked)}")
        sizes = [abs(one.error) for one in checked]
        return cls(
            candidates=len(checked),
            median_error=statistics.median(sizes),
            p90_error=statistics.quantiles(sizes, n=10, method="inclusive")[-1],
            bias=statistics.median(one.error for one in checked),
            tau=kendall([one.predicted_ms for one in checked], [one.measured_ms for one in checked]),
            steady=sum(one.steady for one in checked),
        )


def check(table: LatencyTable, runtime: Runtime, architectures: Iterable[Architecture]) -> Iterator[Checked]:
    """Predict and measure, A-B-A against the stock model.

    Raises:
        LatencyError: the runtime is not the table's, the table lacks an entry, or a candidate does not run.
    """
    table.recorded.profile.require(runtime.profile, f"the table {table.recorded.profile.name}")
    stock = table.stock_model.deploy()
    for architecture in architectures:
        predicted_ms = table.predict(architecture)
        image_size = architecture.image_size or table.image_size
        candidate = Deployed.model(architecture.document(table.classes), table.classes, image_size)
        compared = runtime.compare(candidate, stock)
        yield Checked(
            architecture=architecture,
            predicted_ms=predicted_ms,
            measured_ms=compared.ratio * table.stock_ms,
            steady=compared.steady,
        )


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau: the share of pairs that both order alike, less the share that they order unlike."""
    pairs = list(combinations(zip(first, second, strict=True), 2))
    signs = [_sign(a - c) * _sign(b - d) for (a, b), (c, d) in pairs]
    return sum(signs) / len(pairs)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
