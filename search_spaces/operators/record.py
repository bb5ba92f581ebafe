"""What an operator is to the rest of the house: a name, its parameters, the sites it takes, how it is built."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml
from torch import Tensor, nn

from search_spaces.errors import SpecError, nearest

Value = bool | int | float | str
Parameters = Mapping[str, Value]


class SiteKind(StrEnum):
    """What stands at a site today, and so the form an operator takes there."""

    BLOCK = "inner block"
    """A whole inner block: the operator carries its own residual where channels and stride allow one."""
    CONV = "inner convolution"
    """A 3x3 convolution inside a block: operator, batch norm, the host's activation; no residual."""
    POINTWISE = "inner 1x1 convolution"
    """A 1x1 convolution inside a block: the same form."""
    ATTENTION = "inner attention"
    """The attention inside a block that adds its input itself: the bare operator."""
    LAYER = "convolution layer"
    """A layer of its own that convolves: stride and channels stay the layer's. Also a layer that is inserted."""
    UPSAMPLE = "upsampling layer"
    """A layer of its own that doubles the map."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place where an operator can stand, with everything an operator is told about it.

    Attributes:
        path: the module's path inside its layer, empty for the whole layer.
        kernel: of the convolution that stands there today; 0 where none does.
        stride: of the site itself; 1 keeps the map's size.
        groups: of the convolution that stands there today.
        activation: the host's own, so that a YAML's `activation:` reaches the operator.
        reduction: image pixels per pixel of the site's input map; None where the network around is unknown.
    """

    path: str
    kind: SiteKind
    c_in: int
    c_out: int
    kernel: int
    stride: int
    activation: nn.Module
    groups: int = 1
    reduction: int | None = None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter that a space file may set: its default and every value that means something.

    Attributes:
        worthwhile: the values that a derived space offers; the default alone if there are none.
    """

    name: str
    default: Value
    allowed: tuple[Value, ...]
    worthwhile: tuple[Value, ...] = ()

    def check(self, value: object) -> Value:
        """The value, if it is allowed: `True` is not 1 here, and `"3"` is not 3.

        Raises:
            SpecError: it is not.
        """
        for allowed in self.allowed:
            if type(value) is type(allowed) and value == allowed:
                return allowed
            if type(value) is int and type(allowed) is float and value == allowed:
                return allowed
        known = yaml.safe_dump(list(self.allowed), default_flow_style=True, width=1000).strip()[
            1:-1
        ]  # as a file says it
        raise SpecError(f"not a value of {self.name}, got {value!r} (one of {known})")


def _no_obstacle(_site: Site, _parameters: Parameters) -> str | None:
    return None


def _all_live(parameters: Parameters) -> Parameters:
    return parameters


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file of an operator that is not part of this package.

    Attributes:
        path: where it was when it was read.
    """

    path: Path
    text: str

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits over the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A word of the vocabulary.

    Attributes:
        module: the class whose instances the cost counter meets.
        kinds: the kinds of site it takes, the preferred one first.
        build: `(site, **parameters)` to a module that maps the site's input to its output.
        obstacle: why it cannot stand at a site with these parameters, or None.
        living: the parameters that have an effect, given all of them; the rest is dropped from a fingerprint.
        adopt: makes a module the nearest function to the one that stood in its place, None where nothing stood, that
            its form allows, and names the parameters that hold what came from there. None if it can be near to nothing.
        unseen_macs: multiply-adds of one forward pass that no child module shows: products computed in the
            operator's own `forward`. None if every product belongs to a child.
        reference: the paper, with its arXiv number.
        source: the user's file that it comes from; None for one of this package, or of an installed one.
    """

    name: str
    module: type[nn.Module]
    parameters: tuple[Parameter, ...]
    kinds: tuple[SiteKind, ...]
    build: Callable[..., nn.Module]
    obstacle: Callable[[Site, Parameters], str | None] = _no_obstacle
    living: Callable[[Parameters], Parameters] = _all_live
    adopt: Callable[[Any, nn.Module | None], Sequence[str]] | None = None
    unseen_macs: Callable[[nn.Module, Tensor, Tensor], int] | None = None
    reference: str
    source: Source | None = None

    @property
    def misnamed(self) -> str:
        """Return the mistake in the name, with what would be right; empty if there is none."""
        if self.name.isascii() and self.name.isidentifier() and "_" not in self.name:
            return ""
        return f"name: got {self.name!r} (letters and digits, no underscore: a row is called C2f_MyOp)"

    def of(self, source: Source) -> Self:
        """The same operator, from a user's file."""
        return replace(self, source=source)

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name.

        Raises:
            SpecError: there is none.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = [parameter.name for parameter in self.parameters]
        raise SpecError(f"{self.name} has no parameter {name!r} ({nearest(name, known)})")

    def complete(self, given: Parameters) -> dict[str, Value]:
        """All parameters in the record's order: the given ones, checked, and defaults for the rest.

        Raises:
            SpecError: with every unknown name and every value that is not allowed.
        """
        mistakes: list[str] = []
        values = {parameter.name: parameter.default for parameter in self.parameters}
        for name, value in given.items():
            try:
                values[name] = self.parameter(name).check(value)
            except SpecError as error:
                mistakes.extend(error.mistakes)
        if mistakes:
            raise SpecError(mistakes)
        return values
