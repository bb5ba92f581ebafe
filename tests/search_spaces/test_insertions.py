"""Inserted layers: their indices, their readers, and the built network."""

from typing import Any

import pytest
import torch
from torch import nn

from search_spaces import Architecture, Choice, build, insertions
from search_spaces import base as bases
from search_spaces.architecture import Insertion
from search_spaces.errors import SpecError
from search_spaces.insertions import Feeds
from search_spaces.trace import trace

ROWS: list[list[Any]] = [
    [-1, 1, "A", []],
    [-1, 1, "B", []],
    [-1, 1, "C", []],
    [[-1, 1], 1, "D", []],
    [-2, 1, "E", []],
    [[1, 3, 4], 1, "F", []],
]
NEW: list[Any] = [-1, 1, "N", []]


def sources(*inserted: tuple[int, Feeds]) -> list[Any]:
    return [(row[2], row[0]) for row in insertions.splice(ROWS, {after: (feeds, NEW) for after, feeds in inserted})]


def test_labels_of_layers_with_insertions() -> None:
    assert insertions.labels(4, [2, 0]) == ("0", "after-0", "1", "2", "after-2", "3")
    assert insertions.labels(2, []) == ("0", "1")


def test_without_insertions_rows_are_not_changed() -> None:
    assert insertions.splice(ROWS, {}) == ROWS


def test_insertion_for_the_next_layer_is_read_by_it_alone() -> None:
    assert sources((1, "next")) == [
        ("A", -1), ("B", -1), ("N", -1), ("C", -1), ("D", [-1, 1]), ("E", 3), ("F", [1, 4, 5])
    ]  # fmt: skip


def test_insertion_for_all_layers_is_read_by_all() -> None:
    assert sources((1, "all")) == [
        ("A", -1), ("B", -1), ("N", -1), ("C", -1), ("D", [-1, 2]), ("E", 3), ("F", [2, 4, 5])
    ]  # fmt: skip


def test_several_insertions_shift_the_sources() -> None:
    assert sources((0, "next"), (3, "all"), (1, "all")) == [
        ("A", -1), ("N", -1), ("B", -1), ("N", -1), ("C", -1), ("D", [-1, 3]), ("N", -1), ("E", 4), ("F", [3, 6, 7])
    ]  # fmt: skip


def test_an_insertion_without_reader_is_refused() -> None:
    assert sources((3, "all"))[-1] == ("F", [1, 4, 5])
    with pytest.raises(SpecError, match="layer 4 does not read layer 3, so nothing would read the insertion"):
        sources((3, "next"))


def with_insertion(after: int, feeds: Feeds) -> Architecture:
    new = Insertion(after=after, feeds=feeds, choice=Choice.of("UIB", {}))
    return Architecture.of("yolov8{scale}.yaml", "n", {6: Choice.of("UIB", {})}, inserted=[new])


@pytest.mark.parametrize("feeds", insertions.FEEDS)
def test_an_inserted_identity_does_not_change_the_output(feeds: Feeds) -> None:
    """Insert a UIB that returns its input: the weight of its last batch norm is 0."""
    architecture = with_insertion(9, feeds)
    model = build.model(architecture.document(2), 2).eval()
    stock = build.model(Architecture.of("yolov8{scale}.yaml", "n", {6: Choice.of("UIB", {})}).document(2), 2).eval()
    inserted: Any = model.model[10]
    nn.init.zeros_(inserted.project.bn.weight)
    names = insertions.labels(23, [9])
    moved = {
        name.replace(f"model.{index}.", f"model.{label}.", 1): value
        for name, value in model.state_dict().items()
        for index, label in enumerate(names)
        if name.startswith(f"model.{index}.") and "after" not in label
    }
    stock.load_state_dict(moved)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(model(image)[0], stock(image)[0], atol=1e-4)


@pytest.mark.parametrize(("feeds", "readers"), [("next", {11}), ("all", {11, 21})])
def test_readers_of_an_insertion_in_a_built_model(feeds: Feeds, readers: set[int]) -> None:
    layers = build.skeleton(with_insertion(9, feeds).document(2), 2)
    reading = {
        index
        for index, layer in enumerate(layers)
        for source in ([layer.f] if isinstance(layer.f, int) else layer.f)  # type: ignore[union-attr]
        if (source if source >= 0 else index + source) == 10
    }
    assert reading == readers


def test_slots_keep_their_index_in_spite_of_insertions() -> None:
    architecture = with_insertion(4, "next")
    written = architecture.to_yaml(2)
    assert "insert: {4: next}" in written
    again = Architecture.from_yaml(written)
    assert (again, again.fingerprint) == (architecture, architecture.fingerprint)
    rows = [*architecture.document(2)["backbone"], *architecture.document(2)["head"]]
    assert (rows[5][2], rows[7][2]) == ("UIB", "C2f_UIB")
    assert str(architecture) == "after-4 UIB · 6 UIB"
    assert architecture.summary() == "UIB after-4, 6"
    assert list(architecture.as_picks()) == ["6", "after-4"]


def test_insertions_that_differ_have_different_fingerprints() -> None:
    plain = Architecture.of("yolov8{scale}.yaml", "n", {6: Choice.of("UIB", {})})
    variants = [with_insertion(4, "next"), with_insertion(4, "all"), with_insertion(9, "next"), plain]
    assert len({variant.fingerprint for variant in variants}) == 4


def test_insertion_at_an_impossible_place_is_refused() -> None:
    with pytest.raises(SpecError, match=r"after 22: a layer of .* before its head is expected"):
        with_insertion(22, "all").document(2)


def test_insertions_of_the_first_and_last_places_build() -> None:
    base = bases.load("yolov8{scale}.yaml", "n")
    for after in (0, 1, 11, 21):
        layers = build.skeleton(with_insertion(after, "all").document(2), 2)
        layers[-1].training = True
        traced = trace(layers, torch.zeros(1, 3, 64, 64, device="meta"))
        assert len(traced) == len(base.rows) + 1
        assert (traced[after + 1].c_in, traced[after + 1].c_out) == (traced[after].c_out,) * 2


def test_insertion_behind_the_last_layer_of_the_backbone_is_in_the_backbone() -> None:
    document = with_insertion(9, "next").document(2)
    assert (len(document["backbone"]), document["backbone"][-1][2]) == (11, "UIB")
