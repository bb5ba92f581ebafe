"""Commands that read a model file: data from anyone, and one line with an address for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import nas as package
from nas.cli import app

pytestmark = pytest.mark.usefixtures("no_module_is_trusted")

OPERATOR = """
from torch import nn
from search_spaces.operators import Operator, SiteKind

class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * self.gate(x).sigmoid()

GATE = Operator(
    name="OwnGate",
    module=Gate,
    parameters=(),
    kinds=(SiteKind.LAYER,),
    build=lambda site: Gate(site.c_in),
    reference="",
    incompatibility=lambda site, chosen: None if site.c_in == site.c_out and site.stride == 1 else "it keeps channels",
)
"""
MODEL = """
nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, OwnGate, [32]]
head:
  - [-1, 1, SPPF, [32, 5]]
  - [[2, 4], 1, Detect, [nc]]
"""
COMMANDS = (("cost",), ("check", "--no-cache", "--model"), ("spaces", "derive"))


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_ops.py").write_text(f"{OPERATOR}\nopen('ran.txt', 'w').close()\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (
            "OwnGate, [32]",
            "SKAttention, []",
            "backbone[3]: unknown module 'SKAttention' (an attention of the file's own fork",
        ),
        ("OwnGate, [32]", "torch_safe_load, [a.pt]", "backbone[3]: torch_safe_load is no layer"),
        ("OwnGate, [32]", "C2f, [32, 1, 2, 3, 4, 5]", "backbone[3]: C2f cannot be built of [32, 1, 2, 3, 4, 5]: "),
        ("OwnGate, [32]", "nn.Conv2d, [3, 8, 3]", "backbone[3]: nn.Conv2d cannot take 32x"),
        ("nc: 2", 'nc: 2\nactivation: \'[open("ran.txt", "w"), nn.ReLU()][1]\'', "activation: nn.SiLU(), or another"),
        ("nc: 2", "nc: 2\nnas: {modules: [my_ops.py]}", "modules[0]: "),
        ("nc: 2", "nc: 2\nmodules: [my_ops.py]", "modules[0]: "),
        ("nc: 2", "nc: 2\nnc: 3", "not YAML: line 3: the key 'nc' appears twice"),
    ],
)
def test_mistake_in_a_model_file_is_one_line_and_status_2(
    command: tuple[str, ...], before: str, after: str, problem: str, folder: Path
) -> None:
    (folder / "mine.yaml").write_text(MODEL.replace(before, after), encoding="utf-8")
    result = nas(*command, "mine.yaml")
    assert result.exit_code == 2, result.output
    if "OwnGate" not in MODEL.replace(before, after) or "modules" in after:
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith(f"mine.yaml: {problem}")
    else:
        assert problem in result.stderr
    assert not (folder / "ran.txt").exists()


def test_modules_named_on_the_command_line_are_trusted(folder: Path) -> None:
    (folder / "mine.yaml").write_text(MODEL, encoding="utf-8")
    refused = nas("cost", "mine.yaml")
    assert refused.exit_code == 2
    assert "unknown module 'OwnGate'" in refused.stderr
    assert "--modules FILE.py; docs/operators.md" in refused.stderr
    counted = nas("cost", "mine.yaml", "--modules", "my_ops.py")
    assert counted.exit_code == 0, counted.stderr
    assert "Gate" in counted.stdout
    derived = nas("spaces", "derive", "mine.yaml", "--modules", "my_ops.py")
    assert "\nmodules:\n- " in derived.stdout
    assert f"\n- {folder / 'my_ops.py'}\n" in derived.stdout  # beside those that other tests have loaded


def test_mistake_in_a_model_file_of_yolo_is_one_line(folder: Path) -> None:
    content = MODEL.replace("OwnGate, [32]", "torch_safe_load, [a.pt]")
    (folder / "mine.yaml").write_text(content, encoding="utf-8")
    program = (
        f"import sys; sys.path.insert(0, {str(Path(package.__file__).parents[1])!r}); from nas.cli import app; app()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "yolo", "train", "model=mine.yaml"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.strip().splitlines()
    assert line == "mine.yaml: backbone[3]: torch_safe_load is no layer, so a row cannot name it"


def test_help_of_yolo_begins_with_the_options_of_nas(folder: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(package.__file__).parents[1])!r}); from nas.cli import app; app()"
    )
    environment = {**os.environ, "YOLO_VERBOSE": "true", "YOLO_CONFIG_DIR": str(folder / "new")}
    ran = subprocess.run(
        [sys.executable, "-c", program, "yolo", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=environment,
    )
    assert ran.stdout.startswith("Run Ultralytics' command with the layers of nas")
    assert "WARNING" not in ran.stdout
    ours, _, ultralytics = ran.stdout.partition("Arguments received: ['yolo', 'help']")
    assert all(option in ours for option in ("--modules", "--trust", "pgi=True"))
    assert "yolo TASK MODE ARGS" in ultralytics


def test_schema_for_editors_has_the_operators_of_a_file_that_is_given(folder: Path) -> None:
    packaged, with_mine = nas("spaces", "schema"), nas("spaces", "schema", "--modules", folder / "my_ops.py")
    operators = [json.loads(one.stdout)["definitions"]["choices"]["properties"] for one in (packaged, with_mine)]
    assert operators[1].keys() - operators[0].keys() == {"OwnGate"}
