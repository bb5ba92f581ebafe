"""The door: an architecture and a budget go in, an outcome comes out."""

import gc
import time
import traceback
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from search_spaces import Architecture, build, files
from search_spaces.errors import DataError, EnvironmentProblem, LatencyError, SpecError
from trials import devices
from trials.budget import Budget, Limits
from trials.costing import cost
from trials.data import datasets
from trials.devices import torch_device
from trials.latency import measurement
from trials.provenance import Provenance
from trials.scores import Costs, Ending, GoOn, Outcome, Scores
from trials.training import short_training
from trials.training.short_training import DivergedError, TimedOutError

WEIGHTS = "weights.pt"
CHECKPOINT = "checkpoint.bin"
MODEL = "model.yaml"
ERROR = "error.txt"

_OUT_OF_MEMORY = (
    "out of memory",  # CUDA
    "can't allocate memory",  # PyTorch on the CPU (`c10/core/impl/alloc_cpu.cpp`)
    "not enough memory",  # the same, on Windows
    "alloc_failed",  # cuBLAS and cuDNN
    "insufficient memory",  # OpenCV
    "bad_alloc",  # C++
)
"""How errors say, besides by their class, that an allocation failed."""


def evaluate(
    architecture: Architecture,
    budget: Budget,
    folder: Path,
    go_on: GoOn,
    *,
    limits: Limits | None = None,
    costs: Costs | None = None,
) -> Outcome:
    """Score one candidate.

    Args:
        budget: data, epochs, sizes, seed and where the weights start.
        folder: of this trial; gets `model.yaml`, `checkpoint.bin` after every epoch, then `weights.pt` or `error.txt`.
            A training that stands there goes on.
        go_on: asked after every epoch with its number, from 1, and the epoch; False ends the training there.
        limits: ceilings that are checked before training.
        costs: if they are known; otherwise they are counted and measured first.

    Returns:
        How it ended. A bad candidate is an ending, not an exception.

    Raises:
        DataError: no data or no checkpoint, which no other candidate would change.
        EnvironmentProblem: the digit scenes cannot be written, the disk is full, or the cache cannot be written to.
        SpecError: the architecture is none of its base model.
    """
    data = _data(str(budget.data))
    started = time.monotonic()
    run = _Run(
        architecture=architecture,
        budget=budget.at(architecture.image_size),
        folder=folder,
        limits=limits or Limits(),
        costs=costs,
    )
    with files.as_environment_problems(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        outcome = run.train(data, go_on)
    except (DataError, EnvironmentProblem, SpecError):
        raise
    except OSError as error:
        if problem := files.environment_problem(error):  # no other candidate would change it
            raise problem from error
        outcome = _failed(error, folder)
    except Exception as error:  # noqa: BLE001 - the one place where a candidate's fault becomes an ending
        outcome = _failed(error, folder)
    return Outcome(
        architecture=architecture,
        seconds=run.before + time.monotonic() - started,
        provenance=Provenance.of(run.budget, data),
        **{"costs": run.costs, **outcome},
    )


def _failed(error: Exception, folder: Path) -> dict[str, Any]:
    """The ending of a candidate that has raised an error, whose traceback goes into its folder."""
    ending = _ending(error)
    if ending is Ending.OUT_OF_MEMORY:
        _release(error)  # first: writing takes memory, too
    with files.as_environment_problems(folder / ERROR):
        (folder / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
    return {"ending": ending, "detail": _detail(error, ending)}


def measure_costs(document: dict[str, Any], budget: Budget, classes: int) -> Costs:
    """Cost and latency of a deployed model, without training it.

    Raises:
        CostError: it cannot be counted.
        LatencyError: it does not run.
    """
    counted = cost.measure(document, classes, budget.deploy_size)
    device = torch_device(budget.device)
    model = build.model(document, classes).to(device, memory_format=devices.memory_format(device)).eval()
    model.fuse(verbose=False)
    measured = measurement.measure(model, budget.deploy_size)
    return Costs(
        params=counted.params,
        gflops=counted.gflops,
        latency_ms=measured.median_ms,
        latency_spread_ms=measured.spread_ms,
        latency_steady=measured.steady,
    )


@dataclass(kw_only=True)
class _Run:
    """One candidate on its way; remembers its costs when the training fails.

    Attributes:
        before: seconds that earlier processes spent on it.
    """

    architecture: Architecture
    budget: Budget
    folder: Path
    limits: Limits
    costs: Costs | None = None
    before: float = 0.0

    def train(self, data: datasets.DataSet, go_on: GoOn) -> dict[str, Any]:
        classes = len(data.classes)
        written = self.architecture.to_yaml(classes, folder=self.folder, pgi=self.budget.recipe.pgi)
        (self.folder / MODEL).write_text(written, encoding="utf-8")
        document = self.architecture.document(classes)
        self.costs = self.costs or measure_costs(document, self.budget, classes)
        excess = over(self.costs, self.limits)
        if excess:
            return {"ending": Ending.OVER_LIMIT, "detail": excess}
        weights, standing = self.folder / WEIGHTS, self.folder / CHECKPOINT
        trained = short_training.train(
            document, self.budget, data, self.folder, go_on, weights=weights, standing=standing
        )
        self.before = trained.before
        known = {"epochs": trained.epochs, "coverage": trained.coverage}
        if trained.stopped:
            return {"ending": Ending.STOPPED, **known}
        last = trained.epochs[-1]
        if last.map50_95 is None or last.map50 is None:
            raise RuntimeError("the last epoch was not validated")
        scores = Scores(map50_95=last.map50_95, map50=last.map50, costs=self.costs)
        return {"ending": Ending.FINISHED, "scores": scores, "weights": weights, **known}


def over(costs: Costs, limits: Limits) -> str:
    """Which limits the costs exceed, in words; empty if none."""
    ceilings = limits.model_dump(exclude_none=True)
    return ", ".join(
        f"{name} {getattr(costs, name):.4g} is over {ceiling:.4g}"
        for name, ceiling in ceilings.items()
        if (getattr(costs, name) or 0) > ceiling
    )


def _ending(error: Exception) -> Ending:
    match error:
        case DivergedError():
            return Ending.DIVERGED
        case TimedOutError():
            return Ending.TIMED_OUT
        case LatencyError(__cause__=Exception() as cause):
            return _ending(cause)
        case MemoryError() | torch.OutOfMemoryError():
            return Ending.OUT_OF_MEMORY
        case _ if any(text in str(error).lower() for text in _OUT_OF_MEMORY):
            return Ending.OUT_OF_MEMORY
        case _:
            return Ending.BROKEN


def _detail(error: Exception, ending: Ending) -> str:
    """The error in one line; where memory ran out, whose it was."""
    told = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if ending is Ending.OUT_OF_MEMORY:
        told = f"on the {'GPU' if _is_of_gpu(error) else 'host'}: {told}"
    return told[:500]


def _is_of_gpu(error: BaseException | None) -> bool:
    """Whether an error speaks of a GPU's memory, or one that it was raised from does."""
    return error is not None and (
        isinstance(error, torch.OutOfMemoryError)
        or any(text in str(error).lower() for text in ("cuda", "cublas", "cudnn", "hip out"))
        or _is_of_gpu(error.__cause__)
    )


def _release(error: BaseException | None) -> None:
    """Give back what the interrupted calls hold: an error keeps them, and all that they had allocated."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


@lru_cache(maxsize=4)
def _data(path: str) -> datasets.DataSet:
    """Checked once per process."""
    return datasets.load(path)
