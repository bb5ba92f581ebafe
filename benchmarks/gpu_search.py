"""A search on a GPU that is killed and resumed, and a trial that finds too little memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from benchmarks.gpu_check import Place, Row
from benchmarks.gpu_trials import budget, stock, trained
from trials import Budget, Costs, Ending, Outcome, evaluate
from trials.costing import cost
from trials.data import datasets
from trials.machine import MemoryLimit

SPACE = """\
name: gpu
base: yolov5n.yaml
slots:
  - at: {layers: [5]}
    choices:
      UIB: {start_kernel: [0, 3], expansion: [2, 4]}
  - at: {layers: [6]}
    choices:
      DCNv4: {groups: [2, 4]}
  - at: {layers: [7]}
    choices:
      DynamicConv: {kernels: [2, 4]}
  - at: {section: head, host: nn.Upsample}
    choices:
      DySample: {style: [lp, pl]}
"""
_FRACTION = 0.004
"""Share of the card's memory that PyTorch may allocate in a trial that is to find too little: some hundred MiB."""


_SMALL_MEMORY = 600 * 2**20
"""Bytes of main memory that stand for it on a CPU."""


def search(place: Place) -> Iterator[Row]:
    """Search, kill all processes after the first trials (SIGKILL), resume, and look at what is stored."""
    trials, size = (3, 64) if place.is_small else (6, 128)
    runs = place.make("search")
    (runs / "space.yaml").write_text(SPACE, encoding="utf-8")
    length = ["--epochs", 1 if place.is_small else 2, "--base-epochs", 1 if place.is_small else 3]
    sizes = ["--image-size", size, "--deploy-size", size, "--batch", 8 if place.is_small else 16]
    given = ["--space", runs / "space.yaml", "--data", place.data(), "--study", "s", "--trials", trials]
    began = time.monotonic()
    process = _start(runs, ["search", *given, *length, *sizes, "--workers", 1, "--device", place.device, "--no-cache"])
    while process.poll() is None and len(list(runs.glob("s/trials/*/outcome.json"))) < 2:
        time.sleep(0.05)
    if process.poll() is not None:
        raise RuntimeError(f"the search ended by itself: {_last_line(runs)}")
    os.killpg(process.pid, signal.SIGKILL)  # its workers end with it
    process.wait()
    yield Row(what="killed after two trials", value=time.monotonic() - began, unit="s")
    began = time.monotonic()
    code = _start(runs, ["resume", "s"]).wait()
    yield Row(what="resumed to its end", value=time.monotonic() - began, unit="s")
    yield Row(what="nas resume: exit status", value=code, good=code == 0, note=_last_line(runs)[:100])
    printed = subprocess.run(
        _command(["trials", "s", "--format", "json", "--runs", runs]), capture_output=True, text=True, check=True
    )
    records = json.loads(printed.stdout)
    endings = [record["ending"] for record in records if record.get("ending")]
    finished = endings.count(Ending.FINISHED)
    yield Row(what=f"trials that finished, of {trials}", value=finished, good=finished == trials)
    scored = [record["fingerprint"] for record in records if record.get("ending")]
    twice = len(scored) - len(set(scored))
    yield Row(what="architectures that were scored twice", value=twice, good=not twice)


def _command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-c", "from nas.cli import main; main()", *map(str, arguments)]


def _start(runs: Path, arguments: Sequence[object]) -> subprocess.Popen[bytes]:
    """Start a command of nas in a session of its own."""
    with (runs / "log").open("ab") as log:
        return subprocess.Popen(_command([*arguments, "--runs", runs]), stdout=log, stderr=log, start_new_session=True)


def _last_line(runs: Path) -> str:
    return ((runs / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]


def memory(place: Place) -> Iterator[Row]:
    """Give a trial too little memory: it must have that ending, and the next one in the process must finish."""
    data = place.data()
    plan = budget(place, data, epochs=1, size=320)
    trained(place, plan)
    with ExitStack() as stack:
        if place.is_small:
            stack.enter_context(MemoryLimit(_SMALL_MEMORY).applied())
        else:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(_FRACTION, int(place.device))
        larger = {"image_size": 640, "batch": 16 if place.is_small else 192}
        outcome = _evaluated(place, plan.model_copy(update=larger))
    if not place.is_small:
        torch.cuda.set_per_process_memory_fraction(1.0, int(place.device))
    yield Row(
        what=f"a trial with too little memory: {outcome.ending}",
        good=outcome.ending is Ending.OUT_OF_MEMORY,
        note=outcome.detail[:120],
    )
    whose = "on the host" if place.is_small else "on the GPU"
    yield Row(what=f"its detail says: {whose}", good=outcome.detail.startswith(whose))
    trained(place, plan)
    yield Row(what="the next trial of the process finishes", good=True)


def _evaluated(place: Place, plan: Budget) -> Outcome:
    architecture, classes = stock(place), len(datasets.load(plan.data).classes)
    counted = cost.measure(architecture.document(classes), classes, plan.deploy_size)
    costs = Costs(params=counted.params, gflops=counted.gflops)
    with suppress(MemoryError):
        return evaluate(architecture, plan, place.make("memory"), lambda *_: True, costs=costs)
    return Outcome(architecture=architecture, ending=Ending.OUT_OF_MEMORY, detail="on the host: MemoryError")
