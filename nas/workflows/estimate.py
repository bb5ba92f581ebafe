"""Estimate of a search before it begins: size and costs of the space, and how many hours the search may take."""

import math
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.utils.torch_utils import ModelEMA

from nas.workflows.check_cache import CheckCache
from nas.workflows.request import Request, require_reachable
from search_spaces import Architecture, SearchSpace, auxiliary, build
from search_spaces.errors import LatencyError
from trials import Budget, Limits, torch_devices
from trials.costing import cost
from trials.costing.cost import CostTable, gflops
from trials.costing.layers import IMAGE_CHANNELS
from trials.costing.slot_costs import SlotCosts, slot_costs
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.torch_devices import torch_device

SAMPLES = 200
"""Random architectures on which shares of a space are estimated."""
_BOXES = 5
"""Boxes in each image of a timed training step."""
_TIMED_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class SpaceSummary:
    """Size and costs of a search space; the fields are keys of `nas check --format json`.

    Attributes:
        gflops: least and greatest value of any architecture, deployed.
        params: least and greatest value of any architecture.
        buildable: share of random architectures that can be built.
        within: share of the buildable ones that are within the limits; None without limits.
    """

    size: int
    slots: tuple[SlotCosts, ...]
    stock_gflops: float
    stock_params: int
    gflops: tuple[float, float]
    params: tuple[int, int]
    buildable: float
    within: float | None


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Measured times of one architecture on this machine; the fields are keys of the check cache.

    Attributes:
        step: seconds of one training step.
        image: seconds of one validated image.
        start: seconds to build the model, before the training.
    """

    step: float
    image: float
    start: float

    def seconds(self, budget: Budget, data: DataSet) -> float:
        """Return the seconds of one training, without reading and augmenting images and without matching boxes."""
        steps = math.ceil(data.train_images / budget.batch) * budget.epochs
        return self.start + steps * self.step + data.val_images * self.image


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated duration of a search; the fields are keys of `nas check --format json`.

    Attributes:
        stock: seconds of a trial of the stock model.
        costliest: seconds of a trial of the architecture with the most multiply-adds.
        base: seconds of the stock model's training before all trials; 0 if there is none.
        machine: device on which it was measured.
    """

    trials: int
    workers: int
    stock: float
    costliest: float
    base: float = 0.0
    machine: str

    @property
    def hours(self) -> tuple[float, float]:
        """Hours if every trial took as long as that of the quicker of the two models, and as that of the slower."""
        ends = sorted((self.stock, self.costliest))
        rounds = math.ceil(self.trials / self.workers)
        return (self.base + ends[0] * rounds) / 3600, (self.base + ends[1] * rounds) / 3600


@dataclass(frozen=True, kw_only=True)
class Search:
    """Data, budgets and size of a search, as `nas search` would begin it."""

    data: DataSet
    base: Budget | None = None
    budget: Budget
    limits: Limits
    trials: int
    workers: int

    @classmethod
    def of(cls, request: Request, space: SearchSpace) -> "Search":
        """Return the search of a request, with the defaults of `nas search`; of several GPUs the first counts.

        Raises:
            SpecError: a value of the request is wrong.
            DataError: the data set cannot be trained on.
            EnvironmentProblem: a GPU does not exist.
        """
        device, workers = request.devices()
        limits, run = request.limits(), request.run(device, workers)
        data = datasets.load(request.data_name)
        first = device.partition(",")[0]
        base, budget = request.stock_budget(space, data, first), request.budget(space, data, first)
        return cls(data=data, base=base, budget=budget, limits=limits, trials=run.trials, workers=workers)


def summarize(space: SearchSpace, search: Search) -> SpaceSummary:
    """Return size and deployed costs of a space; nothing is measured.

    Raises:
        SpecError: a limit that no architecture meets, or that all do.
        CostError: a layer cannot be counted.
    """
    limits, table = search.limits, _table(space, search)
    stock = table.cost(space.stock)
    macs_range = table.reach(lambda layer: layer.macs)
    params_range = table.reach(lambda layer: layer.params)
    gflops_range = gflops(macs_range[0]), gflops(macs_range[1])
    require_reachable(
        (("max-gflops", limits.gflops, lambda: gflops_range), ("max-params", limits.params, lambda: params_range)),
        search.budget.deploy_size,
    )
    buildable, within = _shares(space, table, limits)
    return SpaceSummary(
        size=space.size,
        slots=tuple(slot_costs(table, slot) for slot in space.slots),
        stock_gflops=stock.gflops,
        stock_params=stock.params,
        gflops=gflops_range,
        params=params_range,
        buildable=buildable,
        within=within if limits.gflops or limits.params else None,
    )


def _table(space: SearchSpace, search: Search) -> CostTable:
    return cost.table(space, len(search.data.classes), search.budget.deploy_size)


