"""A fork's model with its Python: counted, checked, derived, searched, exported, and loaded where the file is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import nas as package
from nas.cli import app
from trials.data import digit_scenes

LAYERS = ("StackedDown", "C2f_Partial", "EnergyGate", "Weighted_Concat", "SpatialChannelGate")

pytestmark = pytest.mark.usefixtures("no_module_is_trusted")


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program or `nas` in a process of its own, in a folder."""
    ours = Path(package.__file__).parents[1]
    program = f"import sys; sys.path.insert(0, {str(ours)!r}); from nas.cli import app; app()"
    words = ["-c", program, *arguments] if arguments[0] != "-c" else [*arguments]
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ours)},
    )


class TestCost:
    def test_every_layer_of_the_fork_is_counted(self, fork: Path) -> None:
        result = nas("cost", fork / "mine.yaml", "--modules", fork / "fork.py", "--format", "json")
        assert result.exit_code == 0, result.stderr
        counted = json.loads(result.stdout)
        found = {layer["module"]: layer for layer in counted["layers"]}
        assert set(LAYERS) <= set(found)
        # a fusion has two weights; PConv of a quarter of 32 channels, and two 1x1 convolutions, at 80 x 80
        assert found["Weighted_Concat"]["params"] == 2
        c2f = 64 * 64 + 128 * 64 + 2 * (8 * 8 * 9 + 2 * 32 * 64)
        assert found["C2f_Partial"]["gflops"] == pytest.approx(2 * c2f * 80 * 80 / 1e9)
        assert "EnergyGate of fork.py: layer 5 as EnergyGate(): 128x16x16 to 128x16x16" in counted["notes"]

    def test_norms_that_stay_when_deployed_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(OWN_CONVOLUTIONS, encoding="utf-8")
        (tmp_path / "mine.yaml").write_text(
            WITH_HEAD.replace("StemmedHead", "Detect")
            .replace("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, CBS, [16]]\n  - [-1, 2, Folded, [16]]")
            .replace("[1, 2]", "[2, 3]"),
            encoding="utf-8",
        )
        result = nas("cost", tmp_path / "mine.yaml", "--modules", tmp_path / "own.py")
        assert result.exit_code == 0, result.stderr
        (line,) = [one for one in result.stderr.splitlines() if "batch norms" in one]
        assert line.startswith("note: batch norms that stay when deployed: CBS (1); Ultralytics' fuse() folds")

    def test_without_the_file_every_unknown_module_is_named(self, fork: Path) -> None:
        result = nas("cost", fork / "mine.yaml")
        assert result.exit_code == 2
        lines = result.stderr.strip().splitlines()
        assert [line.split("'")[1] for line in lines] == ["StackedDown", *LAYERS]
        assert all("--modules FILE.py" in line for line in lines)

    def test_folder_is_named_as_a_file_is(self, fork: Path) -> None:
        (fork / "extra").mkdir()
        (fork / "fork.py").rename(fork / "extra" / "layers.py")
        text = (fork / "extra" / "layers.py").read_text(encoding="utf-8")
        text = text.replace("from .block import", "from ..modules.block import")
        (fork / "extra" / "layers.py").write_text(text, encoding="utf-8")
        result = nas("cost", fork / "mine.yaml", "--modules", fork / "extra")
        assert result.exit_code == 0, result.stderr
        assert "note: EnergyGate of extra: layer 5 as EnergyGate()" in result.stderr

    def test_file_of_a_folder_that_is_no_text_is_left_out_with_a_note(self, fork: Path) -> None:
        (fork / "extra").mkdir()
        text = (
            (fork / "fork.py").read_text(encoding="utf-8").replace("from .block import", "from ..modules.block import")
        )
        (fork / "extra" / "layers.py").write_text(text, encoding="utf-8")
        (fork / "extra" / "other.py").write_text("# 注意力\nclass Other: ...\n", encoding="gbk")
        result = nas("cost", fork / "mine.yaml", "--modules", fork / "extra")
        assert result.exit_code == 0, result.stderr
        assert "note: extra/other.py is left out: not a text file (UTF-8 is expected, " in result.stderr


def test_derived_space_names_the_fork_and_is_valid(fork: Path) -> None:
    derived = nas("spaces", "derive", fork / "mine.yaml", "--modules", fork / "fork.py")
    assert derived.exit_code == 0, derived.stderr
    assert f"modules:\n- {fork / 'fork.py'}\n" in derived.stdout
    assert "choices: {EnergyGate: {}}" in derived.stdout
    (fork / "derived.yaml").write_text(derived.stdout, encoding="utf-8")
    shown = nas("spaces", fork / "derived.yaml")
    assert shown.exit_code == 0, shown.stderr


