"""Record of an operator: its name, its parameters, the sites that it takes, and how it is built."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, wraps
from operator import attrgetter
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from torch import Tensor, nn

from search_spaces.errors import SpecError, nearest

Value = bool | int | float | str
Parameters = Mapping[str, Value]

_OLD_NAMES = {
    "adopt": "init_from",
    "living": "active_parameters",
    "obstacle": "incompatibility",
    "unseen_macs": "extra_macs",
    "worthwhile": "search_values",
}
"""Fields as version 0.1.0 called them: users' files, and the copies of these in checkpoints, still do."""

_Record = TypeVar("_Record")


def _with_old_names(record: type[_Record]) -> type[_Record]:
    """Let a record be built and read with the field names of version 0.1.0, too."""
    init: Any = vars(record)["__init__"]

    @wraps(init)
    def __init__(self: _Record, **fields: Any) -> None:  # noqa: N807 - it becomes that method
        for old, new in _OLD_NAMES.items():
            if old in fields and new in fields:
                raise TypeError(f"{record.__name__}: {old} is an older name of {new}; give one of them")
        init(self, **{_OLD_NAMES.get(name, name): value for name, value in fields.items()})

    setattr(record, "__init__", __init__)  # noqa: B010 - a type checker forbids to assign it
    for old, new in _OLD_NAMES.items():
        if new in vars(record)["__dataclass_fields__"]:
            setattr(record, old, property(attrgetter(new)))
    return record


class SiteKind(StrEnum):
    """Kind of module that an operator replaces at a site; it decides the form of the operator there."""

    BLOCK = "inner block"
    """A whole inner block: the operator has its own residual where channels and stride allow one."""
    CONV = "inner convolution"
    """A 3x3 convolution inside a block: operator, batch norm, the host's activation; no residual."""
    POINTWISE = "inner 1x1 convolution"
    """A 1x1 convolution inside a block: the same form."""
    ATTENTION = "inner attention"
    """The attention inside a block that adds the residual itself: the bare operator."""
    LAYER = "convolution layer"
    """A whole layer that convolves, or an inserted layer: the operator keeps its stride and channels."""
    UPSAMPLE = "upsampling layer"
    """A whole layer that doubles height and width of the map."""
    STAGE = "whole block"
    """A whole block of convolutions, such as `C2f`, that keeps the size of its map; channels as the block's."""
    ATTENTION_STAGE = "whole attention block"
    """A whole block with attention, such as `C2PSA` or `A2C2f`; channels as the block's, size unchanged."""
    PYRAMID = "spatial pyramid"
    """A whole layer that pools at several sizes, such as `SPPF`; channels as the layer's."""
    FUSION = "fusion"
    """A whole layer that joins maps of one size, `Concat`: a list of them in, as many channels as they have out."""
    INSERTED = "inserted layer"
    """A new layer behind another one; the operator keeps channels and size of the map, and replaces nothing."""


