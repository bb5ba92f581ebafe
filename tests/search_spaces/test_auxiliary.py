"""Rows of the auxiliary branch: equal to the original's, the same for every candidate, and removed completely."""

import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from search_spaces import (
    OPERATORS,
    Architecture,
    Choice,
    SearchSpace,
    auxiliary,
    build,
    foreign_files,
    insertions,
    model_reader,
    rows,
)
from search_spaces.architecture import Insertion
from search_spaces.errors import SpecError
from search_spaces.insertions import Feeds
from search_spaces.trace import trace

Document = Mapping[str, Any]

SCALES = "tsmce"
PARAMS = {"t": 3_717_680, "s": 9_804_512, "m": 32_878_432, "c": 51_182_080, "e": 69_529_664}
"""Parameters of the models that the original repository trains, 80 classes."""
BRANCH = {"t": 7, "s": 7, "m": 15, "c": 15, "e": 7}
"""Number of rows that are added, without an identity at the beginning."""

each_scale = pytest.mark.parametrize("scale", SCALES)


def stock(scale: str) -> dict[str, Any]:
    return model_reader.model_document(f"yolov9{scale}.yaml")


def all_rows(document: Document) -> list[list[Any]]:
    return [*document["backbone"], *document["head"]]


def branch(document: Document) -> list[list[Any]]:
    """Return the rows that only the auxiliary half depends on, without their inputs."""
    written = all_rows(document)
    return [written[index][1:] for index in auxiliary.auxiliary_layers([row[0] for row in written])]


def changed(
    scale: str, picks: Mapping[int, Choice] | None = None, inserted: Mapping[int, Feeds] | None = None
) -> dict[str, Any]:
    """Return a YOLOv9 with operators in some layers, and a UIB inserted behind others."""
    new = [
        Insertion(after=layer, feeds=feeds, choice=Choice.of("UIB", {})) for layer, feeds in (inserted or {}).items()
    ]
    return Architecture.of("yolov9{scale}.yaml", scale, picks or {}, inserted=new).document(80)


def sources(document: Document) -> list[Any]:
    return [row[0] for row in all_rows(document)]


