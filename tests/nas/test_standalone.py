"""`modules.py`: a model without this package."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv

from nas.deployment import plain_process, standalone
from search_spaces import OPERATORS, Architecture, Choice, build, yaml_text
from search_spaces.architecture import Insertion
from search_spaces.errors import SpecError
from search_spaces.operators import modules, user_classes
from search_spaces.stored_model import StoredModel
from trials.data import datasets

CLASSES = 10
THEIRS = {2: "DCNv4", 3: "DynamicConv", 4: "UIB", 8: "MMQA", 13: "DySample"}
THEIRS |= {5: "GSConv", 7: "GhostModule", 9: "SPPCSPC", 10: "CARAFE", 12: "PConv", 15: "RepVGG", 16: "DSConv"}
THEIRS |= {11: "WeightedFusion", 18: "VoVGSCSP", 19: "SPDConv"}
INSERTED = {
    4: "SE", 5: "ECA", 6: "CBAM", 7: "CoordAtt", 8: "SimAM", 12: "EMA", 15: "GAM", 18: "ShuffleAttention", 21: "LSKA"
}  # fmt: skip
USERS_OPERATOR = '''\
"""A user's operator, some of whose names others have, too."""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules import Conv as Block, DWConv

from search_spaces.operators import Operator, Parameter, Site, SiteKind

CHEAP = 0.5