OWN_ROWS = {SiteKind.LAYER, SiteKind.UPSAMPLE, SiteKind.FUSION, SiteKind.INSERTED}
"""Kinds of place in which the row of an operator has its name alone, without that of a host."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place where an operator can stand, with all that an operator may need to be built there.

    Attributes:
        path: of the module inside its layer; empty for the whole layer.
        kernel: kernel size of the stock convolution at this site; 0 where there is none.
        stride: of the site itself; 1 keeps the size of the map. Of an upsampling site, the factor.
        groups: of the stock convolution at this site.
        activation: the activation of the host, so that `activation:` of a YAML reaches the operator.
        reduction: image pixels per pixel of the site's input map; None where the network around is unknown.
        inputs: channels of each map that a fusion reads, whose sum is `c_in`; empty at other sites.
        repeats: inner blocks of the whole block that the site is; 1 at other sites.
        stock: settings of the whole layer that the site is, by the names that Ultralytics' constructors give them,
            such as `shortcut` and `e`; empty where they are not known.
        unwritten: those of them that the row of the layer leaves to the constructor's default.
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
    inputs: tuple[int, ...] = ()
    repeats: int = 1
    stock: tuple[tuple[str, Value], ...] = ()
    unwritten: tuple[str, ...] = ()


@_with_old_names
@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of an operator that a space file may set.

    Attributes:
        allowed: every value that the operator can be built with, all of one type.
        search_values: those that a derived space offers; empty for the default alone.
    """

    name: str
    default: Value
    allowed: tuple[Value, ...]
    search_values: tuple[Value, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether there is no default: a space file gives the values."""
        return False

    def in_order(self, values: Collection[Value]) -> list[Value]:
        """Return allowed values in the order in which a space file lists them."""
        return [value for value in self.allowed if value in values]

    def check(self, value: object) -> Value:
        """Return an allowed value as it is; `True` is not 1 here, and `"3"` is not 3.

        Raises:
            SpecError: the value is not allowed.
        """
        for allowed in self.allowed:
            if type(value) is type(allowed) and value == allowed:
                return allowed
            if type(value) is int and type(allowed) is float and value == allowed:
                return allowed
        listed = yaml.safe_dump(list(self.allowed), default_flow_style=True, width=1000)  # as a file writes them
        raise SpecError(f"not a value of {self.name}, got {value!r} (one of {listed.strip()[1:-1]})")


def _fits_everywhere(_site: Site, _parameters: Parameters) -> str | None:
    return None


def _all_active(parameters: Parameters) -> Parameters:
    return parameters


@dataclass(frozen=True, kw_only=True)
class Source:
    """Python file of an operator that is not part of this package.

    Checkpoints hold objects of this class: its name, its module and the fields are part of their format.

    Attributes:
        path: of the file when it was read.
    """

    path: Path
    text: str

    @cached_property
    def digest(self) -> str:
        """First twelve hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def file_name(self) -> str:
        """Name of a copy of the text: that of the file; of a folder, which is copied as one text, with `.py`."""
        return self.path.name if self.path.suffix == ".py" else f"{self.path.name}.py"


@_with_old_names
@dataclass(frozen=True, kw_only=True)
class Operator:
    """Record of an operator that space files and rows can name.

    Attributes:
        module: the class by which the cost counter and the initialisation find the operator in a built model.
        kinds: the kinds of site that it takes, in order of preference.
        build: `(site, **parameters)` to a module that maps the site's input to its output.
        incompatibility: `(site, parameters)` to the reason, in words, why the operator cannot stand there; None if it
            can.
        active_parameters: all parameters to those that have an effect; a fingerprint leaves out the others.
        init_from: `(module, replaced)` initialises the operator so that it computes nearly what the replaced module
            did (None for an inserted layer), and returns the names of its parameters that were copied. None for an
            operator that cannot do so.
        extra_macs: `(module, x, y)` to the multiply-adds of one forward pass that are computed in the operator's
            `forward` and therefore in no child module. None if there are none.
        reference: the paper, with its arXiv number.
        source: the user's file that defines it; None for an operator of this or of an installed package.
    """

    name: str
    module: type[nn.Module]
    parameters: tuple[Parameter, ...]
    kinds: tuple[SiteKind, ...]
    build: Callable[..., nn.Module]
    incompatibility: Callable[[Site, Parameters], str | None] = _fits_everywhere
    active_parameters: Callable[[Parameters], Parameters] = _all_active
    init_from: Callable[[Any, nn.Module | None], Sequence[str]] | None = None
    extra_macs: Callable[[nn.Module, Tensor, Tensor], int] | None = None
    reference: str
    source: Source | None = None

    @property
    def misnamed(self) -> str:
        """Mistake in the name, and what would be right; empty for a valid name."""
        if self.name.isascii() and self.name.isidentifier() and "_" not in self.name:
            return ""
        return f"name: got {self.name!r} (letters and digits, no underscore: a row is called C2f_MyOp)"

    def of(self, source: Source) -> Self:
        """Return the same operator as one of a user's file."""
        return replace(self, source=source)

    def parameter(self, name: str) -> Parameter:
        """Return the parameter of that name.

        Raises:
            SpecError: there is none.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        names = [parameter.name for parameter in self.parameters]
        raise SpecError(f"{self.name} has no parameter {name!r} ({nearest(name, names)})")

    @property
    def required(self) -> list[str]:
        """Names of the parameters that have no default."""
        return [parameter.name for parameter in self.parameters if parameter.is_required]

    def wanting(self, name: str) -> str:
        """Return the message for a parameter without default to which no value is given."""
        return f"{self.name} has no default for {name}: give it a value, or several, {{{self.name}: {{{name}: [...]}}}}"

    def complete(self, given: Parameters) -> dict[str, Value]:
        """Return all parameters in the record's order: the given ones, checked, and defaults for the rest.

        Raises:
            SpecError: lists every unknown name, every value that is not allowed, and what has no default.
        """
        mistakes: list[str] = []
        values = {parameter.name: parameter.default for parameter in self.parameters}
        for name, value in given.items():
            try:
                values[name] = self.parameter(name).check(value)
            except SpecError as error:
                mistakes.extend(error.mistakes)
        mistakes += [self.wanting(name) for name in self.required if name not in given]
        if mistakes:
            raise SpecError(mistakes)
        return values
