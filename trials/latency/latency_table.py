"""Latency of all architectures of a space on one device, predicted from a lookup table of layers.

    predicted = factor * sum of (layer alone - overhead) + overhead
    factor    = (stock model as a whole - overhead) / sum of (stock layers alone - overhead)

Each distinct layer is timed alone, once per input shape, as it is deployed; a layer that carries an operator is timed
as a whole. Timed alone, each layer includes the start-up overhead of a graph, which a model has only once; it is
measured with an almost empty graph. Timed alone, a layer finds its inputs and weights in the cache, and a runtime
cannot fuse it with the next layer. The factor of the stock model corrects for that; it is used for all architectures.
"""

import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from search_spaces import OPERATORS, Architecture, Choice, SearchSpace, Slot, build
from search_spaces import base as bases
from search_spaces.errors import LatencyError
from search_spaces.scaling import Scaling
from search_spaces.slot import incompatibility
from search_spaces.trace import Feature
from trials.costing.cost import fused
from trials.costing.layers import LayerTable, StockLayer
from trials.costing.structural_key import shapes, structural_key
from trials.latency import timings
from trials.latency.deployed import Deployed
from trials.latency.precision import FP32, Calibration
from trials.latency.runtimes import Runtime
from trials.latency.timings import Timing, Timings


