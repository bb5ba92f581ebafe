"""Draw a share of labelled units, so that each label has about that share of its images.

Iterative stratification of a multi-label set into two parts. Sechidis, Tsoumakas and Vlahavas 2011, "On the
stratification of multi-label data", ECML PKDD, algorithm 1: the rarest label is divided first, because the units of a
common one can still make up for it afterwards.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Label = TypeVar("Label", bound=Hashable)


def draw(units: Sequence[Mapping[Label, int]], share: float) -> frozenset[int]:
    """Return the positions of the units that are drawn.

    Args:
        units: number of images of each label, for images that stay together; in random order, which settles ties.
        share: of each label that is drawn, from 0 to 1.
    """
    of_label: dict[Label, list[int]] = defaultdict(list)
    images: dict[Label, int] = defaultdict(int)
    for position, unit in enumerate(units):
        for label, count in unit.items():
            of_label[label].append(position)
            images[label] += count
    lacking = {label: (share * count, (1 - share) * count) for label, count in images.items()}
    waiting = {label: len(positions) for label, positions in of_label.items()}
    order = {label: place for place, label in enumerate(of_label)}
    drawn: set[int] = set()
    done: set[int] = set()
    while waiting:
        rarest = min(waiting, key=lambda label: (waiting[label], order[label]))
        for position in of_label[rarest]:
            if position in done:
                continue
            is_drawn = lacking[rarest][0] > lacking[rarest][1]
            if is_drawn:
                drawn.add(position)
            done.add(position)
            _take(units[position], lacking, waiting, is_drawn=is_drawn)
        waiting.pop(rarest, None)
    return frozenset(drawn)


def _take(
    unit: Mapping[Label, int], lacking: dict[Label, tuple[float, float]], waiting: dict[Label, int], *, is_drawn: bool
) -> None:
    """Subtract a unit from what its part lacks of each of its labels, and from what waits to be divided."""
    for label, count in unit.items():
        drawn, rest = lacking[label]
        lacking[label] = (drawn - count, rest) if is_drawn else (drawn, rest - count)
        if label in waiting:
            waiting[label] -= 1
