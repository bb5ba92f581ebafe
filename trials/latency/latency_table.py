"""The latency of every architecture of a space on one device, from a table of its layers.

    predicted = factor x sum of (layer, timed alone - start) + start
    factor    = (stock model, measured as a whole - start) / sum of (its layers, each timed alone - start)

Each distinct layer, at the shapes it receives, is timed once, as the device would run it; a layer that holds an
operator is timed as a whole. Alone, every layer pays for the start of a graph, and a model once: that is timed as a
graph with next to nothing in it. Alone, a layer finds its maps and weights in the cache; in a model it does not, and a
runtime may fuse it with the next. The factor that the stock model shows is taken to be every architecture's.
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
from search_spaces.space import incompatibility
from search_spaces.trace import Feature
from trials.costing.cost import fused
from trials.costing.layers import LayerTable, StockLayer
from trials.costing.structural_key import shapes, structural_key
from trials.latency import timings
from trials.latency.deployed import Deployed
from trials.latency.runtimes import Runtime
from trials.latency.timings import Timing, Timings


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """A layer, or the whole stock model, that the table has an entry for or needs one.

    Attributes:
        key: of the entry.
        what: in words.
        received: the shapes, in words.
        deploy: builds it, with weights.
    """

    key: str
    what: str
    received: str
    deploy: Callable[[], Deployed]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a recording is.

    Attributes:
        timing: the entry that was added.
        problem: why there is none: the layer cannot be isolated, exported or run.
    """

    done: int
    total: int
    timing: Timing | None = None
    problem: str = ""


class LatencyTable(LayerTable[Part]):
    """The latency of every architecture of a space.

    Args:
        recorded: the device's table; it may hold entries of other spaces and sizes, too.
    """

    def __init__(self, space: SearchSpace, classes: int, image_size: int, recorded: Timings) -> None:
        super().__init__(space, classes, image_size)
        self.recorded = recorded

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of one image on the table's device.

        Raises:
            LatencyError: the table lacks an entry; the text says which and how to record it.
        """
        return self.factor * sum(map(self._own_ms, self.layers(architecture))) + self.start_ms

    def reach_ms(self) -> tuple[float, float]:
        """The least and the most that is predicted of any architecture."""
        least, most = self.reach(self._own_ms)
        return self.factor * least + self.start_ms, self.factor * most + self.start_ms

    @property
    def factor(self) -> float:
        """How much longer the stock model takes than its layers one by one, without a start each."""
        return (self.stock_ms - self.start_ms) / self.stock_sum_ms

    @property
    def start_ms(self) -> float:
        """What a pass costs before anything is computed.

        Raises:
            LatencyError: the table lacks it.
        """
        return self._ms(_START)

    @property
    def stock_ms(self) -> float:
        """Milliseconds of the whole stock model, measured.

        Raises:
            LatencyError: the table lacks it.
        """
        return self._ms(self.stock_model)

    @property
    def stock_sum_ms(self) -> float:
        """The sum of the stock model's layers, each measured by itself, without a start each."""
        return sum(map(self._own_ms, self.layers(self.space.stock)))

    def slot_ms(self, slot: Slot, choice: Choice, macro: Scaling = ()) -> float:
        """All layers of a slot with one choice in them, as parts of a model; 0 where nothing is inserted."""
        return self.factor * sum(map(self._own_ms, self.layers_of(slot, choice, macro or self.space.stock.macro)))

    def _own_ms(self, part: Part) -> float:
        return self._ms(part) - self.start_ms

    def _ms(self, part: Part) -> float:
        if part.key not in self.recorded.entries:
            raise LatencyError(
                f"the latency table {self.recorded.profile.name} lacks {part.what} for {part.received} "
                f"(on the device: {self.recording_command} adds what is missing)"
            )
        return self.recorded.entries[part.key].median_ms

    @property
    def recording_command(self) -> str:
        """The command that records this space into this table: all that makes it another table is in it."""
        profile = self.recorded.profile
        scale = f" --scale {self.space.scale}" if self.space.scale else ""
        return (
            f"nas latency record --space {self.space.name}{scale} --classes {self.classes} "
            f"--deploy-size {self.image_size} --runtime {profile.runtime} --threads {profile.threads} "
            f"--device-name {shlex.quote(profile.name)}"
        )

    @property
    def stock_model(self) -> Part:
        """The stock model as a whole."""
        stock = self.space.stock
        size = stock.image_size or self.image_size
        name = bases.load(stock.base, stock.scale).name
        known = ("model", bases.identity(stock.base, stock.scale), stock.scale, self.classes, size)
        return Part(
            key=_digest(known),
            what=f"{name} as a whole, {self.classes} classes",
            received=f"1x3x{size}x{size}",
            deploy=partial(Deployed.model, stock.document(self.classes), self.classes, size),
        )

    @property
    def reference(self) -> Part:
        """The stock layer that every entry is timed in turns with: the first that a slot may change."""
        first = min((slot.layer for slot in self.space.slots), default=0)
        return self.layers(self.space.stock)[first]

    def parts(self) -> dict[str, Part]:
        """Everything that any prediction in this space needs, by key: the reference first, then the whole model."""
        found = {part.key: part for part in (self.reference, self.stock_model, _START)}
        for macro in self._macros():
            for part in self._parts_at(macro):
                found.setdefault(part.key, part)
        return found

    def _macros(self) -> Iterator[Scaling]:
        """Every setting of the dials, the stock model's first."""
        yield self.space.stock.macro
        names = [factor.name for factor in self.space.scaling_factors]
        for values in product(*(factor.values for factor in self.space.scaling_factors)):
            yield self.space.of({}, dict(zip(names, values, strict=True))).macro

    def _parts_at(self, macro: Scaling) -> Iterator[Part]:
        setting = self.setting(macro)
        yield from setting.values
        for slot in self.space.slots:
            base = setting.stock[slot.layer].base
            for choice in slot.choices:
                if choice.is_stock or incompatibility(base, slot, choice) is None:
                    yield from self.layers_of(slot, choice, macro)

    def value_of_stock(self, layer: StockLayer) -> Part:
        """Return a stock layer."""
        module = layer.step.layer
        return _part(type(module).__name__, module, layer.step.received, partial(self._with_weights, layer))

    def value_of_choice(self, layer: StockLayer, choice: Choice) -> Part:
        """Return a layer with the operator at its sites."""
        with torch.device("meta"):
            module = _grafted(layer, layer.step.layer, choice)
        name = layer.host.name
        what = f"{name} with {choice}" if layer.host.holds(OPERATORS[choice.operator]) else f"{choice} for {name}"

        def deploy() -> nn.Module:
            return _grafted(layer, self._with_weights(layer), choice)

        return _part(what, module, layer.step.received, deploy, choice)

    def value_of_insertion(self, layer: StockLayer, choice: Choice) -> Part:
        """Return an operator that is a layer of its own."""
        deploy = partial(_inserted, layer, choice)
        with torch.device("meta"):
            module = deploy()
        return _part(str(choice), module, layer.step.returned, deploy, choice)

    def _with_weights(self, layer: StockLayer) -> nn.Module:
        """Build a stock layer with weights."""
        return _model(layer.model, self.classes).model[layer.step.index]


