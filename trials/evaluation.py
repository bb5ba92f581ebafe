"""Evaluation of one candidate: an architecture and a budget in, an outcome out."""

import gc
import time
import traceback
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from search_spaces import Architecture, build, files
from search_spaces.errors import DataError, EnvironmentProblem, GpuError, LatencyError, SpecError, unwrapped
from trials import gpu_faults, torch_devices
from trials.accuracy.judged import JUDGED
from trials.budget import Budget, Limits, Subset
from trials.costing import cost
from trials.data import datasets
from trials.data.unseen_images import JudgingImages
from trials.file_names import CHECKPOINT, ERROR, MODEL, WEIGHTS
from trials.gpu_faults import GpuFault
from trials.latency import measurement
from trials.provenance import Provenance
from trials.scores import Accuracy, Costs, Ending, GoOn, Outcome, Scores
from trials.training import short_training
from trials.training.short_training import DivergedError, TimedOutError

_OUT_OF_MEMORY = (
    "out of memory",  # such as a library's; that of a GPU is recognised before
    "can't allocate memory",  # PyTorch on the CPU (`c10/core/impl/alloc_cpu.cpp`)
    "not enough memory",  # the same, on Windows
    "alloc_failed",  # cuBLAS and cuDNN
    "insufficient memory",  # OpenCV
    "bad_alloc",  # C++
)
"""Texts of errors whose class does not say that an allocation failed."""


def evaluate(
    architecture: Architecture,
    budget: Budget,
    folder: Path,
    go_on: GoOn,
    *,
    limits: Limits | None = None,
    costs: Costs | None = None,
    judging: JudgingImages | None = None,
) -> Outcome:
    """Score one candidate.

    Args:
        budget: data, epochs, sizes, seed and initial weights.
        folder: of this trial; gets `model.yaml`, `checkpoint.bin` after every epoch, then `weights.pt` or `error.txt`.
            The training of a checkpoint in it goes on. With `judging` it gets `judged.npz`, too.
        go_on: called after every epoch with its number, from 1, and the epoch; False ends the training there.
        limits: on costs, checked before training.
        costs: None to count and measure them first.
        judging: images on which a training that has finished is evaluated once.

    Returns:
        The outcome, also of a bad candidate: its errors become endings.

    Raises:
        DataError: there is no data or no checkpoint, which is not the candidate's fault.
        EnvironmentProblem: the digit scenes cannot be written, the disk is full, or the cache cannot be written to.
        GpuError: the GPU is lost, or its context in this process is corrupted; `error.txt` has the traceback.
        SpecError: the architecture does not fit its base model.
    """
    data = _load_data(budget.data, budget.sealed, budget.subset)
    started = time.monotonic()
    trial = _Trial(
        architecture=architecture,
        budget=budget.at(architecture.image_size),
        folder=folder,
        limits=limits or Limits(),
        costs=costs,
        judging=judging,
    )
    with files.as_environment_problems(folder):
        files.make_durable_folder(folder)
    try:
        outcome = trial.train(data, go_on)
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
        seconds=trial.earlier_seconds + time.monotonic() - started,
        provenance=Provenance.of(trial.budget, data),
        **{"costs": trial.costs, **outcome},
    )


def _failed(error: Exception, folder: Path) -> dict[str, Any]:
    """Return ending and detail of a candidate that raised an error; write the traceback into its folder.

    Raises:
        GpuError: this process can compute nothing more on its GPU.
    """
    fault = gpu_faults.fault_of(error)
    if fault in {GpuFault.CORRUPTED, GpuFault.LOST}:
        files.write_atomically(folder / ERROR, traceback.format_exc())
        raise GpuError(f"on the GPU: {_first_line(error)}", is_lost=fault is GpuFault.LOST) from error
    ending = _ending(error)
    if ending is Ending.OUT_OF_MEMORY:
        _release(error)  # first: writing takes memory, too
    files.write_atomically(folder / ERROR, traceback.format_exc())
    return {"ending": ending, "detail": _detail(error, ending)}


