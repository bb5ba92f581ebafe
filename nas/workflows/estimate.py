"""What a search of a space has before it: what there is to choose from, what it costs, how many hours it may take."""

import math
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.utils.torch_utils import ModelEMA

from nas.workflows.check_cache import CheckCache
from nas.workflows.request import Request, require_reachable
from search_spaces import Architecture, SearchSpace, auxiliary, build
from search_spaces.errors import LatencyError
from trials import Budget, Limits, devices
from trials.costing import cost
from trials.costing.cost import CostTable, gflops
from trials.costing.layers import IMAGE_CHANNELS
from trials.costing.slot_costs import SlotCosts, slot_costs
from trials.data import datasets
from trials.data.datasets import DataSet
from trials.devices import torch_device

Model = TypeVar("Model", bound=BaseModel)

SAMPLES = 200
_BOXES = 5
"""In each image of a timed training step."""
_TIMED_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A space as it is before a search.

    Attributes:
        gflops: the least and the greatest that can be reached, deployed.
        params: likewise.
        buildable: share of random architectures that can be built.
        within: share of the buildable that are within the limits; None without limits.
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
class Pace:
    """How fast one architecture is on this machine.

    Attributes:
        step: seconds of one training step.
        image: seconds of one validated image.
        start: seconds before the training: the model is built.
    """

    step: float
    image: float
    start: float

    def seconds(self, budget: Budget, data: DataSet) -> float:
        """Of one training. Reading and changing images, and matching boxes, are not in it."""
        steps = math.ceil(data.train_images / budget.batch) * budget.epochs
        return self.start + steps * self.step + data.val_images * self.image


