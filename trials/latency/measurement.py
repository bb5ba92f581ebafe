"""Measured latency: how long a deployed model takes for one image, and how a measurement is made.

A *pass* is a callable that runs one image to its end. `timed` times one; `compare` times one interleaved with a
reference, so that what else happens on the machine meets both.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from search_spaces.errors import LatencyError
from trials.costing.layers import IMAGE_CHANNELS
from trials.devices import memory_format

STEADY = 0.10
"""The greatest distance between the quartiles, as a share of the median, at which a median still means something."""
DRIFT = 0.05
"""The greatest difference between two blocks of the reference at which a comparison with it still means something."""
_FEWEST = 3
"""Timed passes, however long one takes."""

Pass = Callable[[], object]
"""Runs one image to its end: whatever was started on a device is finished when it returns."""
Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one image, in milliseconds.

    Attributes:
        spread_ms: the distance between the quartiles of the timed passes.
        p90_ms: nine passes of ten took no longer.
        passes: how many were timed.
    """

    median_ms: float
    spread_ms: float
    p90_ms: float
    passes: int

    @classmethod
    def of(cls, passes_ms: Sequence[float]) -> Self:
        """What two or more timed passes say."""
        quartiles = statistics.quantiles(passes_ms, n=4, method="inclusive")
        return cls(
            median_ms=quartiles[1],
            spread_ms=quartiles[2] - quartiles[0],
            p90_ms=statistics.quantiles(passes_ms, n=10, method="inclusive")[-1],
            passes=len(passes_ms),
        )

    @property
    def steady(self) -> bool:
        """Whether the passes agree; other work on the machine is what usually makes them disagree."""
        return self.spread_ms <= STEADY * self.median_ms


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate and a reference, timed in turns on the same device.

    Attributes:
        ratio: of the candidate to the reference: the median over its blocks, each compared with the two blocks of the
            reference around it, which takes a slow drift of the machine out.
        drift: the difference between the quickest and the slowest block of the reference, as a share of the quickest.
    """

    candidate: Latency
    reference: Latency
    ratio: float
    drift: float

    @property
    def steady(self) -> bool:
        """Whether the reference stayed where it was."""
        return self.drift <= DRIFT


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How long to time.

    Attributes:
        warm_up: untimed passes that come first.
        least: timed passes before a measurement may end because it is precise.
        most: timed passes at which it ends in any case.
        precision: the width of the 95 % interval of the median, as a share of the median, that is precise.
        seconds: after which it ends, warm-up included, once there are three timed passes.
        block: passes of one model before it is the other's turn.
    """

    warm_up: int = 20
    least: int = 20
    most: int = 100
    precision: float = 0.02
    seconds: float = 60.0
    block: int = 10

    @classmethod
    def exactly(cls, rounds: int) -> Self:
        """So many timed passes, after a fifth of that untimed."""
        return cls(warm_up=rounds // 5, least=rounds, most=rounds, seconds=math.inf)

    def is_enough(self, passes_ms: Sequence[float]) -> bool:
        """Whether no further pass is needed."""
        count = len(passes_ms)
        return count >= self.most or (count >= max(self.least, _FEWEST) and uncertainty(passes_ms) < self.precision)


PROTOCOL = Protocol()


def uncertainty(passes_ms: Sequence[float]) -> float:
    """The width of the 95 % interval of the median, as a share of the median.

    Between two of the sorted passes, whatever their distribution: as many of them lie below the true median as a fair
    coin shows heads.
    """
    ordered, count = sorted(passes_ms), len(passes_ms)
    reach = 1.96 * math.sqrt(count) / 2
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count, math.ceil(count / 2 + reach)) - 1]
    return (high - low) / statistics.median(ordered)


def timed(run: Pass, *, protocol: Protocol = PROTOCOL, clock: Clock = time.perf_counter) -> Latency:
    """Time a pass, alone.

    Raises:
        LatencyError: a pass raised. An unsteady measurement is a mark, not an error.
    """
    watch = _Watch(protocol, clock)
    watch.warm_up(run, share=0.25)
    passes: list[float] = []
    while not protocol.is_enough(passes) and not (len(passes) >= _FEWEST and watch.is_over()):
        passes.append(watch.one(run))
    return Latency.of(passes)


