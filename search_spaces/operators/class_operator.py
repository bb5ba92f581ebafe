"""Operator made of a class of a user's file, without a record: its parameters are those of the constructor.

A class that keeps channels and resolution, such as an attention, can be offered in a space by its name. Whether it can
stand in a place is found by building it there and passing a map through it.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter as Argument
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import SpecError, in_one_line
from search_spaces.operators import constructor_names
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind, Value
from search_spaces.operators.user_classes import UserClass, marks_in

_SIZES = ((20, 20), (20, 28))
"""Heights and widths of the maps with which a class is tried."""


@dataclass(frozen=True, kw_only=True)
class OpenParameter(Parameter):
    """Parameter of a constructor: any value of its default's type is allowed."""

    def check(self, value: object) -> Value:
        """Return a value of the right type as it is.

        Raises:
            SpecError: it has another type.
        """
        kind = type(self.default)
        if type(value) is kind:
            return value
        if type(value) is int and kind is float:
            return float(value)
        raise SpecError(f"not a value of {self.name}, got {value!r} (a value such as {self.default!r})")


@dataclass(frozen=True, kw_only=True)
class ClassOperator(Operator):
    """Operator whose module is a class as it stands in a user's file.

    Attributes:
        channels: arguments of its constructor that are the channels.
    """

    channels: tuple[str, ...]

    @property
    def misnamed(self) -> str:
        """Mistake in the name: underscores are allowed, since the class stands in no host."""
        return "" if self.name.isascii() else f"name: got {self.name!r} (letters, digits and underscores)"


def of_class(found: UserClass) -> ClassOperator:
    """Return the operator of a class.

    Raises:
        SpecError: its name cannot be that of an operator, or its constructor takes what only a row can give.
    """
    arguments = constructor_names.arguments(found.module)
    takes_channels = bool(arguments) and constructor_names.is_input(arguments[0].name)
    first, second = [*(one.name for one in arguments), "", ""][:2]
    takes_out = takes_channels and constructor_names.is_output(second, after=first)
    channels = tuple(one.name for one in arguments[: takes_channels + takes_out])
    others = arguments[len(channels) :]
    if wanting := [one.name for one in others if one.default is Argument.empty]:
        raise SpecError(
            f"{found.name}: its constructor wants {', '.join(wanting)}, for which it has no default "
            "(give it one, or write a record; docs/operators.md)"
        )
    record = ClassOperator(
        name=found.name,
        module=found.module,
        channels=channels,
        parameters=tuple(
            OpenParameter(name=one.name, default=one.default, allowed=(one.default,))
            for one in others
            if isinstance(one.default, bool | int | float | str)
        ),
        kinds=(SiteKind.LAYER,),
        build=_Builder(found.module, channels),
        incompatibility=_Trial(found.module, channels),
        reference=str(found.source.path) if found.source else found.file,
        source=found.source,
    )
    if record.misnamed:
        raise SpecError(f"{record.misnamed}; give the class another name")
    return record


@dataclass(frozen=True)
class _Builder:
    """Builder of a class at a site: it gives the channels to each argument that is their number."""

    module: type[nn.Module]
    channels: tuple[str, ...]

    def __call__(self, site: Site, **parameters: Value) -> nn.Module:
        """Build the module."""
        return self.module(**dict.fromkeys(self.channels, site.c_in), **parameters)


@dataclass(frozen=True)
class _Trial:
    """Obstacles of a class at a site, found by trying."""

    module: type[nn.Module]
    channels: tuple[str, ...]

    def __call__(self, site: Site, parameters: Parameters) -> str | None:
        """Return why the class cannot stand there, or None."""
        if site.c_in != site.c_out or site.stride != 1:
            return "it keeps channels and size of the map"
        build: Callable[..., nn.Module] = self.module
        return _obstacle(build, self.channels, site.c_in, tuple(parameters.items()))


@lru_cache(maxsize=4096)
def _obstacle(
    build: Callable[..., nn.Module], names: tuple[str, ...], channels: int, parameters: tuple[tuple[str, Value], ...]
) -> str | None:
    """Build a class for a number of channels and pass maps through it; return what is wrong, or None."""
    named: Mapping[str, Any] = dict(parameters)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
            torch.no_grad(),
            warnings.catch_warnings(action="ignore"),
        ):
            built = build(**dict.fromkeys(names, channels), **named).eval()
            if taken := marks_in(built):
                return f"it has {', '.join(taken)} of its own, which Ultralytics sets on every layer (another name)"
            for size in _SIZES:
                x = torch.randn(1, channels, *size)
                y = built(x)
                if not isinstance(y, Tensor) or y.shape != x.shape:
                    given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                    return f"it makes {given} of {tuple(x.shape)}, where the same shape is expected"
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        return f"with {channels} channels it cannot be built or run: {in_one_line(error)}"
    return None
