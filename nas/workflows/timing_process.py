"""Process that times trainings of a search as its workers would run them: `python -m nas.workflows.timing_process`.

`nas.workflows.timing` starts as many at the same time as workers would share a device. A `Task` is read from stdin as
JSON; each line on stdout is a JSON object: `{"done": 1}` after each architecture, at last the `ProcessTimes`.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from search_spaces.errors import NasError, unwrapped
from search_spaces.operators import modules
from trials import Budget, machine
from trials.budget import Subset
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.data.holdout import Holdout
from trials.devices import CPU
from trials.evaluation import measure_costs
from trials.file_names import WEIGHTS
from trials.training.timed_training import Holding, TrainingTimes, time_training

_KILO = 1 if sys.platform == "darwin" else 1024
"""Bytes of the unit of `ru_maxrss`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Trainings that a process times.

    Attributes:
        parent: process that has started this one; with it this one ends.
        began: when it was started, by `time.monotonic`, which all processes of a machine share.
        folder: for the files of the trainings.
        cache: folder of decoded images of the sample, instead of the user's.
        documents: model YAML of each architecture; the first is the stock model, from which the others may start.
        budgets: of each architecture, as JSON.
        data: path of the data set, whose loading is timed.
        sealed: images of it that are not read; None if there are none.
        subset: of the others, what is read; None reads all.
        sample: images that are trained on and validated.
        inherits: whether they do.
        modules: files with operators of the user.
        seconds: for the steps of one architecture.
        enough: seconds after which architectures behind the second are left out.
        measures_latency: whether a trial measures its latency.
    """

    parent: int
    began: float
    folder: str
    cache: str
    documents: tuple[dict[str, Any], ...]
    budgets: tuple[dict[str, Any], ...]
    data: str
    sealed: Holdout | None
    subset: Subset | None
    sample: DataSet
    inherits: bool
    modules: tuple[str, ...]
    seconds: float
    enough: float
    measures_latency: bool
    holding: Holding


@dataclass(frozen=True, kw_only=True)
class ProcessTimes:
    """Times and memory that one process has measured; the fields are keys of the check cache.

    Attributes:
        start: seconds from the start of a process until it can begin a training, the data set's check included.
        trainings: of each architecture; None for one whose training failed or that was left out.
        problems: of the architectures whose training failed, by their index as text.
        latency: seconds in which a trial counts and measures its costs; 0 if it does not.
        memory: most bytes of main memory that the process has occupied.
        gpu_memory: most bytes that PyTorch has reserved on the GPU; 0 on the CPU.
        whole_gpu_memory: of that GPU, whether it is free or not; 0 on the CPU.
        free_gpu_memory: of it, before the first training; 0 on the CPU.
        further_stocks: how many of the architectures, the last ones, are the stock models of further members.
    """

    start: float
    trainings: tuple[TrainingTimes | None, ...]
    problems: dict[str, str]
    latency: float
    memory: int
    gpu_memory: int
    whole_gpu_memory: int = 0
    free_gpu_memory: int = 0
    further_stocks: int = 0

    @property
    def stocks(self) -> tuple[TrainingTimes, ...]:
        """Times of the stock model of each member; those of the first for one that was not timed."""
        further = self.trainings[len(self.trainings) - self.further_stocks :]
        return (self.stock, *(one or self.stock for one in further))

    @property
    def stock(self) -> TrainingTimes:
        """Times of the stock model, of several members that of the first."""
        stock = self.trainings[0]
        assert stock is not None  # noqa: S101 - without it the measurement has failed
        return stock

    @property
    def costliest(self) -> TrainingTimes:
        """Times of the costliest architecture; of the stock model where that could not be trained."""
        return self.trainings[1] or self.stock

    @property
    def typical(self) -> tuple[TrainingTimes, ...]:
        """Times of random architectures; of the others where none was timed."""
        random = self.trainings[2 : len(self.trainings) - self.further_stocks]
        return tuple(one for one in random if one is not None) or (*self.stocks, self.costliest)


def run(task: Task, report: Callable[[int], None]) -> ProcessTimes:
    """Time the architectures of a task one after the other.

    Args:
        report: called with the number of architectures that are done.

    Raises:
        DataError: the data set cannot be trained on.
        RuntimeError: the stock model cannot be trained, such as for want of memory.
    """
    modules.load_all(task.modules, None)
    datasets.load(task.data, sealed=task.sealed, subset=task.subset)
    os.environ["NAS_CACHE"] = task.cache
    start = time.monotonic() - task.began
    budgets = [Budget.model_validate(one) for one in task.budgets]
    device = budgets[0].device
    free_gpu_memory = 0 if device == CPU else int(torch.cuda.mem_get_info(int(device))[0])
    latency = _latency(task, budgets[0])
    trainings: list[TrainingTimes | None] = []
    problems: dict[str, str] = {}
    began = time.monotonic()
    for index, (document, budget) in enumerate(zip(task.documents, budgets, strict=True)):
        if index > 1 and time.monotonic() - began > task.enough:
            break
        try:
            trainings.append(_time(task, index, document, budget))
        except (
            RuntimeError,
            ValueError,
            MemoryError,
        ) as error:  # a trial's ending
            if index == 0:
                raise
            problems[str(index)] = f"{type(error).__name__}: {unwrapped(error)}"
            trainings.append(None)
        report(index + 1)
    return ProcessTimes(
        start=start,
        trainings=(*trainings, *[None] * (len(budgets) - len(trainings))),
        problems=problems,
        latency=latency,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KILO,
        gpu_memory=0 if device == CPU else int(torch.cuda.max_memory_reserved(int(device))),
        whole_gpu_memory=0 if device == CPU else int(torch.cuda.get_device_properties(int(device)).total_memory),
        free_gpu_memory=free_gpu_memory,
    )


def _time(task: Task, index: int, document: dict[str, Any], budget: Budget) -> TrainingTimes:
    stock = Path(task.folder) / "0" / WEIGHTS
    weights = stock if index and task.inherits else budget.weights
    return time_training(
        document,
        budget.model_copy(update={"weights": weights}),
        task.sample,
        Path(task.folder) / str(index),
        seconds=task.seconds,
        holding=task.holding,
    )


def _latency(task: Task, budget: Budget) -> float:
    if not task.measures_latency:
        return 0.0
    began = time.perf_counter()
    measure_costs(task.documents[0], budget, len(task.sample.classes))
    return time.perf_counter() - began


def main() -> None:
    """Answer the task on stdin; exit with status 1, and the reason as the last line on stderr, if that fails."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what third parties print is no answer
    task = TypeAdapter(Task).validate_json(sys.stdin.read())
    machine.end_with(task.parent)

    def answer(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    try:
        answer(asdict(run(task, lambda done: answer({"done": done}))))
    except (NasError, RuntimeError, ValueError, MemoryError, OSError) as error:
        print(f"{type(error).__name__}: {unwrapped(error)}", file=sys.stderr)  # noqa: T201 - the parent reads it
        sys.exit(1)


if __name__ == "__main__":
    main()
