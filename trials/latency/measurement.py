"""Latency of one image on a device: the measurement protocol and its statistics.

Model: fused, in eval mode, batch 1, zeros as the input, `torch.inference_mode` in PyTorch. An *iteration* is one
inference of one image by the wall clock, from the call until the device is synchronised.

Single measurement (`benchmark`):
    1. 20 warm-up iterations, not timed: caches, lazy initialisation, autotuning, clock frequencies.
    2. Timed iterations, at least 20, until the 95 % confidence interval of the median is narrower than 2 % of the
       median, at most 100. After 60 s the measurement ends in any case, with at least 3 timed iterations.
    3. Reported are the median (robust against interruptions by other processes), the interquartile range as spread, the
       90th percentile and the number of timed iterations. A spread above 10 % of the median marks it as not steady.

Paired comparison (`compare`):
    Candidate B and reference A are timed in alternating blocks of 10 iterations, A-B-A-B-...-A, each block after one
    untimed iteration that refills the caches. Each block of B is divided by the mean of the two neighbouring blocks of
    A; the median of these ratios is the result. So a slow drift of the machine (thermal throttling, frequency scaling,
    background load) cancels to first order. If the fastest and the slowest block of A differ by more than 5 %, the
    comparison is marked as not steady.

On a GPU PyTorch and TensorRT are timed by CUDA events; ONNX Runtime, which owns its stream, by the wall clock, with the
copies of the image and of the output. The warm-up lasts a second at least, unless the GPU was busy a moment ago
(`COOLS_AFTER_SECONDS`), and each block is followed by a pause of 20 ms (`GPU_PROTOCOL`).
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import nn

from search_spaces.errors import LatencyError
from trials.costing.layers import IMAGE_CHANNELS
from trials.devices import CPU
from trials.latency.gpu_iteration import GpuIteration
from trials.torch_devices import memory_format

MAX_SPREAD = 0.10
"""Greatest interquartile range of a steady measurement, as a share of the median."""
MAX_DRIFT = 0.05
"""Greatest drift of the reference in a steady comparison."""
_MIN_ITERATIONS = 3
"""Timed iterations of the slowest model."""

Iteration = Callable[[], object]
"""Runs one inference of one image; synchronises the device before it returns. A `GpuIteration` also times itself."""
Clock = Callable[[], float]
"""Returns seconds since an arbitrary moment."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Statistics of the timed iterations, in milliseconds.

    Attributes:
        spread_ms: interquartile range.
        p90_ms: 90th percentile.
        iterations: number of timed iterations.
    """

    median_ms: float
    spread_ms: float
    p90_ms: float
    iterations: int

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Self:
        """Compute the statistics of two or more timed iterations."""
        quartiles = statistics.quantiles(times_ms, n=4, method="inclusive")
        return cls(
            median_ms=quartiles[1],
            spread_ms=quartiles[2] - quartiles[0],
            p90_ms=statistics.quantiles(times_ms, n=10, method="inclusive")[-1],
            iterations=len(times_ms),
        )

    @property
    def steady(self) -> bool:
        """Whether the spread is small; usually it is large because of other load on the machine."""
        return self.spread_ms <= MAX_SPREAD * self.median_ms


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired comparison of a candidate with a reference, in alternating blocks on one device.

    Attributes:
        ratio: candidate / reference: median over the candidate's blocks, each divided by the mean of the two
            neighbouring blocks of the reference.
        drift: slowest / fastest block of the reference, minus 1.
    """

    candidate: Latency
    reference: Latency
    ratio: float
    drift: float

    @property
    def steady(self) -> bool:
        """Whether the drift of the reference is small."""
        return self.drift <= MAX_DRIFT


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Number of iterations, and when a measurement ends.

    Attributes:
        warm_up: untimed iterations before the timed ones.
        min_iterations: timed iterations before the measurement may end because it is precise.
        max_iterations: timed iterations at which it ends in any case.
        precision: sufficient width of the 95 % confidence interval of the median, as a share of the median.
        max_seconds: time limit, warm-up included; three iterations are timed in any case.
        block: iterations of one model in a row in a comparison.
        warm_up_seconds: of warm-up at least, of all models together, until a GPU has raised its clocks.
        pause_seconds: after each block of a comparison, so that a GPU does not heat up.
    """

    warm_up: int = 20
    min_iterations: int = 20
    max_iterations: int = 100
    precision: float = 0.02
    max_seconds: float = 60.0
    block: int = 10
    warm_up_seconds: float = 0.0
    pause_seconds: float = 0.0

    @classmethod
    def fixed(cls, iterations: int) -> Self:
        """Return the protocol of a fixed number of timed iterations, after a fifth of that as warm-up."""
        return cls(warm_up=iterations // 5, min_iterations=iterations, max_iterations=iterations, max_seconds=math.inf)

    def is_enough(self, times_ms: Sequence[float]) -> bool:
        """Return whether the timed iterations are precise enough, or as many as allowed."""
        count = len(times_ms)
        if count >= self.max_iterations:
            return True
        return count >= max(self.min_iterations, _MIN_ITERATIONS) and relative_ci_width(times_ms) < self.precision


PROTOCOL = Protocol()
GPU_PROTOCOL = Protocol(warm_up_seconds=1.0, pause_seconds=0.02)


COOLS_AFTER_SECONDS = 5.0
"""Idle time after which a GPU is warmed up anew. An assumption: how fast a card lowers its clocks was not measured."""


def protocol_for(device: str, *, idle_seconds: float = math.inf) -> Protocol:
    """Return the protocol on a device.

    Args:
        device: `cpu`, or the number of a GPU.
        idle_seconds: since the last measurement on it.
    """
    if device == CPU:
        return PROTOCOL
    return GPU_PROTOCOL if idle_seconds > COOLS_AFTER_SECONDS else replace(GPU_PROTOCOL, warm_up_seconds=0.0)


def relative_ci_width(times_ms: Sequence[float]) -> float:
    """Return the width of the 95 % confidence interval of the median, as a share of the median.

    The bounds are order statistics, so no distribution is assumed: the number of values below the true median is
    binomial with p = 0.5, here in its normal approximation.
    """
    ordered, count = sorted(times_ms), len(times_ms)
    reach = 1.96 * math.sqrt(count) / 2
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count, math.ceil(count / 2 + reach)) - 1]
    return (high - low) / statistics.median(ordered)


def benchmark(run: Iteration, *, protocol: Protocol = PROTOCOL, clock: Clock = time.perf_counter) -> Latency:
    """Measure the latency of one model.

    Raises:
        LatencyError: an iteration raised. A measurement that is not steady is marked, and no error.
    """
    timer = _Timer(protocol, clock)
    timer.warm_up(run, share=0.25)
    times_ms: list[float] = []
    while not protocol.is_enough(times_ms) and not (len(times_ms) >= _MIN_ITERATIONS and timer.is_over()):
        times_ms.append(timer.time_ms(run))
    return Latency.of(times_ms)


def compare(
    candidate: Iteration, reference: Iteration, *, protocol: Protocol = PROTOCOL, clock: Clock = time.perf_counter
) -> Comparison:
    """Compare a candidate with a reference in alternating blocks until the candidate's iterations are enough.

    Raises:
        LatencyError: an iteration raised. A drifting reference is marked, and no error.
    """
    timer = _Timer(protocol, clock)
    for run in (reference, candidate):
        timer.warm_up(run, share=0.125)
    candidate_blocks: list[list[float]] = []
    reference_blocks = [timer.time_block(reference)]
    while True:
        candidate_blocks.append(timer.time_block(candidate))
        reference_blocks.append(timer.time_block(reference))
        if protocol.is_enough(_joined(candidate_blocks)) or timer.is_over():
            return _compared(candidate_blocks, reference_blocks)


def _compared(candidate: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> Comparison:
    medians = [statistics.median(block) for block in reference]
    blocks = zip(candidate, medians, medians[1:], strict=False)
    ratios = [2 * statistics.median(block) / (before + after) for block, before, after in blocks]
    return Comparison(
        candidate=Latency.of(_joined(candidate)),
        reference=Latency.of(_joined(reference)),
        ratio=statistics.median(ratios),
        drift=max(medians) / min(medians) - 1,
    )


def _joined(blocks: Sequence[Sequence[float]]) -> list[float]:
    return [one for block in blocks for one in block]


class _Timer:
    """Times iterations within the time limit of a measurement."""

    def __init__(self, protocol: Protocol, clock: Clock) -> None:
        self._protocol, self._clock = protocol, clock
        begun = clock()
        self._end = begun + protocol.max_seconds
        self._warm = begun + protocol.warm_up_seconds

    def is_over(self) -> bool:
        return self._clock() >= self._end

    def time_ms(self, run: Iteration) -> float:
        if isinstance(run, GpuIteration):
            return run.time_ms()
        start = self._clock()
        run()
        return (self._clock() - start) * 1000

    def warm_up(self, run: Iteration, *, share: float) -> None:
        """Run the warm-up iterations; stop early when they take more than a share of the time limit."""
        end = self._clock() + share * self._protocol.max_seconds
        done = 0
        while done < self._protocol.warm_up or (self._protocol.warm_up_seconds and self._clock() < self._warm):
            run()
            done += 1
            if self._clock() >= end:
                return

    def time_block(self, run: Iteration) -> list[float]:
        """Time one block, in milliseconds, after one untimed iteration that refills the caches."""
        end = self._clock() + self._protocol.max_seconds / 8
        run()
        times_ms: list[float] = []
        while len(times_ms) < self._protocol.block and not (len(times_ms) >= _MIN_ITERATIONS and self._clock() >= end):
            times_ms.append(self.time_ms(run))
        if self._protocol.pause_seconds:
            time.sleep(self._protocol.pause_seconds)
        return times_ms


def measure(
    model: nn.Module, image_size: int, *, iterations: int | None = None, clock: Clock = time.perf_counter
) -> Latency:
    """Measure the latency of one image in PyTorch, in eval mode, batch 1, on the model's device and in its precision.

    Args:
        model: takes `(1, 3, image_size, image_size)`; fused and in its device's memory format as it is deployed. Its
            training mode is restored.
        image_size: in pixels, a multiple of the model's stride.
        iterations: fixed number of timed iterations; None for the protocol's.

    Raises:
        LatencyError: an iteration raised. A measurement that is not steady is marked, and no error.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, IMAGE_CHANNELS, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    image = image.contiguous(memory_format=memory_format(parameter.device, model))
    was_training = model.training
    model.eval()
    try:
        run = iteration_of(model, image, description=f"one {image_size} px image")
        usual = GPU_PROTOCOL if parameter.is_cuda else PROTOCOL
        return benchmark(run, protocol=usual if iterations is None else Protocol.fixed(iterations), clock=clock)
    finally:
        model.train(was_training)


def iteration_of(module: nn.Module, inputs: object, *, description: str) -> Iteration:
    """Return an iteration of a module in PyTorch: inference mode; on a GPU a `GpuIteration`.

    Args:
        inputs: on the module's device.
        description: of what is run, for errors.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    def run() -> None:
        with torch.inference_mode():
            module(inputs)

    if device.type == "cuda":
        return GpuIteration(run, torch.cuda.current_stream(device), description)
    return with_description(run, description)


def with_description(run: Iteration, description: str) -> Iteration:
    """Return an iteration whose errors are `LatencyError`s with the description of what is run."""
    if isinstance(run, GpuIteration):
        return replace(run, description=description)

    def described() -> None:
        try:
            run()
        except Exception as error:
            raise LatencyError(f"inference of {description} failed: {error}") from error

    return described
