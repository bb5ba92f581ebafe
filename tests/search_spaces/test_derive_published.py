"""Spaces derived from models that have operators already, or an auxiliary branch."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces import Architecture, Choice, SearchSpace, auxiliary, build, foreign_files, model_reader, yaml_text
from search_spaces import base as bases
from search_spaces.architecture import Insertion
from search_spaces.base import Base
from search_spaces.derive import derive
from search_spaces.errors import SpecError
from search_spaces.insertions import Feeds
from search_spaces.space_file import parse

Written = Callable[[str], Path]

UIB = ("UIB", {"start_kernel": 3, "mid_kernel": 3, "expansion": 4})
MMQA = ("MMQA", {"heads": 8, "key_dim": 48})
DYNAMIC = ("DynamicConv", {"kernels": 4})
DYSAMPLE = ("DySample", {"style": "lp", "groups": 4, "dynamic_scope": False})
CARRIES: dict[str, dict[int, tuple[str, dict[str, Any]]]] = {
    "UIB": dict.fromkeys((2, 4, 6, 8, 13, 17, 20, 23), UIB),
    "DynamicConv": dict.fromkeys((10, 14), DYNAMIC),
    "DySample": dict.fromkeys((10, 13), DYSAMPLE),
    "MMQA": dict.fromkeys((2, 4, 6, 8), MMQA),
    "DCNv4": {9: ("DCNv4", {"groups": 32})},
}
"""Operators of the articles' models, by layer without the auxiliary branch and the identity before it."""
HEAVY = {"MMQA": (2, 4)}
"""Layers where the article's operator is not offered."""
BRANCHED = ("MMQA", "DCNv4")

each_article = pytest.mark.parametrize("article", CARRIES)