@dataclass(frozen=True, kw_only=True)
class Effort:
    """An estimate of a search.

    Attributes:
        stock: seconds of a trial of the stock model.
        costliest: seconds of a trial of the architecture with the most multiply-adds.
        base: seconds of the stock model's own training, before all trials; 0 if there is none.
        machine: what was measured.
    """

    trials: int
    workers: int
    stock: float
    costliest: float
    base: float = 0.0
    machine: str

    @property
    def hours(self) -> tuple[float, float]:
        """If every trial were as quick as the quicker of the two, and as slow as the slower."""
        ends = sorted((self.stock, self.costliest))
        rounds = math.ceil(self.trials / self.workers)
        return (self.base + ends[0] * rounds) / 3600, (self.base + ends[1] * rounds) / 3600


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search that could be begun."""

    data: DataSet
    base: Budget | None = None
    budget: Budget
    limits: Limits
    trials: int
    workers: int

    @classmethod
    def of(cls, request: Request, space: SearchSpace) -> "Search":
        """What was asked for, with `nas search`'s defaults; of several GPUs the first is looked at.

        Raises:
            SpecError: a number that is none.
            DataError: the data set.
            EnvironmentProblem: a GPU that is not there.
        """
        device, workers = request.devices()
        limits, run = request.limits(), request.run(device, workers)
        data = datasets.load(request.data_named)
        first = device.partition(",")[0]
        base, budget = request.base(space, data, first), request.budget(space, data, first)
        return cls(data=data, base=base, budget=budget, limits=limits, trials=run.trials, workers=workers)


def look(space: SearchSpace, search: Search) -> Outlook:
    """Count what a space offers, deployed; nothing is measured.

    Raises:
        SpecError: a limit that no architecture meets, or that all do.
        CostError: a layer cannot be counted.
    """
    limits, table = search.limits, _table(space, search)
    stock = table.cost(space.stock)
    reached_gflops = table.reach(lambda layer: layer.macs)
    reached_params = table.reach(lambda layer: layer.params)
    ends = gflops(reached_gflops[0]), gflops(reached_gflops[1])
    require_reachable(
        (("max-gflops", limits.gflops, lambda: ends), ("max-params", limits.params, lambda: reached_params)),
        search.budget.deploy_size,
    )
    buildable, within = _shares(space, table, limits)
    return Outlook(
        size=space.size,
        slots=tuple(slot_costs(table, slot) for slot in space.slots),
        stock_gflops=stock.gflops,
        stock_params=stock.params,
        gflops=ends,
        params=reached_params,
        buildable=buildable,
        within=within if limits.gflops or limits.params else None,
    )


def _table(space: SearchSpace, search: Search) -> CostTable:
    return cost.table(space, len(search.data.classes), search.budget.deploy_size)


def _shares(space: SearchSpace, table: CostTable, limits: Limits) -> tuple[float, float]:
    """Of random architectures, always the same ones: which can be built, and which of those are within limits."""
    rng = random.Random(0)  # noqa: S311 - no secret
    drawn = [space.sample(rng) for _ in range(SAMPLES)]
    # A dial turned alone was tried when the file was read.
    sound = [one for one in drawn if len(one.shape) < 2 or space.incompatibility(one) is None]
    costs = [table.cost(one) for one in sound]
    most_gflops, most_params = limits.gflops or math.inf, limits.params or math.inf
    within = sum(one.gflops <= most_gflops and one.params <= most_params for one in costs)
    return len(sound) / len(drawn), within / max(1, len(sound))


def estimate(space: SearchSpace, search: Search, memory: CheckCache) -> Effort:
    """How long a search may take: a few steps of the stock model and of the costliest, timed on this machine.

    What was measured for the same before is taken from memory.

    Raises:
        LatencyError: a step failed, as a trial's would.
    """
    costliest = _table(space, search).extreme(lambda layer: layer.macs, cheapest=False)
    ends = (space.stock, space.stock if space.incompatibility(costliest) else costliest)
    budget, data = search.budget, search.data
    paces = [_pace(end, search, memory) for end in ends]
    return Effort(
        trials=search.trials,
        workers=search.workers,
        stock=paces[0].seconds(budget, data),
        costliest=paces[1].seconds(budget, data),
        base=paces[0].seconds(search.base, data) if search.base else 0.0,
        machine=_machine(budget.device),
    )


def _machine(device: str) -> str:
    if device == "cpu":
        return f"one core of {platform.node()} ({platform.machine()})"
    return f"{torch.cuda.get_device_name(int(device))} of {platform.node()}"


def _pace(architecture: Architecture, search: Search, memory: CheckCache) -> Pace:
    budget, classes = search.budget, len(search.data.classes)
    sizes = budget.image_size, budget.deploy_size, budget.batch, classes, budget.precision
    branch = " pgi" if budget.recipe.pgi else ""
    key = f"pace {architecture.fingerprint}{branch} {sizes} {torch.__version__} {_machine(budget.device)}"
    known = _pace_of(memory[key]) if key in memory else None
    if known is None:
        try:
            measured = _measured(architecture, classes, budget)
        except (RuntimeError, ValueError) as error:  # out of memory, or a map of one pixel in a batch of one
            raise LatencyError(f"a training step of {architecture.summary()} failed: {error}") from error
        memory.add({key: asdict(measured)})
        return measured
    return known


def _pace_of(noted: object) -> Pace | None:
    """What was measured before; None if the file says something else."""
    try:
        return TypeAdapter(Pace).validate_python(noted)
    except ValidationError:
        return None


def _measured(architecture: Architecture, classes: int, budget: Budget) -> Pace:
    device = torch_device(budget.device)
    with _one_thread():
        began = time.perf_counter()
        document = architecture.document(classes)
        in_training = auxiliary.with_branch(document) if budget.recipe.pgi else document
        model = build.model(in_training, classes).to(device, memory_format=devices.memory_format(device))
        start = time.perf_counter() - began
        return Pace(
            step=_median_seconds(_step(model, budget, device), device),
            image=_median_seconds(_validation(model, budget, device), device) / (2 * budget.batch),
            start=start,
        )


def _step(model: nn.Module, budget: Budget, device: torch.device) -> Callable[[], object]:
    """A training step on made-up images: forward, loss, backward, clipping, optimizer, moving average."""
    batch, size = budget.batch, budget.image_size
    images = torch.rand(batch, IMAGE_CHANNELS, size, size, device=device)
    made_up = {
        "img": images.contiguous(memory_format=devices.memory_format(device)),
        "batch_idx": torch.arange(batch, device=device).repeat_interleave(_BOXES).float(),
        "cls": torch.zeros(batch * _BOXES, 1, device=device),
        "bboxes": torch.rand(batch * _BOXES, 4, device=device) * 0.25 + 0.25,
    }
    model.args = get_cfg()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    average = ModelEMA(model)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=budget.precision == "bf16"):
            loss: Any = model(made_up)[0]
        loss.sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)

    return step


def _validation(model: nn.Module, budget: Budget, device: torch.device) -> Callable[[], object]:
    """A pass of twice the batch, as Ultralytics validates; boxes are neither sorted out nor matched."""
    images = torch.rand(2 * budget.batch, IMAGE_CHANNELS, budget.image_size, budget.image_size, device=device)
    images = images.contiguous(memory_format=devices.memory_format(device))

    @torch.no_grad()
    def validate() -> object:
        return model.eval()(images)

    return validate


def _median_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of up to five runs after one that warms up, in a few seconds."""
    run()
    passes: list[float] = []
    while len(passes) < 5 and sum(passes) < _TIMED_SECONDS:
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        passes.append(time.perf_counter() - began)
    return statistics.median(passes)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As a trial on the CPU has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
