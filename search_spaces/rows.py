"""Write and read rows of a model YAML that have an operator.

An operator inside a host, or in the place of a whole block of convolutions, is a row `<Host>_<Operator>` with the
arguments of the host and then a mapping of the operator's parameters: `[-1, 3, C3_UIB, [128, {expansion: 4}]]`. An
operator in the place of another layer is a row of its name with the arguments of the stock layer, `Conv`,
`nn.Upsample` or `Concat`, and then the mapping: `[-1, 1, DynamicConv, [512, 1, 1, {kernels: 4}]]`,
`[-1, 1, DySample, [None, 2, nearest, {style: pl}]]`, `[[-1, 6], 1, WeightedFusion, [1, {form: sum}]]`. One that can
only be inserted replaces nothing and has the mapping alone: `[-1, 1, SE, [{reduction: 16}]]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces import user_rows
from search_spaces.errors import SpecError, typo_of
from search_spaces.hosts import HOSTS, Host
from search_spaces.operators import OPERATORS, Operator, Parameters, SiteKind
from search_spaces.operators import modules as user_modules
from search_spaces.operators.record import OWN_ROWS
from search_spaces.printed import PRINTED, PRINTED_HOSTS

Row = list[Any]
"""`[from, repeats, module, arguments]`."""


INSERTED_KERNEL = 3
"""Kernel size of the convolution that an inserted operator replaces; operators without a kernel ignore it."""

_DOUBLING = (None, 2, "nearest")
"""Arguments of `nn.Upsample` in YOLO's necks."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """Row with an operator, separated into the stock row and the operator.

    Attributes:
        row: the stock row, which Ultralytics builds.
        host: of the layer that the stock row builds.
        parameters: all of the operator's, checked.
    """

    row: Row
    host: Host
    operator: Operator
    parameters: dict[str, bool | int | float | str]


def names() -> list[str]:
    """Return every module name that a row with an operator can have."""
    inner = [
        f"{host.name}_{operator.name}"
        for host in HOSTS.values()
        for operator in OPERATORS.values()
        if host.holds(operator)
    ]
    return inner + [operator.name for operator in OPERATORS.values() if _stands_for(operator)]


def write(row: Row, host: Host, operator: Operator, parameters: Parameters, convolution: Sequence[int]) -> Row:
    """Return a row of the base model with an operator in it.

    Args:
        row: with final numbers.
        host: of the layer that the row builds.
        convolution: output channels, kernel and stride of the layer; they are the arguments where the operator
            replaces a layer of another module than `_stands_for` says.
    """
    source, repeats, module, arguments = row
    if host.holds(operator):
        return [source, repeats, f"{module}_{operator.name}", [*arguments, dict(parameters)]]
    if module == _stands_for(operator, source, arguments):  # padding, groups and activation stay what they are
        return [source, repeats, operator.name, [*arguments, dict(parameters)]]
    if host.whole is SiteKind.UPSAMPLE:
        return [source, repeats, operator.name, [None, convolution[-1], "nearest", dict(parameters)]]
    return [source, repeats, operator.name, [*convolution, dict(parameters)]]


def insert(operator: Operator, parameters: Parameters, channels: int) -> Row:
    """Return the row of an inserted layer, which keeps the channels and the size of the map before it."""
    arguments = [channels, INSERTED_KERNEL, 1] if host_of_inserted(operator) == "Conv" else []
    return [-1, 1, operator.name, [*arguments, dict(parameters)]]


def host_of_inserted(operator: Operator) -> str:
    """Return the host whose row an inserted operator's stands for: `nn.Identity` if it replaces nothing."""
    return "nn.Identity" if SiteKind.INSERTED in operator.kinds else "Conv"