def _shares(space: SearchSpace, table: CostTable, limits: Limits) -> tuple[float, float]:
    """Return which share of random architectures can be built, and which share of those is within the limits.

    The random architectures are always the same.
    """
    rng = random.Random(0)  # noqa: S311 - no secret
    drawn = [space.sample(rng) for _ in range(SAMPLES)]
    # One scaling factor alone was tried when the space file was read.
    buildable = [one for one in drawn if len(one.shape) < 2 or space.incompatibility(one) is None]
    costs = [table.cost(one) for one in buildable]
    most_gflops, most_params = limits.gflops or math.inf, limits.params or math.inf
    within = sum(one.gflops <= most_gflops and one.params <= most_params for one in costs)
    return len(buildable) / len(drawn), within / max(1, len(buildable))


def measure(space: SearchSpace, search: Search, cache: CheckCache) -> Estimate:
    """Estimate how long a search may take: time a few steps of the stock model and of the costliest architecture.

    Args:
        cache: of earlier measurements, which are not repeated.

    Raises:
        LatencyError: a step failed, as a trial's would.
    """
    costliest = _table(space, search).extreme(lambda layer: layer.macs, cheapest=False)
    ends = (space.stock, space.stock if space.incompatibility(costliest) else costliest)
    budget, data = search.budget, search.data
    stock, costly = (_step_times(end, search, cache) for end in ends)
    return Estimate(
        trials=search.trials,
        workers=search.workers,
        stock=stock.seconds(budget, data),
        costliest=costly.seconds(budget, data),
        base=stock.seconds(search.base, data) if search.base else 0.0,
        machine=_machine(budget.device),
    )


def _machine(device: str) -> str:
    if device == "cpu":
        return f"one core of {platform.node()} ({platform.machine()})"
    return f"{torch.cuda.get_device_name(int(device))} of {platform.node()}"


def _step_times(architecture: Architecture, search: Search, cache: CheckCache) -> StepTimes:
    budget, classes = search.budget, len(search.data.classes)
    sizes = budget.image_size, budget.deploy_size, budget.batch, classes, budget.precision
    branch = " pgi" if budget.recipe.pgi else ""
    key = f"pace {architecture.fingerprint}{branch} {sizes} {torch.__version__} {_machine(budget.device)}"
    stored = _stored_step_times(cache[key]) if key in cache else None
    if stored is None:
        try:
            measured = _measure_step_times(architecture, classes, budget)
        except (RuntimeError, ValueError) as error:  # out of memory, or a map of one pixel in a batch of one
            raise LatencyError(f"a training step of {architecture.summary()} failed: {error}") from error
        cache.add({key: asdict(measured)})
        return measured
    return stored


def _stored_step_times(entry: object) -> StepTimes | None:
    """Return an entry of the cache as times; None if it is damaged."""
    try:
        return TypeAdapter(StepTimes).validate_python(entry)
    except ValidationError:
        return None


def _measure_step_times(architecture: Architecture, classes: int, budget: Budget) -> StepTimes:
    device = torch_device(budget.device)
    with torch_devices.one_thread():
        began = time.perf_counter()
        document = architecture.document(classes)
        in_training = auxiliary.with_branch(document) if budget.recipe.pgi else document
        model = build.model(in_training, classes).to(device, memory_format=torch_devices.memory_format(device))
        start = time.perf_counter() - began
        return StepTimes(
            step=_median_seconds(_training_step(model, budget, device), device),
            image=_median_seconds(_validation_step(model, budget, device), device) / (2 * budget.batch),
            start=start,
        )


def _training_step(model: nn.Module, budget: Budget, device: torch.device) -> Callable[[], object]:
    """Return a training step on random images: forward, loss, backward, clipping, optimizer, EMA."""
    batch, size = budget.batch, budget.image_size
    images = torch.rand(batch, IMAGE_CHANNELS, size, size, device=device)
    labeled = {
        "img": images.contiguous(memory_format=torch_devices.memory_format(device)),
        "batch_idx": torch.arange(batch, device=device).repeat_interleave(_BOXES).float(),
        "cls": torch.zeros(batch * _BOXES, 1, device=device),
        "bboxes": torch.rand(batch * _BOXES, 4, device=device) * 0.25 + 0.25,
    }
    model.args = get_cfg()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ema = ModelEMA(model)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=budget.precision == "bf16"):
            loss: Any = model(labeled)[0]
        loss.sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)

    return step


def _validation_step(model: nn.Module, budget: Budget, device: torch.device) -> Callable[[], object]:
    """Return a forward pass of twice the batch, as Ultralytics validates; without NMS and matching of boxes."""
    images = torch.rand(2 * budget.batch, IMAGE_CHANNELS, budget.image_size, budget.image_size, device=device)
    images = images.contiguous(memory_format=torch_devices.memory_format(device))

    @torch.no_grad()
    def validate() -> object:
        return model.eval()(images)

    return validate


def _median_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Return the median duration of up to five calls after a warm-up, in a few seconds altogether."""
    function()
    seconds: list[float] = []
    while len(seconds) < 5 and sum(seconds) < _TIMED_SECONDS:
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
