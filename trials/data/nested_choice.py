"""Choose some of many labelled images, so that each class has its share of boxes, and fewer are a part of more.

Images are halved by iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of
multi-label data", ECML PKDD, algorithm 1, for two parts of equal size), and the half in which the wanted number ends is
halved again. Whatever the number, the halves are the same, so that all choices are beginnings of one order.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

Boxes = Mapping[int, int]
"""Number of boxes of each class in an image; empty for an image without objects."""

_WITHOUT_OBJECTS = -1


def choose(images: Sequence[Boxes], count: int) -> frozenset[int]:
    """Return the positions of the images that are chosen.

    Args:
        images: their boxes; in random order, which settles ties.
        count: of the chosen images; if it is not less than their number, all are chosen.
    """
    labeled = [boxes or {_WITHOUT_OBJECTS: 1} for boxes in images]
    waiting, chosen = list(range(len(images))), list[int]()
    while 0 < count < len(waiting):
        first, second = _halves(labeled, waiting)
        if count <= len(first):
            waiting = first
        else:
            chosen += first
            count -= len(first)
            waiting = second
    return frozenset(chosen + waiting[: max(count, 0)])


def _halves(images: Sequence[Boxes], positions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Divide images into two parts, those of the rarest class first: a common one can still be evened out afterwards.

    Each image goes where the sum over classes of excess ** 2 / boxes grows less; excess is the number of boxes in the
    first part, less those in the second. The number of images counts like a class, so that neither part is empty.
    """
    of_class: dict[int, list[int]] = defaultdict(list)
    boxes: dict[int, int] = defaultdict(int)
    for position in positions:
        for number, count in images[position].items():
            of_class[number].append(position)
            boxes[number] += count
    excess, images_in_excess = dict.fromkeys(boxes, 0), 0
    in_first: dict[int, bool] = {}
    for rarest in sorted(of_class, key=lambda number: (boxes[number], number)):
        for position in of_class[rarest]:
            if position in in_first:
                continue
            image = images[position]
            slope = sum(excess[number] * count / boxes[number] for number, count in image.items())
            slope += images_in_excess / len(positions)
            in_first[position] = goes_first = slope < 0 or (slope == 0 and position % 2 == 0)
            sign = 1 if goes_first else -1
            images_in_excess += sign
            for number, count in image.items():
                excess[number] += sign * count
    return [one for one in positions if in_first[one]], [one for one in positions if not in_first[one]]
