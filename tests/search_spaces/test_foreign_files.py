"""Model files of other repositories: their translation, and the figures that the articles print."""

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn
from ultralytics import YOLO, cfg
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from search_spaces import SearchSpace, build, foreign_files, model_reader, yaml_text
from search_spaces import base as bases
from search_spaces.errors import SpecError
from search_spaces.foreign_files import Translation
from trials.costing import cost, counters

Published = Callable[[str], dict[str, Any]]

FILES = {
    "DCNv4": "yolov9-c-Bottleneck_DCNV4.yaml",
    "MMQA": "yolov9-c-MMQARepNCSPELAN4.yaml",
    "UIB": "yolov5n-C3_UIB.yaml",
    "DynamicConv": "yolov5l-dynamic.yaml",
    "DySample": "yolov8n-DySample.yaml",
}
"""Model files of the articles, by operator; they are not part of this repository."""
FOLDER = Path(__file__).parents[2].parent / "shared" / "published"

ULTRALYTICS = sorted(path.name for path in (Path(cfg.__file__).parent / "models").rglob("*.yaml"))
DOWNLOADING = "yolo11-cls-resnet18.yaml"

each_article = pytest.mark.parametrize("article", FILES)


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def with_row(*row: Any, **keys: Any) -> dict[str, Any]:
    """Return a detection model with one row between stem and head."""
    head = [[[1], 1, "Detect", ["nc"]]]
    return {"nc": 2, "backbone": [[-1, 1, "Conv", [64, 3, 2]], list(row)], "head": head, **keys}


def translated(*row: Any, as_printed: bool = False, **keys: Any) -> Any:
    """Return the translated row of that model."""
    return foreign_files.translate(with_row(*row, **keys), as_printed=as_printed).document["backbone"][1]


def with_head(module: str, arguments: list[Any], maps: int = 1, **keys: Any) -> dict[str, Any]:
    """Return a model with this head."""
    return {"nc": 2, "backbone": [[-1, 1, "Conv", [64, 3, 2]]], "head": [[[0] * maps, 1, module, arguments]], **keys}