class TestWithBranch:
    @each_scale
    def test_model_with_branch_has_as_many_parameters_as_the_original(self, scale: str) -> None:
        document = auxiliary.with_branch(stock(scale))
        document["head"][-1][2] = "DualDDetect"
        assert sum(parameter.numel() for parameter in build.skeleton(document, 80).parameters()) == PARAMS[scale]

    @pytest.mark.parametrize(
        ("scale", "maps"),
        [
            ("t", [28, 25, 22, 15, 18, 21]),
            ("s", [28, 25, 22, 15, 18, 21]),
            ("m", [31, 34, 37, 16, 19, 22]),
            ("c", [31, 34, 37, 16, 19, 22]),
        ],
    )
    def test_head_with_branch_reads_what_that_of_the_original_does(self, scale: str, maps: list[int]) -> None:
        head = auxiliary.with_branch(stock(scale))["head"][-1]
        assert head == [maps, 1, "DualDetect", ["nc"]]

    def test_second_path_of_yolov9t(self) -> None:
        assert all_rows(auxiliary.with_branch(stock("t")))[22:29] == [
            [8, 1, "SPPELAN", [128, 64]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 6], 1, "Concat", [1]],
            [-1, 1, "RepNCSPELAN4", [96, 96, 48, 3]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 1, "RepNCSPELAN4", [64, 64, 32, 3]],
        ]

    def test_second_path_of_yolov9e_reads_its_first_backbone(self) -> None:
        document = auxiliary.with_branch(stock("e"))
        added = [row[0] for row in all_rows(document)[42:49]]
        assert added == [9, -1, [-1, 7], -1, -1, [-1, 5], -1]

    def test_second_backbone_of_yolov9m_sums_the_maps_of_the_first(self) -> None:
        added = all_rows(auxiliary.with_branch(stock("m")))[23:38]
        assert [row for row in added if row[2] in {"CBLinear", "CBFuse"}] == [
            [5, 1, "CBLinear", [[240]]],
            [7, 1, "CBLinear", [[240, 360]]],
            [9, 1, "CBLinear", [[240, 360, 480]]],
            [[23, 24, 25, -1], 1, "CBFuse", [[0, 0, 0]]],
            [[24, 25, -1], 1, "CBFuse", [[1, 1]]],
            [[25, -1], 1, "CBFuse", [[2]]],
        ]
        assert added[3] == [0, 1, "Conv", [32, 3, 2]]

    @each_scale
    def test_auxiliary_maps_are_as_large_as_the_main_ones(self, scale: str) -> None:
        layers = build.skeleton(auxiliary.with_branch(stock(scale)), 2)
        layers[-1].training = True
        *_, head = trace(layers, torch.zeros(1, 3, 128, 192, device="meta"))
        sides = [tuple(one.shape[-2:]) for one in head.received if isinstance(one, torch.Tensor)]
        assert sides == [(16, 24), (8, 12), (4, 6)] * 2

    @each_scale
    def test_branch_is_added_behind_the_rows_of_the_model(self, scale: str) -> None:
        before, after = stock(scale), auxiliary.with_branch(stock(scale))
        modules = [row[2] for row in all_rows(after)]
        begins = modules[:1] == ["nn.Identity"] and scale != "e"
        own = [row[1:] for row in all_rows(before)[:-1]]
        assert [row[1:] for row in all_rows(after)[begins : begins + len(own)]] == own
        assert len(modules) == len(own) + begins + BRANCH[scale] + 1

    @each_scale
    def test_adding_the_branch_twice_is_adding_it_once(self, scale: str) -> None:
        document = auxiliary.with_branch(stock(scale))
        assert auxiliary.with_branch(document) == document

    @each_scale
    def test_adding_the_branch_does_not_change_the_document(self, scale: str) -> None:
        document = stock(scale)
        for row in all_rows(auxiliary.with_branch(document)):
            row[3].append("changed")
        assert document == stock(scale)

    def test_adding_the_branch_keeps_every_other_key(self) -> None:
        document = changed("t", {4: Choice.of("UIB", {})}) | {"pgi": "lead-guided", "activation": "nn.ReLU()"}
        for other in (auxiliary.with_branch(document), auxiliary.without_branch(auxiliary.with_branch(document))):
            assert {**other, "backbone": [], "head": []} == {**document, "backbone": [], "head": []}

    @pytest.mark.parametrize(
        "name", ["yolov3.yaml", "yolov5n.yaml", "yolov6n.yaml", "yolov8n.yaml", "yolov10n.yaml", "yolo11n.yaml"]
    )
    def test_branch_of_another_family_is_refused(self, name: str) -> None:
        with pytest.raises(SpecError, match=r"^pgi: only YOLOv9's models .* have an auxiliary branch$"):
            auxiliary.with_branch(model_reader.model_document(name))

    @pytest.mark.parametrize("operator", ["MMQA", "DCNv4"])
    def test_branch_of_a_published_file_is_restored(
        self, operator: str, published: Callable[[str], dict[str, Any]]
    ) -> None:
        document = foreign_files.translate(published(operator)).document
        assert auxiliary.with_branch(auxiliary.without_branch(document)) == document


