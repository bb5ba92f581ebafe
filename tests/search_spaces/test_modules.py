"""Operators of users' files, of checkpoints in other processes, and of installed packages."""

import io
import subprocess
import sys
from copy import deepcopy
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics import YOLO

from search_spaces import OPERATORS, Architecture, Choice, SearchSpace, build, model_reader, yaml_text
from search_spaces.errors import SpecError
from search_spaces.joined_file import text
from search_spaces.operators import modules, user_classes
from search_spaces.space_file import load, parse, save

STRIPS = """
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.nn.modules import Conv

from search_spaces.operators import Operator, Parameter, Site, SiteKind, OPERATORS
from search_spaces.operators.uib import UIB_RECORD


class Strips(nn.Module):
    class Inner(nn.Identity):
        pass

    def __init__(self, c_in: int, c_out: int, kernel: int, act: nn.Module) -> None:
        super().__init__()
        self.rows = nn.Conv2d(c_in, c_in, (kernel, 1), padding=(kernel // 2, 0), groups=c_in)
        self.inner = self.Inner()
        self.project = Conv(c_in, c_out, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x * self.inner(self.rows(x.mean(3, keepdim=True))).sigmoid())


STRIPS = Operator(
    name="Strips",
    module=Strips,
    parameters=(Parameter(name="kernel", default=3, allowed=(3, 5), search_values=(3, 5)),),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=lambda site, *, kernel: Strips(site.c_in, site.c_out, kernel, site.activation),
    incompatibility=lambda site, _: None if site.stride == 1 else "it keeps the size of the map",
    reference="Strip Pooling, arXiv 2003.13328",
)
"""

