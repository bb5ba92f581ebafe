"""Checks of model files: layers of a closed list, rows that can be built, mistakes in one line with an address."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from search_spaces import base as bases
from search_spaces import build, layers, model_reader, parser_hooks
from search_spaces.errors import LayerError, SpecError, nearest, typo_of
from search_spaces.space_file import parse
from trials.costing import other_tasks

ROWS = [
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "C2f", [32, True]],
    [-1, 1, "SPPF", [32, 5]],
    [[2, 3], 1, "Detect", ["nc"]],
]


def document(*changed: tuple[int, Any], **settings: Any) -> dict[str, Any]:
    rows = [dict(changed).get(index, row) for index, row in enumerate(ROWS)]
    return {"nc": 2, **settings, "backbone": rows[:3], "head": rows[3:]}


def written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


ROW_MISTAKES = [
    ([], "not a row, got [] ([from, repeats, module, arguments])"),
    ([-1, 1, "Conv"], "not a row, got [-1, 1, 'Conv'] ([from, repeats, module, arguments])"),
    (7, "not a row, got 7 ([from, repeats, module, arguments])"),
    (
        [-1, 1, "SE", [8], "RGB"],
        (
            "not a row, got [-1, 1, 'SE', [8], 'RGB'] ([from, repeats, module, arguments]; what else stands there is "
            "for the parser of the file's own fork, which is not read)"
        ),
    ),
    ([-1, 1, 5, [32]], "a module's name is expected in third place, got 5 ([from, repeats, module, arguments])"),
    (
        [-1, 1, ["Conv"], [32]],
        "a module's name is expected in third place, got ['Conv'] ([from, repeats, module, arguments])",
    ),
    (
        [-1, "three", "C2f", [32]],
        "repeats: a number is expected in second place, got 'three' ([from, repeats, module, arguments])",
    ),
    (
        [-1, 0.5, "C2f", [32]],
        "repeats: a whole number is expected in second place, got 0.5 ([from, repeats, module, arguments])",
    ),
    ([-1, 10**7, "C2f", [32]], "repeats: at most 1000 are expected, got 10000000"),
    ([[-1], 1, "Detect", [80]], "Detect is a head, which is expected in the last row alone"),
    ([[-1], 2, "Concat", [1]], "repeats: Concat reads several layers and is built once, got 2 (1)"),
    (
        [-1, 1, "Conv", 3.5],
        "arguments: a list is expected in fourth place, got 3.5 ([from, repeats, module, arguments])",
    ),
    (
        [-1, 1, "C2f_UIB", 3],
        "arguments: a list is expected in fourth place, got 3 ([from, repeats, module, arguments])",
    ),
    (["a", 1, "Conv", [32]], "from: a layer's number, -1 or a list of them is expected in first place, got 'a'"),
    ([True, 1, "Conv", [32]], "from: a layer's number, -1 or a list of them is expected in first place, got True"),
    ([[-1, 99], 1, "Concat", [1]], "reads layer 99, which is not there (0 to 0, or -1)"),
    ([-5, 1, "Conv", [32]], "reads layer -5, which is not there (0 to 0, or -1)"),
    ([1, 1, "Conv", [32]], "reads layer 1, which is not there (0 to 0, or -1)"),
    ([-1, 1, "Concat", [1]], "Concat reads a list of layers, got -1 ([-1])"),
    ([[-1, 0], 1, "Conv", [32]], "Conv reads one layer, got [-1, 0]"),
    ([[-1, 0], 1, "nn.Identity", []], "nn.Identity reads one layer, got [-1, 0]"),
    (
        [[-1, 0], 1, "C2f_UIB", [32, {}]],
        (
            "C2f_UIB reads one layer, got [-1, 0]: an operator cannot take the place of a layer that reads several "
            "(docs/operators.md)"
        ),
    ),
    ([-1, 1, "Conv", []], "Conv: output channels are expected as the first argument, got none"),
    ([-1, 1, "Conv", ["wide", 3]], "Conv: output channels are expected as the first argument, got 'wide'"),
    ([-1, 1, "Conv", [-8, 3]], "Conv: output channels are expected as the first argument, got -8"),
    ([-1, 1, "C2f_UIB", ["wide", {}]], "C2f: output channels are expected as the first argument, got 'wide'"),
    ([-1, 1, "Conv", [32, "layers"]], "arguments[1]: 'layers' is a variable of Ultralytics' parser, and no argument"),
    ([-1, 1, "Conv", [32, "ast"]], "arguments[1]: 'ast' is a variable of Ultralytics' parser, and no argument"),
    ([-1, 1, "Conv", [32, "1 +"]], "arguments[1]: a number, a word or a list is expected, got '1 +'"),
    ([-1, 1, "Conv", [32, 9000 * "("]], "arguments[1]: a number, a word or a list is expected, got '(((("),
    ([-1, 1, "Conv", [32, "9" * 500]], "arguments[1]: a number of at most 1,000,000 is expected, got 9999"),
    ([-1, 1, "Conv", [float("inf"), 3]], "arguments[0]: a number of at most 1,000,000 is expected, got inf"),
    ([-1, 1, "nn.UpSample", [None, 2]], "unknown module 'nn.UpSample' (did you mean 'nn.Upsample'?)"),
    ([-1, 1, "nn.functional", [2]], "unknown module 'nn.functional' (no layer of that library)"),
    ([-1, 1, "nn.Module", []], "unknown module 'nn.Module' (no layer of that library)"),
    ([-1, 1, "torchvision.ops.nms", []], "unknown module 'torchvision.ops.nms' (no layer of that library)"),
    (
        [[-1, 0], 1, "BiFPN_Concat2", [1]],
        (
            "unknown module 'BiFPN_Concat2' (a fusion of several maps of the file's own fork: this package's is "
            f"WeightedFusion; {layers.BRING})"
        ),
    ),
    ([-1, 1, "SKAttention", []], f"unknown module 'SKAttention' (an attention of the file's own fork: {layers.BRING})"),
    ([-1, 1, "torch_safe_load", ["a b"]], "torch_safe_load is no layer, so a row cannot name it"),
    ([-1, 1, "DetectionModel", ["a.yaml"]], "DetectionModel is no layer, so a row cannot name it"),
    ([-1, 1, "TorchVision", [32, "resnet18"]], "TorchVision downloads weights, which a model file may not ask for"),
    (
        [-1, 1, "C3", [32, True, 1, 0.5, 1, 2, 3, 4]],
        (
            "C3 cannot be built of [32, True, 1, 0.5, 1, 2, 3, 4]: C3.__init__() takes from 3 to 7 positional "
            "arguments but 11 were given"
        ),
    ),
    ([-1, 1, "HGBlock", [8]], "HGBlock cannot be built of [8]: not enough arguments, or not enough of one"),
    ([-1, 1, "Conv", [32, 3, 2, None, 7]], "Conv cannot be built of [32, 3, 2, None, 7]: in_channels must be"),
    ([-1, 1, "Conv", [32, 3, 0]], "Conv cannot "),
    ([-1, 1, "nn.Conv2d", [3, 8, 3]], "nn.Conv2d cannot take 16x128x128: "),
    ([-1, 1, "C2f", [32, True, 1, 0]], "C2f makes an empty map of 16x128x128: 0x128x128"),
    ([-1, 1, "nn.Upsample", [None, 2, "neerest"]], "nn.Upsample cannot take 16x128x128: "),
    ([-1, 1, "Conv", [900_000, 300, 1]], "Conv would have 1.3e+12 parameters; see its arguments, [900000, 300, 1]"),
]

SETTING_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"nc": None}, "nc: the number of classes is missing (nc: 80)"),
    ({"width_mutiple": 0.5}, "width_mutiple: no setting of a model file (did you mean 'width_multiple'?)"),
    (
        {"scales": {"n": [0.3, 0.25, "inf"]}},
        (
            "scales.n: three numbers above 0 are expected, [depth, width, most channels], got [0.3, 0.25, 'inf'] "
            "(.inf for no limit)"
        ),
    ),
    ({"nc": "many"}, "nc: the number of classes is expected, got 'many'"),
    ({"scales": [1]}, "scales: a mapping is expected, such as {n: [0.33, 0.25, 1024]}"),
    (
        {"scales": {"n": [0.33, None, 1024]}},
        "scales.n: three numbers above 0 are expected, [depth, width, most channel",
    ),
    ({"scales": {"n": [0.33, 0.25]}}, "scales.n: three numbers above 0 are expected, [depth, width, most channels], "),
    ({"scales": {"n": 1}}, "scales.n: three numbers above 0 are expected, [depth, width, most channels], got 1"),
    ({"width_multiple": "half"}, "width_multiple: a number above 0 is expected, got 'half'"),
    ({"reg_max": 0}, "reg_max: a whole number of 1 to 1000 is expected, got 0"),
    ({"activation": "nn.Relu()"}, "activation: unknown activation 'nn.Relu()' (did you mean nn.ReLU()?)"),
    ({"activation": "SiLU()"}, "activation: unknown activation 'SiLU()' (did you mean nn.SiLU()?)"),
    ({"activation": True}, "activation: nn.SiLU(), or another activation of torch.nn with plain numbers, is expected"),
    ({"activation": "nn.SiLU(1, 2)"}, "activation: 'nn.SiLU(1, 2)' cannot be built: "),
    ({"activation": "nn.Softmax(dim=99)"}, "activation: 'nn.Softmax(dim=99)' cannot take a feature map: "),
    ({"activation": "nn.GLU()"}, "activation: 'nn.GLU()' changes the size of what it gets"),
    ({"width_multiple": math.inf}, "width_multiple: a number above 0 is expected, got inf"),
    ({"scales": {"n": [0.33, math.inf, 1024]}}, "scales.n: three numbers above 0 are expected, "),
    ({"nas": 3}, "nas: a mapping is expected, got 3"),
    ({"modules": 3}, "modules: Python files are expected, got 3 ([my_ops.py])"),
    ({"pgi": 1}, "pgi: true, false or lead-guided is expected, got 1"),
]


def mistakes_of(raised: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        raised()
    return caught.value.mistakes


class TestMistakes:
    @pytest.mark.parametrize(("row", "reason"), ROW_MISTAKES)
    @pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # of PyTorch, for a block without channels
    def test_mistake_in_a_row_is_one_line_with_its_address(self, row: Any, reason: str, tmp_path: Path) -> None:
        file = written(tmp_path, document((1, row)))
        (mistake,) = mistakes_of(lambda: bases.load(file, ""))
        assert mistake.partition("mine.yaml: ")[2].startswith(f"backbone[1]: {reason}")
        assert "\n" not in mistake
        space = {"name": "x", "base": file, "slots": [{"at": {"layers": [2]}, "choices": {"UIB": {}}}]}
        assert mistakes_of(lambda: parse(space)) == (mistake,)

    @pytest.mark.parametrize(("settings", "reason"), SETTING_MISTAKES)
    def test_mistake_in_a_setting_is_one_line_with_its_address(
        self, settings: dict[str, Any], reason: str, tmp_path: Path
    ) -> None:
        (mistake,) = mistakes_of(lambda: model_reader.read_model(written(tmp_path, document(**settings))))
        assert mistake.startswith(f"mine.yaml: {reason}")

    def test_all_mistakes_of_a_model_file_are_reported_at_once(self, tmp_path: Path) -> None:
        content = document(
            (0, [-1, 1, "BAM", []]),
            (1, [-1, 1, "Conv", []]),
            (2, [-1, 1, "C2f_UIB", [32, {"headz": 2}]]),
            (4, [[2, 9], 1, "WorldDetect", ["nc", 512, False]]),
            activation="nn.Relu()",
        )
        assert [
            one.partition("mine.yaml: ")[2][:35]
            for one in mistakes_of(lambda: model_reader.read_model(written(tmp_path, content)))
        ] == [
            "activation: unknown activation 'nn.",
            "backbone[1]: Conv: output channels ",
            "head[1]: reads layer 9, which is no",
            "backbone[0]: unknown module 'BAM' (",
            "backbone[2]: C2f_UIB: UIB has no pa",
            "head[1]: only detection models can ",
        ]

    def test_file_without_a_model_is_refused(self, tmp_path: Path) -> None:
        (mistake,) = mistakes_of(lambda: model_reader.read_model(written(tmp_path, {"path": ".", "names": ["a"]})))
        assert mistake.startswith("mine.yaml: not a model YAML")

    def test_rounded_channels_are_noted(self, tmp_path: Path) -> None:
        reading = model_reader.read_model(written(tmp_path, document((1, [-1, 1, "Conv", [31.5, 3, 2]]))))
        assert reading.notes == ("backbone[1]: Conv has 32 channels, a multiple of 8, where the file says 31.5",)

    def test_settings_without_effect_are_noted(self, tmp_path: Path) -> None:
        content = document(ch=3, channels=3, arguments={"Cnv": ["in", "rest"], "Conv": ["in", "rest"]})
        reading = model_reader.read_model(written(tmp_path, content))
        assert reading.notes == ("arguments: no row names Cnv",)

    def test_last_row_that_is_no_head_is_refused(self, tmp_path: Path) -> None:
        (mistake,) = mistakes_of(lambda: bases.load(written(tmp_path, document((4, [-1, 1, "C2f", [32]]))), ""))
        assert mistake.endswith("head[1]: a head is expected in the last row, got C2f (Detect, v10Detect)")

    @pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov9c.yaml", "yolo11x.yaml", "yolo26n.yaml", "yolov10m.yaml"])
    def test_stock_models_have_no_notes(self, name: str) -> None:
        assert model_reader.read_model(name).notes == ()


class TestUltralytics:
    """Ultralytics' classes, which read rows with operators after this package is imported."""

    @pytest.mark.parametrize(
        "change",
        [
            {"activation": "[open('ran.txt', 'w').close(), nn.ReLU()][1]"},
            {"activation": "nn.LeakyReLU(len(open('ran.txt', 'w').name))"},
            {"backbone": [[-1, 1, "open", ["ran.txt", "w"]]]},
            {"backbone": [[-1, 1, "torch_safe_load", ["ran.pt"]]]},
            {"backbone": [[-1, 1, "TorchVision", [32, "resnet18", "DEFAULT", True, 2]]]},
        ],
    )
    def test_model_file_runs_no_code(
        self, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        content = {**document(), **change}
        for build_it in (
            lambda: tasks.DetectionModel(content, verbose=False),
            lambda: tasks.parse_model({**content, "nc": 2}, 3, verbose=False),
            lambda: YOLO(written(tmp_path, content)),
        ):
            assert mistakes_of(build_it)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]

    @pytest.mark.parametrize("name", ["yolov8n-pose.yaml", "yolov8n-seg.yaml", "yolov8n-cls.yaml", "yolov6n.yaml"])
    def test_models_for_other_tasks_are_built(self, name: str) -> None:
        assert isinstance(YOLO(name).model, nn.Module)

    def test_classifier_of_the_user_may_load_its_backbone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded: list[Any] = []

        def get_model(name: str, weights: Any = None) -> nn.Module:
            loaded.append(weights)
            model: nn.Module = vars(torchvision.models)[name]()
            return model

        content = {
            "nc": 2,
            "backbone": [[-1, 1, "TorchVision", [512, "resnet18", "DEFAULT", True, 2]]],
            "head": [[-1, 1, "Classify", ["nc"]]],
        }
        monkeypatch.setattr(torchvision.models, "get_model", get_model)
        assert tasks.ClassificationModel(content, verbose=False)
        monkeypatch.setitem(parser_hooks.PERMITTED, "downloads", True)
        parser_hooks.refuse_downloads()
        (mistake,) = mistakes_of(lambda: tasks.ClassificationModel(content, verbose=False))
        assert mistake.startswith("backbone[0]: TorchVision downloads weights")
        assert loaded == ["DEFAULT"]

    @pytest.mark.parametrize(
        ("model", "is_built"), [("resnet18", True), ("deeplabv3_resnet50", False), ("no_such_model", False)]
    )
    def test_backbone_without_weights_downloads_nothing(
        self, model: str, is_built: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("it downloads"))
        rows = [[-1, 1, "TorchVision", [512, model, None, True, 2, True]], [0, 1, "Index", [256, 7]]]
        content = {"nc": 2, "backbone": rows, "head": [[[1], 1, "Detect", ["nc"]]]}
        path = written(tmp_path, content)
        if is_built:
            assert isinstance(build.model(model_reader.model_document(path), 2), nn.Module)
        else:
            (mistake,) = mistakes_of(lambda: model_reader.model_document(path))
            assert mistake.startswith("mine.yaml: backbone[0]: TorchVision downloads weights")

    def test_classifier_of_torchvision_is_counted_without_its_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("it downloads"))
        reading = model_reader.read_model("yolo11-cls-resnet18.yaml", or_counted=True)
        assert reading.notes == ("TorchVision: its weights, which a model file may not ask to download, are left out",)
        counted = other_tasks.measure_any(reading.document, 1000, 224, deployed=False)
        assert counted.params == 13_115_432  # as Ultralytics prints

    def test_layer_that_the_program_added_to_ultralytics_is_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "Mine", type("Mine", (nn.Identity,), {"__module__": "mine"}), raising=False)
        assert tasks.DetectionModel(document((3, [-1, 1, "Mine", []])), verbose=False)

    def test_layers_that_do_not_fit_are_reported_by_row(self) -> None:
        content = document((3, [[0, 1], 1, "Concat", [1]]))
        with pytest.raises(LayerError, match=r"^head\[0\]: Concat cannot take 16x128x128 and 32x64x64: "):
            tasks.DetectionModel(content, verbose=False)

    def test_list_of_layers_is_that_of_ultralytics(self) -> None:
        found = {
            name
            for name, value in vars(tasks).items()
            if isinstance(value, type)
            and issubclass(value, nn.Module)
            and value.__module__.startswith("ultralytics.nn.modules")
        }
        assert found == layers.ULTRALYTICS | {layers.DOWNLOADING}


