"""`modules.py`: a model without this package."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ultralytics.nn import tasks

from nas.deployment import plain_process, standalone
from search_spaces import OPERATORS, Architecture, Choice, build, yaml_text
from search_spaces.architecture import Insertion
from search_spaces.errors import SpecError
from search_spaces.operators import modules
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


def test_layers_without_a_record_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from torch import nn\n\n\nclass Gate(nn.Identity):\n    pass\n", encoding="utf-8")
    modules.load(tmp_path / "own.py")
    rows: list[list[object]] = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Gate", []], [-1, 1, "modules.Gate", []]]
    layers: list[list[object]] = [[-1, 1, "Gate", [{}]], [-1, 1, "yolov7.DownC", [32]]]
    document = {"nc": 2, "backbone": [*rows, *layers], "head": [[[0, 4], 1, "Detect", ["nc"]]]}
    with pytest.raises(SpecError) as caught:
        standalone.require_records(document)
    assert [mistake.partition(" cannot")[0] for mistake in caught.value.mistakes] == [
        "standalone: Gate: a class without a record",
        "standalone: yolov7.DownC: a layer for another repository's file",
    ]
