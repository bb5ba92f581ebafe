"""Timing on a GPU, with a clock in the GPU's place: events, warm-up, pauses, and where TensorRT's engines lie."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces.errors import LatencyError
from trials.latency import measurement, runtimes, tensorrt_engine
from trials.latency.backends import Backend
from trials.latency.gpu_iteration import GpuIteration
from trials.latency.measurement import Protocol


class Gpu:
    """Clock of a GPU that needs 2 ms for an inference; the host returns at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.inferences = 0

    def infer(self) -> None:
        self.inferences += 1
        self.seconds += 0.002

    def event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self.seconds = gpu, -1.0

    def record(self, stream: str) -> None:
        assert stream == "stream"
        self.seconds = self._gpu.seconds

    def synchronize(self) -> None:
        assert self.seconds >= 0

    def elapsed_time(self, end: "Event") -> float:
        return (end.seconds - self.seconds) * 1000


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    return found


def test_an_inference_is_timed_by_the_gpu_and_not_by_the_host(gpu: Gpu) -> None:
    run = measurement.with_description(GpuIteration(gpu.infer, "stream"), "one image")
    assert isinstance(run, GpuIteration)
    latency = measurement.benchmark(run, protocol=Protocol.fixed(10), clock=lambda: 0.0)
    assert latency.median_ms == pytest.approx(2.0)
    assert gpu.inferences == 12


def test_an_error_on_the_gpu_names_what_was_run(gpu: Gpu) -> None:
    def failing() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    assert gpu.inferences == 0
    with pytest.raises(LatencyError, match=r"inference of one image failed: an illegal memory access"):
        GpuIteration(failing, "stream", "one image")()


def test_a_gpu_is_warm_before_it_is_timed(gpu: Gpu) -> None:
    protocol = Protocol(warm_up=5, min_iterations=3, max_iterations=3, warm_up_seconds=0.1)
    measurement.benchmark(GpuIteration(gpu.infer, "stream"), protocol=protocol, clock=lambda: gpu.seconds)
    assert 50 + 3 <= gpu.inferences <= 51 + 3  # 0.1 s of 2 ms, then three


def test_a_gpu_pauses_after_each_block(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    run = GpuIteration(gpu.infer, "stream")
    protocol = Protocol(warm_up=1, min_iterations=20, max_iterations=20, block=10, pause_seconds=0.02)
    found = measurement.compare(run, run, protocol=protocol, clock=lambda: gpu.seconds)
    assert found.ratio == pytest.approx(1.0)
    assert pauses == [0.02] * 5  # A-B-A-B-A


def test_both_models_of_a_comparison_share_the_warm_up(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    run = GpuIteration(gpu.infer, "stream")
    protocol = Protocol(warm_up=5, min_iterations=3, max_iterations=3, block=3, warm_up_seconds=0.1)
    measurement.compare(run, run, protocol=protocol, clock=lambda: gpu.seconds)
    assert 50 + 5 + 3 * 4 <= gpu.inferences <= 51 + 5 + 3 * 4


def test_protocol_depends_on_the_device() -> None:
    assert measurement.protocol_for("cpu") == measurement.protocol_for("cpu", idle_seconds=0.0) == Protocol()
    assert measurement.protocol_for("0").warm_up_seconds == 1


def test_a_gpu_that_was_busy_a_moment_ago_is_warm() -> None:
    busy, cold = (measurement.protocol_for("0", idle_seconds=seconds) for seconds in (4.0, 6.0))
    assert busy == replace(cold, warm_up_seconds=0.0)
    assert cold == measurement.GPU_PROTOCOL


def test_a_runtime_warms_its_gpu_up_once(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    monkeypatch.setattr(Backend, "prepare", lambda *_: GpuIteration(gpu.infer, "stream"))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: gpu.seconds)
    runtime: Any = runtimes.open_runtime("torch", device="0")
    runtime.clock = lambda: gpu.seconds
    began = [gpu.inferences]
    for idle in (0.0, 1.0, 10.0):
        gpu.seconds += idle
        runtime.measure(object())
        began.append(gpu.inferences)
    first, second, third = (after - before for before, after in pairwise(began))
    assert (first, second, third) == (500 + 20, 20 + 20, 500 + 20)  # a second of 2 ms, or twenty; then twenty timed


def test_an_engine_holds_for_one_graph_one_version_and_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    path: Callable[..., Path] = tensorrt_engine.path_of
    paths = {
        path(b"a", "10.1", "H200"),
        path(b"b", "10.1", "H200"),
        path(b"a", "10.2", "H200"),
        path(b"a", "10.1", "L4"),
    }
    assert len(paths) == 4
    assert path(b"a", "10.1", "H200") in paths
    assert all(found.parent == tmp_path / "tensorrt" for found in paths)