@pytest.mark.slow
def test_class_is_checked_as_an_operator(fork: Path) -> None:
    result = nas("check", "--no-cache", "--operator", f"{fork / 'fork.py'}:EnergyGate", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "keep every promise" in result.output


@pytest.mark.slow
def test_model_is_checked_module_by_module(fork: Path) -> None:
    result = nas("check", "--no-cache", "--model", fork / "mine.yaml", "--modules", fork / "fork.py", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "layer 1: StackedDown(16, 32): 16x128x128 to 32x64x64: keeps all promises" in result.output


@pytest.mark.slow
def test_search_around_a_forks_model_is_exported_and_loaded_without_the_file(fork: Path) -> None:
    settings = ("--data", "digits", "--trials", "4", "--epochs", "1", "--base-epochs", "1", "--image-size", "64")
    # the space without `modules`: the option brings them
    text = (fork / "space.yaml").read_text(encoding="utf-8").replace("modules: [fork.py]\n", "")
    (fork / "space.yaml").write_text(text, encoding="utf-8")
    searched = alone(
        fork,
        "search",
        "--space",
        "space.yaml",
        "--modules",
        "fork.py",
        *settings,
        "--workers",
        "1",
        "--study",
        "forked",
    )
    assert searched.returncode == 0, searched.stderr[-3000:]
    (fork / "fork.py").unlink()  # the study has a copy
    exported = alone(fork, "export", "forked", "--best", "cheapest")
    assert exported.returncode == 0, exported.stderr[-3000:]
    (folder,) = (fork / "runs" / "nas" / "forked" / "export").iterdir()
    assert (folder / "fork.py").is_file()
    loading = (
        "import search_spaces, torch; from ultralytics import YOLO; "
        "model = YOLO('weights.pt').model.eval(); "
        "print([type(layer).__name__ for layer in model.model][:6], model(torch.zeros(1, 3, 64, 64))[0].shape)"
    )
    (folder / "weights.pt").rename(fork / "weights.pt")
    loaded = alone(fork, "-c", loading)
    assert "'StackedDown', 'StackedDown', 'C2f_Partial', 'Conv', 'EnergyGate'" in loaded.stdout, loaded.stderr[-3000:]
    counted = alone(folder, "cost", "model.yaml")
    assert counted.returncode == 0, counted.stderr
    for record in (fork / "runs" / "nas" / "forked" / "trials").glob("*/outcome.json"):
        assert json.loads(record.read_text(encoding="utf-8"))["ending"] == "finished"


OWN_CONVOLUTIONS = """\
from torch import nn
from ultralytics.nn.modules import Conv


class CBS(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c1, c2, 3, 2, 1, bias=False), nn.BatchNorm2d(c2)

    def forward(self, x):
        return self.bn(self.conv(x))


class Folded(Conv):
    pass
"""
HEAD = """\
from torch import nn
from ultralytics.nn.modules import Conv, Detect


class StemmedHead(Detect):
    def __init__(self, nc=80, reg_max=16, end2end=False, ch=()):
        super().__init__(nc, reg_max, end2end, ch)
        self.stems = nn.ModuleList(Conv(c, c, 3) for c in ch)

    def forward(self, x):
        return super().forward([stem(one) for stem, one in zip(self.stems, x)])
"""
WITH_HEAD = """\
nc: 10
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, Conv, [32, 3, 2]]
  - [[1, 2], 1, StemmedHead, [nc]]
"""


@pytest.mark.slow
def test_head_of_a_fork_is_trained_for_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(HEAD, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(WITH_HEAD, encoding="utf-8")
    data = digit_scenes.draw(tmp_path / "digits", train=16, val=8)
    words = ["epochs=1", "imgsz=64", "batch=8", "device=cpu", "workers=0", "plots=False", f"project={tmp_path}"]
    trained = alone(
        tmp_path, "yolo", "train", "--modules", "own.py", "model=mine.yaml", f"data={data}", *words, "name=run"
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    program = "import search_spaces, ultralytics; print(type(ultralytics.YOLO('run/weights/best.pt').model.model[-1]))"
    (tmp_path / "own.py").unlink()
    loaded = alone(tmp_path, "-c", program)
    assert "StemmedHead" in loaded.stdout, loaded.stderr[-2000:]
