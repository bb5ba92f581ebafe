"""Error of predicted latencies: random candidates are predicted from a table, and measured."""

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

MIN_CANDIDATES = 2
"""Candidates that the statistics need."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Predicted and measured latency of one candidate, in milliseconds.

    Attributes:
        measured_ms: ratio to the stock model in a paired comparison, times the stock model's latency in the table.
        steady: whether the stock model's latency drifted little during the comparison.
    """

    architecture: Architecture
    predicted_ms: float
    measured_ms: float
    steady: bool

    @property
    def error(self) -> float:
        """Relative error: predicted / measured - 1; positive where the prediction is too high."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """Statistics of the prediction errors of several candidates.

    Attributes:
        median_error: median of the absolute relative errors.
        p90_error: 90th percentile of the absolute relative errors.
        bias: median of the signed relative errors.
        tau: Kendall's tau of predicted and measured latencies: 1 for equal order, 0 for unrelated, -1 for reversed.
        steady: number of candidates whose comparison was steady.
    """

    candidates: int
    median_error: float
    p90_error: float
    bias: float
    tau: float
    steady: int

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> Self:
        """Compute the statistics of two or more candidates.

        Raises:
            LatencyError: there are fewer.
        """
        if len(observations) < MIN_CANDIDATES:
            raise LatencyError(f"{MIN_CANDIDATES} candidates or more are expected, got {len(observations)}")
        absolute = [abs(one.error) for one in observations]
        return cls(
            candidates=len(observations),
            median_error=statistics.median(absolute),
            p90_error=statistics.quantiles(absolute, n=10, method="inclusive")[-1],
            bias=statistics.median(one.error for one in observations),
            tau=kendall_tau([one.predicted_ms for one in observations], [one.measured_ms for one in observations]),
            steady=sum(one.steady for one in observations),
        )


def observe(table: LatencyTable, runtime: Runtime, architectures: Iterable[Architecture]) -> Iterator[Observation]:
    """Predict candidates from a table, and measure each in a paired comparison with the stock model.

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
        yield Observation(
            architecture=architecture,
            predicted_ms=predicted_ms,
            measured_ms=compared.ratio * table.stock_ms,
            steady=compared.steady,
        )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau-a: (concordant - discordant pairs) / all pairs."""
    pairs = list(combinations(zip(first, second, strict=True), 2))
    signs = [_sign(a - c) * _sign(b - d) for (a, b), (c, d) in pairs]
    return sum(signs) / len(pairs)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
