"""Contract of the layers of users' classes in a model, module by module: that of operators, for any number of maps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from search_spaces.base import Base
from search_spaces.operators import SiteKind
from search_spaces.placed import PLACED, Placed
from search_spaces.trace import Traced
from trials.contracts import export_contract, operator_contract
from trials.contracts.case import Case, Failure
from trials.contracts.joined_maps import JoinedMaps

_MOST_TIMES_SMALLER = 4
"""Factor by which a map may be smaller than `SQUARE` and have two rows and columns; it divides the contracts' sizes."""
_EVEN = 2
"""Kernel of a case that takes no odd maps, as a layer that changes the size never gets."""


@dataclass(frozen=True, kw_only=True)
class LayerCase(Case):
    """Layer of a user's class with the maps that it reads, joined to one input: the finest size, all channels.

    Attributes:
        maps: channels of each map, and how many times smaller than the finest it is.
        coarsest: how many times smaller than the finest the smallest map is that it reads or returns.
        placed: the class and its arguments.
    """

    maps: tuple[tuple[int, int], ...]
    coarsest: int
    reads_list: bool
    placed: Placed = field(compare=False, repr=False)

    @property
    def choice_summary(self) -> str:
        """Call of the constructor, and what it makes of which maps."""
        return self.placed.summary

    @property
    def unit(self) -> int:
        """Pixels of a unit of the sizes: the smallest map of the smallest input has two rows, as a batch norm needs."""
        return max(self.coarsest // _MOST_TIMES_SMALLER, 1)

    @property
    def may_multiply_nothing(self) -> bool:
        """Whether it is a layer of this package for another repository's: some only move or add numbers (`ReOrg`)."""
        return self.placed.found.source is None

    @property
    def may_stay_contiguous(self) -> bool:
        """Whether weights of five dimensions may keep the whole model out of channels_last: a fork has such layers."""
        return True

    @property
    def site_summary(self) -> str:
        """Nothing: the call says it."""
        return ""

    def build(self, seed: int = 0) -> nn.Module:
        """Build the layer, in eval mode, with weights of a seed."""
        torch.manual_seed(seed)
        layer = self.placed.build().eval()
        several = isinstance(self.placed.channels, tuple)
        return JoinedMaps(layer, self.maps, reads_list=self.reads_list).eval() if self.reads_list or several else layer


def cases(base: Base) -> tuple[LayerCase, ...]:
    """Return a case for each distinct layer of a user's class in a base model, with the layers where it stands."""
    found: dict[LayerCase, list[str]] = {}
    for layer, step in enumerate(base.traced):
        placed = PLACED.get(step.layer)
        case = None if placed is None else _case(step, placed)
        if case is not None:
            found.setdefault(case, []).append(str(base.index_in_file(layer)))
    return tuple(replace(case, places=tuple(places)) for case, places in found.items())


def check(found: Sequence[LayerCase]) -> dict[LayerCase, tuple[Failure, ...]]:
    """Check all promises of a single module; the slow ones only where the others hold."""
    failures: Mapping[Case, tuple[Failure, ...]] = {case: operator_contract.check(case) for case in found}
    exported = export_contract.check([case for case in found if not failures[case]])
    return {case: (*failures[case], *exported.get(case, ())) for case in found}


def lines(checked: Mapping[LayerCase, Sequence[Failure]]) -> Iterator[str]:
    """Yield a line for each layer: whether it keeps every promise."""
    for case, failures in checked.items():
        where = f"layer{'s' if len(case.places) > 1 else ''} {', '.join(case.places)}"
        kept = (
            "breaks " + ", ".join(dict.fromkeys(one.promise for one in failures)) if failures else "keeps all promises"
        )
        yield f"{where}: {case.choice_summary}: {kept}"


def _case(step: Traced, placed: Placed) -> LayerCase | None:
    """Return the case of a layer; None for a head, and for one that reads the several maps of another layer."""
    received = step.received if isinstance(step.received, list | tuple) else [step.received]
    if isinstance(step.returned, Mapping) or not all(isinstance(one, Tensor) for one in received):
        return None
    sizes = [one.shape[-1] for one in received if isinstance(one, Tensor)]
    made = [step.returned] if isinstance(step.returned, Tensor) else step.returned
    returned = made[0]
    finest, out = max(sizes), returned.shape[-1]
    smallest = min(*sizes, *(one.shape[-1] for one in made))
    grows = out > finest
    plain = finest == smallest and not grows
    channels = [one.shape[1] for one in received if isinstance(one, Tensor)]
    return LayerCase(
        operator=placed.found.name,
        parameters=(("arguments", f"{placed.given!r} {placed.repeats}"),),
        kind=SiteKind.UPSAMPLE if grows else SiteKind.LAYER,
        c_in=sum(channels),
        c_out=returned.shape[1],
        kernel=0 if plain else _EVEN,
        stride=out // finest if grows else finest // out,
        groups=1,
        reduction=None,
        activation="",
        activation_module=nn.Identity(),
        coarsest=finest // smallest,
        maps=tuple((count, finest // size) for count, size in zip(channels, sizes, strict=True)),
        reads_list=isinstance(step.received, list | tuple),
        placed=placed,
    )
