"""Operator made of a class of a user's file, without a record: its parameters are those of the constructor.

A class can be offered in a space by its name: behind a layer where it keeps channels and resolution, as an attention
does, and in the place of Ultralytics' layers, as a variant of `C2f` or `SPPF`. Whether it can stand in a place is found
by building it there and passing maps through it.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from inspect import Parameter as Argument
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import SpecError, in_one_line
from search_spaces.operators import constructor_names
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind, Value
from search_spaces.operators.taken_settings import SETTINGS, STOCK, arguments_at
from search_spaces.operators.user_classes import UserClass, marks_in

_CHANNELS_INSIDE = ("c3", "c4")
"""Arguments of `RepNCSPELAN4` and `SPPELAN`, which the replaced layer has."""
_SIZES = ((20, 20), (20, 28))
"""Heights and widths of the maps with which a class is tried."""


@dataclass(frozen=True, kw_only=True)
class OpenParameter(Parameter):
    """Parameter of a constructor: any value of its default's type is allowed."""

    def in_order(self, values: Collection[Value]) -> list[Value]:
        """Return values in the order in which a space file lists them."""
        return sorted(values)

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
class RequiredParameter(OpenParameter):
    """Parameter for which a constructor has no default: any number, word or truth value is allowed."""

    default: Value = ""

    @property
    def is_required(self) -> bool:
        """Whether there is no default: a space file gives the values."""
        return True

    def in_order(self, values: Collection[Value]) -> list[Value]:
        """Return the values that are given, in the order in which a space file lists them."""
        return sorted((one for one in values if one != self.default), key=lambda one: (isinstance(one, str), one))

    def check(self, value: object) -> Value:
        """Return a value as it is.

        Raises:
            SpecError: it is no number, word or truth value.
        """
        if isinstance(value, bool | int | float | str):
            return value
        raise SpecError(f"not a value of {self.name}, got {value!r} (a number, a word, or a truth value)")


@dataclass(frozen=True, kw_only=True)
class TakenParameter(Parameter):
    """Parameter that the rows of Ultralytics' layers give, too, such as `e`, `shortcut` or `k`.

    A fork that puts its class's name into a row keeps the arguments there. So the default is `stock`: what
    the row of the replaced layer gives, or else the constructor's.

    Attributes:
        otherwise: the parameter with the constructor's default, which says which other values are allowed.
    """

    default: Value = STOCK
    otherwise: OpenParameter

    def in_order(self, values: Collection[Value]) -> list[Value]:
        """Return values in the order in which a space file lists them: `stock` first."""
        return [*([STOCK] if STOCK in values else []), *self.otherwise.in_order([v for v in values if v != STOCK])]

    def check(self, value: object) -> Value:
        """Return `stock`, or a value that the constructor's parameter may have, as it is.

        Raises:
            SpecError: it is neither.
        """
        return STOCK if value == STOCK else self.otherwise.check(value)


@dataclass(frozen=True, kw_only=True)
class ClassOperator(Operator):
    """Operator whose module is a class as it stands in a user's file.

    Attributes:
        given: arguments of its constructor that the site gives, each with the attribute of the site.
        defaults: of its constructor, for arguments that the replaced layer may have, too.
    """

    given: tuple[tuple[str, str], ...]
    defaults: tuple[tuple[str, Value], ...]

    def arguments(self, site: Site, parameters: Parameters) -> dict[str, Any]:
        """Return the arguments with which the class is built at a site."""
        return _AtSites(self.module, self.given, self.defaults).arguments(site, parameters)

    @property
    def replaces(self) -> bool:
        """Whether it is built of output channels, too, so that it can take the place of a layer that changes them."""
        return _replaces(self.given)

    @property
    def misnamed(self) -> str:
        """Mistake in the name; empty for that of any class in ASCII: forks call them `C3k2_Faster`."""
        return "" if self.name.isascii() else f"name: got {self.name!r} (letters, digits and underscores)"


def of_class(found: UserClass) -> ClassOperator:
    """Return the operator of a class.

    Raises:
        SpecError: its name cannot be that of an operator.
    """
    arguments = [one for one in constructor_names.arguments(found.module) if one.kind is not Argument.POSITIONAL_ONLY]
    given = tuple(_given_by_site([one.name for one in arguments]))
    attributes = [attribute for _, attribute in given]
    others = [one for one in arguments if one.name not in dict(given)]
    parameters = tuple(_parameters(others, replaces=_replaces(given)))
    taken = [one for one in parameters if isinstance(one, TakenParameter) and not one.otherwise.is_required]
    defaults = tuple((one.name, one.otherwise.default) for one in taken)
    record = ClassOperator(
        name=found.name,
        module=found.module,
        given=given,
        defaults=defaults,
        parameters=parameters,
        kinds=tuple(_kinds(attributes)),
        build=_Builder(found.module, given, defaults),
        incompatibility=_Trial(found.module, given, defaults),
        reference=str(found.source.path) if found.source else found.file,
        source=found.source,
    )
    if record.misnamed:
        raise SpecError(f"{record.misnamed}; give the class another name")
    return record


def _replaces(given: Iterable[tuple[str, str]]) -> bool:
    """Return whether a constructor gets output channels, so that the class can change them as a layer does."""
    return any(attribute == "c_out" for _, attribute in given)


