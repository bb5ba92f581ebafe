"""Models built from rows: hooks in Ultralytics, grafts, files for other machines, assumptions about Ultralytics."""

import inspect
import os
import random
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER

import search_spaces
from search_spaces import OPERATORS, Architecture, Choice, SearchSpace, build, rows, ultralytics_hooks
from search_spaces import base as bases
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators.dcnv4 import DCNv4Block
from search_spaces.operators.dynamic_conv import DynamicConv
from search_spaces.operators.dysample import DySample
from search_spaces.operators.mmqa import MMQA
from search_spaces.operators.uib import UIB

SpaceOf = Callable[[str], SearchSpace]
Awake = Callable[[nn.Module], nn.Module]

PICKS: dict[str, dict[int, tuple[str, dict[str, Any]]]] = {
    "v5": {
        0: ("DynamicConv", {}),
        2: ("UIB", {"start_kernel": 3}),
        3: ("UIB", {}),
        4: ("DCNv4", {"dw_kernel": 3}),
        6: ("MMQA", {"kv_stride": 2}),
        8: ("DynamicConv", {}),
        10: ("DynamicConv", {"kernels": 2}),
        11: ("DySample", {"dynamic_scope": True}),
        14: ("DCNv4", {}),
        15: ("DySample", {"style": "pl"}),
    },
    "v8": {
        2: ("UIB", {"layer_scale": 0.1}),
        4: ("DCNv4", {"center_scale": True}),
        5: ("DynamicConv", {}),
        6: ("MMQA", {"query_stride": 2}),
        8: ("DynamicConv", {}),
        10: ("DySample", {}),
        16: ("UIB", {"start_kernel": 5}),
    },
    "v9": {
        2: ("DCNv4", {"groups": 2}),
        3: ("DynamicConv", {}),
        4: ("UIB", {"start_kernel": 5}),
        5: ("UIB", {}),
        6: ("DynamicConv", {}),
        8: ("MMQA", {}),
        10: ("DySample", {}),
        13: ("DySample", {"style": "pl", "dynamic_scope": True}),
    },
}
"""Choices by layer, in every family, inside hosts and in their place."""

each_family = pytest.mark.parametrize("family", PICKS)

OTHER_TASK = "Detect or v10Detect); nas cost counts this one, and nas yolo trains a model for another task as it is"


def mixed(family: str, space_of: SpaceOf) -> Architecture:
    return space_of(family).of({layer: Choice.of(*choice) for layer, choice in PICKS[family].items()})


def tiny(*middle: list[Any], activation: str | None = None) -> dict[str, Any]:
    """Return a small detection model: these rows between stem and head, which reads the last of them."""
    document = {
        "nc": 2,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], *middle],
        "head": [[[len(middle) + 1], 1, "Detect", ["nc"]]],
    }
    return document | ({"activation": activation} if activation else {})


ROWS: dict[str, list[Any]] = {
    "UIB": [-1, 2, "C3_UIB", [16, {"start_kernel": 3}]],
    "UIB alone": [-1, 1, "UIB", [16, 3, 2, {}]],
    "MMQA": [-1, 2, "C2f_MMQA", [16, {"heads": 2}]],
    "DCNv4": [-1, 1, "C3_DCNv4", [16, {"groups": 2}]],
    "DCNv4 alone": [-1, 1, "DCNv4", [24, 1, 1, {"groups": 2}]],
    "DynamicConv": [-1, 1, "ELAN1_DynamicConv", [16, 16, 8, {"kernels": 2}]],
    "DynamicConv alone": [-1, 1, "DynamicConv", [16, 1, 1, {}]],
    "DySample": [-1, 1, "DySample", ["None", 2, "nearest", {}]],
    "inserted": [-1, 1, "SE", [{"reduction": 4}]],
    "inserted twice": [-1, 2, "CBAM", [{}]],
    "inserted in a fork": [-1, 1, "LSKA", [16]],
}
"""Rows of operators, in each of their forms, for 16 input channels."""

