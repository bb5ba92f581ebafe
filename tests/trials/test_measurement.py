"""The protocol of a measurement, on a clock that only passes move."""

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
    """Seconds, which pass only when somebody lets them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.passes: list[str] = []

    def __call__(self) -> float:
        return self.now

    def passing(self, name: str, milliseconds: Sequence[float] | Callable[[], float]) -> Callable[[], None]:
        """A pass that takes so long: one after the other, then as long as the last; or as long as it is told."""
        if callable(milliseconds):
            durations: Iterator[float] = iter(milliseconds, None)
        else:
            durations = chain(milliseconds, repeat(milliseconds[-1]))

        def run() -> None:
            self.passes.append(name)
            self.now += next(durations) / 1000

        return run


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Counting(nn.Module):
    """One parameter, and a record of the passes, each of which moves a clock by so many milliseconds."""

    def __init__(
        self, breaks_at: int | None = None, *, clock: Clock | None = None, takes: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.seen: list[tuple[tuple[int, ...], torch.dtype, bool, bool]] = []
        self.breaks_at, self.clock, self.takes = breaks_at, clock, iter(takes)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((tuple(x.shape), x.dtype, self.training, torch.is_inference_mode_enabled()))
        if len(self.seen) == self.breaks_at:
            raise RuntimeError("Sizes of tensors must match")
        if self.clock:
            self.clock.now += next(self.takes) / 1000
        return self.conv(x)


class TestProtocol:
    def test_the_untimed_passes_come_first(self, clock: Clock) -> None:
        run = clock.passing("a", [500.0] * 20 + [1.0])
        measured = measurement.timed(run, clock=clock)
        assert measured.median_ms == pytest.approx(1)
        assert measured.p90_ms == pytest.approx(1)

    def test_passes_that_agree_are_soon_enough(self, clock: Clock) -> None:
        assert measurement.timed(clock.passing("a", [7.0]), clock=clock).passes == 20

    def test_passes_that_disagree_are_a_hundred(self, clock: Clock) -> None:
        rng = random.Random(0)
        measured = measurement.timed(clock.passing("a", lambda: rng.uniform(5, 15)), clock=clock)
        assert measured.passes == 100
        assert len(clock.passes) == 120
        assert not measured.steady

    @given(width=st.floats(0, 1), seed=st.integers(0, 99))
    def test_it_ends_early_only_where_the_interval_is_narrow(self, width: float, seed: int) -> None:
        clock, rng, seen = Clock(), random.Random(seed), [0.0]

        def pass_ms() -> float:
            seen.append(rng.uniform(10, 10 + width))
            return seen[-1]

        measured = measurement.timed(clock.passing("a", pass_ms), clock=clock)
        assert 20 <= measured.passes <= 100
        if measured.passes < 100:
            assert measurement.uncertainty(seen[-measured.passes :]) < 0.02

    def test_a_slow_model_ends_within_its_time(self, clock: Clock) -> None:
        measured = measurement.timed(clock.passing("a", [2000.0]), clock=clock, protocol=Protocol(least=50))
        assert clock.now - 1000 <= 62
        assert measured.passes == 22  # and eight untimed ones

    def test_the_slowest_model_is_timed_three_times(self, clock: Clock) -> None:
        assert measurement.timed(clock.passing("a", [1e6]), clock=clock).passes == 3

    def test_the_interval_of_the_median_is_right_in_95_of_100(self) -> None:
        rng, within = random.Random(1), 0
        for _ in range(1000):
            passes = [10 + rng.expovariate(1) for _ in range(40)]
            ordered = sorted(passes)
            low, high = ordered[13], ordered[26]
            assert measurement.uncertainty(passes) == pytest.approx((high - low) / ((ordered[19] + ordered[20]) / 2))
            within += low <= 10 + 0.6931 <= high
        assert 940 <= within <= 975


class TestLatency:
    def test_median_quartiles_and_the_ninth_of_ten(self) -> None:
        measured = Latency.of([40.0, 10.0, 30.0, 20.0, 50.0, 70.0, 60.0, 80.0, 90.0, 100.0, 110.0])
        assert (measured.median_ms, measured.spread_ms, measured.p90_ms) == (60, 50, 100)
        assert measured.passes == 11

    def test_one_slow_pass_does_not_count(self) -> None:
        measured = Latency.of([10.0] * 19 + [500.0])
        assert (measured.median_ms, measured.spread_ms, measured.p90_ms) == (10, 0, 10)
        assert measured.steady

    @given(st.lists(st.floats(0.01, 1e4), min_size=2))
    def test_what_is_told_lies_among_the_passes(self, passes: list[float]) -> None:
        measured, slack = Latency.of(passes), 1 + 1e-9
        assert min(passes) <= measured.median_ms * slack
        assert measured.median_ms <= measured.p90_ms * slack
        assert measured.p90_ms <= max(passes) * slack

    @pytest.mark.parametrize(("spread_ms", "steady"), [(0.0, True), (0.8, True), (0.81, False), (8.0, False)])
    def test_a_tenth_of_the_median_is_still_steady(self, spread_ms: float, steady: bool) -> None:
        assert Latency(median_ms=8.0, spread_ms=spread_ms, p90_ms=8.0, passes=20).steady is steady


class TestComparison:
    def test_the_candidate_stands_between_two_blocks_of_the_reference(self, clock: Clock) -> None:
        candidate, reference = clock.passing("b", [3.0]), clock.passing("a", [2.0])
        compared = measurement.compare(candidate, reference, clock=clock)
        assert "".join(clock.passes) == "a" * 20 + "b" * 20 + "a" * 11 + ("b" * 11 + "a" * 11) * 2
        assert compared.ratio == pytest.approx(1.5)
        assert compared.candidate.median_ms == pytest.approx(3)
        assert (compared.candidate.passes, compared.reference.passes) == (20, 30)
        assert compared.steady

    def test_it_goes_on_in_turns_until_the_candidate_is_known(self, clock: Clock) -> None:
        rng = random.Random(0)
        compared = measurement.compare(
            clock.passing("b", lambda: rng.uniform(2, 4)), clock.passing("a", [2.0]), clock=clock
        )
        assert (compared.candidate.passes, compared.reference.passes) == (100, 110)

    @pytest.mark.parametrize(("factor", "steady"), [(1.0, True), (1.04, True), (1.06, False), (0.94, False)])
    def test_a_reference_that_drifts_over_five_percent_is_marked(
        self, factor: float, steady: bool, clock: Clock
    ) -> None:
        reference = clock.passing("a", [10.0] * 42 + [10.0 * factor])
        compared = measurement.compare(clock.passing("b", [5.0]), reference, clock=clock)
        assert compared.steady is steady
        assert compared.drift == pytest.approx(max(factor, 1 / factor) - 1)

    def test_a_machine_that_slows_down_hardly_changes_the_ratio(self, clock: Clock) -> None:
        def slower(milliseconds: float) -> Callable[[], float]:
            return lambda: milliseconds * (1 + (clock.now - 1000) / 10)

        compared = measurement.compare(clock.passing("b", slower(30.0)), clock.passing("a", slower(20.0)), clock=clock)
        assert not compared.steady
        assert compared.ratio == pytest.approx(1.5, rel=0.03)

    def test_slow_models_end_within_their_time(self, clock: Clock) -> None:
        compared = measurement.compare(clock.passing("b", [3000.0]), clock.passing("a", [2000.0]), clock=clock)
        assert clock.now - 1000 <= 60 + 2 * 12
        assert compared.ratio == pytest.approx(1.5)
        assert isinstance(compared, Comparison)


class TestMeasure:
    @pytest.mark.parametrize(("rounds", "untimed"), [(50, 10), (10, 2), (4, 0)])
    def test_rounds_are_so_many_passes(self, rounds: int, untimed: int, clock: Clock) -> None:
        model = Counting(clock=clock, takes=[1.0] * (untimed + rounds))
        assert measurement.measure(model, 32, rounds=rounds, clock=clock).passes == rounds
        assert len(model.seen) == untimed + rounds

    def test_by_itself_it_follows_the_protocol(self, clock: Clock) -> None:
        model = Counting(clock=clock, takes=[1.0] * 40)
        assert measurement.measure(model, 32, clock=clock).passes == 20
        assert len(model.seen) == 40

    def test_a_pass_is_one_square_image_in_eval_mode_without_gradients(self) -> None:
        model = Counting().double()
        measurement.measure(model, 64, rounds=5)
        assert set(model.seen) == {((1, 3, 64, 64), torch.float64, False, True)}

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("breaks_at", [None, 1, 5])
    def test_the_mode_is_restored(self, training: bool, breaks_at: int | None) -> None:
        model = Counting(breaks_at).train(training)
        try:
            measurement.measure(model, 32, rounds=5)
        except LatencyError:
            assert breaks_at
        assert model.training is training
        assert model.conv.training is training

    @pytest.mark.parametrize("breaks_at", [1, 5])
    def test_a_pass_that_raises_is_an_error_that_names_the_size(self, breaks_at: int) -> None:
        with pytest.raises(LatencyError) as caught:
            measurement.measure(Counting(breaks_at), 96, rounds=5)
        assert str(caught.value) == "a pass of one 96 px image failed: Sizes of tensors must match"
        assert isinstance(caught.value.__cause__, RuntimeError)

    def test_a_real_clock_measures_something(self) -> None:
        measured = measurement.measure(Counting(), 32, rounds=5)
        assert measured.median_ms > 0
        assert measured.spread_ms >= 0
