"""Data, budgets and size of a search that has not begun: what its time, memory and disk space depend on."""

import math
from dataclasses import dataclass

from nas.algorithms.successive_halving import Stopping
from nas.settings import RunSettings, Settings
from nas.workflows.amount import load_data
from nas.workflows.request import Request
from search_spaces import Space
from trials import Budget, Limits
from trials.budget import Subset
from trials.costing.cost import Cost
from trials.data.datasets import DataSet
from trials.data.holdout import Holdout
from trials.devices import CPU


@dataclass(frozen=True, kw_only=True)
class PlannedSearch:
    """Search as `nas search` would begin it.

    Attributes:
        base: budget of the stock model's training before all trials; None if there is none.
        budget: of a trial.
        stopping: by which trainings are stopped early; None if they are not.
        stocks: number of stock models that are trained before all trials, where there is a budget for it.
        devices: `cpu`, or indices of GPUs; the first stands for all.
        measures_latency: whether each trial measures its latency.
        sealed: images of the data set that are not read; None if there are none.
        subset: of the others, what is read; None reads all.
    """

    data: DataSet
    base: Budget | None = None
    budget: Budget
    limits: Limits
    trials: int
    workers: int
    stopping: Stopping | None = None
    stocks: int = 1
    devices: str = CPU
    measures_latency: bool = False
    sealed: Holdout | None = None
    subset: Subset | None = None

    @classmethod
    def of(cls, request: Request, space: Space) -> "PlannedSearch":
        """Return the search of a request, with the defaults of `nas search`.

        Raises:
            SpecError: a value of the request is wrong.
            DataError: the data set cannot be trained on.
            EnvironmentProblem: a GPU does not exist.
        """
        devices, workers = request.devices()
        limits, run = request.limits(), request.run(devices, workers)
        data, subset = load_data(request)
        first = devices.partition(",")[0]
        return cls(
            data=data,
            base=request.stock_budget(space, data, first),
            budget=request.budget(space, data, first),
            limits=limits,
            trials=run.trials,
            workers=run.workers,
            stopping=request.stopping(),
            stocks=len(space.members),
            devices=devices,
            subset=subset,
        )

    @classmethod
    def of_settings(
        cls, settings: Settings, run: RunSettings, data: DataSet, sealed: Holdout | None = None
    ) -> "PlannedSearch":
        """Return the search that a study with these settings makes."""
        return cls(
            data=data,
            base=settings.base,
            budget=settings.budget,
            limits=settings.limits,
            trials=run.trials,
            workers=run.workers,
            stopping=settings.stopping,
            stocks=max(1, len(settings.members)),
            devices=run.device,
            measures_latency=settings.needs_latency and settings.latency is None,
            sealed=sealed,
            subset=settings.subset,
        )

    @property
    def device(self) -> str:
        """First device: `cpu`, or the index of a GPU."""
        return self.devices.partition(",")[0]

    @property
    def sharing(self) -> int:
        """Number of workers that share the first device."""
        return math.ceil(self.workers / len(self.devices.split(",")))

    @property
    def inherits(self) -> bool:
        """Whether candidates start from trained weights."""
        return self.base is not None or self.budget.weights is not None

    def allows(self, cost: Cost) -> bool:
        """Return whether an architecture is within the limits that are known before training."""
        most_gflops, most_params = self.limits.gflops or math.inf, self.limits.params or math.inf
        return cost.gflops <= most_gflops and cost.params <= most_params