each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def in_a_fresh_process(code: str, folder: Path) -> str:
    """Return the output of code in a process that can import only this package and its dependencies."""
    package = Path(search_spaces.__file__).parents[1]
    quick = "import torch; torch.backends.mkldnn.enabled = False\n"
    done = subprocess.run(
        [sys.executable, "-c", quick + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package), "YOLO_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestHook:
    """Assumptions of the wrapped `parse_model` about Ultralytics; a new release that breaks them fails here."""

    def test_hook_is_installed_once(self) -> None:
        before = tasks.parse_model
        ultralytics_hooks.install(tasks)
        assert tasks.parse_model is before
        stock = inspect.unwrap(before)
        assert stock is not before
        assert (stock.__module__, stock.__name__) == ("ultralytics.nn.tasks", "parse_model")
        assert inspect.unwrap(before, stop=lambda f: f is not before) is stock  # wrapped once

    def test_hook_wraps_the_signature_that_ultralytics_calls(self) -> None:
        stock = inspect.unwrap(tasks.parse_model)
        parameters = inspect.signature(stock).parameters
        assert list(parameters) == ["d", "ch", "verbose"]
        assert parameters["verbose"].default is True

    def test_ultralytics_finds_the_hook_by_its_name_in_the_module(self) -> None:
        builders = [function for function in vars(tasks).values() if inspect.isfunction(function)]
        calling = [f.__name__ for f in builders if "parse_model" in f.__code__.co_names]
        assert calling

    def test_every_host_is_a_module_that_a_yaml_can_name(self) -> None:
        for name, host in HOSTS.items():
            named = getattr(nn, name.removeprefix("nn.")) if name.startswith("nn.") else vars(tasks)[name]
            assert named is host.module

    def test_ultralytics_has_no_module_of_our_names(self) -> None:
        assert not set(rows.names()) & set(vars(tasks))

    def test_installed_ultralytics_is_a_version_that_pyproject_allows(self) -> None:
        major, minor, patch = (int(part) for part in ultralytics.__version__.split(".")[:3])
        assert (8, 4, 190) <= (major, minor, patch) < (8, 5, 0)

    def test_hook_logs_operators_if_verbose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        messages: list[str] = []
        monkeypatch.setattr(LOGGER, "info", messages.append)
        tasks.parse_model(tiny(ROWS["UIB"], ROWS["DySample"]), 3, verbose=True)
        assert messages[-1] == "operators: 2 UIB, 3 DySample"

    def test_every_layer_is_in_train_mode_as_in_ultralytics(self) -> None:
        layers, _ = tasks.parse_model(tiny(*ROWS.values()), 3, verbose=False)  # DySample's channels are traced in eval
        assert all(module.training for module in layers.modules())

    def test_stock_models_are_not_changed(self) -> None:
        document = tiny([-1, 2, "C3", [16]])
        ours, save = tasks.parse_model(deepcopy(document), 3, verbose=False)
        stock, stock_save = inspect.unwrap(tasks.parse_model)(deepcopy(document), 3, verbose=False)
        assert (repr(ours), save) == (repr(stock), stock_save)


class TestRowOperator:
    @each_family
    def test_grafted_layer_has_the_attributes_that_ultralytics_routes_by(self, family: str, space_of: SpaceOf) -> None:
        architecture = mixed(family, space_of)
        ours = build.skeleton(architecture.document(80), 80)
        stock = build.skeleton(space_of(family).stock.document(80), 80)
        assert [(layer.i, layer.f) for layer in ours] == [(layer.i, layer.f) for layer in stock]
        assert all(layer.np == params(layer) for layer in ours)
        for layer, before in zip(ours, stock, strict=True):
            name = f"{type(layer).__module__}.{type(layer).__qualname__}"
            assert layer.type == (name if type(layer) is not type(before) else before.type)

    @each_family
    def test_list_of_saved_layers_is_that_of_ultralytics(self, family: str, space_of: SpaceOf) -> None:
        with torch.device("meta"):
            _, ours = tasks.parse_model(mixed(family, space_of).document(80), 3, verbose=False)
            _, stock = tasks.parse_model(space_of(family).stock.document(80), 3, verbose=False)
        assert ours == stock

    @each_row
    def test_operator_takes_the_activation_of_the_yaml(self, row: list[Any]) -> None:
        layers = build.skeleton(tiny(row, activation="nn.ReLU()"), 2)
        kinds = {type(module) for module in layers[2].modules()}
        assert nn.SiLU not in kinds
        assert nn.ReLU in kinds or row[2] in {"DySample", "SE", "CBAM", "LSKA"}
        assert isinstance(Conv.default_act, nn.SiLU)

    @pytest.mark.parametrize(
        ("row", "module"),
        [
            ([-1, 3, "DynamicConv", [16, 3, 1, {"kernels": 2}]], DynamicConv),
            ([-1, 2, "DCNv4", [16, 1, 1, {"groups": 2}]], DCNv4Block),
            ([-1, 2, "UIB", [16, 3, 2, {}]], UIB),
            ([-1, 2, "DySample", ["None", 2, "nearest", {}]], DySample),
        ],
    )
    def test_every_repeat_of_a_whole_layer_gets_an_operator(self, row: list[Any], module: type[nn.Module]) -> None:
        layer: Any = build.skeleton(tiny(row), 2)[2]
        assert [type(copy) for copy in layer] == [module] * row[1]
        assert (layer.i, layer.f, layer.np) == (2, -1, params(layer))

    def test_every_repeat_of_a_plain_host_gets_an_operator(self) -> None:
        layer: Any = build.skeleton(tiny([-1, 2, "RepNCSPELAN4_UIB", [16, 16, 8, 1, {}]]), 2)[2]
        assert sum(isinstance(module, UIB) for module in layer.modules()) == 4
        assert layer.np == params(layer)

    def test_repeats_inside_a_host_get_an_operator(self) -> None:
        layer: Any = build.skeleton(tiny([-1, 3, "C2f_UIB", [16, {}]]), 2)[2]
        assert [type(block) for block in layer.m] == [UIB] * 3

    def test_layer_without_a_site_is_refused(self) -> None:
        layer = nn.Upsample(None, 2, "nearest")
        with pytest.raises(SpecError, match=r"^nn\.Upsample has no site for UIB$"):
            build.graft(layer, HOSTS["nn.Upsample"], OPERATORS["UIB"], {}, c_in=16)

    def test_stem_of_yolov5_keeps_its_padding(self, space_of: SpaceOf) -> None:
        space = space_of("v5")
        architecture = space.of({0: Choice.of("DynamicConv", {}), 15: Choice.of("DySample", {})})
        stem = architecture.document(80)["backbone"][0]
        assert stem == [-1, 1, "DynamicConv", [16, 6, 2, 2, {"kernels": 4, "reduction": 4, "temperature": 30.0}]]
        assert build.model(architecture.document(80), 80).stride.tolist() == [8, 16, 32]


class TestModel:
    @each_family
    def test_yolo_reads_an_exported_file(self, family: str, space_of: SpaceOf, tmp_path: Path) -> None:
        architecture = mixed(family, space_of)
        path = tmp_path / "best.yaml"
        path.write_text(architecture.to_yaml(3), encoding="utf-8")
        model = YOLO(path, task="detect").model
        assert params(model) == params(build.model(architecture.document(3), 3))
        assert params(model) == params(build.skeleton(architecture.document(3), 3))
        assert repr(model.model) == repr(build.model(architecture.document(3), 3).model)

    @pytest.mark.slow
    @pytest.mark.parametrize("scale", ["v5:m", "v5:x", "v8:s", "v8:l", "v9:s", "v9:m", "v9:c", "v9:e"])
    def test_random_architectures_run_and_fuse_at_other_scales(
        self, scale: str, space_of: SpaceOf, awake: Awake
    ) -> None:
        architecture = space_of(scale).sample(random.Random(7))
        model = awake(build.model(architecture.document(3), 3)).eval()
        assert isinstance(model, tasks.DetectionModel)
        x = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            before, after = model(x)[0], model.fuse(verbose=False)(x)[0]
        assert (after - before).abs().max() <= 1e-4 * before.abs().max()

    def test_building_does_not_change_the_document(self, space_of: SpaceOf) -> None:
        document = mixed("v9", space_of).document(80)
        before = deepcopy(document)
        build.model(document, 3)
        build.skeleton(document, 3)
        assert document == before

    @each_family
    def test_fused_and_unfused_models_predict_the_same(self, family: str, space_of: SpaceOf, awake: Awake) -> None:
        model = awake(build.model(mixed(family, space_of).document(3), 3)).eval()
        assert isinstance(model, tasks.DetectionModel)
        present = {
            record.name for record in OPERATORS.values() for m in model.modules() if isinstance(m, record.module)
        }
        assert present == {operator for operator, _ in PICKS[family].values()}
        x = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            before, _ = model(x)
            after, _ = deepcopy(model).fuse(verbose=False)(x)
        assert before.isfinite().all()
        assert (after - before).abs().max() <= 1e-4 * before.abs().max()

    @each_row
    def test_model_with_an_operator_row_trains_one_step_and_fuses(self, row: list[Any], awake: Awake) -> None:
        model: Any = build.model(tiny(row), 2).train()
        raw = model(torch.rand(2, 3, 64, 64))
        raw["feats"][0].square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.model[:-1].parameters())
        model = awake(model).eval()
        x = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            before, after = model(x)[0], model.fuse(verbose=False)(x)[0]
        assert (after - before).abs().max() <= 1e-4 * before.abs().max()

    def test_a_fused_uib_holds_no_batch_norm(self) -> None:
        model = build.model(tiny(ROWS["UIB"], ROWS["UIB alone"]), 2).fuse(verbose=False)
        blocks = [module for module in model.modules() if isinstance(module, UIB)]
        assert len(blocks) == 3
        assert not any(isinstance(module, nn.BatchNorm2d) for block in blocks for module in block.modules())

    def test_fused_attention_keeps_norms_before_pooled_queries_only(self) -> None:
        row = [-1, 1, "C2f_MMQA", [16, {"kv_stride": 2, "query_stride": 2}]]
        model = build.model(tiny(row), 2).fuse(verbose=False)
        (attention,) = (module for module in model.modules() if isinstance(module, MMQA))
        norms = [name for name, module in attention.named_modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms == ["query_pool.1"]


class TestPortableFiles:
    def test_checkpoint_contains_operator_layers(self, tmp_path: Path) -> None:
        model = build.model(tiny(*(ROWS[name] for name in ("UIB", "MMQA", "DCNv4", "DynamicConv", "DySample"))), 2)
        torch.save({"model": model}, tmp_path / "best.pt")
        code = """
import sys
from ultralytics import YOLO
assert "search_spaces" not in sys.modules
model = YOLO("best.pt").model
print(sum(parameter.numel() for parameter in model.parameters()))
model.eval()(torch.rand(1, 3, 64, 64))
again = type(model)(model.yaml, verbose=False)  # as Ultralytics' trainer does
print(sum(parameter.numel() for parameter in again.parameters()))
"""
        assert in_a_fresh_process(code, tmp_path).split() == [str(params(model))] * 2

    def test_plain_ultralytics_refuses_operator_rows_and_reads_the_rest(
        self, space_of: SpaceOf, tmp_path: Path
    ) -> None:
        stock = space_of("v8").stock
        (tmp_path / "ours.yaml").write_text(yaml.safe_dump(tiny(ROWS["UIB"])), encoding="utf-8")
        (tmp_path / "mixed.yaml").write_text(mixed("v8", space_of).to_yaml(80), encoding="utf-8")
        (tmp_path / "stock.yaml").write_text(stock.to_yaml(80), encoding="utf-8")
        code = """
import sys
from ultralytics import YOLO
for name in ("ours.yaml", "mixed.yaml"):
    try:
        YOLO(name, task="detect")
    except KeyError as error:
        print(error.args[0])
print(sum(parameter.numel() for parameter in YOLO("stock.yaml", task="detect").model.parameters()))
assert "search_spaces" not in sys.modules
"""
        expected = ["C3_UIB", "C2f_UIB", str(params(build.skeleton(stock.document(80), 80)))]
        assert in_a_fresh_process(code, tmp_path).split() == expected


UIB_ROWS = "it stands in Bottleneck, C3, C2f, C3k2, C2fCIB, A2C2f, RepNCSPELAN4"


class TestMistakes:
    def test_all_rows_that_cannot_be_built_are_reported_at_once(self) -> None:
        document = tiny(
            [-1, 1, "Cnv", [16]],
            [-1, 1, "C3_UBI", [16, {}]],
            [-1, 1, "C3_UIB", [16, {"expansion": 5, "kernel": 3}]],
            [-1, 1, "SPPF_UIB", [16, {}]],
            [-1, 1, "Conv_DynamicConv", [16, {}]],
            [-1, 1, "nn.Identity", []],
        )
        with pytest.raises(SpecError) as caught:
            build.skeleton(document, 2)
        assert list(caught.value.mistakes) == [
            "backbone[2]: unknown module 'Cnv' (did you mean 'Conv'?)",
            "backbone[3]: unknown module 'C3_UBI' (did you mean 'C3_UIB'?)",
            "backbone[4]: C3_UIB: not a value of expansion, got 5 (one of 1, 2, 3, 4, 6)",
            "backbone[4]: C3_UIB: UIB has no parameter 'kernel' (did you mean 'mid_kernel'?)",
            f"backbone[5]: SPPF_UIB: no such row ({UIB_ROWS})",
            (
                "backbone[6]: Conv_DynamicConv: no such row (it stands in Bottleneck, C3, C2f, C3k2, A2C2f, "
                "RepNCSPELAN4, ELAN1, SPPF, SPPELAN, AConv, ADown, SCDown)"
            ),
        ]

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            (
                [-1, 1, "C3_DCNv4", [16, {"groups": 16}]],
                "backbone[2]: DCNv4 cannot stand in C3 here: 16 groups do not divide 8 channels",
            ),
            (
                [-1, 2, "DCNv4", [16, 3, 2, {}]],
                "backbone[2]: DCNv4 cannot stand in Conv here: it needs stride 1",
            ),
            (
                [-1, 1, "UIB", [32, 3, 1, {}]],
                (
                    "backbone[2]: UIB cannot stand in Conv here: as a whole layer at stride 1 it adds its input, and "
                    "16 channels are not 32"
                ),
            ),
            (
                [-1, 1, "ELAN1_UIB", [16, 16, 8, {}]],
                f"backbone[2]: ELAN1_UIB: no such row ({UIB_ROWS})",
            ),
        ],
    )
    def test_row_that_does_not_fit_its_place_is_refused(self, row: list[Any], expected: str) -> None:
        with pytest.raises(SpecError) as caught:
            build.model(tiny(row), 2)
        assert list(caught.value.mistakes) == [expected]

    @pytest.mark.parametrize(
        ("name", "head"),
        [
            (
                "yolov8n-seg.yaml",
                "head[12]: only detection models can be searched, got Segment",
            ),
            (
                "yolov8n-pose.yaml",
                "head[12]: only detection models can be searched, got Pose",
            ),
            (
                "yolov8n-obb.yaml",
                "head[12]: only detection models can be searched, got OBB",
            ),
            (
                "yolov8n-cls.yaml",
                "head[0]: only detection models can be searched, got Classify",
            ),
            (
                "yolov9c-seg.yaml",
                "head[12]: only detection models can be searched, got Segment",
            ),
            (
                "rtdetr-l.yaml",
                "head[18]: only detection models can be searched, got RTDETRDecoder",
            ),
        ],
    )
    def test_models_for_another_task_are_refused(self, name: str, head: str) -> None:
        with pytest.raises(SpecError) as caught:
            build.model(tasks.yaml_model_load(name), 2)
        assert list(caught.value.mistakes) == [f"{head} ({OTHER_TASK}"]

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({}, "not a model YAML: `backbone` and `head` must be lists of rows [from, repeats, module, arguments]"),
            (
                {"nc": 2, "backbone": [], "head": [[[0], 1, "Detect", ["nc"]]]},
                "not a model YAML: `backbone` and `head` must be lists of rows [from, repeats, module, arguments]",
            ),
            (
                {**tiny(), "nc": "many"},
                "nc: the number of classes is expected, got 'many'",
            ),
            (
                {"nc": 2, "backbone": [[-1, 1, "Conv"]], "head": [[[0], 1, "Detect", ["nc"]]]},
                "backbone[0]: not a row, got [-1, 1, 'Conv'] ([from, repeats, module, arguments])",
            ),
        ],
    )
    def test_documents_that_are_no_model_are_refused(self, document: dict[str, Any], expected: str) -> None:
        with pytest.raises(SpecError) as caught:
            build.skeleton(document, 2)
        assert list(caught.value.mistakes) == [expected]