class TestWithoutBranch:
    @each_scale
    def test_removing_the_branch_is_the_inverse_of_adding_it(self, scale: str) -> None:
        assert auxiliary.without_branch(auxiliary.with_branch(stock(scale))) == stock(scale)

    @each_scale
    def test_deployed_model_is_not_changed_by_removing_the_branch(self, scale: str) -> None:
        document = stock(scale)
        assert auxiliary.without_branch(document) == document

    @pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
    def test_other_families_are_not_changed_by_removing_the_branch(self, name: str) -> None:
        document = model_reader.model_document(name)
        assert auxiliary.without_branch(document) == document

    @each_scale
    def test_removing_the_branch_does_not_change_its_document(self, scale: str) -> None:
        document = auxiliary.with_branch(stock(scale))
        for row in all_rows(auxiliary.without_branch(document)):
            row[3].append("changed")
        assert document == auxiliary.with_branch(stock(scale))

    def test_printed_dual_head_loses_its_auxiliary_half(self) -> None:
        document = auxiliary.with_branch(stock("t"))
        document["head"][-1][2] = "DualDDetect"
        assert auxiliary.without_branch(document)["head"][-1] == [[15, 18, 21], 1, "DDetect", ["nc"]]

    def test_identity_layer_of_the_file_stays(self) -> None:
        moved = stock("t")
        for row in all_rows(moved):
            row[0] = [one + (one >= 0) for one in row[0]] if isinstance(row[0], list) else row[0]
        moved["backbone"].insert(0, [-1, 1, "nn.Identity", []])
        build.skeleton(moved, 2)
        assert auxiliary.without_branch(auxiliary.with_branch(moved)) == moved


class TestCandidates:
    """The branch of every candidate is that of the base model."""

    @each_scale
    @pytest.mark.parametrize("feeds", insertions.FEEDS)
    def test_branch_has_no_insertions(self, scale: str, feeds: Feeds) -> None:
        places = [19, 22, 29] if scale == "e" else [3, 6, 9]
        for inserted in ({places[-1]: feeds}, dict.fromkeys(places, feeds)):
            document = changed(scale, inserted=inserted)
            in_training = auxiliary.with_branch(document)
            assert branch(in_training) == branch(auxiliary.with_branch(stock(scale)))
            assert auxiliary.without_branch(in_training) == document
            assert auxiliary.with_branch(in_training) == in_training
            build.skeleton(in_training, 2)

    @pytest.mark.parametrize("scale", "tm")
    @pytest.mark.parametrize("feeds", insertions.FEEDS)
    def test_branch_is_the_same_for_an_insertion_anywhere(self, scale: str, feeds: Feeds) -> None:
        plain = branch(auxiliary.with_branch(stock(scale)))
        for after in range(len(all_rows(stock(scale))) - 1):
            try:
                document = changed(scale, inserted={after: feeds})
            except SpecError:  # nothing would read it
                assert feeds == "next"
                continue
            in_training = auxiliary.with_branch(document)
            assert branch(in_training) == plain
            assert auxiliary.without_branch(in_training) == document

    def test_branch_reads_the_layer_before_an_insertion(self) -> None:
        """`CBLinear` reads the block, as in article 1, and so does the second path of t."""
        small = sources(auxiliary.with_branch(changed("t", inserted={8: "all"})))
        assert small[10:11] == [-1]  # the pooling reads the insertion, which is layer 9
        assert small[23] == 8
        large = sources(auxiliary.with_branch(changed("m", inserted={8: "all"})))
        assert large[24:27] == [5, 7, 9]

    @pytest.mark.parametrize(
        ("scale", "picks"),
        [
            ("t", {2: "DCNv4", 3: "DynamicConv", 4: "UIB", 8: "MMQA", 9: "DynamicConv", 10: "DySample", 12: "UIB"}),
            ("m", {2: "UIB", 3: "DynamicConv", 4: "DCNv4", 8: "MMQA", 9: "DynamicConv", 13: "DySample", 15: "UIB"}),
            ("c", {0: "DynamicConv", 4: "UIB", 5: "DynamicConv", 6: "DCNv4", 8: "MMQA", 10: "DySample"}),
            ("e", {3: "UIB", 5: "DCNv4", 9: "MMQA", 22: "UIB", 30: "DySample", 32: "UIB"}),
        ],
    )
    def test_branch_has_no_operators(self, scale: str, picks: dict[int, str]) -> None:
        document = changed(scale, {layer: Choice.of(operator, {}) for layer, operator in picks.items()})
        in_training = auxiliary.with_branch(document)
        assert branch(in_training) == branch(auxiliary.with_branch(stock(scale)))
        assert not any(name in row[1] for row in branch(in_training) for name in OPERATORS)
        assert auxiliary.without_branch(in_training) == document
        build.skeleton(in_training, 2)

    @pytest.mark.parametrize("scale", "mc")
    def test_branch_has_no_operator_in_the_place_of_a_whole_layer(self, scale: str) -> None:
        document = changed(scale, {3: Choice.of("UIB", {})})
        assert document["backbone"][3][2] == "UIB"
        assert branch(auxiliary.with_branch(document)) == branch(auxiliary.with_branch(stock(scale)))

    @each_scale
    def test_branch_is_the_same_for_every_architecture_of_a_space(
        self, scale: str, space_of: Callable[[str], SearchSpace]
    ) -> None:
        space = space_of(f"v9:{scale}")
        plain = auxiliary.with_branch(space.stock.document(80))
        for seed in range(10):
            document = space.sample(random.Random(seed)).document(80)
            in_training = auxiliary.with_branch(document)
            assert branch(in_training) == branch(plain)
            assert auxiliary.without_branch(in_training) == document

    def test_branch_of_yolov9e_with_an_insertion_behind_its_identity(self) -> None:
        new = Insertion(after=0, feeds="all", choice=Choice.of("DynamicConv", {}))
        document = Architecture.of("yolov9{scale}.yaml", "e", {}, inserted=[new]).document(80)
        build.skeleton(document, 2)
        assert auxiliary.without_branch(auxiliary.with_branch(document)) == document