@dataclass(frozen=True, eq=False, kw_only=True)
class Workload:
    """Layer at one input shape, or whole stock model, whose latency is an entry of the table.

    Attributes:
        key: key of the entry.
        description: in words.
        input_shapes: as text, `1x64x80x80`.
        deploy: builds the module with weights, and its input.
    """

    key: str
    description: str
    input_shapes: str
    deploy: Callable[[], Deployed]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a recording.

    Attributes:
        timing: the new entry.
        problem: why there is no entry: the layer cannot be isolated, exported or run.
    """

    done: int
    total: int
    timing: Timing | None = None
    problem: str = ""


class LatencyTable(LayerTable[Workload]):
    """Predicts the latency of all architectures of a space, in milliseconds.

    Args:
        recorded: the device's table; entries of other spaces and sizes are ignored.
    """

    def __init__(self, space: SearchSpace, classes: int, image_size: int, recorded: Timings) -> None:
        super().__init__(space, classes, image_size)
        self.recorded = recorded

    @property
    def of_members(self) -> "tuple[LatencyTable, ...]":
        """Table of each member of the space: this one."""
        return (self,)

    def of_member(self, architecture: Architecture) -> "LatencyTable":  # noqa: ARG002 - those of a joined space look at it
        """Return the table of an architecture's member: this one."""
        return self

    def predict(self, architecture: Architecture) -> float:
        """Predict the latency of one image, in milliseconds.

        Raises:
            LatencyError: the table lacks an entry; the text names it and the command that records it.
        """
        return self.factor * sum(map(self._net_ms, self.layers(architecture))) + self.overhead_ms

    def reach_ms(self) -> tuple[float, float]:
        """Return the lowest and the highest predicted latency in the space."""
        least, most = self.reach(self._net_ms)
        return self.factor * least + self.overhead_ms, self.factor * most + self.overhead_ms

    @property
    def factor(self) -> float:
        """Ratio of the stock model's latency to the sum of its layers', both without overhead."""
        return (self.stock_ms - self.overhead_ms) / self.stock_sum_ms

    @property
    def overhead_ms(self) -> float:
        """Start-up overhead of a graph.

        Raises:
            LatencyError: the table lacks it.
        """
        return self._ms(EMPTY_GRAPH)

    @property
    def stock_ms(self) -> float:
        """Measured latency of the whole stock model.

        Raises:
            LatencyError: the table lacks it.
        """
        return self._ms(self.stock_model)

    @property
    def stock_sum_ms(self) -> float:
        """Sum of the latencies of the stock model's layers, each timed alone, without overhead."""
        return sum(map(self._net_ms, self.layers(self.space.stock)))

    def slot_ms(self, slot: Slot, choice: Choice, macro: Scaling = ()) -> float:
        """Predict the contribution of a slot's layers with one choice in them; 0 where nothing is inserted."""
        return self.factor * sum(map(self._net_ms, self.layers_of(slot, choice, macro or self.space.stock.macro)))

    def _net_ms(self, workload: Workload) -> float:
        return self._ms(workload) - self.overhead_ms

    def _ms(self, workload: Workload) -> float:
        if workload.key not in self.recorded.entries:
            raise LatencyError(
                f"the latency table {self.recorded.profile.name} lacks {workload.description} for "
                f"{workload.input_shapes} (on the device: {self.recording_command} adds what is missing)"
            )
        return self.recorded.entries[workload.key].median_ms

    @property
    def recording_command(self) -> str:
        """Command that records this space into this table, with all options that select the table."""
        profile = self.recorded.profile
        scale = f" --scale {shlex.quote(self.space.scale)}" if self.space.scale else ""
        precision = "" if profile.precision == FP32 else f" --precision {profile.precision}"
        if profile.calibration:
            calibration = Calibration.from_text(profile.calibration)
            precision += f" --calibration-images {calibration.images} --calibration-seed {calibration.seed}"
        return (
            f"nas latency record --space {shlex.quote(self.space.name)}{scale} --classes {self.classes} "
            f"--deploy-size {self.image_size} --runtime {shlex.quote(profile.runtime)} "
            f"--threads {profile.threads}{precision} --device-name {shlex.quote(profile.name)}"
        )

    @property
    def stock_model(self) -> Workload:
        """Whole stock model."""
        stock = self.space.stock
        size = stock.image_size or self.image_size
        name = bases.load(stock.base, stock.scale).name
        identity = ("model", bases.identity(stock.base, stock.scale), stock.scale, self.classes, size)
        return Workload(
            key=_digest(identity),
            description=f"{name} as a whole, {self.classes} classes",
            input_shapes=f"1x3x{size}x{size}",
            deploy=partial(Deployed.model, stock.document(self.classes), self.classes, size),
        )

    @property
    def reference(self) -> Workload:
        """Reference of all paired comparisons: the stock layer of the first slot."""
        first = min((slot.layer for slot in self.space.slots), default=0)
        return self.layers(self.space.stock)[first]

    def workloads(self) -> dict[str, Workload]:
        """Return all workloads that predictions in this space need, by key; first the reference, then the model."""
        found = {workload.key: workload for workload in (self.reference, self.stock_model, EMPTY_GRAPH)}
        for macro in self._macros():
            for workload in self._workloads_at(macro):
                found.setdefault(workload.key, workload)
        return found

    def _macros(self) -> Iterator[Scaling]:
        """Yield all combinations of scaling factors, the stock model's first."""
        yield self.space.stock.macro
        names = [factor.name for factor in self.space.scaling_factors]
        for values in product(*(factor.values for factor in self.space.scaling_factors)):
            yield self.space.of({}, dict(zip(names, values, strict=True))).macro

    def _workloads_at(self, macro: Scaling) -> Iterator[Workload]:
        scaled = self.at_scaling(macro)
        yield from scaled.values
        for slot in self.space.slots:
            base = scaled.stock[slot.layer].base
            for choice in slot.choices:
                if choice.is_stock or incompatibility(base, slot, choice) is None:
                    yield from self.layers_of(slot, choice, macro)

    def value_of_stock(self, layer: StockLayer) -> Workload:
        """Return the workload of a stock layer."""
        module = layer.step.layer
        return _workload(type(module).__name__, module, layer.step.received, partial(self._with_weights, layer))

    def value_of_choice(self, layer: StockLayer, choice: Choice) -> Workload:
        """Return the workload of a layer with an operator at its sites."""
        with torch.device("meta"):
            module = _grafted(layer, layer.step.layer, choice)
        in_host, name = layer.host.holds(OPERATORS[choice.operator]), layer.host.name
        description = f"{name} with {choice}" if in_host else f"{choice} for {name}"

        def deploy() -> nn.Module:
            return _grafted(layer, self._with_weights(layer), choice)

        return _workload(description, module, layer.step.received, deploy, choice)

    def value_of_insertion(self, layer: StockLayer, choice: Choice) -> Workload:
        """Return the workload of an inserted operator."""
        deploy = partial(_inserted, layer, choice)
        with torch.device("meta"):
            module = deploy()
        return _workload(str(choice), module, layer.step.returned, deploy, choice)

    def _with_weights(self, layer: StockLayer) -> nn.Module:
        """Build a stock layer with weights."""
        return _model(layer.model, self.classes).model[layer.step.index]


