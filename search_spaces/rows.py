"""The rows of a model YAML, with and without operators.

An operator inside a host is a row `<Host>_<Operator>` with the host's own arguments and then one mapping:
`[-1, 3, C3_UIB, [128, {expansion: 4}]]`. An operator that is a layer of its own is a row of its own name with the
arguments of the stock layer that it stands for, `Conv` or `nn.Upsample`, and then the mapping:
`[-1, 1, DynamicConv, [512, 1, 1, {kernels: 4}]]`, `[-1, 1, DySample, [None, 2, nearest, {style: pl}]]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import SpecError, typo_of
from search_spaces.hosts import HOSTS, Host
from search_spaces.operators import OPERATORS, Operator, Parameters, SiteKind
from search_spaces.printed import PRINTED, PRINTED_HOSTS

Row = list[Any]
"""`[from, repeats, module, arguments]`."""


INSERTED_KERNEL = 3
"""Of the convolution that an inserted operator stands for, where it has a kernel."""

_DOUBLING = (None, 2, "nearest")
"""The arguments of an `nn.Upsample` as YOLO's necks have it."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A row with an operator, taken apart.

    Attributes:
        row: the stock row that Ultralytics is to build in its place.
        host: of the layer which that row builds.
        parameters: complete and checked.
    """

    row: Row
    host: Host
    operator: Operator
    parameters: dict[str, bool | int | float | str]


def names() -> list[str]:
    """Every module name that a row of ours can have."""
    inner = [
        f"{host.name}_{operator.name}"
        for host in HOSTS.values()
        for operator in OPERATORS.values()
        if host.holds(operator)
    ]
    return inner + [operator.name for operator in OPERATORS.values() if _stands_for(operator)]


def write(row: Row, host: Host, operator: Operator, parameters: Parameters, convolution: Sequence[int]) -> Row:
    """The row with the operator in it.

    Args:
        row: of the base model, with final numbers.
        host: of the layer that the row builds.
        convolution: output channels, kernel and stride of the layer, for an operator that takes the place of a layer
            other than the one its row stands for.
    """
    source, repeats, module, arguments = row
    if host.holds(operator):
        return [source, repeats, f"{module}_{operator.name}", [*arguments, dict(parameters)]]
    if module == _stands_for(operator):  # padding, groups and activation stay what they are
        return [source, repeats, operator.name, [*arguments, dict(parameters)]]
    if host.whole is SiteKind.UPSAMPLE:
        return [source, repeats, operator.name, [None, convolution[-1], "nearest", dict(parameters)]]
    return [source, repeats, operator.name, [*convolution, dict(parameters)]]


def insert(operator: Operator, parameters: Parameters, channels: int) -> Row:
    """The row of a layer of its own, behind the layer whose map it keeps."""
    return [-1, 1, operator.name, [channels, INSERTED_KERNEL, 1, dict(parameters)]]


def lower(row: Sequence[Any]) -> Lowered | None:
    """Take a row of ours apart; None for a row that names none of our operators.

    Raises:
        SpecError: an unknown operator or parameter, a value that is not allowed, an operator in a host without a
            site for it.
    """
    source, repeats, module, arguments = row
    host_name, _, operator_name = module.rpartition("_")
    operator = OPERATORS.get(operator_name) or PRINTED.get(operator_name)
    if operator is None:
        return None
    there = HOSTS | PRINTED_HOSTS if operator_name in PRINTED else HOSTS
    if host_name and (host_name not in there or not there[host_name].holds(operator)):
        hosts = [host.name for host in HOSTS.values() if host.holds(operator)]
        near = typo_of(host_name, hosts)
        hint = f"did you mean '{near}_{operator.name}'?" if near else f"it stands in {', '.join(hosts) or 'no host'}"
        raise SpecError(f"{module}: no such row ({hint})")
    stands_for = host_name or _stands_for(operator)
    if stands_for is None:
        raise SpecError(
            f"{module}: {operator_name} is no layer of its own; it stands inside a host, as in C2f_{operator_name}"
        )
    *own, last = arguments or [None]
    given: Mapping[str, Any] = last if isinstance(last, Mapping) else {}
    own = own if isinstance(last, Mapping) else list(arguments)
    if not own and stands_for == "nn.Upsample":
        own = list(_DOUBLING)
    try:
        parameters = operator.complete(given)
    except SpecError as error:
        raise error.within(module) from None
    return Lowered(
        row=[source, repeats, stands_for, own],
        host=there[stands_for],
        operator=operator,
        parameters=parameters,
    )


def stock(row: Row) -> Row:
    """A row without its operator: what Ultralytics is to build in its place, or the row itself.

    Raises:
        SpecError: as `lower`.
    """
    lowered = lower(row)
    return row if lowered is None else lowered.row


def _stands_for(operator: Operator) -> str | None:
    """The stock layer whose place the operator takes in a row of its own name."""
    if SiteKind.UPSAMPLE in operator.kinds:
        return "nn.Upsample"
    return "Conv" if SiteKind.LAYER in operator.kinds else None
