"""The measurement protocol, on a clock that only iterations advance."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces.errors import LatencyError
from trials.latency import measurement
from trials.latency.measurement import Comparison, Latency, Protocol


class Clock:
    """Clock that advances only by the durations of simulated iterations."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def iteration(self, name: str, milliseconds: Sequence[float] | Callable[[], float]) -> Callable[[], None]:
        """Return an iteration of given durations, the last one repeated; or of those that a function returns."""
        if callable(milliseconds):
            durations: Iterator[float] = iter(milliseconds, None)
        else:
            durations = chain(milliseconds, repeat(milliseconds[-1]))

        def run() -> None:
            self.calls.append(name)
            self.now += next(durations) / 1000

        return run


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Counting(nn.Module):
    """Model that records its forward passes, each of which advances a clock by some milliseconds."""

    def __init__(
        self, breaks_at: int | None = None, *, clock: Clock | None = None, takes: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.recorded: list[tuple[tuple[int, ...], torch.dtype, bool, bool]] = []
        self.breaks_at, self.clock, self.takes = breaks_at, clock, iter(takes)

    def forward(self, x: Tensor) -> Tensor:
        self.recorded.append((tuple(x.shape), x.dtype, self.training, torch.is_inference_mode_enabled()))
        if len(self.recorded) == self.breaks_at:
            raise RuntimeError("Sizes of tensors must match")
        if self.clock:
            self.clock.now += next(self.takes) / 1000
        return self.conv(x)


class TestProtocol:
    def test_warm_up_iterations_are_not_timed(self, clock: Clock) -> None:
        run = clock.iteration("a", [500.0] * 20 + [1.0])
        measured = measurement.benchmark(run, clock=clock)
        assert measured.median_ms == pytest.approx(1)
        assert measured.p90_ms == pytest.approx(1)

    def test_a_stable_measurement_ends_at_the_minimum(self, clock: Clock) -> None:
        assert measurement.benchmark(clock.iteration("a", [7.0]), clock=clock).iterations == 20

    def test_an_unstable_measurement_ends_at_the_maximum(self, clock: Clock) -> None:
        rng = random.Random(0)
        measured = measurement.benchmark(clock.iteration("a", lambda: rng.uniform(5, 15)), clock=clock)
        assert measured.iterations == 100
        assert len(clock.calls) == 120
        assert not measured.steady

    @given(width=st.floats(0, 1), seed=st.integers(0, 99))
    def test_measurement_ends_early_only_if_the_interval_is_narrow(self, width: float, seed: int) -> None:
        clock, rng, times = Clock(), random.Random(seed), [0.0]

        def time_ms() -> float:
            times.append(rng.uniform(10, 10 + width))
            return times[-1]

        measured = measurement.benchmark(clock.iteration("a", time_ms), clock=clock)
        assert 20 <= measured.iterations <= 100
        if measured.iterations < 100:
            assert measurement.relative_ci_width(times[-measured.iterations :]) < 0.02

    def test_measurement_of_a_slow_model_ends_at_the_time_limit(self, clock: Clock) -> None:
        measured = measurement.benchmark(
            clock.iteration("a", [2000.0]), clock=clock, protocol=Protocol(min_iterations=50)
        )
        assert clock.now - 1000 <= 62
        assert measured.iterations == 22  # after eight warm-up iterations

    def test_the_slowest_model_has_three_timed_iterations(self, clock: Clock) -> None:
        assert measurement.benchmark(clock.iteration("a", [1e6]), clock=clock).iterations == 3

    def test_interval_contains_the_median_in_95_of_100_cases(self) -> None:
        rng, within = random.Random(1), 0
        for _ in range(1000):
            times = [10 + rng.expovariate(1) for _ in range(40)]
            ordered = sorted(times)
            low, high = ordered[13], ordered[26]
            assert measurement.relative_ci_width(times) == pytest.approx(
                (high - low) / ((ordered[19] + ordered[20]) / 2)
            )
            within += low <= 10 + 0.6931 <= high
        assert 940 <= within <= 975


class TestLatency:
    def test_latency_has_median_interquartile_range_and_90th_percentile(self) -> None:
        measured = Latency.of([40.0, 10.0, 30.0, 20.0, 50.0, 70.0, 60.0, 80.0, 90.0, 100.0, 110.0])
        assert (measured.median_ms, measured.spread_ms, measured.p90_ms) == (60, 50, 100)
        assert measured.iterations == 11

    def test_outlier_does_not_change_the_latency(self) -> None:
        measured = Latency.of([10.0] * 19 + [500.0])
        assert (measured.median_ms, measured.spread_ms, measured.p90_ms) == (10, 0, 10)
        assert measured.steady

    @given(st.lists(st.floats(0.01, 1e4), min_size=2))
    def test_latency_statistics_lie_within_the_measured_range(self, times: list[float]) -> None:
        measured, slack = Latency.of(times), 1 + 1e-9
        assert min(times) <= measured.median_ms * slack
        assert measured.median_ms <= measured.p90_ms * slack
        assert measured.p90_ms <= max(times) * slack

    @pytest.mark.parametrize(("spread_ms", "steady"), [(0.0, True), (0.8, True), (0.81, False), (8.0, False)])
    def test_interquartile_range_of_a_tenth_of_the_median_is_steady(self, spread_ms: float, steady: bool) -> None:
        assert Latency(median_ms=8.0, spread_ms=spread_ms, p90_ms=8.0, iterations=20).steady is steady


class TestComparison:
    def test_each_block_of_the_candidate_is_between_two_of_the_reference(self, clock: Clock) -> None:
        candidate, reference = clock.iteration("b", [3.0]), clock.iteration("a", [2.0])
        compared = measurement.compare(candidate, reference, clock=clock)
        assert "".join(clock.calls) == "a" * 20 + "b" * 20 + "a" * 11 + ("b" * 11 + "a" * 11) * 2
        assert compared.ratio == pytest.approx(1.5)
        assert compared.candidate.median_ms == pytest.approx(3)
        assert (compared.candidate.iterations, compared.reference.iterations) == (20, 30)
        assert compared.steady

    def test_blocks_alternate_until_the_candidate_is_precise(self, clock: Clock) -> None:
        rng = random.Random(0)
        compared = measurement.compare(
            clock.iteration("b", lambda: rng.uniform(2, 4)), clock.iteration("a", [2.0]), clock=clock
        )
        assert (compared.candidate.iterations, compared.reference.iterations) == (100, 110)

    @pytest.mark.parametrize(("factor", "steady"), [(1.0, True), (1.04, True), (1.06, False), (0.94, False)])
    def test_a_reference_that_drifts_over_five_percent_is_marked(
        self, factor: float, steady: bool, clock: Clock
    ) -> None:
        reference = clock.iteration("a", [10.0] * 42 + [10.0 * factor])
        compared = measurement.compare(clock.iteration("b", [5.0]), reference, clock=clock)
        assert compared.steady is steady
        assert compared.drift == pytest.approx(max(factor, 1 / factor) - 1)

    def test_a_linear_drift_hardly_changes_the_ratio(self, clock: Clock) -> None:
        def slower(milliseconds: float) -> Callable[[], float]:
            return lambda: milliseconds * (1 + (clock.now - 1000) / 10)

        compared = measurement.compare(
            clock.iteration("b", slower(30.0)), clock.iteration("a", slower(20.0)), clock=clock
        )
        assert not compared.steady
        assert compared.ratio == pytest.approx(1.5, rel=0.03)

    def test_comparison_of_slow_models_ends_at_the_time_limit(self, clock: Clock) -> None:
        compared = measurement.compare(clock.iteration("b", [3000.0]), clock.iteration("a", [2000.0]), clock=clock)
        assert clock.now - 1000 <= 60 + 2 * 12
        assert compared.ratio == pytest.approx(1.5)
        assert isinstance(compared, Comparison)


class TestMeasure:
    @pytest.mark.parametrize(("iterations", "warm_up"), [(50, 10), (10, 2), (4, 0)])
    def test_number_of_iterations_can_be_fixed(self, iterations: int, warm_up: int, clock: Clock) -> None:
        model = Counting(clock=clock, takes=[1.0] * (warm_up + iterations))
        assert measurement.measure(model, 32, iterations=iterations, clock=clock).iterations == iterations
        assert len(model.recorded) == warm_up + iterations

    def test_measurement_follows_the_protocol_by_default(self, clock: Clock) -> None:
        model = Counting(clock=clock, takes=[1.0] * 40)
        assert measurement.measure(model, 32, clock=clock).iterations == 20
        assert len(model.recorded) == 40

    def test_an_iteration_is_one_square_image_in_eval_and_inference_mode(self) -> None:
        model = Counting().double()
        measurement.measure(model, 64, iterations=5)
        assert set(model.recorded) == {((1, 3, 64, 64), torch.float64, False, True)}

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("breaks_at", [None, 1, 5])
    def test_measurement_restores_the_training_mode(self, training: bool, breaks_at: int | None) -> None:
        model = Counting(breaks_at).train(training)
        try:
            measurement.measure(model, 32, iterations=5)
        except LatencyError:
            assert breaks_at
        assert model.training is training
        assert model.conv.training is training

    @pytest.mark.parametrize("breaks_at", [1, 5])
    def test_a_failing_iteration_is_an_error_that_names_the_size(self, breaks_at: int) -> None:
        with pytest.raises(LatencyError) as caught:
            measurement.measure(Counting(breaks_at), 96, iterations=5)
        assert str(caught.value) == "inference of one 96 px image failed: Sizes of tensors must match"
        assert isinstance(caught.value.__cause__, RuntimeError)

    def test_measurement_with_a_real_clock_is_positive(self) -> None:
        measured = measurement.measure(Counting(), 32, iterations=5)
        assert measured.median_ms > 0
        assert measured.spread_ms >= 0
