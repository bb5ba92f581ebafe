"""Exact cost of a model for one image: parameters and multiply-adds (MACs); GFLOPs = 2 * MACs / 1e9.

The cost of a model is the sum over its layers of a function of the built layer and its input shape; `CostTable`
memoises it. Layers are built on the meta device and counted by `thop`, with an additional rule for each of our
operators that computes products in its `forward`: counters of modules miss sampling and computed weights.

Counted are convolutions, linear layers, matrix products and those operators; batch norm, activations, pooling and
interpolation are not. Ultralytics' figure for a model as built is higher, by four products for each output value of a
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

from search_spaces import OPERATORS, Architecture, Choice, SearchSpace, Slot, auxiliary, build, model_checks, model_file
from search_spaces.errors import CostError, SpecError
from search_spaces.hosts import HOSTS, WHOLE
from search_spaces.meta_device import is_of_user, unwrapped
from search_spaces.operators import Operator, Site
from search_spaces.printed import PRINTED
from search_spaces.scaling import Scaling
from search_spaces.trace import Feature, Traced, first, skip_batch_norms
from trials.costing import dispatch
from trials.costing.layers import LayerTable, StockLayer, traced
from trials.costing.structural_key import shapes, structural_key

Maps = Feature | Sequence[Feature]
"""What a module reads: a map, or several."""


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Cost of one layer, or of several.

    Attributes:
        module: name of the module, as in a row of a model YAML.
        macs: multiply-adds for one image.
        uncounted: operations of a user's layer that multiply and are not among `macs`, by PyTorch's names.
    """

    module: str
    params: int
    macs: int
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a model for one image.

    Attributes:
        image_size: in pixels, of a square image.
        deployed: True for the fused model without training-only branches; False for the model as built, which is
            comparable with tables of Ultralytics and of papers.
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
        """Number of multiply-adds (MACs)."""
        return sum(layer.macs for layer in self.layers)

    @property
    def gflops(self) -> float:
        """Billions of operations: 2 * MACs / 1e9."""
        return gflops(self.macs)

    @property
    def uncounted(self) -> dict[int, tuple[str, ...]]:
        """Operations that are not counted, by the index of their layer."""
        return {index: layer.uncounted for index, layer in enumerate(self.layers) if layer.uncounted}


def gflops(macs: int) -> float:
    """Convert multiply-adds to billions of operations: 2 * MACs / 1e9."""
    return 2 * macs / 1e9


def measure(document: Mapping[str, Any], classes: int, image_size: int, *, deployed: bool = True) -> Cost:
    """Count the cost of a model YAML, ours or Ultralytics'.

    Args:
        document: the YAML as a mapping.
        classes: number of classes of the detection head.
        image_size: in pixels, a multiple of the model's stride.
        deployed: count the fused model, without branches that only training uses.

    Raises:
        CostError: a layer cannot be counted, or nothing could.
        SpecError: the document cannot be built.
    """
    model_checks.require_detection(document)
    document = auxiliary.without_branch(document) if deployed else document
    try:
        built = build.skeleton(document, classes)
        steps = traced(built, image_size, channels=model_file.image_channels(document))
    except CostError as error:
        try:
            build.require_passable(document)  # at another size: a row that fails there too is wrong by itself
        except SpecError as wrong:
            raise CostError(str(wrong)) from error
        raise
    return total([count_layer(step.layer, step.received, deployed=deployed) for step in steps], image_size, deployed)


def total(layers: Sequence[LayerCost], image_size: int, deployed: bool) -> Cost:  # noqa: FBT001 - as in `Cost`
    """Return the cost of counted layers as that of a model.

    Raises:
        CostError: nothing could be counted.
    """
    cost = Cost(image_size=image_size, deployed=deployed, layers=tuple(layers))
    if not cost.macs or not cost.params:
        raise CostError(f"nothing could be counted in {len(layers)} layers at {image_size} px")
    return cost


