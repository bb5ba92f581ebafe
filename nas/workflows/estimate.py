"""Estimate of a search before it begins: how long it takes, by timed trainings of some of its architectures."""

import math
import platform
from dataclasses import dataclass
from statistics import fmean

import torch

from nas.workflows import timing
from nas.workflows.check_cache import CheckCache
from nas.workflows.needs import Needs
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.timing_process import ProcessTimes
from nas.workflows.timing_run import Report
from search_spaces import Space
from trials.budget import Budget
from trials.data.datasets import DataSet
from trials.devices import CPU, processor
from trials.training.timed_training import TrainingTimes

_BETWEEN = 0.6
"""Seconds between two trials of a worker: proposal, storage, the look of the supervisor. Measured on the demonstration
search; a longer study takes longer (docs/scale.md)."""
_CPU_GFLOPS, _GPU_GFLOPS, _IMAGE_SECONDS = 30.0, 3000.0, 0.002
"""Rates for a rough estimate: of one core, of a GPU, and the time that an image takes in any case."""
_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated duration of a search; the fields are keys of `nas check --format json`.

    Attributes:
        stock: seconds of a trial of the stock model.
        costliest: seconds of a trial of the architecture with the most multiply-adds.
        typical: seconds of a trial of a random architecture within the limits; 0 if none was timed.
        base: seconds of the stock models' trainings before all trials; 0 if there are none.
        once: seconds until the first training: starting processes, decoding images.
        stopped: share of these seconds that a trial takes where trainings are stopped early: if as few are promoted
            as `eta` says, and if half of the others are as well.
        timed: number of architectures that were timed.
        busy: seconds of a step for each second of its CPU time: 1 on a machine with a free core for each worker.
        machine: device on which it was measured.
        needs: memory and disk space; None if they were not measured.
    """

    trials: int
    workers: int
    stock: float
    costliest: float
    typical: float = 0.0
    base: float = 0.0
    once: float = 0.0
    stopped: tuple[float, float] = (1.0, 1.0)
    timed: int = 2
    busy: float = 1.0
    machine: str
    needs: Needs | None = None

    @property
    def hours(self) -> tuple[float, float]:
        """Hours if every trial took as long as that of the quickest of the timed models, and as that of the slowest."""
        ends = [one for one in (self.stock, self.costliest, self.typical) if one]
        rounds = math.ceil(self.trials / self.workers)
        least, most = min(ends) * self.stopped[0], max(ends)
        return (self._before + rounds * least) / _HOUR, (self._before + rounds * most) / _HOUR

    @property
    def seconds(self) -> float:
        """Expected seconds: every trial takes as long as a typical one, and workers end at different times."""
        usual = (self.typical or (self.stock + self.costliest) / 2) * self.stopped[1]
        idle = (self.workers - 1) / 2
        low, high = self.hours
        expected = self._before + usual * (self.trials + idle) / self.workers
        return min(max(expected, low * _HOUR), high * _HOUR)

    @property
    def _before(self) -> float:
        return self.once + self.base


def measure(space: Space, search: PlannedSearch, cache: CheckCache, *, report: Report = lambda *_: None) -> Estimate:
    """Estimate how long a search takes: time trainings of its stock model, its costliest and of typical architectures.

    Args:
        cache: of earlier measurements, which are not repeated.
        report: called with how many of how many architectures were timed.

    Raises:
        EstimateError: the stock model cannot be trained, as in a trial, or timing takes too long.
    """
    return of_times(search, timing.measure(space, search, cache, report=report))


def of_times(search: PlannedSearch, times: ProcessTimes) -> Estimate:
    """Return the estimate that follows from timed trainings, for any number of trials, workers and epochs."""
    extra = _BETWEEN + times.latency + _warm_start(times)
    return Estimate(
        trials=search.trials,
        workers=search.workers,
        stock=extra + training_seconds(times.stock, search.budget, search.data),
        costliest=extra + training_seconds(times.costliest, search.budget, search.data),
        typical=extra + fmean(training_seconds(one, search.budget, search.data) for one in times.typical),
        base=_before_trials(times, search, extra),
        once=_once(times, search.data),
        stopped=_stopped(times.stock, search),
        timed=sum(one is not None for one in times.trainings),
        busy=fmean(one.busy for one in times.trainings if one is not None),
        machine=_machine(search.device),
        needs=Needs.of(search, times),
    )


def training_seconds(times: TrainingTimes, budget: Budget, data: DataSet, *, promoted: float = 1.0) -> float:
    """Return the seconds of one training, from its first step on.

    Args:
        promoted: share of trainings that goes on at each rung.
    """
    epoch = times.epoch + times.step * max(1.0, data.train_images / budget.batch)
    total, reaching, before = times.end, 1.0, 0
    for rung in (*budget.rungs, budget.epochs):
        total += reaching * ((rung - before) * epoch + data.val_images * times.image)
        reaching, before = reaching * promoted, rung
    return total


def _before_trials(times: ProcessTimes, search: PlannedSearch, extra: float) -> float:
    """Return the seconds of the stock models' trainings before all trials, which the workers share; 0 without any."""
    if search.base is None:
        return 0.0
    each = [extra + training_seconds(one, search.base, search.data) for one in times.stocks]
    return max(sum(each) / search.workers, *each)


def _stopped(times: TrainingTimes, search: PlannedSearch) -> tuple[float, float]:
    """Return the shares `Estimate.stopped`."""
    if search.stopping is None:
        return 1.0, 1.0
    whole = training_seconds(times, search.budget, search.data)
    least = 1 / search.stopping.eta
    few, many = (
        training_seconds(times, search.budget, search.data, promoted=promoted) / whole
        for promoted in (least, (1 + least) / 2)
    )
    return few, many


def _warm_start(times: ProcessTimes) -> float:
    """Return the seconds from an architecture to its first step, in a process that has trained before."""
    return min(one.start - one.loading for one in times.trainings if one is not None)


def _once(times: ProcessTimes, data: DataSet) -> float:
    """Return the seconds until a process trains as fast as later: its start, its images, its first validation."""
    stock = times.stock
    loading = stock.loading / (stock.train_images + stock.val_images) * (data.train_images + data.val_images)
    validation = stock.first_validation / stock.val_images * data.val_images
    return times.start + loading + validation + max(0.0, stock.start - stock.loading - _warm_start(times))


def _machine(device: str) -> str:
    if device == CPU:
        return f"{processor()} of {platform.node()}"
    return f"{torch.cuda.get_device_name(int(device))} of {platform.node()}"


def rough_seconds(search: PlannedSearch, stock_gflops: float) -> float:
    """Return roughly how long a search takes, from GFLOPs and images alone; nothing is measured.

    Args:
        stock_gflops: of the stock model, of several members their mean, at the size of deployment.
    """
    budget = search.budget
    gflops = stock_gflops * (budget.image_size / budget.deploy_size) ** 2
    rate = _CPU_GFLOPS if search.device == CPU else _GPU_GFLOPS
    image = _IMAGE_SECONDS + 3 * gflops / rate  # backward takes twice as long as forward
    before = search.base.epochs * math.ceil(search.stocks / search.workers) if search.base else 0
    epochs = search.trials * budget.epochs / search.workers + before
    return epochs * search.data.train_images * image
