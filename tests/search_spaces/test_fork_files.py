"""Python files of forks as they are found: encodings, whole repositories, registries, classes that miss a package."""

import email
import re
from pathlib import Path

import pytest
from torch import nn
from ultralytics.utils import LOGGER, checks

from search_spaces import build, model_reader
from search_spaces.errors import SpecError
from search_spaces.operators import Site, SiteKind, modules, packages, user_classes
from search_spaces.placed import PLACED
from trials.costing import cost

LAYER = """
class {name}(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.layer = {layer}
    def forward(self, x):
        return self.layer(x)
"""
IMPORTS = "import torch\nimport torch.nn as nn\n"


def layer(name: str, built: str = "nn.Conv2d(c1, c2, 1)") -> str:
    return LAYER.format(name=name, layer=built)


def write(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def model(folder: Path, row: str, scales: str = "") -> Path:
    text = f"nc: 2\n{scales}\nbackbone:\n  - [-1, 1, Conv, [64, 3, 2]]\n  - [-1, 1, Conv, [64, 3, 2]]\n  - {row}\n"
    (folder / "model.yaml").write_text(text + "head:\n  - [[2], 1, Detect, [nc]]\n", encoding="utf-8")
    return folder / "model.yaml"


def summary(path: Path) -> str:
    """Return what was built of the user's class of a model."""
    built = build.skeleton(model_reader.model_document(str(path)), 2)
    return PLACED[built[2]].summary


class TestEncodings:
    TEXT = f"# 注意力\n{IMPORTS}{layer('Plain')}"

    @pytest.mark.parametrize(
        ("encoding", "first"), [("utf-8-sig", ""), ("gbk", "# -*- coding: gbk -*-\n"), ("utf-8", "")]
    )
    def test_file_is_read_as_python_reads_it(self, encoding: str, first: str, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(first + self.TEXT, encoding=encoding)
        source = modules.read(tmp_path / "own.py")
        assert "注意力" in source.text
        (tmp_path / "copy.py").write_text(source.text, encoding="utf-8")
        assert modules.read(tmp_path / "copy.py").text == source.text

    @pytest.mark.parametrize("content", [TEXT.encode("gbk"), b"# coding: hex\n", b"# coding: none\n", b"# \xff\xfe"])
    def test_file_that_is_no_text_is_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_bytes(content)
        with pytest.raises(SpecError, match=r"/own\.py: not a text file \(UTF-8 is expected, or a first line"):
            modules.read(tmp_path / "own.py")

    @pytest.mark.parametrize(
        ("named", "meant"),
        [("parts", "parts.py"), ("of.parts", "of/parts"), ("email.mime", str(Path(email.__file__).parent / "mime"))],
    )
    def test_package_named_as_in_an_import_is_answered_with_its_place(
        self, named: str, meant: str, tmp_path: Path
    ) -> None:
        write(tmp_path, {"parts.py": "", "of/parts/__init__.py": ""})
        with pytest.raises(SpecError) as caught:
            modules.read(tmp_path / named)
        assert str(caught.value).endswith(f"; a file or a folder is expected: {tmp_path / meant})")

    def test_file_of_a_folder_that_cannot_be_read_is_left_out(self, tmp_path: Path) -> None:
        folder = write(tmp_path, {"parts/one.py": IMPORTS + layer("Readable"), "parts/none.py": ""}) / "parts"
        (folder / "other.py").write_text(self.TEXT, encoding="gbk")
        (folder / "none.py").unlink()
        (folder / "none.py").symlink_to(folder / "absent.py")
        modules.load(folder)
        assert summary(model(tmp_path, "[-1, 1, Readable, [32]]")).startswith("Readable(64, 32): ")
        reason = (
            "not a text file (UTF-8 is expected, or a first line that names another encoding: # -*- coding: gbk -*-)"
        )
        assert user_classes.left_out()[-2:] == [
            "parts/none.py is left out: cannot be read (No such file or directory)",
            f"parts/other.py is left out: {reason}",
        ]
        with pytest.raises(SpecError) as wrong:
            model_reader.model_document(str(model(tmp_path, "[-1, 1, Plain, [32]]")))
        assert (
            str(wrong.value) == f"model.yaml: backbone[2]: Plain of parts/other.py, which cannot be imported: {reason}"
        )


class TestWholeFork:
    def test_of_a_repository_only_its_layers_are_run(self, tmp_path: Path) -> None:
        (tmp_path / "fork").mkdir()
        texts = {
            "train.py": "raise RuntimeError('run')",
            "ultralytics/utils/__init__.py": "raise RuntimeError('run')",
            "ultralytics/nn/modules/own.py": IMPORTS + layer("OfARepository"),
        }
        for named in ("fork", "fork/ultralytics"):
            modules.load(write(tmp_path / "fork", texts).parent / named)
            row = model(tmp_path, "[-1, 1, OfARepository, [32]]")
            assert summary(row) == "OfARepository(64, 32): 64x64x64 to 32x64x64"

    def test_of_a_fork_of_yolov5_only_its_models_are_run(self, tmp_path: Path) -> None:
        imports = f"{IMPORTS}from models.common import OfYolov5\n"
        texts = {
            "train.py": "raise RuntimeError('run')",
            "models/common.py": IMPORTS + layer("OfYolov5"),
            "models/experimental.py": imports + layer("Wider", "OfYolov5(c1, c2)"),
        }
        modules.load(write(tmp_path / "fork", texts))
        assert summary(model(tmp_path, "[-1, 1, Wider, [32]]")) == "Wider(64, 32): 64x64x64 to 32x64x64"

    def test_any_other_folder_is_taken_as_it_is(self, tmp_path: Path) -> None:
        write(tmp_path, {"nn/modules/own.py": IMPORTS, "beside.py": IMPORTS})
        assert "'beside':" in packages.bundled(tmp_path)

    def test_torchscript_finds_the_text(self, tmp_path: Path) -> None:
        text = "@torch.jit.script\ndef doubled(x):\n    return 2 * x\n" + layer("Scripted")
        write(tmp_path, {"parts/one.py": IMPORTS + text.replace("self.layer(x)", "doubled(self.layer(x))")})
        modules.load(tmp_path / "parts")
        assert summary(model(tmp_path, "[-1, 1, Scripted, [32]]")).startswith("Scripted(64, 32): ")

    @pytest.mark.parametrize("is_allowed", [True, False])
    def test_nothing_is_installed_for_a_file_that_asks_for_it(
        self, is_allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(checks, "AUTOINSTALL", is_allowed)
        monkeypatch.setattr(checks, "ONLINE", False)
        caplog.set_level("WARNING", logger=LOGGER.name)
        text = f"from ultralytics.utils import checks\nchecks.check_requirements('no-package-{is_allowed}')\n"
        text += "checks.LOGGER.warning('of the file itself')\nimport no_package\n" + layer("Text", "no_package.Text()")
        modules.load(write(tmp_path, {"parts/one.py": IMPORTS + layer("Wanted"), "parts/text.py": text}) / "parts")
        assert [record.message for record in caplog.records] == ["of the file itself"]
        assert checks.AUTOINSTALL is is_allowed


class TestWhatIsNotHere:
    def test_only_the_class_that_needs_it_is_refused(self, tmp_path: Path) -> None:
        text = layer("Whole") + "class Derived(Unknown, nn.Module):\n    pass\n"
        text += layer("Inside", "Derived(c1, c2)")
        write(tmp_path, {"own.py": IMPORTS + "from no_package import *\n" + text})
        modules.load(tmp_path / "own.py")
        assert summary(model(tmp_path, "[-1, 1, Whole, [32]]")).startswith("Whole(64, 32): ")
        with pytest.raises(SpecError) as wrong:
            model_reader.model_document(str(model(tmp_path, "[-1, 1, Derived, [32]]")))
        reason = "Derived, which cannot be defined: name 'Unknown' is not defined"
        reason += " (no_package is not here: if the fork has it, name its folder, --modules FOLDER)"
        assert str(wrong.value) == f"model.yaml: backbone[2]: Derived of own.py: it needs {reason}"
        with pytest.raises(SpecError, match=rf"^backbone\[2\]: Inside of own.py: it needs {re.escape(reason)}$"):
            summary(model(tmp_path, "[-1, 1, Inside, [32]]"))

    def test_our_operator_is_not_taken_for_a_class_whose_file_fails(self, tmp_path: Path) -> None:
        failing = f"{IMPORTS}{layer('GSConv')}raise ValueError('no GPU')\n"
        modules.load(write(tmp_path, {"parts/good.py": IMPORTS + layer("Good"), "parts/bad.py": failing}) / "parts")
        reason = "parts/bad.py, which cannot be imported: ValueError: no GPU"
        with pytest.raises(SpecError) as wrong:
            model_reader.model_document(str(model(tmp_path, "[-1, 1, GSConv, [32, 3]]")))
        assert str(wrong.value) == f"model.yaml: backbone[2]: GSConv of {reason}"
        with pytest.raises(SpecError, match=r"^GSConv of parts/bad\.py, which cannot be imported"):
            modules.offer("GSConv")
        with pytest.raises(SpecError, match=r"GSConv of parts/bad\.py, which"):
            model_reader.model_document(str(model(tmp_path, "[[-1], 1, GSConv, [32, 3]]")))

    def test_head_that_cannot_be_defined_is_said_once(self, tmp_path: Path) -> None:
        write(tmp_path, {"own.py": f"{IMPORTS}{layer('Whole')}class Detect_Own(Unknown):\n    pass\n"})
        modules.load(tmp_path / "own.py")
        path = model(tmp_path, "[-1, 1, Whole, [32]]")
        path.write_text(path.read_text().replace("Detect", "Detect_Own"))
        with pytest.raises(SpecError) as wrong:
            model_reader.read_model(str(path), or_counted=True)
        (mistake,) = wrong.value.mistakes
        assert mistake.startswith("model.yaml: head[0]: Detect_Own of own.py: it needs Detect_Own, which cannot be")

    def test_registries_of_packages_that_are_not_here_are_left_out(self, tmp_path: Path) -> None:
        text = "from no_package import MODELS, build, Registry\nOWN = Registry('own')\nbuild(OWN)\n"
        text += (
            "@MODELS.register_module()" + layer("Registered") + "@MODELS" + layer("Named") + "@OWN.add" + layer("Own")
        )
        modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
        for name in ("Registered", "Named", "Own"):
            assert summary(model(tmp_path, f"[-1, 1, {name}, [32]]")).startswith(f"{name}(64, 32): ")

    def test_stand_in_of_a_base_class_has_attributes(self, tmp_path: Path) -> None:
        text = "from no_package import Base\nclass Derived(Base):\n    pass\n" + layer("Whole", "Derived.made(c1)")
        modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
        with pytest.raises(SpecError, match=r"Whole of own.py: it needs Derived.made of no_package"):
            summary(model(tmp_path, "[-1, 1, Whole, [32]]"))

    def test_name_that_an_import_in_a_try_leaves_out_is_said_alone(self, tmp_path: Path) -> None:
        text = "try:\n    from no_package import scan\nexcept ImportError:\n    pass\n" + layer("Scanned", "scan(c1)")
        modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
        with pytest.raises(SpecError) as wrong:
            summary(model(tmp_path, "[-1, 1, Scanned, [32]]"))
        assert str(wrong.value) == "backbone[2]: Scanned of own.py: name 'scan' is not defined"

    def test_mistake_in_a_file_with_a_record_is_raised(self, tmp_path: Path) -> None:
        text = "from search_spaces.operators import Operator\nclass Mine(Unknown):\n    pass\n" + layer("Whole")
        with pytest.raises(SpecError, match="cannot be imported: NameError: name 'Unknown' is not defined"):
            modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")

    def test_file_without_any_layer_left_says_why(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="cannot be imported: NameError: name 'Unknown' is not defined"):
            modules.load(write(tmp_path, {"own.py": f"{IMPORTS}class Mine(Unknown):\n    pass\n"}) / "own.py")


@pytest.mark.parametrize(
    "line",
    [
        "from ultralytics.nn.modules.block import *",
        "from ultralytics.nn.modules import *",
        "from ..modules.block import *",
        "from ultralytics.nn.modules import C3k, autopad",
        "from .conv import C3k, autopad",
    ],
)
def test_name_of_ultralytics_is_found_in_whichever_of_its_files_it_is(line: str, tmp_path: Path) -> None:
    text = f"{IMPORTS}{line}\nassert autopad(3) == 1\nclass Mine(C3k):\n    pass\n"
    modules.load(write(tmp_path, {"parts/own.py": text.replace("from .conv", "from ..modules.conv")}) / "parts")
    modules.load(write(tmp_path, {"own.py": text}) / "own.py")
    found = user_classes.every("Mine")
    assert {[one.__name__ for one in theirs.module.__mro__][1] for theirs in found} == {"C3k"}


class TestReadings:
    def test_maps_are_counted_where_the_constructor_wants_their_number(self, tmp_path: Path) -> None:
        text = (
            "class Weighted(nn.Module):\n"
            "    def __init__(self, length):\n"
            "        super().__init__()\n"
            "        self.weight = nn.Parameter(torch.ones(length))\n"
            "    def forward(self, x):\n"
            "        return sum(weight * one for weight, one in zip(self.weight, x))\n"
        )
        modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
        assert summary(model(tmp_path, "[[1, 1], 1, Weighted, []]")).startswith("Weighted(2): ")

    def test_word_is_not_taken_for_a_list_of_channels(self, tmp_path: Path) -> None:
        text = (
            "class Fused(nn.Module):\n"
            "    def __init__(self, inc_list, fusion='weight'):\n"
            "        super().__init__()\n"
            "        self.layers = nn.ModuleList(nn.Conv2d(one, one, 1) for one in inc_list if fusion == 'adaptive')\n"
            "        self.weight = nn.Parameter(torch.ones(len(inc_list)))\n"
            "    def forward(self, x):\n"
            "        return sum(weight * one for weight, one in zip(self.weight, x))\n"
        )
        modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
        path = model(tmp_path, "[[1, 1], 1, Fused, [adaptive]]")
        assert summary(path).startswith("Fused([64, 64], 'adaptive'): ")

    @pytest.mark.parametrize(("row", "given"), [("[256]", "64, 64"), ("[128, 3]", "64, 32, 3")])
    def test_channels_that_come_out_are_scaled_whatever_they_are_called(
        self, row: str, given: str, tmp_path: Path
    ) -> None:
        text = (
            "class Hidden(nn.Module):\n"
            "    def __init__(self, in_channels, hidden_dim=0, k=1):\n"
            "        super().__init__()\n"
            "        self.layer = nn.Conv2d(in_channels, hidden_dim, k, padding=k // 2)\n"
            "    def forward(self, x):\n"
            "        return self.layer(x)\n"
        )
        modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
        path = model(tmp_path, f"[-1, 1, Hidden, {row}]", "scales: {n: [0.5, 0.25, 1024]}".replace("64", "256"))
        path.write_text(path.read_text().replace("Conv, [64", "Conv, [256"))
        assert summary(path).startswith(f"Hidden({given}): ")


def test_warnings_of_a_file_are_not_shown(tmp_path: Path) -> None:
    write(tmp_path, {"own.py": f"{IMPORTS}import warnings\nwarnings.warn('old', FutureWarning)\n{layer('Warns')}"})
    modules.load(tmp_path / "own.py")
    assert issubclass(user_classes.every("Warns")[0].module, nn.Module)


@pytest.mark.parametrize("name", ["f", "type"])
def test_choice_with_an_attribute_that_ultralytics_sets_is_refused_by_trying(name: str, tmp_path: Path) -> None:
    text = layer("Gate").replace("self.layer", f"self.{name}")
    modules.load(write(tmp_path, {"own.py": IMPORTS + text}) / "own.py")
    record = modules.offer("Gate")
    assert record is not None
    site = Site(path="", kind=SiteKind.LAYER, c_in=32, c_out=32, kernel=3, stride=1, groups=1, activation=nn.SiLU())
    reason = record.incompatibility(site, {})
    assert reason == f"it has {name} of its own, which Ultralytics sets on every layer (another name)"


class TestMachine:
    """Classes written for another machine or another release."""

    BODY = """
class {name}(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.layer = {layer}
        self.register_buffer("factor", torch.ones(1{where}))
    def forward(self, x):
        return self.layer(x) * self.factor * {factor}
"""

    @pytest.mark.parametrize(
        ("name", "layer_of", "where", "factor"),
        [
            ("CudaInside", "nn.Conv2d(c1, c2, 1)", "", "torch.ones(1).cuda()"),
            ("CudaNamed", "nn.Conv2d(c1, c2, 1).to('cuda')", ", device='cuda:0'", "torch.arange(1, device='cuda')"),
            ("CudaMoved", "nn.Conv2d(c1, c2, 1).cuda()", "", "int(x.abs().mean().item() > -1)"),
        ],
    )
    def test_class_that_names_cuda_is_built_without(
        self, name: str, layer_of: str, where: str, factor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        text = IMPORTS + self.BODY.format(name=name, layer=layer_of, where=where, factor=factor)
        modules.load(write(tmp_path, {"own.py": text}) / "own.py")
        path = model(tmp_path, f"[-1, 1, {name}, [32]]")
        document = model_reader.model_document(str(path))
        assert cost.measure(document, 2, 64, deployed=False).layers[2].params == 64 * 32 + 32

    def test_functions_that_ultralytics_has_elsewhere_now_are_found(self, tmp_path: Path) -> None:
        text = (
            f"{IMPORTS}from ultralytics.utils.torch_utils import make_divisible\n"
            "from ultralytics.yolo.utils.tal import make_anchors\nfrom utils.general import xywh2xyxy\n"
            f"assert make_anchors and xywh2xyxy\n{layer('Divisible', 'nn.Conv2d(c1, make_divisible(c2 - 3, 8), 1)')}"
        )
        modules.load(write(tmp_path, {"own.py": text}) / "own.py")
        assert summary(model(tmp_path, "[-1, 1, Divisible, [32]]")).startswith("Divisible(64, 32): ")