class CostTable(LayerTable[LayerCost]):
    """Deployed cost of all architectures of a space, as a sum over layers.

    Exact: the cost of a layer with a choice is the cost of the stock layer, minus the modules at the operator's sites,
    plus the operator at each of them. Modules with equal structural keys and input shapes are counted once.
    """

    def __init__(self, space: SearchSpace, classes: int, image_size: int) -> None:
        super().__init__(space, classes, image_size)
        self._counts: dict[Hashable, LayerCost] = {}
        self._inputs: dict[nn.Module, dict[str, Maps]] = {}
        self.at_scaling(space.stock.macro)

    def of_member(self, architecture: Architecture) -> "CostTable":  # noqa: ARG002 - those of a joined space look at it
        """Return the table of an architecture's member: this one."""
        return self

    def cost(self, architecture: Architecture) -> Cost:
        """Return the cost of an architecture, at its `image_size` if it has one.

        Raises:
            CostError: a layer cannot be counted.
        """
        image_size = self.at_scaling(architecture.macro).image_size
        return Cost(image_size=image_size, deployed=True, layers=self.layers(architecture))

    def slot(self, slot: Slot, choice: Choice, macro: Scaling = ()) -> LayerCost:
        """Return the total cost of a slot's layers with one choice in them, at the scaling factors `macro`."""
        costs = self.layers_of(slot, choice, macro)
        name = costs[0].module if costs else ""
        return LayerCost(module=name, params=sum(c.params for c in costs), macs=sum(c.macs for c in costs))

    def value_of_stock(self, layer: StockLayer) -> LayerCost:
        """Count a stock layer."""
        module, received = layer.step.layer, layer.step.received
        return self._counted((structural_key(module), shapes(received)), received, lambda: module)

    def value_of_choice(self, layer: StockLayer, choice: Choice) -> LayerCost:
        """Count a layer with an operator: the stock layer, with the operator instead of the modules at its sites."""
        step, operator = layer.step, OPERATORS[choice.operator]
        stock = self.value_of_stock(layer)
        params, macs = stock.params, stock.macs
        for site in layer.sites(operator):
            replaced, x = step.layer.get_submodule(site.path), self._input_of(step, site.path)
            before = self._counted((structural_key(replaced), shapes(x)), x, partial(_identity, replaced))
            after = self._operator(operator, site, choice, x)
            params += after.params - before.params
            macs += after.macs - before.macs
        is_inside = layer.sites(operator)[0].kind in layer.host.inner
        name = f"{layer.host.name}_{operator.name}" if is_inside else operator.name
        return LayerCost(module=name, params=params, macs=macs)

    def value_of_insertion(self, layer: StockLayer, choice: Choice) -> LayerCost:
        """Count an operator that is inserted behind a stock layer."""
        operator = OPERATORS[choice.operator]
        (site,) = layer.sites(operator, inserted=True)
        return replace(self._operator(operator, site, choice, first(layer.step.returned)), module=operator.name)

    def _operator(self, operator: Operator, site: Site, choice: Choice, x: Maps) -> LayerCost:
        key = (choice, operator.source, replace(site, path=WHOLE, activation=_NO_ACTIVATION), shapes(x))
        return self._counted(key, x, partial(_built, operator, site, choice))

    def _counted(
        self, key: Hashable, received: Feature | Sequence[Feature], module: Callable[[], nn.Module]
    ) -> LayerCost:
        """Return the cost of a module; count it only if no module with an equal key was counted before."""
        if key not in self._counts:
            self._counts[key] = count_layer(module(), received, deployed=True)
        return self._counts[key]

    def _input_of(self, step: Traced, path: str) -> Maps:
        """Return the input of a module inside a layer; one forward pass of the layer records it for all of them."""
        if step.layer not in self._inputs:
            inputs = self._inputs[step.layer] = {}
            hooks = [
                module.register_forward_pre_hook(partial(_record_input, inputs, name))
                for name, module in step.layer.named_modules()
            ]
            with torch.no_grad(), skip_batch_norms([step.layer]):
                step.layer(step.received)
            for hook in hooks:
                hook.remove()
        return self._inputs[step.layer][path]


@lru_cache(maxsize=8)
def table(space: SearchSpace, classes: int, image_size: int) -> CostTable:
    """Return the cost table of a space of one member; all callers in a process share it."""
    return CostTable(space, classes, image_size)


def _record_input(inputs: dict[str, Maps], name: str, _module: nn.Module, x: tuple[Maps, ...]) -> None:
    inputs[name] = x[0]


_NO_ACTIVATION = nn.Identity()
"""Replaces a site's activation in keys: it has no multiply-adds."""


def _identity(module: nn.Module) -> nn.Module:
    return module


def _built(operator: Operator, site: Site, choice: Choice) -> nn.Module:
    with torch.device("meta"):
        return operator.build(site, **dict(choice.parameters)).eval()