@pytest.fixture(scope="module")
def written(published: Callable[[str], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Write the model of an article to a file."""
    folder = tmp_path_factory.mktemp("articles")

    @cache
    def write(article: str) -> Path:
        return saved(published(article), folder / f"my-{article.lower()}.yaml")

    return write


def saved(document: Any, path: Path) -> Path:
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
    return path


def loaded(path: Path) -> Base:
    name, scale = model_reader.base_and_scale(str(path), None)
    return bases.load(name, scale)


@cache
def derived(path: Path) -> tuple[str, SearchSpace]:
    text = derive(str(path))
    return text, parse(yaml_text.parse_yaml(text))


def carried(article: str) -> dict[int, Choice]:
    return {layer: Choice.of(*choice) for layer, choice in CARRIES[article].items()}


def comments(text: str) -> str:
    """Return the comments before the first key of a file, on one line."""
    before, _, _ = text.partition("\nname: ")
    return " ".join(line.removeprefix("# ") for line in before.splitlines())


class TestBase:
    @each_article
    def test_base_of_a_published_file_is_deployed_and_without_operators(self, article: str, written: Written) -> None:
        base = loaded(written(article))
        assert {layer: Choice.of(*choice) for layer, choice in base.operators.items()} == carried(article)
        assert not any("_" in row[2] or row[2] in ("DySample", "DynamicConv") for row in base.rows)
        assert base.rows[-1][2] == "Detect"
        assert (base.pgi, base.shifted) == ((True, 1) if article in BRANCHED else (False, 0))

    @pytest.mark.parametrize(
        ("article", "stock"),
        [
            ("UIB", "yolov5n.yaml"),
            ("DynamicConv", "yolov5l.yaml"),
            ("DySample", "yolov8n.yaml"),
            ("MMQA", "yolov9c.yaml"),
        ],
    )
    def test_base_of_a_published_file_is_the_ultralytics_model_it_changed(
        self, article: str, stock: str, written: Written
    ) -> None:
        base, original = loaded(written(article)), bases.load(*model_reader.base_and_scale(stock, None))
        layers = [build.skeleton(one.document, 2)[:-1] for one in (base, original)]
        assert repr(layers[0]) == repr(layers[1])

    @each_article
    def test_base_with_its_operators_equals_the_published_file(self, article: str, written: Written) -> None:
        architecture = Architecture.of(*model_reader.base_and_scale(str(written(article)), None), carried(article))
        left = auxiliary.without_branch(model_reader.model_document(str(written(article))))
        assert repr(build.skeleton(architecture.document(2), 2)) == repr(build.skeleton(left, 2))

    @pytest.mark.parametrize("article", BRANCHED)
    def test_base_in_training_has_the_branch_of_the_file(
        self, article: str, published: Callable[[str], dict[str, Any]], written: Written
    ) -> None:
        whole = foreign_files.translate(published(article)).document
        architecture = Architecture.of(*model_reader.base_and_scale(str(written(article)), None), carried(article))
        in_training = auxiliary.with_branch(architecture.document(2))
        assert repr(build.skeleton(in_training, 2)) == repr(build.skeleton(whole, 2))

    @pytest.mark.parametrize("asked", [True, "lead-guided"])
    def test_deployed_file_may_ask_for_the_branch(self, asked: object, tmp_path: Path) -> None:
        document = {**bases.load("yolov9{scale}.yaml", "t").document, "pgi": asked}
        base = loaded(saved(document, tmp_path / "mine.yaml"))
        assert (base.pgi, base.shifted, base.operators) == (asked, 0, {})
        assert "pgi" not in base.document

    def test_remaining_identity_shifts_no_index(self, tmp_path: Path) -> None:
        path = saved(auxiliary.with_branch(bases.load("yolov9{scale}.yaml", "e").document), tmp_path / "mine.yaml")
        assert (loaded(path).pgi, loaded(path).shifted) == (True, 0)
        assert loaded(path).rows == bases.load("yolov9{scale}.yaml", "e").rows

    def test_a_plain_model_has_no_operators(self) -> None:
        base = bases.load("yolov9{scale}.yaml", "t")
        assert (base.operators, base.pgi, base.shifted) == ({}, False, 0)


class TestDerived:
    @each_article
    def test_derived_space_starts_with_the_architecture_of_the_file(self, article: str, written: Written) -> None:
        _, space = derived(written(article))
        offered = {layer: choice for layer, choice in carried(article).items() if layer not in HEAVY.get(article, ())}
        assert space.start == (space.of(offered),)
        assert space.stock not in space.start
        assert space.pgi is (article in BRANCHED)
        assert all(space.incompatibility(architecture) is None for architecture in space.start)

    @each_article
    def test_comments_of_a_derived_space_name_the_operators_of_the_file(self, article: str, written: Written) -> None:
        text, space = derived(written(article))
        message = " ".join(line.strip(" #") for line in text.splitlines())
        for choice in set(carried(article).values()):
            assert f"The file has {choice} here." in message
        offered = {slot.layer: slot.choices for slot in space.slots}
        for layer, choice in carried(article).items():
            assert (choice in offered[layer]) == (layer not in HEAVY.get(article, ()))

    @each_article
    def test_derived_space_explains_stock(self, article: str, written: Written) -> None:
        message = comments(derived(written(article))[0])
        assert (
            "The base model, `stock`, is the file's without its operators; what the file carries is the architecture "
            "that a search tries first, `start`."
        ) in message
        shifts = "the file's layer 1 is layer 0 here." in message
        assert shifts == (article in BRANCHED)

    def test_derived_space_explains_what_is_not_offered(self, written: Written) -> None:
        message = comments(derived(written("MMQA"))[0])
        attention = "the attention matrix grows with the square of the pixels"
        quarter = f"{attention}; at 1/4 of the image it needs too much memory."
        eighth = f"{attention}; at 1/8 of the image it needs kv_stride 4."
        has = "Not offered, though the file has it: MMQA(heads=8, key_dim=48) in layer"
        assert f"{has} 2: {quarter}" in message
        assert f"{has} 4: {eighth}" in message
        assert message.count("Not offered") == 2

    def test_offered_operators_need_no_comment(self, written: Written) -> None:
        assert "Not offered" not in derived(written("DCNv4"))[0]

    def test_the_values_of_the_file_are_offered_with_the_search_values(self, written: Written) -> None:
        _, space = derived(written("MMQA"))
        slot = next(slot for slot in space.slots if slot.layer == 8)
        assert slot.free("MMQA") == {"heads": (2, 4, 8), "key_dim": (16, 32, 48), "kv_stride": (1, 2)}

    def test_derived_space_has_no_start_without_an_offered_operator(self, tmp_path: Path) -> None:
        document = deepcopy(dict(bases.load("yolov8{scale}.yaml", "n").document))
        document["backbone"][2] = [*document["backbone"][2][:2], "C2f_MMQA", document["backbone"][2][3]]
        text, space = derived(saved(document, tmp_path / "mine.yaml"))
        assert space.start == ()
        assert "Not offered, though the file has it: MMQA in layer 2" in comments(text)
        assert "tries first" not in comments(text)

    def test_space_of_a_plain_model_has_no_comments_about_operators(self) -> None:
        text = derive("yolov9t.yaml")
        assert "start:" not in text
        assert "pgi:" not in text
        assert "`stock`" not in text
        assert "auxiliary" not in text

    def test_space_is_derived_from_a_file_with_the_branch(self, tmp_path: Path) -> None:
        path = saved(auxiliary.with_branch(bases.load("yolov9{scale}.yaml", "m").document), tmp_path / "mine.yaml")
        text, space = derived(path)
        plain = parse(yaml_text.parse_yaml(derive("yolov9m.yaml")))
        assert "pgi: true" in text
        assert (space.slots, space.start, space.pgi) == (plain.slots, (), True)
        assert "the file's layer 1 is layer 0 here" in comments(text)

    def test_space_of_a_file_with_another_branch_than_yolov9s_is_one_without(self, tmp_path: Path) -> None:
        rows = [[-1, 1, "Conv", [channels, 3, 2]] for channels in (32, 64)]
        rows.append([-1, 1, "BottleneckCSPB", [64]])
        head = [[-1, 1, "Conv", [64, 3, 2]], [1, 1, "Conv", [32, 3]], [-2, 1, "Conv", [64, 3]]]
        head.append([[2, 3, 4, 5], 1, "IAuxDetect", ["nc", "anchors"]])
        document = {"nc": 3, "anchors": 3, "backbone": rows, "head": head}
        text, space = derived(saved(document, tmp_path / "mine.yaml"))
        assert space.pgi is False
        assert "trained without the file's auxiliary branch" in comments(text)
        assert len(bases.load(space.base, space.scale).rows) == 5
        assert "yolov7.BottleneckCSPB: {}" not in text

    @pytest.mark.parametrize("asked", [True, "lead-guided"])
    def test_derived_space_has_the_pgi_of_the_file(self, asked: object, tmp_path: Path) -> None:
        document = {**bases.load("yolov9{scale}.yaml", "t").document, "pgi": asked}
        _, space = derived(saved(document, tmp_path / "mine.yaml"))
        assert space.pgi == asked

    def test_space_is_derived_from_an_exported_architecture(
        self, space_of: Callable[[str], SearchSpace], tmp_path: Path
    ) -> None:
        new = Insertion(after=9, feeds="next", choice=Choice.of("DCNv4", {}))
        picks = {2: Choice.of("UIB", {"expansion": 2}), 10: Choice.of("DySample", {"style": "pl"})}
        found = Architecture.of(space_of("v8").base, "n", picks, inserted=[new])
        path = tmp_path / "best.yaml"
        path.write_text(found.to_yaml(3, folder=tmp_path), encoding="utf-8")
        text, space = derived(path)
        (start,) = space.start
        assert (dict(start.picks), start.insertions) == (picks, (new,))
        assert repr(build.skeleton(start.document(3), 3)) == repr(build.skeleton(found.document(3), 3))
        assert "the file's layer 11 is layer 10 here." in comments(text)

    @pytest.mark.parametrize("feeds", ["next", "all"])
    @pytest.mark.parametrize("after", [(4,), (9,), (4, 6, 9, 15), (0, 21)])
    def test_stock_of_a_derived_space_has_no_insertion(
        self, after: tuple[int, ...], feeds: Feeds, space_of: Callable[[str], SearchSpace], tmp_path: Path
    ) -> None:
        new = [Insertion(after=layer, feeds=feeds, choice=Choice.of("DCNv4", {"groups": 2})) for layer in after]
        picks = {12: Choice.of("UIB", {"expansion": 2})}
        found = Architecture.of(space_of("v8").base, "n", picks, inserted=new)
        path = tmp_path / "best.yaml"
        path.write_text(found.to_yaml(3, folder=tmp_path), encoding="utf-8")
        base, original = loaded(path), bases.load(*model_reader.base_and_scale("yolov8n.yaml", None))
        assert base.rows == original.rows
        assert sorted(base.inserted) == sorted(after)
        _, space = derived(path)
        (start,) = space.start
        assert {slot.name for slot in space.slots if slot.feeds} == {one.place for one in new}
        assert repr(build.skeleton(start.document(3), 3)) == repr(build.skeleton(found.document(3), 3))
        written = [*start.document(3)["backbone"], *start.document(3)["head"]]
        assert written == [*found.document(3)["backbone"], *found.document(3)["head"]]
        assert [base.index_in_file(layer) for layer in (0, 12, 22)] == [
            layer + sum(one < layer for one in after) for layer in (0, 12, 22)
        ]

    def test_stock_of_a_derived_space_is_the_replaced_layer(
        self, space_of: Callable[[str], SearchSpace], tmp_path: Path
    ) -> None:
        stock = bases.load("yolov9{scale}.yaml", "t")
        layer = next(index for index, row in enumerate(stock.rows) if row[2] == "AConv")
        found = Architecture.of(space_of("v9").base, "t", {layer: Choice.of("UIB", {})})
        path = tmp_path / "best.yaml"
        path.write_text(found.to_yaml(3, folder=tmp_path), encoding="utf-8")
        assert loaded(path).rows == stock.rows
        (start,) = derived(path)[1].start
        assert repr(build.skeleton(start.document(3), 3)) == repr(build.skeleton(found.document(3), 3))

    @pytest.mark.parametrize(
        "record", [{9: "none"}, {"9": "next"}, {90: "next"}, {7: "next"}, [9], {9: "next", 10: "next"}, "9"]
    )
    def test_stored_architecture_that_does_not_fit_its_rows_is_ignored(
        self, record: Any, space_of: Callable[[str], SearchSpace], tmp_path: Path
    ) -> None:
        new = Insertion(after=9, feeds="next", choice=Choice.of("DCNv4", {}))
        document = Architecture.of(space_of("v8").base, "n", {}, inserted=[new]).document(3)
        document["nas"]["insert"] = record
        base = loaded(saved(document, tmp_path / "best.yaml"))
        assert (set(base.operators), dict(base.inserted)) == ({10}, {})
        assert "In the place of DCNv4 in layer 10, `stock` has Conv." in comments(derive(str(tmp_path / "best.yaml")))

    def test_printed_module_is_no_operator_of_a_derived_space(self, tmp_path: Path) -> None:
        document = deepcopy(dict(bases.load("yolov8{scale}.yaml", "n").document))
        document["backbone"][2] = [-1, 1, "C2f_PrintedUIB", [32, True]]
        with pytest.raises(SpecError, match="unknown operator 'PrintedUIB'"):
            derive(str(saved(document, tmp_path / "mine.yaml")))