def lower(row: Sequence[Any]) -> Lowered | None:
    """Separate the operator of a row from its stock row; None for a row without operator, or of a user's class.

    Raises:
        SpecError: an unknown operator or parameter, a value that is not allowed, an operator in a host without a
            site for it.
    """
    source, repeats, module, arguments = row
    host_name, operator_name = separated(row)
    operator = OPERATORS.get(operator_name) or PRINTED.get(operator_name)
    if not host_name:  # a user's class goes before our operator
        operator = _offered(operator_name, arguments) or operator
    elif operator is None and user_modules.may_replace(operator_name):
        operator = user_modules.offer(operator_name)
    if operator is None or user_rows.user_class(row) is not None:
        return None
    hosts = HOSTS | PRINTED_HOSTS if operator_name in PRINTED else HOSTS
    if host_name and (host_name not in hosts or not hosts[host_name].holds(operator)):
        if not (arguments and isinstance(arguments[-1], Mapping)):  # a block of the file's own fork
            return None
        possible = [host.name for host in HOSTS.values() if host.holds(operator)]
        near = typo_of(host_name, possible)
        hint = f"did you mean '{near}_{operator.name}'?" if near else f"it stands in {', '.join(possible) or 'no host'}"
        raise SpecError(f"{module}: no such row ({hint})")
    *written, last = arguments or [None]
    written = written if isinstance(last, Mapping) else list(arguments)
    stands_for = host_name or _stands_for(operator, source, written)
    if stands_for is None:
        raise SpecError(
            f"{module}: {operator_name} is no layer of its own; it stands inside a host, as in C2f_{operator_name}"
        )
    given: Mapping[str, Any] = last if isinstance(last, Mapping) else {}
    stock_arguments = list(_DOUBLING) if not written and stands_for == "nn.Upsample" else written
    try:
        parameters = operator.complete(given)
    except SpecError as error:
        raise error.within(module) from None
    return Lowered(
        row=[source, repeats, stands_for, stock_arguments],
        host=hosts[stands_for],
        operator=operator,
        parameters=parameters,
    )


def separated(row: Sequence[Any]) -> tuple[str, str]:
    """Separate the name of a row, `C2f_UIB`, into host and operator; the host is empty where there is none.

    The name of a user's class may have underscores of its own, `C2f_My_Block`; no host's has.
    """
    _, _, module, arguments = row
    host, _, name = module.partition("_")
    if (host in HOSTS or host in PRINTED_HOSTS) and (name in OPERATORS or name in PRINTED):
        return host, name
    if host in HOSTS and user_modules.may_replace(name):
        return host, name
    if module in OPERATORS or _offered(module, arguments) is not None:
        return "", module
    host, _, name = module.rpartition("_")
    return host, name


def _offered(name: str, arguments: Any) -> Operator | None:
    """Return the operator of a user's class that a row names and that ends in a mapping; None for other rows."""
    ends = isinstance(arguments, list) and arguments and isinstance(arguments[-1], Mapping)
    return user_modules.offer(name) if ends else None


def stock(row: Row) -> Row:
    """Return the stock row of a row with an operator; a row without one is returned unchanged.

    Raises:
        SpecError: as `lower`.
    """
    lowered = lower(row)
    return row if lowered is None else lowered.row


def _stands_for(operator: Operator, source: int | Sequence[int] = -1, arguments: Sequence[Any] = ()) -> str | None:
    """Return the module of the stock row of an operator that is a whole layer; None for other operators.

    Args:
        operator: one of this package has one kind of row; that of a user's class shows what it stands for.
        source: of the row.
        arguments: of the row, without the mapping.
    """
    is_one = len(OWN_ROWS & {*operator.kinds}) == 1
    if SiteKind.UPSAMPLE in operator.kinds and (is_one or arguments[:1] == [None]):
        return "nn.Upsample"
    if SiteKind.FUSION in operator.kinds and (is_one or not isinstance(source, int)):
        return "Concat"
    if SiteKind.INSERTED in operator.kinds and (is_one or not arguments):
        return "nn.Identity"
    if SiteKind.LAYER in operator.kinds:
        return "Conv"
    if SiteKind.STAGE in operator.kinds:
        return "C2f"
    return "SPPF" if SiteKind.PYRAMID in operator.kinds else None