def mistakes(document: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        foreign_files.translate(document, **options)
    return list(caught.value.mistakes)


class TestFigures:
    """Compare with `facts`: figures of the articles, or counted in the repositories that the files are written for."""

    @pytest.mark.parametrize(
        ("article", "total", "layers"),
        [
            ("DCNv4", 53_037_088, {10: 1_855_008}),
            ("MMQA", 49_485_350, {3: 249_472, 5: 773_376, 7: 2_119_168}),
            ("DynamicConv", 49_848_189, {10: 3_151_872, 14: 789_504}),
            (
                "UIB",
                1_434_685,
                {
                    0: 1760, 1: 4672, 2: 3104, 3: 18560, 4: 14208, 5: 73984, 6: 62848, 7: 295424, 8: 168192, 9: 164608,
                    10: 33024, 11: 0, 12: 0, 13: 59520, 14: 8320, 15: 0, 16: 0, 17: 15424, 18: 36992, 19: 0, 20: 43136,
                    21: 147712, 22: 0, 23: 168192, 24: 115005,
                },
            ),
        ],
    )  # fmt: skip
    def test_parameters_of_a_published_file_as_printed(
        self, article: str, total: int, layers: dict[int, int], published: Published
    ) -> None:
        document = foreign_files.translate(published(article), as_printed=True).document
        counted = [params(layer) for layer in build.skeleton(document, document["nc"])]
        assert {layer: counted[layer] for layer in layers} == layers
        assert sum(counted) == total

    @pytest.mark.parametrize(
        ("article", "layers"), [("DCNv4", 40), ("MMQA", 39), ("DynamicConv", 25), ("UIB", 25), ("DySample", 23)]
    )
    def test_translation_keeps_every_layer(self, article: str, layers: int, published: Published) -> None:
        for as_printed in (False, True):
            document = foreign_files.translate(published(article), as_printed=as_printed).document
            assert len(build.skeleton(document, document["nc"])) == layers

    @pytest.mark.parametrize(
        ("article", "counted"),
        [
            ("UIB", {None: 2_583_632}),
            ("DynamicConv", {10: 2_362_376, 14: 591_368}),
            ("DySample", {None: 3_157_200 + 8_224 + 4_128, 10: 8_224, 13: 4_128}),
            ("DCNv4", {10: 2_281_824}),
        ],
    )
    def test_parameters_of_a_published_file_with_the_right_operators(
        self, article: str, counted: dict[int | None, int], published: Published
    ) -> None:
        layers = build.skeleton(foreign_files.translate(published(article)).document, 80)
        assert {index: params(layers if index is None else layers[index]) for index in counted} == counted

    def test_each_class_of_a_head_costs_what_it_does_in_yolov5(self, published: Published) -> None:
        document = foreign_files.translate(published("UIB"), as_printed=True).document
        assert params(build.skeleton(document, 80)) - params(build.skeleton(document, 79)) == 1353
        assert params(build.skeleton(document, 1)) == 1_327_798

    def test_printed_figures_of_the_mmqa_article_overlook_products(self, published: Published) -> None:
        document = foreign_files.translate(published("MMQA"), as_printed=True).document
        count = counters.count(document, 1, 640)
        assert round(count.gflops, 1) == 236.8
        assert {name: round(missed, 1) for name, missed in count.overlooked.items()} == {"MMQA": 2147.5}
        assert round(cost.measure(document, 1, 640, deployed=False).gflops) == 2383

    @pytest.mark.parametrize(
        ("article", "operator", "macs"),
        [
            ("DCNv4", "DCNv4", 20 * 20 * 5 * 9 * 512),
            ("DySample", "DySample", 4 * 4 * (20 * 20 * 256 + 40 * 40 * 128)),
            ("DynamicConv", "DynamicConv", (20 * 20 + 4) * 1024 * 512 + (40 * 40 + 4) * 512 * 256),
        ],
    )
    def test_work_that_counters_overlook_is_listed(
        self, article: str, operator: str, macs: int, published: Published
    ) -> None:
        document = foreign_files.translate(published(article), as_printed=True).document
        assert counters.count(document, 80, 640).overlooked == {operator: cost.gflops(macs)}

    def test_counter_of_modules_counts_all_of_uib(self, published: Published) -> None:
        document = foreign_files.translate(published("UIB"), as_printed=True).document
        count = counters.count(document, 80, 640)
        assert (count.overlooked, round(count.gflops, 1)) == ({}, 3.5)


class TestTranslation:
    @each_article
    @pytest.mark.parametrize("as_printed", [False, True])
    def test_translated_layer_keeps_its_index_sources_and_repeats(
        self, article: str, as_printed: bool, published: Published
    ) -> None:
        written = published(article)
        read = foreign_files.translate(written, as_printed=as_printed).document
        for section in ("backbone", "head"):
            assert [row[:2] for row in read[section]] == [row[:2] for row in written[section]]

    @each_article
    @pytest.mark.parametrize("as_printed", [False, True])
    def test_translation_does_not_change_the_file(self, article: str, as_printed: bool, published: Published) -> None:
        written = published(article)
        read = foreign_files.translate(written, as_printed=as_printed).document
        for row in (*read["backbone"], *read["head"]):
            row[3].append("changed")
        assert written == published(article)

    @each_article
    def test_translating_twice_is_translating_once(self, article: str, published: Published) -> None:
        once = foreign_files.translate(published(article)).document
        assert foreign_files.translate(once) == Translation(document=once)

    @each_article
    def test_translating_twice_as_printed_is_translating_once_as_printed(
        self, article: str, published: Published
    ) -> None:
        once = foreign_files.translate(published(article), as_printed=True).document
        assert foreign_files.translate(once, as_printed=True).document == once

    @pytest.mark.parametrize("name", [name for name in ULTRALYTICS if name != DOWNLOADING])
    def test_ultralytics_files_are_read_as_they_are(self, name: str) -> None:
        document = tasks.yaml_model_load(name)
        for as_printed in (False, True):
            assert foreign_files.translate(document, as_printed=as_printed) == Translation(document=document)

    def test_weights_that_a_file_of_ultralytics_would_download_are_left_out(self) -> None:
        document = tasks.yaml_model_load(DOWNLOADING)
        translated = foreign_files.translate(document)
        assert translated.document["backbone"] == [[-1, 1, "TorchVision", [512, "resnet18", None, True, 2]]]
        assert translated.notes == (
            "TorchVision: its weights, which a model file may not ask to download, are left out",
        )
        assert translated.document | {"backbone": document["backbone"]} == document

    @pytest.mark.parametrize("family", ["v5", "v8", "v9", "v10", "v11", "v12", "v26"])
    def test_files_of_this_package_are_not_changed(self, family: str, space_of: Callable[[str], SearchSpace]) -> None:
        for seed in range(5):
            document = space_of(family).sample(random.Random(seed)).document(80)
            for as_printed in (False, True):
                assert foreign_files.translate(document, as_printed=as_printed) == Translation(document=document)

    def test_translation_keeps_other_keys_and_removes_anchors(self, published: Published) -> None:
        document = foreign_files.translate({**published("UIB"), "activation": "nn.ReLU()"}).document
        assert list(document) == ["nc", "depth_multiple", "width_multiple", "backbone", "head", "activation"]

    @pytest.mark.parametrize(
        ("article", "kinds"),
        [
            ("DCNv4", ["Bottleneck_DCNV4", "DualDDetect"]),
            ("MMQA", ["MMQARepNCSPELAN4", "DualDDetect"]),
            ("UIB", ["C3_UIB", "Detect"]),
            ("DynamicConv", ["Dynamic_conv2d", "Detect"]),
            ("DySample", ["DySample"]),
        ],
    )
    @pytest.mark.parametrize("as_printed", [False, True])
    def test_one_note_for_each_kind_of_module(
        self, article: str, kinds: list[str], as_printed: bool, published: Published
    ) -> None:
        notes = foreign_files.translate(published(article), as_printed=as_printed).notes
        assert [note.partition(": ")[0] for note in notes] == kinds

    @each_article
    def test_notes_about_counting_differ(self, article: str, published: Published) -> None:
        right = foreign_files.translate(published(article)).notes
        assert not set(right) & set(foreign_files.translate(published(article), as_printed=True).notes)

    @each_article
    @pytest.mark.skipif(not FOLDER.is_dir(), reason="the published files are not on this machine")
    def test_published_files_are_translated_alike(self, article: str, published: Published) -> None:
        document = yaml_text.read_yaml(FOLDER / FILES[article])
        for as_printed in (False, True):
            built = foreign_files.translate(published(article), as_printed=as_printed)
            assert foreign_files.translate(document, as_printed=as_printed) == built


class TestForeignModules:
    def test_silence_is_translated_to_the_identity_without_a_note(self) -> None:
        reading = foreign_files.translate(with_row(-1, 1, "Silence", []))
        assert reading == Translation(document=with_row(-1, 1, "nn.Identity", []))

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ([], (2, "lp", 4, False)),
            ([2], (2, "lp", 4, False)),
            ([4], (4, "lp", 4, False)),
            ([512], (2, "lp", 4, False)),
            ([2, "pl"], (2, "pl", 4, False)),
            ([2, "lp", 8], (2, "lp", 8, False)),
            ([2, "pl", 4, True], (2, "pl", 4, True)),
        ],
    )
    def test_dysample_row_is_translated(self, given: list[Any], meant: tuple[int, str, int, bool]) -> None:
        scale, style, groups, scope = meant
        parameters = {"style": style, "groups": groups, "dynamic_scope": scope}
        assert translated(-1, 1, "DySample", given) == [-1, 1, "DySample", [None, scale, "nearest", parameters]]
        build.skeleton(foreign_files.translate(with_row(-1, 1, "DySample", given)).document, 2)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ([64], [64, 1, 1, {"kernels": 4}]),
            ([64, 3], [64, 3, 1, {"kernels": 4}]),
            ([64, 3, 0.5], [64, 3, 1, {"kernels": 4}]),
            ([64, 3, 0.25, 2], [64, 3, 2, {"kernels": 4}]),
            ([64, 3, 0.25, 2, 1, 1, 1, False, 8], [64, 3, 2, {"kernels": 8}]),
        ],
    )
    def test_dynamic_conv2d_row_is_translated(self, given: list[Any], meant: list[Any]) -> None:
        assert translated(-1, 1, "Dynamic_conv2d", given) == [-1, 1, "DynamicConv", meant]
        build.skeleton(foreign_files.translate(with_row(-1, 1, "Dynamic_conv2d", given)).document, 2)

    @pytest.mark.parametrize("given", [[], [64], [64, 3, 5]])
    def test_carafe_of_a_fork_doubles_the_map(self, given: list[Any]) -> None:
        assert translated(-1, 1, "CARAFE", given) == [-1, 1, "CARAFE", [None, 2, "nearest", {}]]
        build.skeleton(foreign_files.translate(with_row(-1, 1, "CARAFE", given)).document, 2)

    @pytest.mark.parametrize("given", [[64], [64, 1], [64, False]])
    def test_spd_conv_of_a_fork_halves_the_map(self, given: list[Any]) -> None:
        assert translated(-1, 1, "SPDConv", given) == [-1, 1, "SPDConv", [64, 3, 2, {"kernel": 3}]]
        build.skeleton(foreign_files.translate(with_row(-1, 1, "SPDConv", given)).document, 2)

    def test_dynamic_conv2d_as_printed_has_the_ratio_of_its_row(self) -> None:
        row = translated(-1, 1, "Dynamic_conv2d", [64, 3, 1, 2], as_printed=True)
        assert row == [-1, 1, "PrintedDynamicConv", [64, 3, 2, {"kernels": 4, "ratio": 1.0}]]

    @pytest.mark.parametrize(
        ("channels", "width", "groups"),
        [(512, 1, 32), (1024, 1, 32), (512, 0.25, 8), (64, 1, 4), (48, 1, 2), (24, 1, 1), (8, 1, 1)],
    )
    def test_deformable_bottleneck_has_a_group_for_16_channels(self, channels: int, width: float, groups: int) -> None:
        document = with_row(-1, 1, "Bottleneck_DCNV4", [channels, channels], width_multiple=width)
        read = foreign_files.translate(document).document
        assert read["backbone"][1] == [-1, 1, "Bottleneck_DCNv4", [channels, True, {"groups": groups}]]
        build.skeleton(read, 2)

    def test_deformable_bottleneck_as_printed_has_one_group(self) -> None:
        row = translated(-1, 1, "Bottleneck_DCNV4", [512, 512], as_printed=True)
        assert row == [-1, 1, "Bottleneck_DCNv4", [512, True, {"groups": 1}]]

    @pytest.mark.parametrize("given", [[128], [128, False]])
    def test_translated_c3_uib_keeps_its_arguments(self, given: list[Any]) -> None:
        shape = {"start_kernel": 3, "mid_kernel": 3}
        right, printed = (translated(-1, 3, "C3_UIB", given, as_printed=kind, anchors=3) for kind in (False, True))
        assert right == [-1, 3, "C3_UIB", [*given, {**shape, "expansion": 4}]]
        assert printed == [-1, 3, "C3_PrintedUIB", [*given, {**shape, "expansion": 1}]]

    def test_translated_mmqa_keeps_its_arguments(self) -> None:
        row = [-1, 1, "MMQARepNCSPELAN4", [64, 32, 16, 1]]
        attention = {"heads": 8, "key_dim": 48}
        assert translated(*row) == [-1, 1, "RepNCSPELAN4_MMQA", [64, 32, 16, 1, attention]]
        assert translated(*row, as_printed=True) == [-1, 1, "RepNCSPELAN4_PrintedMMQA", [64, 32, 16, 1, attention]]

    @pytest.mark.parametrize(
        "row",
        [
            [-1, 1, "DySample", [None, 2, "nearest", {"style": "pl"}]],
            [-1, 1, "DySample", [{"style": "pl"}]],
            [-1, 3, "C3_UIB", [128, False, {"expansion": 2}]],
            [-1, 3, "C3_UIB", [128, {}]],
            [-1, 1, "Bottleneck_DCNv4", [64, True, {"groups": 2}]],
        ],
    )
    def test_rows_of_this_package_are_not_translated(self, row: list[Any]) -> None:
        for as_printed in (False, True):
            reading = foreign_files.translate(with_row(*row), as_printed=as_printed)
            assert reading == Translation(document=with_row(*row))

    def test_parameters_stay_in_a_file_with_anchors(self) -> None:
        row = [-1, 3, "C3_UIB", [128, {"expansion": 2}]]
        assert translated(*row, anchors=3) == row

    @pytest.mark.parametrize(
        ("module", "arguments", "maps", "right", "printed"),
        [
            ("Detect", ["nc", "anchors"], 1, ["Detect", ["nc"]], ["AnchorDetect", ["nc", 3]]),
            ("Detect", ["nc"], 1, ["Detect", ["nc"]], ["Detect", ["nc"]]),
            ("DDetect", ["nc"], 1, ["Detect", ["nc"]], ["DDetect", ["nc"]]),
            ("DualDDetect", ["nc"], 2, ["DualDetect", ["nc"]], ["DualDDetect", ["nc"]]),
        ],
    )
    @pytest.mark.parametrize("anchors", [3, [[8, 8, 16, 16, 24, 24]]])
    def test_heads_are_translated(
        self, module: str, arguments: list[Any], maps: int, right: list[Any], printed: list[Any], anchors: Any
    ) -> None:
        document = with_head(module, arguments, maps, anchors=anchors)
        for as_printed, meant in ((False, right), (True, printed)):
            read = foreign_files.translate(document, as_printed=as_printed).document
            assert read["head"][-1][2:] == meant
            build.skeleton(read, 2)

    def test_head_has_as_many_anchors_as_the_file_has_pairs(self) -> None:
        document = with_head("Detect", ["nc", "anchors"], anchors=[[1, 2, 3, 4]])
        assert foreign_files.translate(document, as_printed=True).document["head"][-1][3] == ["nc", 2]


