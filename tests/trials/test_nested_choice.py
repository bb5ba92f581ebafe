import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from operator import or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.data.nested_choice import choose

IMAGES = st.lists(st.dictionaries(st.integers(0, 4), st.integers(1, 5), max_size=3), max_size=40)
DISTANCE = 4
"""Largest distance of a class from its share, in boxes of the image that has most of it; largest here: 3.5."""


def simulated(seed: int, images: int, classes: int, *, background: float, most_boxes: int) -> list[Counter[int]]:
    """Return boxes of images whose classes are rarer with their number, as those of most data sets."""
    rng = random.Random(seed)
    frequencies = [(number + 1) ** -1.3 for number in range(classes)]
    return [
        Counter()
        if rng.random() < background
        else Counter(rng.choices(range(classes), frequencies, k=rng.randint(1, most_boxes)))
        for _ in range(images)
    ]


def boxes(images: Sequence[Mapping[int, int]]) -> Counter[int]:
    """Return the boxes of each class; -1 are the images without any."""
    return sum((Counter(image or {-1: 1}) for image in images), Counter())


@given(IMAGES, st.integers(0, 50))
def test_so_many_images_are_chosen_and_always_the_same(images: list[Counter[int]], count: int) -> None:
    chosen = choose(images, count)
    assert len(chosen) == min(count, len(images))
    assert chosen <= set(range(len(images)))
    assert choose(images, count) == chosen


@given(IMAGES)
def test_a_smaller_choice_is_a_part_of_a_larger_one(images: list[Counter[int]]) -> None:
    choices = [choose(images, count) for count in range(len(images) + 1)]
    assert all(smaller < larger for smaller, larger in pairwise(choices))


@pytest.mark.parametrize("images", [10, 50, 200, 1000])
@pytest.mark.parametrize("classes", [1, 3, 10, 80])
@pytest.mark.parametrize(("background", "most_boxes"), [(0.0, 1), (0.1, 3), (0.6, 20)])
def test_each_class_has_its_share_of_boxes(images: int, classes: int, background: float, most_boxes: int) -> None:
    for seed in range(2):
        found = simulated(seed, images, classes, background=background, most_boxes=most_boxes)
        of_all = boxes(found)
        most = reduce(or_, (boxes([image]) for image in found))  # the largest number of each class
        for count in (images // 10, images // 3, images // 2, images - 1):
            got = boxes([found[position] for position in choose(found, count)])
            distances = {n: abs(got[n] - of_all[n] * count / images) / most[n] for n in of_all}
            assert max(distances.values()) <= DISTANCE


def test_common_classes_are_nearer_to_their_share_than_a_random_choice() -> None:
    found = simulated(0, 1000, 10, background=0.1, most_boxes=8)
    of_all, rng = boxes(found), random.Random(0)

    def error(positions: Sequence[int]) -> float:
        got = boxes([found[position] for position in positions])
        return sum(abs(got[number] / (0.1 * count) - 1) for number, count in of_all.items())

    at_random = [error(rng.sample(range(1000), 100)) for _ in range(50)]
    assert error(list(choose(found, 100))) < min(at_random)