def compare(
    candidate: Pass, reference: Pass, *, protocol: Protocol = PROTOCOL, clock: Clock = time.perf_counter
) -> Comparison:
    """Time a candidate in turns with a reference: A-B-A, and B-A again until the candidate's passes are enough.

    Raises:
        LatencyError: a pass raised. A reference that drifts is a mark, not an error.
    """
    watch = _Watch(protocol, clock)
    for run in (reference, candidate):
        watch.warm_up(run, share=0.125)
    own: list[list[float]] = []
    others = [watch.block(reference)]
    while True:
        own.append(watch.block(candidate))
        others.append(watch.block(reference))
        if protocol.is_enough(_joined(own)) or watch.is_over():
            return _compared(own, others)


def _compared(own: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> Comparison:
    around = [statistics.median(block) for block in others]
    blocks = zip(own, around, around[1:], strict=False)
    ratios = [2 * statistics.median(block) / (before + after) for block, before, after in blocks]
    return Comparison(
        candidate=Latency.of(_joined(own)),
        reference=Latency.of(_joined(others)),
        ratio=statistics.median(ratios),
        drift=max(around) / min(around) - 1,
    )


def _joined(blocks: Sequence[Sequence[float]]) -> list[float]:
    return [one for block in blocks for one in block]


class _Watch:
    """Times passes, and knows when the time of a measurement is over."""

    def __init__(self, protocol: Protocol, clock: Clock) -> None:
        self._protocol, self._clock = protocol, clock
        self._end = clock() + protocol.seconds

    def is_over(self) -> bool:
        return self._clock() >= self._end

    def one(self, run: Pass) -> float:
        start = self._clock()
        run()
        return (self._clock() - start) * 1000

    def warm_up(self, run: Pass, *, share: float) -> None:
        """The untimed passes, of which the last ones are left out where they take more than a share of the time."""
        end = self._clock() + share * self._protocol.seconds
        for _ in range(self._protocol.warm_up):
            run()
            if self._clock() >= end:
                return

    def block(self, run: Pass) -> list[float]:
        """Some timed passes after an untimed one, in which the caches forget the other model."""
        end = self._clock() + self._protocol.seconds / 8
        run()
        passes: list[float] = []
        while len(passes) < self._protocol.block and not (len(passes) >= _FEWEST and self._clock() >= end):
            passes.append(self.one(run))
        return passes


def measure(
    model: nn.Module, image_size: int, *, rounds: int | None = None, clock: Clock = time.perf_counter
) -> Latency:
    """Time one image through a model.

    In eval mode, batch 1, in the model's own precision and on its own device, which is synchronised in each pass.

    Args:
        model: takes `(1, 3, image_size, image_size)`, fused and in the `layout` of its device if that is how it
            would be shipped; returned to the mode it came in.
        image_size: in pixels, a multiple of the model's stride.
        rounds: exactly so many timed passes, instead of as many as the protocol asks for.

    Raises:
        LatencyError: a pass raised. An unsteady measurement is a mark, not an error.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, IMAGE_CHANNELS, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    image = image.contiguous(memory_format=memory_format(parameter.device))
    was_training = model.training
    model.eval()
    try:
        run = passing(model, image, what=f"one {image_size} px image")
        return timed(run, protocol=PROTOCOL if rounds is None else Protocol.exactly(rounds), clock=clock)
    finally:
        model.train(was_training)


def passing(module: nn.Module, received: object, *, what: str) -> Pass:
    """A module's pass in PyTorch, without gradients.

    Args:
        received: what enters the module, on its device.
        what: enters it, in words, for an error.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    def run() -> None:
        with torch.inference_mode():
            module(received)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return named(run, what)


def named(run: Pass, what: str) -> Pass:
    """The pass, of which an error says what it was a pass of."""

    def told() -> None:
        try:
            run()
        except Exception as error:
            raise LatencyError(f"a pass of {what} failed: {error}") from error

    return told