class TestYOLOv5Blocks:
    """Names of other blocks in the YOLOv5 repository, whose head has the anchors as an argument."""

    @staticmethod
    def v5(*row: Any, head: list[Any] | None = None) -> dict[str, Any]:
        document = with_row(*row, anchors=3)
        document["head"][-1][3] = head or ["nc", "anchors"]
        return document

    @staticmethod
    def v5s_of_2020() -> dict[str, Any]:
        """Return YOLOv5s of release 3.0 of the YOLOv5 repository."""
        csp, conv, up = "BottleneckCSP", "Conv", [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
        backbone = [
            [-1, 1, "Focus", [64, 3]], [-1, 1, conv, [128, 3, 2]], [-1, 3, csp, [128]], [-1, 1, conv, [256, 3, 2]],
            [-1, 9, csp, [256]], [-1, 1, conv, [512, 3, 2]], [-1, 9, csp, [512]], [-1, 1, conv, [1024, 3, 2]],
            [-1, 1, "SPP", [1024, [5, 9, 13]]], [-1, 3, csp, [1024, False]],
        ]  # fmt: skip
        head = [
            [-1, 1, conv, [512, 1, 1]], up, [[-1, 6], 1, "Concat", [1]], [-1, 3, csp, [512, False]],
            [-1, 1, conv, [256, 1, 1]], up, [[-1, 4], 1, "Concat", [1]], [-1, 3, csp, [256, False]],
            [-1, 1, conv, [256, 3, 2]], [[-1, 14], 1, "Concat", [1]], [-1, 3, csp, [512, False]],
            [-1, 1, conv, [512, 3, 2]], [[-1, 10], 1, "Concat", [1]], [-1, 3, csp, [1024, False]],
            [[17, 20, 23], 1, "Detect", ["nc", "anchors"]],
        ]  # fmt: skip
        sizes = {"nc": 80, "anchors": 3, "depth_multiple": 0.33, "width_multiple": 0.5}
        return deepcopy({**sizes, "backbone": backbone, "head": head})

    @pytest.mark.parametrize("given", [[], [False], [True, 2], ["False"]])
    @pytest.mark.parametrize("as_printed", [False, True])
    def test_v5_bottleneck_is_a_1x1_and_a_3x3_convolution(self, given: list[Any], as_printed: bool) -> None:
        reading = foreign_files.translate(self.v5(-1, 2, "Bottleneck", [64, *given]), as_printed=as_printed)
        blocks: Any = build.skeleton(reading.document, 2)[1]
        shortcut, groups = given[0] if given else True, given[1] if len(given) > 1 else 1
        for block in blocks:
            assert (block.cv1.conv.kernel_size, block.cv2.conv.kernel_size) == ((1, 1), (3, 3))
            assert (block.add, block.cv2.conv.groups) == (str(shortcut) == "True", groups)
        assert [note.partition(":")[0] for note in reading.notes] == ["Bottleneck", "Detect"]

    def test_expansion_of_a_v5_bottleneck_comes_before_the_kernels_of_ultralytics(self) -> None:
        row = foreign_files.translate(self.v5(-1, 1, "Bottleneck", [64, True, 1, 1.0])).document["backbone"][1]
        assert row == [-1, 1, "Bottleneck", [64, True, 1, [1, 3], 1.0]]

    @pytest.mark.parametrize(
        ("module", "head"),
        [
            ("Bottleneck", "Detect"),
            ("BottleneckCSP", "Detect"),
            ("Bottleneck", "DDetect"),
            ("BottleneckCSP", "DDetect"),
        ],
    )
    def test_bottlenecks_of_ultralytics_and_yolov9_are_not_changed(self, module: str, head: str) -> None:
        for anchors in ({}, {"anchors": 3}):
            document = with_row(-1, 1, module, [64]) | anchors
            document["head"][-1][2] = head
            for as_printed in (False, True):
                read = foreign_files.translate(document, as_printed=as_printed).document
                assert read["backbone"] == document["backbone"]

    def test_wrong_arguments_of_a_v5_bottleneck_are_refused(self) -> None:
        (message,) = mistakes(self.v5(-1, 1, "Bottleneck", [64, True, "two"]))
        assert message.startswith("backbone[1]: Bottleneck: unexpected arguments, got [64, True, 'two'] (")

    def test_bottleneck_csp_keeps_its_arguments_as_printed(self) -> None:
        reading = foreign_files.translate(self.v5(-1, 2, "BottleneckCSP", [64, False, 1, 1.0]), as_printed=True)
        layer: Any = build.skeleton(reading.document, 2)[1]
        assert [(b.cv1.conv.kernel_size[0], b.cv2.conv.kernel_size[0], b.add) for b in layer.m] == [(1, 3, False)] * 2
        assert layer.cv1.conv.out_channels == 64

    @pytest.mark.parametrize(("name", "total"), [("yolov3.yaml", 61_949_149), ("yolov3-spp.yaml", 62_998_749)])
    def test_yolov3_has_the_parameters_of_the_yolov5_repository(self, name: str, total: int) -> None:
        document = tasks.yaml_model_load(name) | {"nc": 80, "anchors": 3}
        document["head"][-1][3] = ["nc", "anchors"]
        assert params(build.skeleton(foreign_files.translate(document, as_printed=True).document, 80)) == total

    def test_yolov5s_of_2020_has_the_parameters_of_the_yolov5_repository(self) -> None:
        reading = foreign_files.translate(self.v5s_of_2020(), as_printed=True)
        assert params(build.skeleton(reading.document, 80)) == 7_468_157
        (message,) = [
            note for note in foreign_files.translate(self.v5s_of_2020()).notes if note.startswith("BottleneckCSP")
        ]
        assert "--as-printed counts the other" in message

    def test_model_with_v5_blocks_is_built_as_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "v5.yaml"
        path.write_text(yaml.safe_dump(self.v5(-1, 1, "Bottleneck", [64])), encoding="utf-8")
        assert YOLO(path, task="detect").model.model[1].cv1.conv.kernel_size == (1, 1)


class TestRowsWithoutAMapping:
    """Rows without a mapping of parameters, which every row of this package has at its end."""

    @pytest.mark.parametrize(
        ("row", "built"),
        [
            ([-1, 2, "C2f_UIB", [64, True]], "C2f with this package's UIB (start_kernel 0, mid_kernel 3, expansion 4"),
            ([-1, 1, "C3k2_DCNv4", [64, False]], "C3k2 with this package's DCNv4 (groups 4, "),
            ([-1, 3, "C3_UIB", [128]], "C3 with this package's UIB ("),
            ([-1, 1, "RepNCSPELAN4_MMQA", [64, 32, 16, 1]], "RepNCSPELAN4 with this package's MMQA ("),
            ([-1, 1, "DynamicConv", [64, 3, 1]], "this package's DynamicConv (kernels 4"),
            ([-1, 1, "DCNv4", [64]], "this package's DCNv4 (groups 4, "),
            ([-1, 1, "DySample", ["None", 2, "nearest"]], "this package's DySample ("),
        ],
    )
    @pytest.mark.parametrize("as_printed", [False, True])
    def test_note_about_a_row_without_a_mapping_describes_what_is_built(
        self, row: list[Any], built: str, as_printed: bool
    ) -> None:
        reading = foreign_files.translate(with_row(*row), as_printed=as_printed)
        (note,) = reading.notes
        assert note.startswith(f"{row[2]}: the row does not end in a mapping of parameters")
        assert f"Built: {built}" in note
        *arguments, parameters = reading.document["backbone"][1][3]
        assert arguments == row[3]
        assert isinstance(parameters, dict)
        before, after = (build.skeleton(document, 2) for document in (with_row(*row), reading.document))
        assert repr(before) == repr(after)
        assert foreign_files.translate(reading.document).notes == ()

    @pytest.mark.parametrize("row", [[-1, 1, "Conv_UIB", [64]], [-1, 1, "C9_UIB", [64]]])
    def test_row_of_this_package_that_cannot_be_built_is_not_translated(self, row: list[Any]) -> None:
        assert foreign_files.translate(with_row(*row)) == Translation(document=with_row(*row))


class TestMistakes:
    def test_all_mistakes_of_a_foreign_file_are_reported_with_their_addresses(self) -> None:
        document = with_row(-1, 1, "Dynamic_conv2d", [64, 1, "quarter"], anchors=[8, 16])
        document["backbone"] += [
            [-1, 1, "Dynamic_conv2d", [64, 3, 0.25, 1, 0, 2]],
            [-1, 1, "Bottleneck_DCNV4", []],
            [-1, 1, "DySample", [2, "lp", 4, False, 0]],
            [-1, 1, "DySample", [[2]]],
        ]
        document["head"] = [[-1, 1, "Bottleneck_DCNV4", []], [[1], 1, "Detect", ["nc", "anchors"]]]
        message = "unexpected arguments, got"
        assert [mistake.partition(f": {message} ")[0] for mistake in mistakes(document)] == [
            "backbone[1]: Dynamic_conv2d",
            "backbone[2]: Dynamic_conv2d",
            "backbone[3]: Bottleneck_DCNV4",
            "backbone[4]: DySample",
            "backbone[5]: DySample",
            "head[0]: Bottleneck_DCNV4",
        ]
        assert [mistake.partition(":")[0] for mistake in mistakes(document, as_printed=True)][-2:] == [
            "head[0]",
            "head[1]",
        ]

    def test_layer_that_the_right_operator_cannot_replace_is_refused(self) -> None:
        (message,) = mistakes(with_row(-1, 1, "Dynamic_conv2d", [64, 3, 0.25, 1, 1, 1, 4]))
        assert message.endswith("(dilation 1 and groups 4, where 1 and 1 are expected)")

    @pytest.mark.parametrize("channels", [[], [None], ["wide"]])
    @pytest.mark.parametrize("module", ["Dynamic_conv2d", "Bottleneck_DCNV4"])
    def test_row_without_channels_is_refused(self, module: str, channels: list[Any]) -> None:
        for as_printed in (False, True):
            (message,) = mistakes(with_row(-1, 1, module, channels), as_printed=as_printed)
            assert message.startswith(f"backbone[1]: {module}: unexpected arguments, got {channels!r} (")

    @pytest.mark.parametrize(
        "row",
        [5, None, "C3_UIB", [-1, 1, "Silence"], [-1, 1, "Silence", "none"], [-1, 1, ["Silence"], []], {"Silence": 1}],
    )
    def test_malformed_row_is_not_translated(self, row: Any) -> None:
        document = {"nc": 2, "anchors": 3, "backbone": [row], "head": []}
        assert foreign_files.translate(document).document["backbone"] == [row]

    @pytest.mark.parametrize("section", [5, "rows", {"Conv": 1}, None, []])
    def test_a_file_without_rows_is_no_model(self, section: Any, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        document = {"nc": 2, "backbone": section, "head": [[[0], 1, "Detect", ["nc"]]]}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(SpecError, match=r"^mine\.yaml: (not a model YAML|backbone\[0\]: not a row)"):
            model_reader.model_document(str(path))

    def test_mistakes_of_a_file_begin_with_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(with_row(-1, 1, "Bottleneck_DCNV4", [])), encoding="utf-8")
        with pytest.raises(SpecError, match=r"^mine\.yaml: backbone\[1\]: Bottleneck_DCNV4: "):
            model_reader.model_document(str(path))


class TestUltralytics:
    """`YOLO()` builds such a file with the correct operators and logs the notes."""

    foreign = with_row(-1, 1, "Dynamic_conv2d", [64, 1, 1], anchors=3) | {
        "head": [[[1], 1, "Detect", ["nc", "anchors"]]]
    }

    def test_ultralytics_reads_a_file_of_another_repository(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        messages: list[str] = []
        monkeypatch.setattr(LOGGER, "info", messages.append)
        path = tmp_path / "article.yaml"
        path.write_text(yaml.safe_dump(self.foreign), encoding="utf-8")
        reading = foreign_files.translate(self.foreign)
        assert repr(YOLO(path, task="detect").model.model) == repr(build.model(reading.document, 2).model)
        assert len(reading.notes) == 2
        assert set(reading.notes) <= set(messages)

    def test_ultralytics_model_stores_the_translated_file(self) -> None:
        before = deepcopy(self.foreign)
        model = tasks.DetectionModel(self.foreign, nc=3, verbose=False)
        assert self.foreign == before
        assert {**model.yaml, "nc": 2, "channels": 3} == {
            **foreign_files.translate(self.foreign).document,
            "channels": 3,
        }
        again = tasks.DetectionModel(model.yaml, verbose=False)
        assert repr(again.model) == repr(model.model)

    def test_models_for_other_tasks_are_not_translated(self) -> None:
        model = tasks.SegmentationModel("yolov8n-seg.yaml", nc=3, verbose=False)
        assert type(model) is tasks.SegmentationModel
        assert type(model.model[-1]).__name__ == "Segment"

    def test_file_is_read_as_printed_and_with_the_right_operators(self, published: Published, tmp_path: Path) -> None:
        path = tmp_path / "article.yaml"
        path.write_text(yaml.safe_dump(published("UIB")), encoding="utf-8")
        for as_printed in (False, True):
            expected = foreign_files.translate(published("UIB"), as_printed=as_printed)
            reading = model_reader.read_model(str(path), as_printed=as_printed)
            assert reading.notes == expected.notes
            assert reading.document == expected.document | {"scale": "", "yaml_file": str(path)}


class TestWholeModel:
    """Mistakes that `model_reader.read_model` reports, with which every command reads files."""

    @pytest.fixture
    def mistake(self, tmp_path: Path) -> Callable[[dict[str, Any]], str]:
        def message(document: dict[str, Any], *, as_printed: bool = True) -> str:
            file = tmp_path / "model.yaml"
            file.write_text(yaml.safe_dump(document))
            with pytest.raises(SpecError) as caught:
                model_reader.read_model(str(file), as_printed=as_printed)
            return str(caught.value)

        return message

    @pytest.mark.parametrize("anchors", [{"P3": [1, 2]}, "auto"])
    def test_invalid_anchors_are_refused(self, anchors: Any, mistake: Callable[[dict[str, Any]], str]) -> None:
        message = mistake(with_head("Detect", ["nc", "anchors"], anchors=anchors))
        assert "anchors: widths and heights for each map, or their number, are expected" in message

    def test_dual_head_with_an_odd_number_of_maps_is_refused(self, mistake: Callable[[dict[str, Any]], str]) -> None:
        document = with_head("DualDDetect", ["nc"])
        document["head"][-1][0] = [1, 1, 1]
        message = mistake(document)
        assert message.endswith(
            "DualDDetect: it reads a list of layers with as many for each of its 2 parts, got [1, 1, 1]"
        )

    def test_invalid_pgi_of_a_model_is_refused(self, mistake: Callable[[dict[str, Any]], str]) -> None:
        message = mistake(with_head("Detect", ["nc"], pgi="maybe"))
        assert message == "model.yaml: pgi: true, false or lead-guided is expected, got 'maybe'"

    def test_pgi_of_another_family_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "model.yaml"
        file.write_text(yaml.safe_dump(with_head("Detect", ["nc"], pgi=True)))
        with pytest.raises(SpecError, match=r"pgi: only YOLOv9's models"):
            bases.load(str(file), "")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([-1, 1, "C3_CBAM", [64]], "unknown module 'C3_CBAM' (a C3 with CBAM in it of the file's own fork: name the"),
        ([-1, 1, "C2f_Faster_EMA", [64]], "unknown module 'C2f_Faster_EMA' (a C2f with Faster_EMA in it of the file's"),
        ([-1, 1, "SPPF_LSKA", [64, 5]], "unknown module 'SPPF_LSKA' (spatial pyramid pooling of the file's own fork:"),
        ([-1, 1, "A2C2f_UIBx", [64]], "unknown module 'A2C2f_UIBx' (did you mean 'A2C2f_UIB'?)"),
        (
            [-1, 1, "Conv", ["64\uff0c 3", 2]],
            "a number, a word or a list is expected, got '64\uff0c 3' (punctuation of",
        ),
    ],
)
def test_block_of_a_fork_is_no_row_of_this_package(row: list[Any], expected: str, tmp_path: Path) -> None:
    (tmp_path / "fork.yaml").write_text(yaml.safe_dump(with_row(*row), allow_unicode=True), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        model_reader.read_model(str(tmp_path / "fork.yaml"))
    assert expected in str(caught.value)


def test_segmentation_of_yolov5_is_read_without_its_anchors() -> None:
    document = with_head("Segment", ["nc", "anchors", 32, 64], anchors=3)
    assert foreign_files.translate(document).document["head"][0][3] == ["nc", 32, 64]
    assert mistakes(with_head("Segment", ["nc", 32, "anchors"], anchors=3))[0].startswith(
        "head[0]: Segment: unexpected"
    )


def test_table_of_scales_under_another_name_is_refused(tmp_path: Path) -> None:
    document = with_row(-1, 1, "Conv", [64, 3, 1]) | {"scale": {"n": [0.33, 0.25, 1024]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(SpecError, match=r"^mine.yaml: scale: a table of scales is called `scales`"):
        model_reader.read_model(str(tmp_path / "mine.yaml"))


def test_key_points_need_their_number() -> None:
    with pytest.raises(SpecError, match=r"kpt_shape: two numbers are expected, \[17, 3\], got None"):
        build.skeleton(with_head("Pose", ["nc", "kpt_shape"]), 2)


def test_rows_of_a_neck_are_the_first_of_the_head() -> None:
    document = with_head("Detect", ["nc"]) | {"neck": [[-1, 1, "Conv", [32, 3, 1]]]}
    reading = foreign_files.translate(document)
    assert [row[2] for row in reading.document["head"]] == ["Conv", "Detect"]
    assert reading.notes == ("neck: its rows are read as the first of `head`, as forks with such a section do",)
    assert foreign_files.translate(reading.document).notes == ()