class TestRows:
    @pytest.mark.parametrize("name", rows.names())
    def test_every_row_name_is_parsed(self, name: str) -> None:
        lowered = rows.lower([-1, 2, name, [16, 3, 1, {}]])
        assert lowered is not None
        assert lowered.row == [-1, 2, lowered.host.name, [16, 3, 1]]
        assert name in {f"{lowered.host.name}_{lowered.operator.name}", lowered.operator.name}
        assert lowered.parameters == lowered.operator.complete({})

    def test_mapping_of_a_row_may_be_left_out(self) -> None:
        with_it, without = rows.lower([-1, 1, "C3_UIB", [16, {}]]), rows.lower([-1, 1, "C3_UIB", [16]])
        assert with_it == without

    def test_stock_rows_are_not_changed(self) -> None:
        assert rows.lower([-1, 1, "C3", [16]]) is None
        assert rows.lower([[-1, 6], 1, "Concat", [1]]) is None

    @each_family
    def test_lowering_is_the_inverse_of_writing(self, family: str, space_of: SpaceOf) -> None:
        space = space_of(family)
        base = bases.load(space.base, space.scale)
        document = mixed(family, space_of).document(80)
        written = [*document["backbone"], *document["head"]]
        for layer, (operator, given) in PICKS[family].items():
            lowered = rows.lower(written[layer])
            assert lowered is not None
            assert lowered.operator.name == operator
            assert lowered.parameters == OPERATORS[operator].complete(given)
            if lowered.host.name == base.rows[layer][2]:
                assert lowered.row == base.rows[layer]


def test_shapes_at_the_first_scale_need_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {**tiny([-1, 1, "Conv", [16, 3, 1]]), "scales": {"w": [1.0, 0.5, 64], "v": [1.0, 2.0, 64]}}
    warnings: list[str] = []
    monkeypatch.setattr(LOGGER, "warning", warnings.append)
    built: Any = build.skeleton(document, 2)
    assert not warnings
    assert built[-2].conv.out_channels == 8
