"""What a model costs: exact parameters and multiply-adds.

A model's cost is the sum over its layers of a function of the built layer and the shape that enters it; `CostTable`
remembers what it has counted. The layers are built on the meta device and counted by `thop`, with a rule for each of
our operators that computes products in its own `forward`: no counter sees sampling, or a convolution with computed
weights.

Counted are convolutions, linear layers, matrix products and those operators; batch norm, activations, pooling and
interpolation are not. Ultralytics' figure is this one as built, and four products more for each value that leaves a
batch norm: 0.2 % (YOLOv6-x) to 2.6 % (YOLO26-n) for its models, 3.5 % for YOLO26-n-p2; fused, the two are equal.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import thop
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel

from search_spaces import OPERATORS, Architecture, Choice, SearchSpace, Slot, auxiliary, build
from search_spaces.errors import CostError, SpecError
from search_spaces.hosts import HOSTS, WHOLE
from search_spaces.macro import Setting
from search_spaces.operators import Operator, Site
from search_spaces.printed import PRINTED
from search_spaces.trace import Feature, Traced, first, shapes_alone
from trials.costing import layers as layer_tables
from trials.costing.layers import LayerTable, Place, likeness, shapes, traced

IMAGE_CHANNELS = layer_tables.IMAGE_CHANNELS


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer.

    Attributes:
        module: its class.
        macs: multiply-adds of one image.
    """

    module: str
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A model, for one image.

    Attributes:
        image_size: in pixels, of a square image.
        deployed: fused, as it would be shipped; otherwise as built, comparable with Ultralytics' and papers' tables.
    """

    image_size: int
    deployed: bool
    layers: tuple[LayerCost, ...]

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(layer.macs for layer in self.layers)

    @property
    def gflops(self) -> float:
        """Billions of operations, two for each multiply-add."""
        return gflops(self.macs)


def gflops(macs: int) -> float:
    """Billions of operations, two for each multiply-add."""
    return 2 * macs / 1e9


def measure(document: Mapping[str, Any], classes: int, image_size: int, *, deployed: bool = True) -> Cost:
    """The cost of a model YAML, ours or Ultralytics'.

    Args:
        document: the YAML as a mapping.
        classes: that the head tells apart.
        image_size: in pixels, a multiple of the model's stride.
        deployed: fused, without branches that only training uses.

    Raises:
        CostError: a layer cannot be counted, or nothing could.
        SpecError: the document cannot be built.
    """
    build.require_detection(document)
    document = auxiliary.deployed(document) if deployed else document
    try:
        steps = traced(build.skeleton(document, classes), image_size)
    except CostError as error:
        try:
            build.require_passable(document)  # at another size; what fails there, too, is a row
        except SpecError as wrong:
            raise CostError(str(wrong)) from error
        raise
    counted = tuple(_count(step.layer, step.received, deployed=deployed) for step in steps)
    cost = Cost(image_size=image_size, deployed=deployed, layers=counted)
    if not cost.macs or not cost.params:
        raise CostError(f"nothing could be counted in {len(counted)} layers at {image_size} px")
    return cost


class CostTable(LayerTable[LayerCost]):
    """The deployed cost of every architecture of a space, as a sum over its layers.

    Exact: what a layer with a choice costs is the stock layer, less what stands at the operator's sites, plus the
    operator there. Whatever is like something counted before, with a map of the same shape, is not counted again.
    """

    def __init__(self, space: SearchSpace, classes: int, image_size: int) -> None:
        super().__init__(space, classes, image_size)
        self._counts: dict[Hashable, LayerCost] = {}
        self._entered: dict[nn.Module, dict[str, Tensor]] = {}
        self.setting(space.stock.macro)

    def cost(self, architecture: Architecture) -> Cost:
        """The cost of an architecture of the space, at its own image size if it has one.

        Raises:
            CostError: a layer cannot be counted.
        """
        image_size = self.setting(architecture.macro).image_size
        return Cost(image_size=image_size, deployed=True, layers=self.layers(architecture))

    def slot(self, slot: Slot, choice: Choice, macro: Setting = ()) -> LayerCost:
        """The cost of all layers of a slot with one choice in them, where the dials stand at `macro`."""
        costs = self.layers_of(slot, choice, macro)
        name = costs[0].module if costs else ""
        return LayerCost(module=name, params=sum(c.params for c in costs), macs=sum(c.macs for c in costs))

    def of_stock(self, place: Place) -> LayerCost:
        """Counted as it is."""
        step = place.step
        return self._once((likeness(step.layer), shapes(step.received)), step.received, partial(_itself, step.layer))

    def of_choice(self, place: Place, choice: Choice) -> LayerCost:
        """The stock layer, less what stands at the operator's sites, plus the operator."""
        step, operator = place.step, OPERATORS[choice.operator]
        stock = self.of_stock(place)
        params, macs = stock.params, stock.macs
        for site in place.sites(operator):
            there = step.layer.get_submodule(site.path)
            entering = self._entering(step, site.path)
            before = self._once((likeness(there), entering.shape), entering, partial(_itself, there))
            after = self._operator(operator, site, choice, entering)
            params += after.params - before.params
            macs += after.macs - before.macs
        name = f"{place.host.name}_{operator.name}" if place.host.holds(operator) else operator.name
        return LayerCost(module=name, params=params, macs=macs)

    def of_insertion(self, place: Place, choice: Choice) -> LayerCost:
        """The operator alone."""
        operator = OPERATORS[choice.operator]
        (site,) = place.sites(operator, inserted=True)
        return replace(self._operator(operator, site, choice, first(place.step.returned)), module=operator.name)

    def _operator(self, operator: Operator, site: Site, choice: Choice, entering: Tensor) -> LayerCost:
        key = (choice, operator.source, replace(site, path=WHOLE, activation=_NO_ACTIVATION), entering.shape)
        return self._once(key, entering, partial(_built, operator, site, choice))

    def _once(self, key: Hashable, received: Feature | Sequence[Feature], module: Callable[[], nn.Module]) -> LayerCost:
        """The cost of a module, counted if nothing of that key has been counted before."""
        if key not in self._counts:
            self._counts[key] = _count(module(), received, deployed=True)
        return self._counts[key]

    def _entering(self, step: Traced, path: str) -> Tensor:
        """The map that enters a module inside a layer; one pass over the layer notes it for all of them."""
        if step.layer not in self._entered:
            entered = self._entered[step.layer] = {}
            hooks = [
                module.register_forward_pre_hook(partial(_note, entered, name))
                for name, module in step.layer.named_modules()
            ]
            with torch.no_grad(), shapes_alone([step.layer]):
                step.layer(step.received)
            for hook in hooks:
                hook.remove()
        return self._entered[step.layer][path]


