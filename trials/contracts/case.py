"""Test case of a contract, an operator at a site, and a failure of it."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from search_spaces import OPERATORS, Choice
from search_spaces.hosts import WHOLE
from search_spaces.operators import Site, SiteKind, Value
from search_spaces.operators.class_operator import ClassOperator
from trials.contracts.joined_maps import JoinedMaps

SQUARE = (8, 8)
"""Height and width of the map that most promises are checked with, in units of the case."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Operator with its parameters at a site; equal cases build equal modules.

    Attributes:
        inputs: channels of each map of a fusion, whose module reads them joined to one.
        activation: `repr` of the site's activation.
        activation_module: the site's activation; its weights may be on the meta device.
        stock: settings of the replaced layer; empty for operators that are no users' classes, which do not read them.
        unwritten: those of them that its row does not give.
        places: layers with such a site.
    """

    operator: str
    parameters: tuple[tuple[str, Value], ...]
    kind: SiteKind
    c_in: int
    c_out: int
    kernel: int
    stride: int
    groups: int
    reduction: int | None
    activation: str
    activation_module: nn.Module = field(compare=False, repr=False)
    inputs: tuple[int, ...] = ()
    repeats: int = 1
    stock: tuple[tuple[str, Value], ...] = ()
    unwritten: tuple[str, ...] = ()
    places: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, choice: Choice, site: Site, places: Sequence[str]) -> "Case":
        """Return the case of a choice at a site."""
        reads_settings = isinstance(OPERATORS[choice.operator], ClassOperator)
        return cls(
            operator=choice.operator,
            parameters=choice.parameters,
            kind=site.kind,
            c_in=site.c_in,
            c_out=site.c_out,
            kernel=site.kernel,
            stride=site.stride,
            groups=site.groups,
            reduction=site.reduction,
            activation=repr(site.activation),
            activation_module=site.activation,
            inputs=site.inputs,
            repeats=site.repeats,
            stock=site.stock if reads_settings else (),
            unwritten=site.unwritten if reads_settings else (),
            places=tuple(places),
        )

    @property
    def site(self) -> Site:
        """Site of the case, with a copy of its activation."""
        return Site(
            path=WHOLE,
            kind=self.kind,
            c_in=self.c_in,
            c_out=self.c_out,
            kernel=self.kernel,
            stride=self.stride,
            groups=self.groups,
            activation=_with_weights(self.activation_module),
            reduction=self.reduction,
            inputs=self.inputs,
            repeats=self.repeats,
            stock=self.stock,
            unwritten=self.unwritten,
        )

    @property
    def choice_summary(self) -> str:
        """Operator and parameters that differ from its defaults: `UIB(expansion=2)`."""
        return str(Choice(operator=self.operator, parameters=self.parameters))

    @property
    def may_multiply_nothing(self) -> bool:
        """Whether it may be right that no multiply-add is counted."""
        return False

    @property
    def may_stay_contiguous(self) -> bool:
        """Whether weights of five dimensions may keep the whole model out of channels_last."""
        return False

    @property
    def unit(self) -> int:
        """Pixels of a unit of the sizes: more than one where a layer makes or reads far smaller maps, too."""
        return 1

    @property
    def site_summary(self) -> str:
        """Site in words: `inner convolution, 32 to 32 channels, kernel 3`."""
        read = " and ".join(map(str, self.inputs)) or self.c_in
        parts = [f"{self.kind}, {read} to {self.c_out} channels"]
        parts += [f"kernel {self.kernel}"] if self.kernel else []
        parts += [f"stride {self.stride}"] if self.stride != 1 else []
        parts += [f"{self.groups} groups"] if self.groups != 1 else []
        return ", ".join(parts)

    def build(self, seed: int = 0) -> nn.Module:
        """Build the module, in eval mode, with weights of a seed."""
        torch.manual_seed(seed)
        module = OPERATORS[self.operator].build(self.site, **dict(self.parameters))
        maps = [(channels, 1) for channels in self.inputs]
        return (JoinedMaps(module, maps, reads_list=True) if maps else module).eval()

    def image(self, size: tuple[int, int] = SQUARE, batch: int = 2) -> Tensor:
        """Return an input `(batch, c_in, h, w)` of normal random numbers, always the same; the size is in units."""
        height, width = self.pixels(size)
        return torch.randn(batch, self.c_in, height, width, generator=torch.Generator().manual_seed(0))

    def pixels(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return a size in units as height and width in pixels."""
        height, width = size
        return height * self.unit, width * self.unit

    def shape(self, size: tuple[int, int], batch: int = 2) -> tuple[int, ...]:
        """Return the expected output shape for an input of a size in units; a stride divides it, rounded up."""
        if self.kind is SiteKind.UPSAMPLE:
            return batch, self.c_out, *(side * self.stride for side in self.pixels(size))
        return batch, self.c_out, *(-(-side // self.stride) for side in self.pixels(size))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Broken promise of an operator or a model.

    Attributes:
        operator: with its parameters.
        site: in words; empty if the record is wrong.
        places: layers with such a site.
        promise: name of the promise.
        seen: the observation, in words; the name is a key of `nas check --format json`.
    """

    operator: str
    site: str = ""
    places: tuple[str, ...] = ()
    promise: str
    seen: str

    @classmethod
    def of(cls, case: Case, promise: str, observation: str) -> "Failure":
        """Return the failure of a case."""
        return cls(
            operator=case.choice_summary, site=case.site_summary, places=case.places, promise=promise, seen=observation
        )

    def __str__(self) -> str:
        layers = f"layer{'s' if len(self.places) > 1 else ''} {', '.join(self.places)}: " if self.places else ""
        return f"{layers}{self.operator}{f' at {self.site}' if self.site else ''}: {self.promise}: {self.seen}"


def _with_weights(activation: nn.Module) -> nn.Module:
    """Return a copy of an activation whose weights are initialised: base models are traced on the meta device."""
    activation = deepcopy(activation)
    for module in activation.modules():
        if isinstance(module, nn.PReLU) and module.weight.is_meta:
            module.to_empty(device="cpu").reset_parameters()
    return activation
