"""Check what a search finds out about a GPU before it begins: batch, trials at once, and how long it takes."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from benchmarks.gpu_check import Place, Row
from benchmarks.gpu_search import SPACE, command, study_began
from nas.workflows import auto_batch, auto_workers
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import measure
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request

_OFF = 0.25
"""Share by which an estimate may be wrong."""


def choices(place: Place) -> Iterator[Row]:
    """Let `--batch auto` choose between 8 and 16 images, and `--workers-per-device auto` between one trial and two."""
    plan = _plan(place, "choices")
    search, cache = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data), CheckCache(None)
    with patch.object(auto_batch, "MOST", 16), patch.object(auto_batch, "LEAST_STEPS", 1):
        batch = auto_batch.chosen(plan.space, search, cache)
    good = batch.number == 16 if place.is_on_gpu else None
    yield Row(what="--batch auto, up to 16", value=batch.number, good=good, note=batch.reason)
    with patch.object(auto_workers, "NUMBERS", (1, 2)):
        workers = auto_workers.chosen(plan.space, replace(search, workers=1), cache)
    yield Row(what="--workers-per-device auto, up to 2", value=workers.number, note=workers.reason)


def estimate(place: Place) -> Iterator[Row]:
    """Estimate a search as `--dry-run` does, run it, and compare."""
    plan = _plan(place, "estimate")
    search = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data)
    began = time.monotonic()
    found = measure(plan.space, search, CheckCache(None))
    yield Row(what="time to estimate", value=time.monotonic() - began, unit="s")
    runs = plan.folder.parent
    began = time.monotonic()
    with (runs / "log").open("wb") as log:
        process = subprocess.Popen(command(_arguments(plan, runs)), stdout=log, stderr=log)
        began = study_began(process, runs, began)
        if code := process.wait():
            raise RuntimeError(f"the search ended with status {code}; see {runs / 'log'}")
    real = time.monotonic() - began
    yield Row(what="estimated", value=found.seconds, unit="s")
    yield Row(what="real", value=real, unit="s")
    what, off = "the estimate is wrong by", 100 * abs(found.seconds / real - 1)
    if place.is_on_gpu:
        yield Row.within(what, off, 100 * _OFF, unit="%")
    else:
        yield Row(what=what, value=off, unit="%", note="a CPU that runs tests is busy with others")


def _plan(place: Place, name: str) -> Plan:
    """Return the plan of a short search that has not begun."""
    runs = place.make(name)
    (runs / "space.yaml").write_text(SPACE, encoding="utf-8")
    size, trials, epochs = (64, 2, 1) if place.is_small else (320, 3, 3)
    return Plan.of(
        Request.of(
            space=runs / "space.yaml",
            data=place.data(),
            runs=runs,
            study="s",
            trials=trials,
            epochs=epochs,
            base_epochs=epochs,
            image_size=size,
            deploy_size=size,
            batch=8,
            device=place.device,
            workers=1,
            cache=False,
        )
    )


def _arguments(plan: Plan, runs: Path) -> list[object]:
    budget, base, run = plan.file.settings.budget, plan.file.settings.base, plan.file.run
    assert base is not None  # noqa: S101 - its epochs were given
    given = ["search", "--space", runs / "space.yaml", "--data", budget.data, "--runs", runs, "--study", "s"]
    length = ["--trials", run.trials, "--epochs", budget.epochs, "--base-epochs", base.epochs, "--batch", budget.batch]
    sizes = ["--image-size", budget.image_size, "--deploy-size", budget.deploy_size]
    return [*given, *length, *sizes, "--device", run.device, "--workers", 1, "--no-cache"]