class TestActivation:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("nn.SiLU()", "torch.nn.SiLU()"),
            ("torch.nn.ReLU()", "torch.nn.ReLU()"),
            (" nn.LeakyReLU(0.1) ", "torch.nn.LeakyReLU(0.1)"),
            ("nn.LeakyReLU(-0.1)", "torch.nn.LeakyReLU(-0.1)"),
            ("nn.Hardswish(inplace=True)", "torch.nn.Hardswish(inplace=True)"),
            ("nn.GELU(approximate='tanh')", "torch.nn.GELU(approximate='tanh')"),
        ],
    )
    def test_activation_may_be_a_call(self, text: str, canonical: str) -> None:
        assert layers.activation(text) == canonical
        assert tasks.DetectionModel(document(activation=text), verbose=False)

    @pytest.mark.parametrize(
        "text",
        [
            "nn.SiLU",
            "nn.SiLU().__class__()",
            "nn.Conv2d(1, 2, 3)",
            "nn.ReLU(**{})",
            "nn.PReLU(10**9)",
            "nn.PReLU(1000000000)",
            "nn.ReLU() if True else 1",
            "os.system('ls')",
            "(" * 5000,
            "",
        ],
    )
    def test_invalid_activation_is_refused(self, text: str) -> None:
        assert len(mistakes_of(lambda: layers.activation(text))[0]) < 300


@pytest.mark.parametrize("name", ["SimAM", "SKAttention", "C3STR", "PConv", "GSConv", "PWConv", "CBAM", "WorldDetec7"])
def test_name_of_another_module_is_no_typo(name: str) -> None:
    assert typo_of(name, layers.ULTRALYTICS) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [("conv", "Conv"), ("Cnov", "Conv"), ("Concatt", "Concat"), ("Detetc", "Detect"), ("Cnv", "Conv")],
)
def test_typos_of_module_names_are_corrected(name: str, meant: str) -> None:
    assert typo_of(name, layers.ULTRALYTICS) == meant


def test_similar_module_names_are_suggested() -> None:
    assert nearest("SimAM", ["PSA", "SPP"]) == "one of PSA, SPP"
    assert nearest("UIBB", ["MMQA", "UIB"]) == "did you mean 'UIB'?"
    assert nearest("uib", ["MMQA", "UIB"]) == "did you mean 'UIB'?"