SPACE = """
name: strips
base: yolov8{scale}.yaml
scale: n
modules: [my_ops.py]
slots:
  - {at: {layers: [4, 6]}, choices: {Strips: {kernel: [3, 5]}, UIB: {}}}
insert:
  - {after: 9, choices: {Strips: {}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_ops.py").write_text(STRIPS, encoding="utf-8")
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def space(folder: Path) -> SearchSpace:
    return load(folder / "space.yaml")


@pytest.fixture
def architecture(space: SearchSpace) -> Architecture:
    return space.of({"4": Choice.of("Strips", {"kernel": 5}), "after-9": Choice.of("Strips", {})})


def alone(code: str, folder: Path, *arguments: object) -> str:
    """Return the output of code in a new process that starts in a folder."""
    ours = Path(build.__file__).parents[1]
    program = f"import sys; sys.path.insert(0, {str(ours)!r})\n{code}"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip()


class TestOperatorFile:
    def test_operator_of_a_file_is_registered(self, folder: Path) -> None:
        (record,) = modules.load(folder / "my_ops.py")
        assert OPERATORS["Strips"] is record
        assert record.source is not None
        assert record.source.path == folder / "my_ops.py"
        assert modules.load(folder / "my_ops.py") == (record,)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, "my_ops.py: cannot be read (No such file or directory)"),
            ("def", "my_ops.py: cannot be imported: SyntaxError: invalid syntax (my_ops.py, line 1)"),
            (
                "import nothing_such",
                "my_ops.py: cannot be imported: ModuleNotFoundError: No module named 'nothing_such'",
            ),
            (
                "from search_spaces.operators.uib import UIB_RECORD",
                "my_ops.py: neither an nn.Module class, nor a function that may return one, nor an Operator in it",
            ),
            (
                STRIPS.replace('name="Strips"', 'name="UIB"'),
                "my_ops.py: UIB is an operator already; give this one another name",
            ),
            (
                STRIPS.replace('name="Strips"', 'name="My_Strips"'),
                "my_ops.py: name: got 'My_Strips' (letters and digits, no underscore: a row is called C2f_MyOp)",
            ),
            (
                STRIPS.replace('name="Strips"', 'name="C2f"'),
                "my_ops.py: name: C2f is a module of Ultralytics already; give the operator another name",
            ),
        ],
        ids=lambda _: "",
    )
    def test_mistake_in_an_operator_file_is_reported(
        self, content: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        if content is not None:
            Path("my_ops.py").write_text(content, encoding="utf-8")
        before = set(OPERATORS)
        with pytest.raises(SpecError) as caught:
            modules.load(Path("my_ops.py"))
        assert str(caught.value) == expected
        assert set(OPERATORS) == before

    def test_changed_operator_with_a_used_name_is_refused(self, folder: Path) -> None:
        modules.load(folder / "my_ops.py")
        (folder / "other.py").write_text(STRIPS + "\n# changed\n", encoding="utf-8")
        with pytest.raises(SpecError, match=r"other.py: Strips is loaded already, with another text, from .*my_ops.py"):
            modules.load(folder / "other.py")

    def test_missing_operator_file_is_reported_with_the_other_mistakes(self) -> None:
        with pytest.raises(SpecError) as caught:
            parse(yaml_text.parse_yaml(SPACE.replace("Strips: {}", "UIB: {mid_kernel: 4}")))
        assert [one.partition(", got")[0] for one in caught.value.mistakes] == [  # not that its names are unknown
            "modules[0]: my_ops.py: cannot be read (No such file or directory)",
            "insert[0].choices.UIB.mid_kernel: not a value of mid_kernel",
        ]


class TestSpace:
    def test_user_operator_is_offered_like_any(self, space: SearchSpace) -> None:
        assert [slot.operators for slot in space.slots] == [
            ("stock", "Strips", "UIB"),
            ("stock", "Strips", "UIB"),
            ("stock", "Strips"),
        ]

    def test_source_of_an_operator_is_part_of_fingerprint_and_hash(
        self, folder: Path, architecture: Architecture, space: SearchSpace
    ) -> None:
        before = architecture.fingerprint, space.hash
        del OPERATORS["Strips"]
        (folder / "my_ops.py").write_text(STRIPS + "\n# changed\n", encoding="utf-8")
        again = load(folder / "space.yaml")
        after = again.of({"4": Choice.of("Strips", {"kernel": 5}), "after-9": Choice.of("Strips", {})})
        assert not set(before) & {after.fingerprint, again.hash}

    def test_saved_space_keeps_the_operator_files_it_uses(
        self, folder: Path, space: SearchSpace, tmp_path: Path
    ) -> None:
        stored = tmp_path / "study"
        stored.mkdir()
        save(text(folder / "space.yaml"), stored / "space.yaml")
        (folder / "my_ops.py").unlink()
        assert (stored / "modules" / "my_ops.py").read_text(encoding="utf-8") == STRIPS
        assert load(stored / "space.yaml").hash == space.hash


class TestModel:
    def test_exported_model_is_read_beside_its_operator_file(self, folder: Path, architecture: Architecture) -> None:
        modules.trust(architecture.sources[0])  # as `nas search` and `nas export` do
        (folder / "model.yaml").write_text(architecture.to_yaml(3, folder=folder), encoding="utf-8")
        code = """