def measure_costs(document: dict[str, Any], budget: Budget, classes: int) -> Costs:
    """Count and measure the costs of a deployed model, without training it.

    Raises:
        CostError: the model cannot be counted.
        LatencyError: the model does not run.
    """
    counted = cost.measure(document, classes, budget.deploy_size)
    device = torch_devices.torch_device(budget.device)
    model = build.model(document, classes).eval()
    model = model.to(device, memory_format=torch_devices.memory_format(device, model))
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
class _Trial:
    """One candidate's trial; `costs` are there also after its training has failed.

    Attributes:
        earlier_seconds: training time in earlier processes.
    """

    architecture: Architecture
    budget: Budget
    folder: Path
    limits: Limits
    costs: Costs | None = None
    judging: JudgingImages | None = None
    earlier_seconds: float = 0.0

    def train(self, data: datasets.DataSet, go_on: GoOn) -> dict[str, Any]:
        classes = len(data.classes)
        written = self.architecture.to_yaml(classes, folder=self.folder, pgi=self.budget.recipe.pgi)
        files.write_atomically(self.folder / MODEL, written)
        document = self.architecture.document(classes)
        self.costs = self.costs or measure_costs(document, self.budget, classes)
        excess = exceeded_limits(self.costs, self.limits)
        if excess:
            return {"ending": Ending.OVER_LIMIT, "detail": excess}
        weights = self.folder / WEIGHTS
        result = short_training.train(
            document,
            self.budget,
            data,
            self.folder,
            go_on,
            weights=weights,
            checkpoint_path=self.folder / CHECKPOINT,
            judging=self.judging,
        )
        self.earlier_seconds = result.earlier_seconds
        trained: dict[str, Any] = {"epochs": result.epochs, "coverage": result.coverage}
        if result.stopped:
            return {"ending": Ending.STOPPED, **trained}
        last = result.epochs[-1]
        if last.map50_95 is None or last.map50 is None:
            raise RuntimeError("the last epoch was not validated")
        scores = Scores(map50_95=last.map50_95, map50=last.map50, costs=self.costs)
        if result.judged is not None:
            result.judged.write(self.folder / JUDGED)
            trained["judged"] = Accuracy(map50_95=result.judged.map50_95, map50=result.judged.map50)
        return {"ending": Ending.FINISHED, "scores": scores, "weights": weights, **trained}


def exceeded_limits(costs: Costs, limits: Limits) -> str:
    """Return which limits the costs exceed, in words; empty if none."""
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
        case _ if gpu_faults.fault_of(error) is GpuFault.OUT_OF_MEMORY:
            return Ending.OUT_OF_MEMORY
        case _ if any(text in str(error).lower() for text in _OUT_OF_MEMORY):
            return Ending.OUT_OF_MEMORY
        case _:
            return Ending.BROKEN


def _detail(error: Exception, ending: Ending) -> str:
    """Return the error in one line; if memory ran out, whether the GPU's or the host's."""
    detail = f"{type(error).__name__}: {unwrapped(error)}"
    if ending is Ending.OUT_OF_MEMORY:
        detail = f"on the {'GPU' if _is_of_gpu(error) else 'host'}: {detail}"
    return detail[:500]


def _first_line(error: Exception) -> str:
    """Return type and first line of an error; PyTorch adds lines of advice to those of CUDA."""
    return f"{type(error).__name__}: {unwrapped(str(error).strip().partition(chr(10))[0])}"[:300]


def _is_of_gpu(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is about a GPU's memory."""
    return error is not None and (
        isinstance(error, torch.OutOfMemoryError)
        or any(text in str(error).lower() for text in ("cuda", "cublas", "cudnn", "hip out"))
        or _is_of_gpu(error.__cause__)
    )


def _release(error: BaseException | None) -> None:
    """Free the memory of the interrupted calls: an error's traceback refers to all that they had allocated."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # for the other processes on this GPU


@lru_cache(maxsize=4)
def _load_data(data: Path, sealed: Path | None, subset: Subset | None) -> datasets.DataSet:
    """Load and check a data set, once per process."""
    return datasets.load_for(data, sealed, subset)