def _kinds(attributes: Collection[str]) -> Iterator[SiteKind]:
    """Yield the kinds of place where a class may stand, by the attributes of a site that it is built of."""
    if "repeats" in attributes:
        yield SiteKind.STAGE
    if "c_out" in attributes:
        yield SiteKind.ATTENTION_STAGE
        yield SiteKind.PYRAMID
        yield SiteKind.INSERTED
    yield SiteKind.UPSAMPLE if attributes else SiteKind.FUSION
    yield SiteKind.LAYER


def _parameters(arguments: Sequence[Argument], *, replaces: bool) -> Iterator[Parameter]:
    """Yield the parameters of a constructor; an argument whose default is something else keeps it.

    Args:
        arguments: of the constructor, without those that a site gives.
        replaces: whether the class may replace a layer, whose settings it has then.
    """
    for one in arguments:
        if one.default is Argument.empty:
            found: OpenParameter = RequiredParameter(name=one.name, allowed=())
        elif isinstance(one.default, bool | int | float | str):
            found = OpenParameter(name=one.name, default=one.default, allowed=(one.default,))
        else:
            continue
        if replaces and _may_be_stock(one):
            yield TakenParameter(name=one.name, allowed=(STOCK,), otherwise=found)
        else:
            yield found


def _may_be_stock(argument: Argument) -> bool:
    """Return whether an argument is a setting of Ultralytics' layers: `attn="EMA"` is another one of that name."""
    if argument.name not in SETTINGS or argument.default is Argument.empty:
        return argument.name in SETTINGS
    kinds = (bool,) if SETTINGS[argument.name] is bool else (int, float)
    return type(argument.default) in kinds


def _given_by_site(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the first arguments of a constructor that a site gives, and the attributes: channels, and repeats.

    Channels inside, as of a `RepNCSPELAN4(c1, c2, c3, c4, n)`, may stand before the repeats.
    """
    first, second, third = [*(one for one in names if one not in _CHANNELS_INSIDE), "", "", ""][:3]
    if not constructor_names.is_input(first):
        return
    yield first, "c_in"
    if constructor_names.is_output(second, after=first):
        yield second, "c_out"
        if constructor_names.is_repeats(third):
            yield third, "repeats"


@dataclass(frozen=True)
class _AtSites:
    """Class with what its sites give to its constructor; fields as those of `ClassOperator`."""

    module: type[nn.Module]
    given: tuple[tuple[str, str], ...]
    defaults: tuple[tuple[str, Value], ...]

    def arguments(self, site: Site, parameters: Parameters) -> dict[str, Any]:
        """Return the arguments with which the class is built at a site."""
        return arguments_at(site, self.given, dict(self.defaults), parameters)


@dataclass(frozen=True)
class _Builder(_AtSites):
    """Builder of a class at a site."""

    def __call__(self, site: Site, **parameters: Value) -> nn.Module:
        """Build the module."""
        return self.module(**self.arguments(site, parameters))


@dataclass(frozen=True)
class _Trial(_AtSites):
    """Obstacles of a class at a site, found by trying."""

    def __call__(self, site: Site, parameters: Parameters) -> str | None:
        """Return why the class cannot stand there, or None."""
        if site.kind is SiteKind.LAYER and not _replaces(self.given) and (site.c_in != site.c_out or site.stride != 1):
            return "it keeps channels and size of the map"
        build: Callable[..., nn.Module] = self.module
        arguments = tuple(self.arguments(site, parameters).items())
        scale = Fraction(site.stride) if site.kind is SiteKind.UPSAMPLE else Fraction(1, site.stride)
        return _obstacle(build, arguments, site.inputs or (site.c_in,), site.c_out, scale, joins=bool(site.inputs))


@lru_cache(maxsize=4096)
def _obstacle(
    build: Callable[..., nn.Module],
    arguments: tuple[tuple[str, Value], ...],
    inputs: tuple[int, ...],
    c_out: int,
    scale: Fraction,
    *,
    joins: bool,
) -> str | None:
    """Build a class of arguments by name and pass maps through it; return what is wrong, or None.

    Args:
        inputs: channels of each map that it reads.
        c_out: of the map that it is expected to return.
        scale: height and width of that map, to those of the maps that it reads.
        joins: whether it reads a list of maps.
    """
    named: Mapping[str, Any] = dict(arguments)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
            torch.no_grad(),
            warnings.catch_warnings(action="ignore"),
        ):
            built = build(**named).eval()
            if taken := marks_in(built):
                return f"it has {', '.join(taken)} of its own, which Ultralytics sets on every layer (another name)"
            for size in _SIZES:
                maps = [torch.randn(1, channels, *size) for channels in inputs]
                y = built(maps if joins else maps[0])
                expected = (1, c_out, *(int(one * scale) for one in size))
                if not isinstance(y, Tensor) or y.shape != expected:
                    made = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                    shapes = " and ".join(str(tuple(x.shape)) for x in maps)
                    wanted = "the same shape" if shapes == str(expected) else str(expected)
                    return f"it makes {made} of {shapes}, where {wanted} is expected"
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
        channels = " and ".join(map(str, inputs))
        return f"with {channels} channels it cannot be built or run: {in_one_line(error)}"
    return None