class Conv(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        half = int(c_out * CHEAP)
        self.primary, self.cheap = Block(c_in, c_out - half, 1), DWConv(c_out - half, half, kernel)

    def forward(self, x):
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


def _build(site: Site, *, kernel: int) -> Conv:
    return Conv(site.c_in, site.c_out, kernel)


GHOST = Operator(
    name="Ghost",
    module=Conv,
    parameters=(Parameter(name="kernel", default=5, allowed=(3, 5)),),
    kinds=(SiteKind.BLOCK,),
    build=_build,
    reference="GhostNet, arXiv 1911.11907",
)
'''


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "ghost.py"
    path.write_text(USERS_OPERATOR)
    modules.load(path)
    return path


@pytest.fixture
def every_operator(users_file: Path) -> Architecture:
    """Return a model with every operator of this package, one of a user's, and an inserted layer."""
    assert {*THEIRS.values(), *INSERTED.values(), "Ghost"} == {*OPERATORS}, f"and those of {users_file}"
    picks = {layer: Choice.of(name, {}) for layer, name in {**THEIRS, 6: "Ghost"}.items()}
    inserted = [Insertion(after=2, feeds="next", choice=Choice.of("UIB", {"start_kernel": 3}))]
    given = {"EMA": {"groups": 8}}
    inserted += [
        Insertion(after=layer, feeds="all", choice=Choice.of(name, given.get(name, {})))
        for layer, name in INSERTED.items()
    ]
    return Architecture.of("yolov9{scale}.yaml", "t", picks, inserted=inserted)


@pytest.fixture
def as_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that runs a text as the module `modules`; Ultralytics is as before after the test."""
    monkeypatch.setattr(tasks, "parse_model", tasks.parse_model)
    monkeypatch.setattr(tasks.BaseModel, "to", tasks.BaseModel.to)

    def run(text: str) -> ModuleType:
        module = ModuleType("modules")
        monkeypatch.setitem(sys.modules, "modules", module)
        exec(compile(text, "modules.py", "exec"), module.__dict__)  # noqa: S102 - what importing does
        return module

    return run


def imported(text: str) -> set[str]:
    """Top-level modules that a text imports, anywhere."""
    nodes = list(ast.walk(ast.parse(text)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_modules_need_nothing_of_this_project(every_operator: Architecture) -> None:
    rows = standalone.lowered_rows(every_operator.document(CLASSES))
    text, libraries = standalone.modules_text(rows, name="mine")
    assert not imported(text) & {*plain_process.FORBIDDEN}
    assert libraries == ()
    assert standalone.LINES.replace("\n", "\n    ") in text
    for file in ("search_spaces/operators/uib.py", "ghost.py", "AGPL-3.0", "the licence of its author"):
        assert file in text.partition("# SPDX")[0]
    assert max(map(len, text.splitlines())) <= 120
    assert "noqa" not in text


def test_modules_build_the_same_model(every_operator: Architecture, as_module: Callable[[str], ModuleType]) -> None:
    document = every_operator.document(CLASSES)
    ours = build.model(document, CLASSES).eval()
    module = as_module(standalone.modules_text(standalone.lowered_rows(document), name="mine")[0])
    theirs = build.model(document, CLASSES).eval()
    assert {type(one).__module__ for one in theirs.modules()} >= {"modules"}
    assert not [one for one in theirs.modules() if type(one).__module__.startswith(("search_spaces", "nas_user"))]
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(image)[0], theirs(image)[0])
    assert module.UIB.__doc__ == OPERATORS["UIB"].module.__doc__


def test_build_may_be_a_lambda(own_operator: str, tmp_path: Path, as_module: Callable[[str], ModuleType]) -> None:
    (tmp_path / "twice.py").write_text(own_operator)
    modules.load(tmp_path / "twice.py")
    document = Architecture.of("yolov9{scale}.yaml", "t", {4: Choice.of("Twice", {"kernel": 3})}).document(CLASSES)
    expected = build.model(document, CLASSES).state_dict()
    module = as_module(standalone.modules_text(standalone.lowered_rows(document), name="mine")[0])
    built = build.model(document, CLASSES)
    assert list(built.state_dict()) == [*expected]
    assert any(isinstance(one, module.Twice) for one in built.modules())


def test_build_that_has_no_name_is_refused(own_operator: str, tmp_path: Path) -> None:
    hidden = own_operator.replace(
        "build=lambda site, *, kernel:", "build=__import__('functools').partial(lambda site, kernel:"
    )
    hidden = hidden.replace("site.activation\n    ),", "site.activation\n    )),")
    (tmp_path / "twice.py").write_text(hidden)
    modules.load(tmp_path / "twice.py")
    document = Architecture.of("yolov9{scale}.yaml", "t", {4: Choice.of("Twice", {})}).document(CLASSES)
    with pytest.raises(
        SpecError, match=r"^twice.py: build of Twice cannot be copied; write it as a function at the top"
    ):
        standalone.modules_text(standalone.lowered_rows(document), name="mine")


PLAIN = """\
import sys
sys.path.insert(0, {project!r})
from nas_plain import Absent, FORBIDDEN
sys.meta_path.insert(0, Absent())
sys.path[:] = [{folder!r}, *sys.path[1:]]
if __name__ == "__main__":
{lines}
    model.train(data={data!r}, epochs=1, imgsz=64, batch=16, workers=0, plots=False, project={runs!r}, name="train")
    print(model.val(data={data!r}, imgsz=64, workers=0, plots=False, project={runs!r}, name="val").box.map)
    print(YOLO({runs!r} + "/train/weights/best.pt").export(format="onnx", imgsz=64))
    assert not [name for name in sys.modules if name.partition(".")[0] in FORBIDDEN]
"""


@pytest.mark.slow
def test_the_three_lines_train_validate_and_export_with_ultralytics_alone(
    every_operator: Architecture, scenes: datasets.DataSet, tmp_path: Path
) -> None:
    document = every_operator.document(CLASSES)
    stored = StoredModel.of(build.model(document, CLASSES), {"train_args": {}})
    folder = tmp_path / "standalone"
    text = every_operator.to_yaml(CLASSES, folder=tmp_path)
    assert "ghost.py" in text
    standalone.write(folder, name="mine", model_text=text, document=document, stored=stored)
    assert yaml_text.read_yaml(folder / "model.yaml")["nas"].get("modules") is None
    finder = tmp_path / "finder"
    finder.mkdir()
    (finder / "nas_plain.py").write_text(Path(plain_process.__file__).read_text())
    script = tmp_path / "script.py"
    lines = "\n".join(f"    {line}" for line in standalone.LINES.splitlines())
    script.write_text(
        PLAIN.format(
            project=str(finder),
            folder=str(folder),
            lines=lines,
            data=str(scenes.path),
            runs=str(tmp_path / "runs"),
        )
    )
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs" / "train" / "weights" / "best.onnx").is_file()


FORKED = """\
nc: 4
activation: nn.ReLU()
arguments: {Squeeze: [in, 8]}
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, halved, [32]]
  - [-1, 2, Twice, [32]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, yolov7.DownC, [64]]
  - [-1, 1, Squeeze, []]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 3], 1, Joined, [1]]
  - [[7, 5], 1, OwnHead, [nc]]
"""
FILES = {
    "__init__": "from .gates import *\nfrom .parts.joined import Joined\n",
    "common": """\
import torch
from torch import nn
from ultralytics.nn.modules import Conv, Detect

SCALE = 0.5


class Halve(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.conv = Conv(4 * c1, c2, 1)

    def forward(self, x):
        halves = [x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.conv(torch.cat(halves, 1))


def halved(c1, c2):
    return Halve(c1, c2)


class OwnHead(Detect):
    pass


if __name__ == "__main__":
    x = Halve(1, 2)
""",
    "gates": """\
from common import *


class Squeeze(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels // reduction, 1)
        self.back = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x):
        return x * self.back(self.fc(x.mean((2, 3), keepdim=True))).sigmoid() * SCALE


class Twice(nn.Sequential):
    def __init__(self, dim):
        super().__init__(Squeeze(dim), Conv(dim, dim))
""",
    "parts.joined": """\
from ..common import Conv, nn
from models.common import torch


class Joined(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.dimension = kwargs["dimension"]

    def forward(self, first, second):
        return torch.cat([first, second], self.dimension)
""",
}
"""Texts of a fork's folder `models`, whose files import each other in every way that forks know."""


class TestClassesOfAFork:
    @pytest.fixture(params=["folder", "file"])
    def forked(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Return the model file; its classes are loaded, of a folder or of one file."""
        if request.param == "folder":
            for name, text in FILES.items():
                path = tmp_path / "models" / f"{name.replace('.', '/')}.py"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text.replace("from common", "from .common"), encoding="utf-8")
            modules.load(tmp_path / "models")
        else:
            lines = "".join(FILES[name] for name in ("common", "gates", "parts.joined")).splitlines()
            kept = [one for one in lines if not any(f"from {name}" in one for name in ("common", "..", "models"))]
            (tmp_path / "fork.py").write_text("\n".join(kept), encoding="utf-8")
            modules.load(tmp_path / "fork.py")
        (tmp_path / "mine.yaml").write_text(FORKED, encoding="utf-8")
        return tmp_path / "mine.yaml"

    @pytest.fixture
    def architecture(self, forked: Path) -> Architecture:
        """Return the model with a class offered as an insertion, and an operator of this package."""
        assert modules.offer("Squeeze") is not None
        picks = {6: Choice.of("DySample", {})}
        inserted = [Insertion(after=3, feeds="all", choice=Choice.of("Squeeze", {"reduction": 8}))]
        return Architecture.of(str(forked), "", picks, inserted=inserted)

    def test_modules_build_the_same_layers(
        self, architecture: Architecture, as_module: Callable[[str], ModuleType]
    ) -> None:
        document = architecture.document(CLASSES)
        ours = build.model(document, CLASSES).model
        layers = standalone.placed_layers(document)
        text, libraries = standalone.modules_text(
            standalone.lowered_rows(document), name="mine", classes=standalone.row_classes(document, layers)
        )
        assert not imported(text) & {*plain_process.FORBIDDEN, "models", "common"}
        assert libraries == ()
        assert "__main__" not in text
        plain = yaml_text.parse_yaml(standalone.plain_model(architecture.to_yaml(CLASSES), document, layers))
        assert "arguments" not in plain
        assert plain["head"][-1] == [[8, 6], 1, "modules.OwnHead", ["nc", 16, False, [96, 64], {"channels": 0}]]
        as_module(text)
        theirs, saved = tasks.parse_model(plain, 3, verbose=False)
        found = {type(one).__module__ for one in theirs.modules()}
        assert not [one for one in found if one.startswith(("search_spaces", "ultralytics.nn.nas", "nas_user"))]
        assert [layer.f for layer in theirs] == [layer.f for layer in ours]
        assert {4, 6, 8} <= {*saved}  # behind the inserted layer, and what the head reads
        theirs.load_state_dict(ours.state_dict())
        assert repr(theirs[5]).count("ReLU") == repr(ours[5]).count("ReLU") > 0
        assert theirs[-1].nc == CLASSES
        assert theirs[-1].legacy is True

    @pytest.mark.parametrize("line", ["", "arguments: {C3k2_Own: [in, out, repeats, rest]}\n"])
    def test_class_taken_as_a_block_decides_the_branches_of_the_head(
        self, line: str, as_module: Callable[[str], ModuleType], tmp_path: Path
    ) -> None:
        text = "from ultralytics.nn.modules import C3k2\n\n\nclass C3k2_Own(C3k2):\n    pass\n"
        (tmp_path / "own.py").write_text(text, encoding="utf-8")
        modules.load(tmp_path / "own.py")
        written = "nc: 4\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 2, C3k2_Own, [32, False]]\nhead:\n"
        (tmp_path / "mine.yaml").write_text(f"{line}{written}  - [[-1], 1, Detect, [nc]]\n", encoding="utf-8")
        architecture = Architecture.of(str(tmp_path / "mine.yaml"), "", {})
        document = architecture.document(CLASSES)
        layers = standalone.placed_layers(document)
        as_module(standalone.modules_text({}, name="mine", classes=standalone.row_classes(document, layers))[0])
        plain = standalone.plain_model(architecture.to_yaml(CLASSES), document, layers)
        theirs, _ = tasks.parse_model(yaml_text.parse_yaml(plain), 3, verbose=False)
        theirs.load_state_dict(build.model(document, CLASSES).model.state_dict())
        assert type(theirs[-1].cv3[0][0]) is (Conv if line else nn.Sequential)

    def test_block_has_the_settings_of_the_layer_that_it_replaces(
        self, as_module: Callable[[str], ModuleType], tmp_path: Path
    ) -> None:
        text = "from ultralytics.nn.modules import C3k2\n\n\nclass C3k2_Own(C3k2):\n    pass\n"
        (tmp_path / "own.py").write_text(text, encoding="utf-8")
        modules.load(tmp_path / "own.py")
        assert modules.offer("C3k2_Own") is not None
        picks = {2: Choice.of("C3k2_Own", {}), 4: Choice.of("C3k2_Own", {"e": 0.5})}  # both rows have 0.25
        document = Architecture.of("yolo11m.yaml", "m", picks).document(CLASSES)
        ours = build.skeleton(document, CLASSES)
        as_module(standalone.modules_text(standalone.lowered_rows(document), name="mine")[0])
        theirs = build.skeleton(document, CLASSES)
        assert {type(theirs[index]).__module__ for index in picks} == {"modules"}
        assert [one.shape for one in theirs.parameters()] == [one.shape for one in ours.parameters()]
        replaced: list[Any] = [theirs[index] for index in picks]
        assert [(one.c, type(one.m[0]).__name__) for one in replaced] == [(64, "C3k"), (256, "C3k")]

    @pytest.mark.parametrize(("replaced", "after"), [([5], [6]), ([7], [4]), ([5], []), ([], [6])])
    def test_class_is_inserted_and_takes_the_place_of_a_convolution(
        self, replaced: list[int], after: list[int], as_module: Callable[[str], ModuleType], tmp_path: Path
    ) -> None:
        text = "from ultralytics.nn.modules import Conv\n\n\nclass Own(Conv):\n"
        text += "    def __init__(self, c1, c2, k=5, s=1):\n        super().__init__(c1, c2, k, s)\n"
        (tmp_path / "own.py").write_text(text, encoding="utf-8")
        modules.load(tmp_path / "own.py")
        assert modules.offer("Own") is not None
        choice = Choice.of("Own", {})
        inserted = [Insertion(after=layer, feeds="all", choice=choice) for layer in after]
        architecture = Architecture.of("yolo11n.yaml", "n", dict.fromkeys(replaced, choice), inserted=inserted)
        document = architecture.document(CLASSES)
        as_module(standalone.modules_text(standalone.lowered_rows(document), name="mine")[0])
        theirs = build.model(document, CLASSES).model
        made = [one for one in theirs if type(one).__module__ == "modules"]
        assert sorted(one.conv.kernel_size[0] for one in made) == [*[3] * len(replaced), *[5] * len(after)]

    def test_class_that_has_no_place_of_its_own_is_refused(self, tmp_path: Path) -> None:
        text = "from torch import nn\n\n\ndef made():\n    class Gate(nn.Identity):\n        pass\n    return Gate\n"
        (tmp_path / "own.py").write_text(f"{text}\n\nGate = made()\n", encoding="utf-8")
        modules.load(tmp_path / "own.py")
        found = {"Gate": user_classes.find("Gate")}
        assert found["Gate"] is not None
        with pytest.raises(SpecError, match=r"Gate: it cannot be copied, since it is no class at the top level"):
            standalone.modules_text({}, name="mine", classes=found)  # type: ignore[arg-type]

    @pytest.mark.slow
    def test_model_is_used_with_ultralytics_alone(self, architecture: Architecture, tmp_path: Path) -> None:
        document = architecture.document(CLASSES)
        stored = StoredModel.of(build.model(document, CLASSES), {"train_args": {}})
        text = architecture.to_yaml(CLASSES, folder=tmp_path)
        standalone.write(tmp_path / "out", name="mine", model_text=text, document=document, stored=stored)
        assert (tmp_path / "out" / "weights.pt").is_file()