from search_spaces import Architecture
from pathlib import Path
from ultralytics import YOLO
print(sum(p.numel() for p in YOLO("model.yaml").model.parameters()), Architecture.read(Path("model.yaml")).fingerprint)
"""
        size = sum(p.numel() for p in build.model(architecture.document(3), 3).parameters())
        assert alone(code, folder) == f"{size} {architecture.fingerprint}"

    def test_untrusted_operator_file_is_not_run(self, tmp_path: Path) -> None:
        (tmp_path / "theirs.py").write_text("open('ran.txt', 'w').close()", encoding="utf-8")
        for key, lines in (("nas", "{modules: [theirs.py]}"), ("modules", "[theirs.py]")):
            document = {"nc": 2, "backbone": [[-1, 1, "Conv", [16, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
            (tmp_path / "model.yaml").write_text(f"{key}: {lines}\n{yaml.safe_dump(document)}", encoding="utf-8")
            message = "theirs.py: Python code, which a model file is not trusted to run; .* --modules .*theirs.py"
            with pytest.raises(SpecError, match=message):
                model_reader.read_model(str(tmp_path / "model.yaml"))
            with pytest.raises(SpecError, match=message):
                YOLO(tmp_path / "model.yaml")
        assert not list(tmp_path.glob("ran.txt"))
        assert not Path("ran.txt").exists()

    def test_changed_operator_file_of_a_model_is_not_run(self, folder: Path, architecture: Architecture) -> None:
        modules.trust(architecture.sources[0])
        (folder / "model.yaml").write_text(architecture.to_yaml(3, folder=folder), encoding="utf-8")
        assert Architecture.read(folder / "model.yaml") == architecture
        with (folder / "my_ops.py").open("a", encoding="utf-8") as file:
            file.write("raise SystemExit\n")
        with pytest.raises(SpecError, match="is not trusted to run"):
            Architecture.read(folder / "model.yaml")

    def test_missing_operator_file_of_a_model_is_reported(self, folder: Path, architecture: Architecture) -> None:
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "model.yaml").write_text(
            architecture.to_yaml(3, folder=folder).replace("my_ops.py", "gone.py"), encoding="utf-8"
        )
        OPERATORS.pop("Strips")
        user_classes.LOADED.clear()
        with pytest.raises(SpecError, match=r"unknown module 'C2f_Strips', and .*gone.py, which may define it, is not"):
            Architecture.read(elsewhere / "model.yaml")

    def test_copy_of_a_user_operator_is_the_same_and_independent(self, architecture: Architecture) -> None:
        layer = build.model(architecture.document(3), 3).model[4].m[0].cv2
        copy, x = deepcopy(layer), torch.rand(1, layer.rows.in_channels, 8, 8)
        assert torch.equal(copy.eval()(x), layer.eval()(x))
        assert copy.rows.weight is not layer.rows.weight

    def test_checkpoint_loads_without_the_operator_file(
        self, folder: Path, architecture: Architecture, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        model = build.model(architecture.document(3), 3)
        torch.save({"model": model}, elsewhere / "weights.pt")
        (folder / "my_ops.py").unlink()
        code = """
import torch
model = torch.load("weights.pt", weights_only=False)["model"].eval()
torch.save({"model": model}, "again.pt")
from search_spaces import OPERATORS, build
rebuilt = build.model(model.yaml, 3)  # as Ultralytics does when it trains a checkpoint on
print("Strips" in OPERATORS, len(list(rebuilt.parameters())) == len(list(model.parameters())))
torch.manual_seed(0)
print(float(model(torch.ones(1, 3, 64, 64))[0].sum()))
"""
        text, total = alone(code, elsewhere).splitlines()
        assert text == "True True"
        with torch.no_grad():
            assert float(total) == pytest.approx(float(model.eval()(torch.ones(1, 3, 64, 64))[0].sum()), rel=1e-5)
        again = 'import torch; print(type(torch.load("again.pt", weights_only=False)["model"]).__name__)'
        assert alone(again, elsewhere) == "DetectionModel"

    def test_source_of_an_operator_is_stored_once(self, architecture: Architecture) -> None:
        file = io.BytesIO()
        torch.save(build.model(architecture.document(3), 3), file)
        assert file.getvalue().count(b"class Strips(nn.Module)") == 1


class TestInstalled:
    def test_a_package_offers_an_operator(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "their_ops.py").write_text(STRIPS, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        offered = EntryPoint(name="Strips", value="their_ops:STRIPS", group=modules.ENTRY_POINT)
        monkeypatch.setattr(modules, "entry_points", lambda *, group: [offered] if group == "nas.operators" else [])
        modules.load_installed()
        assert OPERATORS["Strips"].module.__module__ == "their_ops"
        assert OPERATORS["Strips"].source is None

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("search_spaces.operators.uib:UIB", "search_spaces.operators.uib:UIB: not an Operator, got type"),
            ("their_ops:STRIPS", "their_ops:STRIPS: UIB is an operator already"),
        ],
    )
    def test_operator_of_a_package_that_must_not_be_offered_is_refused(
        self, value: str, expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "their_ops.py").write_text(STRIPS.replace('name="Strips"', 'name="UIB"'), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "their_ops", raising=False)
        monkeypatch.syspath_prepend(str(folder))
        offered = EntryPoint(name="Strips", value=value, group=modules.ENTRY_POINT)
        monkeypatch.setattr(modules, "entry_points", lambda **_: [offered])
        with pytest.raises(SpecError, match=expected):
            modules.load_installed()
