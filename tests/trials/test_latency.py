"""The protocol of a measurement; no test times for real."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import LatencyError
from trials import latency
from trials.latency import Latency


class Counting(nn.Module):
    """One parameter, and a record of the passes."""

    def __init__(self, breaks_at: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.seen: list[tuple[tuple[int, ...], torch.dtype, bool, bool]] = []
        self.breaks_at = breaks_at

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((tuple(x.shape), x.dtype, self.training, torch.is_inference_mode_enabled()))
        if len(self.seen) == self.breaks_at:
            raise RuntimeError("Sizes of tensors must match")
        return self.conv(x)


def tell_time(monkeypatch: pytest.MonkeyPatch, milliseconds: Sequence[float]) -> None:
    """Let the timed passes take so long, one after the other."""

    def readings() -> Iterator[float]:
        now = 1000.0
        for duration in milliseconds:
            yield now
            now += duration / 1000
            yield now
            now += 5  # between passes the clock is not asked

    clock = readings()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: next(clock)))


@pytest.mark.parametrize(("rounds", "untimed"), [(50, 10), (10, 2), (4, 0)])
def test_untimed_passes_come_first(rounds: int, untimed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_time(monkeypatch, [1.0] * rounds)  # the clock ends with the last timed pass
    model = Counting()
    latency.measure(model, 32, rounds=rounds)
    assert len(model.seen) == untimed + rounds


def test_a_pass_is_one_square_image_in_eval_mode_without_gradients() -> None:
    model = Counting().double()
    latency.measure(model, 64, rounds=5)
    assert set(model.seen) == {((1, 3, 64, 64), torch.float64, False, True)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("breaks_at", [None, 1, 5])
def test_the_mode_is_restored(training: bool, breaks_at: int | None) -> None:
    model = Counting(breaks_at).train(training)
    try:
        latency.measure(model, 32, rounds=5)
    except LatencyError:
        assert breaks_at
    assert model.training is training
    assert model.conv.training is training


@pytest.mark.parametrize("breaks_at", [1, 5])
def test_a_pass_that_raises_is_an_error_that_names_the_size(breaks_at: int) -> None:
    with pytest.raises(LatencyError) as caught:
        latency.measure(Counting(breaks_at), 96, rounds=5)
    assert str(caught.value) == "a pass of one 96 px image failed: Sizes of tensors must match"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_median_and_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_time(monkeypatch, [40.0, 10.0, 30.0, 20.0, 50.0, 70.0, 60.0])
    measured = latency.measure(Counting(), 32, rounds=7)
    assert measured.median_ms == pytest.approx(40)
    assert measured.spread_ms == pytest.approx(60 - 20)
    assert not measured.steady


def test_one_slow_pass_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_time(monkeypatch, [10.0] * 19 + [500.0])
    measured = latency.measure(Counting(), 32, rounds=20)
    assert measured.median_ms == pytest.approx(10)
    assert measured.spread_ms == pytest.approx(0, abs=1e-6)
    assert measured.steady


@pytest.mark.parametrize("passes", [[3.0, 5.0, 4.0, 9.0], [7.0, 7.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_the_median_lies_among_the_passes(passes: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    tell_time(monkeypatch, passes)
    measured = latency.measure(Counting(), 32, rounds=len(passes))
    assert min(passes) - 1e-6 <= measured.median_ms <= max(passes) + 1e-6


@pytest.mark.parametrize(("spread_ms", "steady"), [(0.0, True), (0.8, True), (0.81, False), (8.0, False)])
def test_a_tenth_of_the_median_is_still_steady(spread_ms: float, steady: bool) -> None:
    assert Latency(median_ms=8.0, spread_ms=spread_ms).steady is steady


def test_a_real_clock_measures_something() -> None:
    measured = latency.measure(Counting(), 32, rounds=5)
    assert measured.median_ms > 0
    assert measured.spread_ms >= 0