def record(table: LatencyTable, runtime: Runtime, path: Path) -> Iterator[Progress]:
    """Time what the table lacks, and write it down after each entry: what was killed goes on where it was.

    Args:
        table: of which `recorded` grows; what `path` holds is read first.

    Raises:
        LatencyError: the file is of another profile, or the reference cannot be timed.
        EnvironmentProblem: the file cannot be written, or a remote host is gone.
    """
    table.recorded = Timings(profile=runtime.profile, entries={})
    if path.is_file():
        there = timings.read(path)
        there.profile.require(runtime.profile, str(path))
        table.recorded = there
    parts = table.parts()
    missing = [part for key, part in parts.items() if key not in table.recorded.entries]
    known = len(parts) - len(missing)
    reference = table.reference.deploy()
    for done, part in enumerate(missing, start=known + 1):
        try:
            timing = _timed(part, table, reference, runtime)
        except LatencyError as error:
            if part.key == table.reference.key:
                raise
            yield Progress(done=done, total=len(parts), problem=str(error))
            continue
        table.recorded = table.recorded.plus(timing)
        table.recorded.write(path)
        yield Progress(done=done, total=len(parts), timing=timing)


def _timed(part: Part, table: LatencyTable, reference: Deployed, runtime: Runtime) -> Timing:
    if part.key == table.reference.key:
        return Timing.alone(part.key, part.what, part.received, runtime.measure(reference))
    compared = runtime.compare(part.deploy(), reference)
    reference_ms = table.recorded.entries[table.reference.key].median_ms
    return Timing.beside(part.key, part.what, part.received, compared, reference_ms)


def _part(
    what: str,
    module: nn.Module,
    received: Feature | Sequence[Feature],
    deploy: Callable[[], nn.Module],
    choice: Choice | None = None,
) -> Part:
    source = OPERATORS[choice.operator].source if choice else None
    told = _shapes_in_words(received)
    return Part(
        key=_digest((structural_key(module.eval()), shapes(received), source and source.digest)),
        what=what,
        received=told,
        deploy=lambda: Deployed(module=fused(deploy().eval()), received=received, what=f"{what} for {told}"),
    )


def _grafted(layer: StockLayer, module: nn.Module, choice: Choice) -> nn.Module:
    operator, parameters = OPERATORS[choice.operator], dict(choice.parameters)
    return build.graft(deepcopy(module), layer.host, operator, parameters, c_in=layer.step.c_in)


def _inserted(layer: StockLayer, choice: Choice) -> nn.Module:
    operator = OPERATORS[choice.operator]
    (site,) = layer.sites(operator, inserted=True)
    return operator.build(site, **dict(choice.parameters))


@lru_cache(maxsize=1)
def _model(stock: Architecture, classes: int) -> DetectionModel:
    """The base model where the dials stand at one setting, with weights; the layers of one are asked for in a row."""
    return build.model(stock.document(classes), classes).eval()


def _digest(known: object) -> str:
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _shapes_in_words(feature: Feature | Sequence[Feature]) -> str:
    if isinstance(feature, torch.Tensor):
        return "x".join(map(str, feature.shape))
    return " + ".join(map(_shapes_in_words, feature))


_START = _part("the start of a graph", nn.ReLU(), torch.zeros(1, 1, 1, 1, device="meta"), nn.ReLU)
"""One number through what no runtime leaves out as it may an identity."""
