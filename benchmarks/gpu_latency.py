"""Latency on a GPU by each runtime that is there, and how wrong its predictions from a table of layers are."""

import random
from collections.abc import Iterator
from importlib.util import find_spec

from benchmarks.gpu_check import Place, Row
from benchmarks.gpu_search import SPACE
from search_spaces import SearchSpace, load
from trials.latency.latency_table import LatencyTable, record
from trials.latency.prediction_error import observe
from trials.latency.runtimes import Runtime, open_runtime
from trials.latency.timings import Timings

SMALL_SPACE = """\
name: gpu
base: yolov5n.yaml
slots:
  - at: {layers: [5]}
    choices:
      UIB: {start_kernel: [3], expansion: [2]}
"""
_CLASSES = 10
_FURTHER = {"torch": ("fp16",), "onnxruntime": ("fp16",), "tensorrt": ("fp16", "int8")}
"""Precisions beside fp32, in which the stock model alone is timed."""


def latency(place: Place) -> Iterator[Row]:
    """Time the stock model by each runtime, record its layers, and compare predictions with measurements."""
    folder = place.make("latency")
    (folder / "space.yaml").write_text(SMALL_SPACE if place.is_small else SPACE, encoding="utf-8")
    space = load(folder / "space.yaml")
    for name in ("torch", "onnxruntime", "tensorrt") if place.is_on_gpu else ("torch",):
        if find_spec(name) is None:
            yield Row(what=f"{name}: not installed")
            continue
        if name == "onnxruntime" and not _has_cuda():
            yield Row(what="onnxruntime: this build has no CUDA")  # one that cannot load it raises
            continue
        with open_runtime(name, device=place.device, device_name=f"gpu-{name}") as runtime:
            yield from _errors(name, space, runtime, place)
        for precision in _FURTHER[name] if place.is_on_gpu else ():
            with open_runtime(name, device=place.device, precision=precision) as runtime:
                yield _stock(f"{name} {precision}", _table(space, runtime, place), runtime)


def _has_cuda() -> bool:
    import onnxruntime  # noqa: PLC0415 - slow, and needed only here

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _errors(name: str, space: SearchSpace, runtime: Runtime, place: Place) -> Iterator[Row]:
    table = _table(space, runtime, place)
    yield _stock(name, table, runtime)
    problems = [step.problem for step in record(table, runtime, place.folder / f"latency-{name}.csv") if step.problem]
    yield Row(
        what=f"{name}: layers that cannot be timed",
        value=len(problems),
        good=not problems,
        note="; ".join(problems)[:100],
    )
    rng = random.Random(0)
    architectures = [space.sample(rng) for _ in range(1 if place.is_small else 3)]
    for observed in observe(table, runtime, architectures):
        error = observed.predicted_ms / observed.measured_ms - 1
        note = f"predicted {observed.predicted_ms:.3g}, measured {observed.measured_ms:.3g} ms"
        yield Row(what=f"{name}: prediction error", value=100 * error, unit="%", note=note)


def _table(space: SearchSpace, runtime: Runtime, place: Place) -> LatencyTable:
    return LatencyTable(space, _CLASSES, 64 if place.is_small else 640, Timings(profile=runtime.profile, entries={}))


def _stock(name: str, table: LatencyTable, runtime: Runtime) -> Row:
    stock = runtime.measure(table.stock_model.deploy())
    return Row(what=f"{name}: stock model", value=stock.median_ms, unit="ms", note=f"spread {stock.spread_ms:.3g} ms")