@lru_cache(maxsize=8)
def table(space: SearchSpace, classes: int, image_size: int) -> CostTable:
    """The cost table of a space, one per process: what one caller has counted, the next need not."""
    return CostTable(space, classes, image_size)


def _note(entered: dict[str, Tensor], name: str, _module: nn.Module, x: tuple[Tensor, ...]) -> None:
    entered[name] = x[0]


_NO_ACTIVATION = nn.Identity()
"""Two sites that differ in their activation alone cost the same."""


def _itself(module: nn.Module) -> nn.Module:
    return module


def _built(operator: Operator, site: Site, choice: Choice) -> nn.Module:
    with torch.device("meta"):
        return operator.build(site, **dict(choice.parameters)).eval()


def _count(layer: nn.Module, received: Feature | Sequence[Feature], *, deployed: bool) -> LayerCost:
    """Parameters and multiply-adds of one layer on the meta device.

    Fusing computes weights, which PyTorch does on the meta device in Python: sooner with numbers, whatever they are.
    """
    counted = deepcopy(layer)
    if deployed:
        counted = _fused(counted.to_empty(device="cpu")).to("meta")
    try:
        macs = macs_of(counted, received)
    except Exception as error:
        raise CostError(f"{type(layer).__name__}: cannot be counted: {error}") from error
    params = sum(parameter.numel() for parameter in counted.parameters())
    if not macs and any(parameter.dim() > 1 for parameter in counted.parameters()):
        raise CostError(f"{type(layer).__name__}: has weights, but no product with them could be counted")
    return LayerCost(module=_name(layer), params=params, macs=macs)


def macs_of(module: nn.Module, received: Feature | Sequence[Feature]) -> int:
    """Multiply-adds of one pass of a module on the meta device, as `thop` counts them with our rules."""
    with torch.no_grad():
        macs, _ = thop.profile(module, inputs=(received,), custom_ops=rules(), verbose=False)
    return int(macs)


def fused(module: nn.Module) -> nn.Module:
    """A copy of a layer, or of a module in it, as it would be deployed: what Ultralytics' own `fuse()` makes of it."""
    return _fused(deepcopy(module))


def _fused(module: nn.Module) -> nn.Module:
    holder = _Holder(module)
    holder.fuse(verbose=False)
    return holder.model


class _Holder(BaseModel):
    """One layer in the place of a model, which is what knows how to fuse."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.model = layer

    def info(self, detailed: bool = False, verbose: bool = True, imgsz: int = 640) -> None:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """Nothing: Ultralytics would count and print here."""


def _name(layer: nn.Module) -> str:
    """As a row of a model YAML names the layer."""
    inside = [name for name, record in OPERATORS.items() for m in layer.modules() if type(m) is record.module]
    own = "nn.Upsample" if isinstance(layer, nn.Upsample) else type(layer).__name__
    if not inside:
        return own
    return f"{own}_{inside[0]}" if own in HOSTS else inside[0]


def _nothing(_module: nn.Module, _x: tuple[Tensor, ...], _y: Tensor) -> None:
    """Not counted: batch norm, activations, pooling, interpolation."""


def _unseen(macs: Callable[[nn.Module, Tensor, Tensor], int], module: Any, x: tuple[Tensor, ...], y: Tensor) -> None:
    module.total_ops += macs(module, x[0], y)


_FREE = (
    nn.modules.batchnorm._NormBase,  # noqa: SLF001 - the base that thop's own rule is registered for
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.MaxPool2d,
    nn.Upsample,
    nn.Softmax,
    nn.SiLU,
    nn.ReLU,
)


def rules() -> dict[type[nn.Module], Callable[..., None]]:
    """What `thop` is told: nothing for what is not counted, the operators' formulas for what it cannot see."""
    operators = {
        record.module: partial(_unseen, record.unseen_macs)
        for record in (*OPERATORS.values(), *PRINTED.values())
        if record.unseen_macs is not None
    }
    return dict.fromkeys(_FREE, _nothing) | operators