class TestDeployedLayers:
    """Sources of a small model: main layers 1 to 3, auxiliary 4 and 5."""

    sources = (-1, -1, -1, [-1, 1], 0, [4, 2], [5, 4, 2, 3])

    def test_deployed_layers_lead_to_the_main_half(self) -> None:
        assert auxiliary.deployed_layers(self.sources, begins_with_identity=True) == [1, 2, 3, 6]
        assert auxiliary.deployed_layers(self.sources, begins_with_identity=False) == [0, 1, 2, 3, 6]

    def test_auxiliary_layers_lead_to_the_auxiliary_half_only(self) -> None:
        assert auxiliary.auxiliary_layers(self.sources) == [4, 5]

    def test_identity_layer_with_another_reader_is_deployed(self) -> None:
        read_twice = (-1, -1, 0, [1, 2], [3, 2])
        assert auxiliary.deployed_layers(read_twice, begins_with_identity=True) == [0, 2, 4]

    def test_remaining_layers_are_renumbered(self) -> None:
        assert auxiliary.renumber(self.sources, [1, 2, 3, 6]) == [-1, -1, [-1, 0], [1, 2]]
        assert auxiliary.renumber(self.sources, [0, 1, 2, 3, 6]) == [-1, -1, -1, [-1, 1], [2, 3]]

    def test_relative_source_skips_dropped_layers(self) -> None:
        assert auxiliary.renumber([-1, -1, 0, [1, 2]], [0, 2, 3]) == [-1, 0, [1]]

    @each_scale
    def test_every_layer_is_deployed_or_dropped(self, scale: str) -> None:
        read = sources(auxiliary.with_branch(stock(scale)))
        deployed, dropped = (
            auxiliary.deployed_layers(read, begins_with_identity=False),
            auxiliary.auxiliary_layers(read),
        )
        assert sorted(deployed + dropped) == list(range(len(read)))
        assert len(dropped) == BRANCH[scale]

    def test_plain_document_has_no_auxiliary_layers(self) -> None:
        assert not auxiliary.has_auxiliary(stock("t"))
        assert auxiliary.has_auxiliary(auxiliary.with_branch(stock("t")))


def test_dropped_layers_are_the_same_in_a_built_model() -> None:
    document = auxiliary.with_branch(stock("m"))
    layers: Any = build.skeleton(document, 2)
    assert auxiliary.auxiliary_layers([layer.f for layer in layers]) == auxiliary.auxiliary_layers(sources(document))
    assert type(layers[0]) is nn.Identity


@each_scale
def test_a_stock_row_is_a_row_without_its_operator(scale: str) -> None:
    document = stock(scale)
    assert [rows.stock(deepcopy(row)) for row in all_rows(document)] == all_rows(document)
