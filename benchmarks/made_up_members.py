"""Made-up worlds: what architectures of several members truly score, and what a surrogate may learn across members.

No table of trained models has both families and operators at slots, so what is true is made up, and known. Accuracy is
that of the member's stock model, 7 points for a factor of e in GFLOPs, and the worth of the operator in each slot; on
it lies noise between seeds. *Agreement* is the share of the variance of worth that belongs to an operator in a region
(backbone or neck, at one resolution), and so is the same in all members; the rest belongs to the operator in the slot
of one member.
"""

import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import log, sqrt
from unittest import mock

import numpy as np

from nas.algorithms.proposer import Candidates
from nas.samplers.encoding import Encoding
from search_spaces import Architecture, JoinedSpace, joined_file
from search_spaces import base as bases
from trials.costing import space_costs

SPACES, CLASSES, PIXELS = "v8n,v9t,v11n,v26n", 3, 640
AGREEMENTS = (0.0, 0.5, 1.0)
OURS, ALIKE, REGIONS_APART, APART = WAYS = ("ours", "regions alike", "regions apart", "apart")
"""Ways of learning across members: the sampler's own, and with a part removed or fixed."""
_TRANSFERS = {ALIKE: (1.0,), REGIONS_APART: (0.0,), APART: (0.0,)}
"""Transfers between members that it may find, where they are not those of `ours`."""
STOCKS, WORTH, OWN, NOISE = 0.01, 0.008, 0.003, 0.005
"""Standard deviations: of the stock models beside their costs, of the worth of all slots together, of what one
architecture has for itself, and of the noise of a training."""
_FAR = 1000.0
"""Distance at which the surrogate's kernel is 0, whatever its length scales are."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """True accuracies and costs of the architectures in one made-up world.

    Attributes:
        agreement: between members, 0 to 1.
        seed: of this world.
    """

    agreement: float
    seed: int

    def point(self, architecture: Architecture) -> Point:
        """Return true accuracy and GFLOPs."""
        member, gflops = space().member_of(architecture), costs().cost(architecture).gflops
        name, choices = member.short_name, member.choices(architecture)
        worth = sum(self._worth(name, slot, choice.operator) for slot, choice in choices.items())
        bought = 0.07 * log(gflops / 7)
        stock, own = self._about(name, STOCKS), self._about(architecture.fingerprint, OWN)
        return 0.4 + stock + bought + worth / sqrt(len(choices)) + own, gflops

    def measured(self, architecture: Architecture) -> float:
        """Return the accuracy of one training."""
        return self.point(architecture)[0] + self._about(f"noise {architecture.fingerprint}", NOISE)

    def _worth(self, member: str, slot: str, operator: str) -> float:
        if operator == "stock":
            return 0.0
        region = regions()[member, slot]
        shared = self._about(f"{region} {operator}", WORTH)
        own = self._about(f"{member} {slot} {operator}", WORTH)
        return sqrt(self.agreement) * shared + sqrt(1 - self.agreement) * own

    def _about(self, name: str, deviation: float) -> float:
        """Return the same number for the same name, 0 on average."""
        return random.Random(zlib.crc32(f"{self.seed} {name}".encode())).gauss(0.0, deviation)


@cache
def space() -> JoinedSpace:
    """Return the space that is searched."""
    loaded = joined_file.load(SPACES)
    if not isinstance(loaded, JoinedSpace):
        raise TypeError(f"several spaces are expected, got {SPACES}")
    return loaded


@cache
def costs() -> space_costs.SpaceCosts:
    """Return the costs of the space."""
    return space_costs.table(space(), CLASSES, PIXELS)


@cache
def regions() -> dict[tuple[str, str], str]:
    """Return the region of each slot of each member."""
    found = {}
    for member in space().members:
        base = bases.load(member.base, member.scale)
        for slot in member.slots:
            found[member.short_name, slot.name] = f"{base.section(slot.layer)} {base.stage(slot.layer)}"
    return found


class Apart(Encoding):
    """Encoding with a further continuous feature, by which members lie far from each other."""

    def of(self, architectures: Sequence[Architecture]) -> Candidates:
        """Encode architectures, one row each."""
        found, names = super().of(architectures), self._space.member_names
        places = [_FAR * names.index(self._space.member_of(one).short_name) for one in architectures]
        continuous = np.column_stack([found.features.continuous, places])
        return replace(found, features=replace(found.features, continuous=continuous))


@contextmanager
def learning(way: str) -> Iterator[None]:
    """Let the sampler learn across members as a way says."""
    with ExitStack() as patched:
        if way in _TRANSFERS:
            patched.enter_context(mock.patch("nas.algorithms.gaussian_process._TRANSFERS", _TRANSFERS[way]))
        if way == APART:
            patched.enter_context(mock.patch("nas.samplers.ehvi_sampler.Encoding", Apart))
        yield
