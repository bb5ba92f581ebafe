"""Load of the machine that tracks a study: sampled into a file, from which the tracker writes what MLflow lacks."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from search_spaces.errors import unwrapped

_log = logging.getLogger(__name__)

_INTERVAL, _SECONDS = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", 10.0
_ENABLED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


def is_enabled_by_environment() -> bool:
    """Return whether the user has switched system metrics on for all that MLflow logs."""
    return os.environ.get(_ENABLED, "").lower() in {"true", "1"}


class SystemSampler:
    """Thread that appends a line with the load of this machine to a file, by default every ten seconds.

    MLflow's own monitor would write to the server by itself: what happens while that is away would be lost.

    Args:
        path: of the file; a later run of the study goes on in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="system metrics")

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        try:
            monitors = _monitors()
            step = len(list(read_samples(self._path)))
            while not self._ended.is_set():
                values = _sample(monitors)
                line = json.dumps({"step": step, "time": round(time.time() * 1000), "values": values})
                with self._path.open("a", encoding="utf-8") as lines:
                    lines.write(f"{line}\n")
                step += 1
                self._ended.wait(float(os.environ.get(_INTERVAL) or _SECONDS))
        except Exception as problem:  # noqa: BLE001 - no failure of the tracking ends a search
            _log.warning("system metrics: %s; the search goes on without them", unwrapped(problem))


def _monitors() -> list[Any]:
    """Return MLflow's monitors of processor, memory, disk and network, and of the GPUs where there are some."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor  # noqa: PLC0415 - seconds, in a thread
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor  # noqa: PLC0415

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except (ImportError, RuntimeError) as reason:
        _log.debug("no GPU is monitored: %s", reason)
    return monitors


def _sample(monitors: list[Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= monitor.aggregate_metrics()
        monitor.clear_metrics()
    return values


def read_samples(path: Path) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Yield step, time in milliseconds since 1970 and values of each sample; torn lines are skipped."""
    if not path.is_file():
        return
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in lines:
        try:
            sample = json.loads(line)
            yield int(sample["step"]), int(sample["time"]), {n: float(v) for n, v in sample["values"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