def record(table: LatencyTable, runtime: Runtime, path: Path) -> Iterator[Progress]:
    """Time all workloads that the table lacks; write the file after each, so an interrupted recording can resume.

    Args:
        table: its `recorded` is replaced by the content of `path`, and extended.

    Raises:
        LatencyError: the file has another profile, or the reference cannot be timed.
        EnvironmentProblem: the file cannot be written, or the connection to a remote machine ended.
    """
    table.recorded = Timings(profile=runtime.profile, entries={})
    if path.is_file():
        stored = timings.read(path)
        stored.profile.require(runtime.profile, str(path))
        table.recorded = stored
    workloads = table.workloads()
    missing = [workload for key, workload in workloads.items() if key not in table.recorded.entries]
    reference = table.reference.deploy()
    for done, workload in enumerate(missing, start=len(workloads) - len(missing) + 1):
        try:
            timing = _timed(workload, table, reference, runtime)
        except LatencyError as error:
            if workload.key == table.reference.key:
                raise
            yield Progress(done=done, total=len(workloads), problem=str(error))
            continue
        table.recorded = table.recorded.with_entry(timing)
        table.recorded.write(path)
        yield Progress(done=done, total=len(workloads), timing=timing)


def _timed(workload: Workload, table: LatencyTable, reference: Deployed, runtime: Runtime) -> Timing:
    labels = workload.key, workload.description, workload.input_shapes
    if workload.key == table.reference.key:
        return Timing.of_latency(*labels, runtime.measure(reference))
    compared = runtime.compare(workload.deploy(), reference)
    return Timing.of_comparison(*labels, compared, table.recorded.entries[table.reference.key].median_ms)


def _workload(
    description: str,
    module: nn.Module,
    inputs: Feature | Sequence[Feature],
    deploy: Callable[[], nn.Module],
    choice: Choice | None = None,
) -> Workload:
    source = OPERATORS[choice.operator].source if choice else None
    input_shapes = _shapes_as_text(inputs)
    return Workload(
        key=_digest((structural_key(module.eval()), shapes(inputs), source and source.digest)),
        description=description,
        input_shapes=input_shapes,
        deploy=lambda: Deployed(
            module=fused(deploy().eval()), inputs=inputs, description=f"{description} for {input_shapes}"
        ),
    )


def _grafted(layer: StockLayer, module: nn.Module, choice: Choice) -> nn.Module:
    operator, parameters = OPERATORS[choice.operator], dict(choice.parameters)
    return build.graft(deepcopy(module), layer.host, operator, parameters, c_in=layer.step.channels_in)


def _inserted(layer: StockLayer, choice: Choice) -> nn.Module:
    operator = OPERATORS[choice.operator]
    (site,) = layer.sites(operator, inserted=True)
    return operator.build(site, **dict(choice.parameters))


@lru_cache(maxsize=1)
def _model(stock: Architecture, classes: int) -> DetectionModel:
    """Build the stock model with weights at one combination of scaling factors; its layers are requested in a row."""
    return build.model(stock.document(classes), classes).eval()


def _digest(identity: object) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def _shapes_as_text(feature: Feature | Sequence[Feature]) -> str:
    if isinstance(feature, torch.Tensor):
        return "x".join(map(str, feature.shape))
    return " + ".join(map(_shapes_as_text, feature))


EMPTY_GRAPH = _workload("the start of a graph", nn.ReLU(), torch.zeros(1, 1, 1, 1, device="meta"), nn.ReLU)
"""Almost empty graph, whose latency is the overhead: one number through a ReLU, as runtimes remove an identity."""
