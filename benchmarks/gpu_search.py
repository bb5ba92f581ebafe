"""A search on a GPU that is killed and resumed, and what goes wrong there: too little memory, a corrupted context."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check import Place, Row
from benchmarks.gpu_trials import budget, stock, trained
from nas.execution import gpus
from nas.execution.problem_line import PROBLEM
from nas.execution.supervisor import worker_environment
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
POISON = """\
import torch
from torch import nn


class Poison(nn.Module):
    '''Reads outside of a tensor while it is trained, after which CUDA is lost to the process; a CPU says the same.'''

    def forward(self, x):
        if self.training and len(x) == 8:
            if not x.is_cuda:
                raise RuntimeError("CUDA error: device-side assert triggered")
            x.new_zeros(1)[torch.full((1,), 9, device=x.device)]
        return x
"""
POISONED_SPACE = """\
name: poisoned
base: yolov5n.yaml
modules: [poison.py]
start:
  - {after-4: {Poison: {}}}
  - {5: {UIB: {expansion: 2}}}
insert:
  - {after: 4, choices: {Poison: {}}}
slots:
  - at: {layers: [5]}
    choices:
      UIB: {expansion: [2, 4]}
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
    records = _trials(runs)
    endings = [record["ending"] for record in records if record.get("ending")]
    finished = endings.count(Ending.FINISHED)
    yield Row(what=f"trials that finished, of {trials}", value=finished, good=finished == trials)
    scored = [record["fingerprint"] for record in records if record.get("ending")]
    twice = len(scored) - len(set(scored))
    yield Row(what="architectures that were scored twice", value=twice, good=not twice)


def poison(place: Place) -> Iterator[Row]:
    """Search with a candidate that ends CUDA in its worker: it must be its ending, and other candidates must finish."""
    runs, size = place.make("poison"), 64
    (runs / "space.yaml").write_text(POISONED_SPACE, encoding="utf-8")
    (runs / "poison.py").write_text(POISON, encoding="utf-8")
    given = ["--space", runs / "space.yaml", "--data", place.data(), "--study", "s", "--trials", 3, "--no-cache"]
    length = ["--epochs", 1, "--base-epochs", 1, "--batch", 8, "--image-size", size, "--deploy-size", size]
    code = _start(runs, ["search", *given, *length, "--workers", 1, "--device", place.device]).wait()
    yield Row(what="nas search: exit status", value=code, good=code == 0, note=_last_line(runs)[:100])
    records = [record for record in _trials(runs) if record["ending"]]
    poisoned, others = ([one for one in records if ("Poison" in str(one["picks"])) is bad] for bad in (True, False))
    log = (runs / "s" / "workers" / "0.log").read_text(encoding="utf-8", errors="replace")
    problems = [line for line in log.splitlines() if line.startswith(f"{PROBLEM}on the GPU: ")]
    endings = [str(record["ending"]) for record in poisoned]
    crashed = endings == [Ending.CRASHED] and any("device-side assert" in line for line in problems)
    yield Row(what="the poisoned candidate crashed", good=crashed, note=(problems or endings or ["not tried"])[0][:100])
    yield Row(what="workers that were replaced", value=len(problems), good=len(problems) == 2, note="tried once more")
    finished = sum(record["ending"] == Ending.FINISHED for record in others)
    yield Row(what="others that finished", value=finished, good=finished == len(others) > 1)


def visible(place: Place) -> Iterator[Row]:
    """Give a worker its GPU by the UUID in CUDA_VISIBLE_DEVICES, and let it compute."""
    if not place.is_on_gpu:
        yield Row(what="UUIDs in CUDA_VISIBLE_DEVICES: not on a CPU")
        return
    given = os.environ[gpus.VARIABLE]
    name = given if given.startswith("MIG-") else f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    os.environ[gpus.VARIABLE] = name
    environment = worker_environment("0", place.make("visible"), workers=1)
    yield Row(what=f"a worker sees {environment[gpus.VARIABLE]}", good=environment[gpus.VARIABLE] == name)
    done = subprocess.run([sys.executable, "-c", _SEES], env=environment, capture_output=True, text=True, check=False)
    number, _, uuid = done.stdout.strip().partition(" ")
    yield Row(what="it computes on one GPU", good=number == "1", note=(done.stderr.strip().splitlines() or [""])[-1])
    yield Row(what="which is the same", good=bool(uuid) and (name.endswith(uuid) or name == given), note=uuid)
    found = any(card.is_called(name) for card in gpus.memory_of_cards())
    yield Row(what="nvidia-smi knows it", good=None if name == given else found)


_SEES = """\
import torch
from trials.torch_devices import require_usable
require_usable("0")
print(torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid)
"""


def _trials(runs: Path) -> list[dict[str, Any]]:
    """Return the records of the study `s`."""
    arguments = ["trials", "s", "--format", "json", "--runs", runs]
    printed = subprocess.run(command(arguments), capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(printed)
    return found


def command(arguments: Sequence[object]) -> list[str]:
    """Return the command line of `nas` with arguments."""
    return [sys.executable, "-c", "from nas.cli import main; main()", *map(str, arguments)]


def _start(runs: Path, arguments: Sequence[object]) -> subprocess.Popen[bytes]:
    """Start a command of nas in a session of its own."""
    with (runs / "log").open("ab") as log:
        return subprocess.Popen(command([*arguments, "--runs", runs]), stdout=log, stderr=log, start_new_session=True)


def study_began(process: subprocess.Popen[bytes], runs: Path, otherwise: float) -> float:
    """Wait until a search has written its study; return the time of that by `time.monotonic`."""
    while process.poll() is None:
        if (runs / "s" / "study.json").is_file():
            return time.monotonic()
        time.sleep(0.02)
    return otherwise


def _last_line(runs: Path) -> str:
    return ((runs / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]


def memory(place: Place) -> Iterator[Row]:
    """Give a trial too little memory: it must have that ending, and the next one in the process must finish."""
    data = place.data()
    plan = budget(place, data, epochs=1, size=320)
    trained(place, plan)
    with ExitStack() as stack:
        if not place.is_on_gpu:
            stack.enter_context(MemoryLimit(_SMALL_MEMORY).applied())
        else:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(_FRACTION, int(place.device))
        larger = {"image_size": 640, "batch": 16 if place.is_small else 192}
        outcome = _evaluated(place, plan.model_copy(update=larger))
    if place.is_on_gpu:
        torch.cuda.set_per_process_memory_fraction(1.0, int(place.device))
    yield Row(
        what=f"a trial with too little memory: {outcome.ending}",
        good=outcome.ending is Ending.OUT_OF_MEMORY,
        note=outcome.detail[:120],
    )
    whose = "on the GPU" if place.is_on_gpu else "on the host"
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