def count_layer(
    layer: nn.Module, received: Feature | Sequence[Feature], *, deployed: bool, by_operations: bool = False
) -> LayerCost:
    """Count parameters and multiply-adds of one layer on the meta device.

    Fusing computes weights. PyTorch does that slowly on the meta device, in Python, so it is done on the CPU with
    uninitialised weights.

    Args:
        by_operations: count the operations that PyTorch runs, whatever modules compute them.

    Raises:
        CostError: it cannot be counted.
    """
    counted = deepcopy(layer)
    if deployed:
        counted = _fused(counted.to_empty(device="cpu")).to("meta")
    try:
        macs, uncounted = _macs_and_uncounted(counted, received, by_operations=by_operations)
    except Exception as error:
        raise CostError(f"{type(layer).__name__}: cannot be counted: {error}") from error
    params = sum(parameter.numel() for parameter in counted.parameters())
    has_matrices = any(parameter.dim() > 1 for parameter in counted.parameters())
    if not macs and has_matrices and not dispatch.is_counted_here(counted):
        raise CostError(f"{type(layer).__name__}: has weights, but no product with them could be counted")
    return LayerCost(module=_name(layer), params=params, macs=macs, uncounted=uncounted)


def macs_of(module: nn.Module, received: Feature | Sequence[Feature]) -> int:
    """Count the multiply-adds of one forward pass of a module on the meta device.

    `thop` counts with our rules; layers of users' classes that have no rule are counted by their operations.
    """
    return _macs_and_uncounted(module, received)[0]


def _macs_and_uncounted(
    module: nn.Module, received: Feature | Sequence[Feature], *, by_operations: bool = False
) -> tuple[int, tuple[str, ...]]:
    if by_operations or dispatch.is_counted_here(module):
        count = dispatch.count(module, received)
        return count.macs, count.uncounted
    with torch.no_grad():
        macs, _ = thop.profile(module, inputs=(received,), custom_ops=counting_rules(), verbose=False)
    return int(macs), ()


def fused(module: nn.Module) -> nn.Module:
    """Return a copy of a layer, or of a module in it, as it is deployed: fused by Ultralytics' `fuse()`."""
    return _fused(deepcopy(module))


def unfolded_norms(layer: nn.Module) -> int:
    """Return how many batch norms `fuse()` leaves in a layer on the meta device."""
    deployed = _fused(deepcopy(layer).to_empty(device="cpu"))
    return sum(isinstance(one, nn.BatchNorm2d) for one in deployed.modules())


def _fused(module: nn.Module) -> nn.Module:
    holder = _Holder(module)
    holder.fuse(verbose=False)
    return holder.model


class _Holder(BaseModel):
    """Model of one layer: Ultralytics implements `fuse()` for models only."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.model = layer

    def info(self, detailed: bool = False, verbose: bool = True, imgsz: int = 640) -> None:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """Skip Ultralytics' counting and printing."""


def _name(layer: nn.Module) -> str:
    """Return the layer's name in a row of a model YAML."""
    if is_of_user(layer):
        layer = unwrapped(layer)
    names = {record.module: name for name, record in OPERATORS.items()}
    inside = [names[type(module)] for module in layer.modules() if type(module) in names]  # the outermost first
    name = "nn.Upsample" if isinstance(layer, nn.Upsample) else type(layer).__name__
    if not inside:
        return name
    return f"{name}_{inside[0]}" if name in HOSTS else inside[0]


def _count_nothing(_module: nn.Module, _x: tuple[Tensor, ...], _y: Tensor) -> None:
    """Count nothing: the rule of batch norm, activations, pooling and interpolation."""


def _count_extra(
    macs: Callable[[nn.Module, Tensor, Tensor], int], module: Any, x: tuple[Tensor, ...], y: Tensor
) -> None:
    """Count the products that an operator computes in its `forward`; `thop` adds those of its child modules."""
    module.total_ops += macs(module, x[0], y)


_UNCOUNTED = (
    nn.modules.batchnorm._NormBase,  # noqa: SLF001 - the base that thop's own rule is registered for
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.MaxPool2d,
    nn.Upsample,
    nn.Softmax,
    nn.SiLU,
    nn.ReLU,
)


def counting_rules() -> dict[type[nn.Module], Callable[..., None]]:
    """Return `thop`'s rules by module class: 0 for what is not counted, the formulas of the operators' records."""
    operators = {
        record.module: partial(_count_extra, record.extra_macs)
        for record in (*OPERATORS.values(), *PRINTED.values())
        if record.extra_macs is not None
    }
    return dict.fromkeys(_UNCOUNTED, _count_nothing) | operators
