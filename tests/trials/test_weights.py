"""Weights files of trials and exported models, without training."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.modules import Conv, ConvTranspose
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from search_spaces import Architecture, Choice, SearchSpace, build, stored_model
from search_spaces.errors import DataError, StudyError
from search_spaces.operators import Source, modules
from search_spaces.stored_model import StoredModel
from trials import weights

CLASSES = 3


def shuffled(architecture: Architecture) -> DetectionModel:
    """Return a model all of whose numbers differ from a new one's."""
    model = build.model(architecture.document(CLASSES), CLASSES)
    model.names = {0: "cat", 1: "dog", 2: "cow"}
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.mul_(torch.empty_like(value).uniform_(0.9, 1.1)).add_(0.01)
        else:
            value.fill_(2**25 + 1)  # more than a float32 counts
    return model


@pytest.fixture
def with_user_operator(tmp_path: Path, space_of: Callable[[str], SearchSpace], own_operator: str) -> Architecture:
    """Return an architecture with an operator from a user's file."""
    file = tmp_path / "user.py"
    file.write_text(own_operator, encoding="utf-8")
    modules.load(file)
    return space_of("v5").of({2: Choice.of("Twice", {"kernel": 3})})


class OfFile:
    """Object that is pickled as one of a class of a user's file."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return modules._blank, ("/home/someone/theirs.py", self.text, "Theirs")


class EarlyModel:
    """Pickle of a model in the files of early versions."""

    def __init__(self, model: DetectionModel) -> None:
        self.stored = StoredModel.of(model, {})

    def __reduce__(self) -> tuple[Any, ...]:
        one = self.stored
        return weights.rebuilt, (one.document, one.names, one.sources, one.sizes, one.rows)


class Evil:
    """Object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def restricted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Record, for each file that PyTorch loads from now on, whether it was loaded with `weights_only`."""
    asked: list[bool] = []
    load = torch.load

    def noting(*arguments: Any, weights_only: bool = False, **options: Any) -> Any:
        asked.append(weights_only)
        return load(*arguments, weights_only=weights_only, **options)

    monkeypatch.setattr(torch, "load", noting)
    return asked


def without_ours(file: Path) -> str:
    """Load a file with Ultralytics in a process without this package; return the number of classes, or the error."""
    code = f"""
import sys
from importlib.abc import MetaPathFinder

class WithoutOurPackages(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("nas", "trials", "search_spaces"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, WithoutOurPackages())
from ultralytics import YOLO
try:
    print(len(YOLO({str(file)!r}).names))
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=file.parent, capture_output=True, text=True, check=True
    )
    assert "AutoInstall" not in ran.stdout + ran.stderr
    return ran.stdout.splitlines()[-1]


@pytest.fixture(params=["stock", "motley"])
def model(request: pytest.FixtureRequest) -> DetectionModel:
    return shuffled(request.getfixturevalue(request.param))


class TestWeightsOfTrials:
    def test_weights_of_trials_are_tensors_and_yaml_only(self, model: DetectionModel, tmp_path: Path) -> None:
        weights.keep(model, {"data": Path("/data.yaml"), "imgsz": 64}, tmp_path / "weights.pt")
        assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "weights.pt") == []
        content = torch.load(tmp_path / "weights.pt", weights_only=True)
        assert content["train_args"] == {"data": "/data.yaml", "imgsz": 64}
        assert content[stored_model.KEY]["document"]["head"] == model.yaml["head"]

    def test_weights_of_trials_are_the_model_to_the_bit(self, model: DetectionModel, tmp_path: Path) -> None:
        weights.keep(model, {"imgsz": 64}, tmp_path / "weights.pt")
        loaded = load_checkpoint(tmp_path / "weights.pt")[0]
        theirs, ours = loaded.state_dict(), model.state_dict()
        assert list(theirs) == list(ours)
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert loaded.names == model.names
        assert loaded.args["imgsz"] == 64
        assert not loaded.training
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(loaded(x)[0], model.eval()(x)[0])

    def test_reading_weights_draws_no_random_numbers(self, model: DetectionModel, tmp_path: Path) -> None:
        """Otherwise a worker's first trial, which reads the stock model, would have other numbers than its second."""
        weights.keep(model, {}, tmp_path / "weights.pt")
        before = torch.random.get_rng_state()
        load_checkpoint(tmp_path / "weights.pt")
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_weights_of_trials_contain_an_operator_of_the_user(
        self, with_user_operator: Architecture, tmp_path: Path
    ) -> None:
        model = shuffled(with_user_operator)
        weights.keep(model, {}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        (tmp_path / "user.py").unlink()
        code = f"""
import sys
sys.path.insert(0, {str(Path(build.__file__).parents[1])!r})
import search_spaces
from ultralytics import YOLO
model = YOLO(sys.argv[1]).model
twice = [module for module in model.modules() if type(module).__name__ == "Twice"]
print(len(twice), float(model.model[2].cv1.bn.weight.detach().sum()))
"""
        printed = {
            subprocess.run(
                [sys.executable, "-P", "-c", code, name], cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout.splitlines()[-1]
            for name in ("weights.pt", "exported.pt")
        }
        assert printed == {f"1 {float(model.model[2].cv1.bn.weight.detach().sum())}"}

    def test_weights_of_another_ultralytics_version_are_refused(self, stock: Architecture) -> None:
        model = build.model(stock.document(CLASSES), CLASSES)
        sizes = [(f"{name}x", value.dtype, tuple(value.shape)) for name, value in model.state_dict().items()]
        rows = [torch.zeros(10_000_000), torch.zeros(1000, dtype=torch.int64)]
        with pytest.raises(RuntimeError, match="Missing key"):
            weights.rebuilt(model.yaml, model.names, (), sizes, rows)

    def test_weights_of_trials_are_written_atomically(
        self, stock: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, path = build.model(stock.document(CLASSES), CLASSES), tmp_path / "weights.pt"
        weights.keep(model, {}, path)
        whole = path.read_bytes()

        def killed(_what: object, file: Path) -> NoReturn:
            file.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            weights.keep(model, {}, path)
        assert path.read_bytes() == whole


class TestExport:
    def test_exported_weights_are_the_model_of_the_trial(self, model: DetectionModel, tmp_path: Path) -> None:
        weights.keep(model, {"imgsz": 64}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        loaded, checkpoint = load_checkpoint(tmp_path / "exported.pt")
        theirs, ours = loaded.state_dict(), model.state_dict()
        assert list(theirs) == list(ours)
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert checkpoint["train_args"] == {"imgsz": 64}
        assert getattr(loaded, "criterion", None) is None

    def test_exported_tensors_share_no_memory(self, stock: Architecture, tmp_path: Path) -> None:
        """Otherwise a part of a model would be saved with all of it, and safetensors refuses it."""
        weights.save(shuffled(stock), {}, tmp_path / "weights.pt")
        values = [value for value in load_checkpoint(tmp_path / "weights.pt")[0].state_dict().values() if value.numel()]
        assert len({value.untyped_storage().data_ptr() for value in values}) == len(values)
        assert all(value.is_contiguous() for value in values)

    def test_exported_stock_model_loads_without_this_package(self, stock: Architecture, tmp_path: Path) -> None:
        weights.keep(shuffled(stock), {}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        assert without_ours(tmp_path / "exported.pt") == str(CLASSES)

    @pytest.mark.parametrize("name", ["motley", "with_user_operator"])
    def test_exported_model_with_operators_names_the_package_it_needs(
        self, name: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        weights.keep(shuffled(request.getfixturevalue(name)), {}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        assert without_ours(tmp_path / "exported.pt") == f"AssertionError: {weights.REFUSAL}"

    def test_export_of_early_files_loads_no_pickle(
        self, model: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save({"model": EarlyModel(model), "train_args": {"imgsz": 64}, "epoch": -1}, tmp_path / "weights.pt")
        only = restricted(monkeypatch)
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        assert only == [True]
        monkeypatch.undo()
        theirs, ours = load_checkpoint(tmp_path / "exported.pt")[0].state_dict(), model.state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)

    @pytest.mark.parametrize("form", ["class", "early", "stored", "text"])
    def test_export_of_a_foreign_file_executes_nothing(self, form: str, stock: Architecture, tmp_path: Path) -> None:
        file, evil = tmp_path / "weights.pt", Evil(tmp_path / "was_here")
        match form:
            case "class":
                torch.save({"model": evil}, file)
            case "early":
                torch.save({"model": EarlyModel(shuffled(stock)), "train_args": evil}, file)
            case "stored":
                torch.save({stored_model.KEY: {"document": evil}}, file)
            case _:
                source = Source(path=Path("evil.py"), text=f"open({str(evil.path)!r}, 'w')")
                replace(StoredModel.of(shuffled(stock), {}), sources=(source,)).write(file)
        with pytest.raises((DataError, StudyError)) as caught:
            weights.export(file, tmp_path / "exported.pt")
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)
        assert not evil.path.exists()
        assert not (tmp_path / "exported.pt").exists()


class TestFinalCheckpoint:
    def test_final_checkpoint_with_operators_becomes_tensors(self, motley: Architecture, tmp_path: Path) -> None:
        model, file = shuffled(motley).half(), tmp_path / "best.pt"
        torch.save({"model": model, "train_args": {"imgsz": 64}, "date": "today", "epoch": -1}, file)
        weights.lighten(file)
        loaded, checkpoint = load_checkpoint(file)
        theirs, ours = loaded.state_dict(), model.state_dict()
        assert all(torch.equal(theirs[name], ours[name].to(theirs[name].dtype)) for name in ours)
        assert (checkpoint["date"], loaded.names) == ("today", model.names)
        assert without_ours(file) == f"AssertionError: {weights.REFUSAL}"

    def test_final_checkpoint_of_ultralytics_layers_stays_unchanged(self, stock: Architecture, tmp_path: Path) -> None:
        file = tmp_path / "best.pt"
        torch.save({"model": shuffled(stock), "train_args": {}, "epoch": -1}, file)
        before = file.read_bytes()
        weights.lighten(file)
        assert file.read_bytes() == before


class TestRead:
    def test_weights_of_all_formats_are_read(self, model: DetectionModel, tmp_path: Path) -> None:
        weights.keep(model, {}, tmp_path / "numbers.pt")
        weights.save(deepcopy(model), {}, tmp_path / "saved.pt")
        torch.save({"model": EarlyModel(model), "train_args": {}}, tmp_path / "early.pt")
        torch.save({"model": model, "train_args": {}}, tmp_path / "pickled.pt")
        for name in ("numbers", "saved", "early", "pickled"):
            theirs, ours = weights.read(tmp_path / f"{name}.pt").state_dict(), model.state_dict()
            assert all(torch.equal(theirs[name], ours[name]) for name in ours), name

    @pytest.mark.parametrize("name", ["yolo11n-seg.yaml", "yolo11n-cls.yaml"])
    def test_weights_of_another_task_are_refused(self, name: str, tmp_path: Path) -> None:
        torch.save({"model": YOLO(name).model, "train_args": {}}, tmp_path / "other.pt")
        with pytest.raises(DataError, match=r"other\.pt: not a checkpoint of a detection model, got a \w+Model with "):
            weights.read(tmp_path / "other.pt")

    def test_a_foreign_pickle_executes_nothing(self, tmp_path: Path) -> None:
        evil = Evil(tmp_path / "was_here")
        torch.save({"model": evil}, tmp_path / "evil.pt")
        with pytest.raises(DataError, match=r"evil\.pt: not a checkpoint that Ultralytics loads"):
            weights.read(tmp_path / "evil.pt")
        assert not evil.path.exists()

    def test_checkpoint_of_a_training_with_an_operator_of_the_user_is_read(
        self, with_user_operator: Architecture, tmp_path: Path
    ) -> None:
        model = shuffled(with_user_operator)
        torch.save({"model": None, "ema": model, "epoch": 3, "train_args": {}}, tmp_path / "last.pt")
        theirs, ours = weights.read(tmp_path / "last.pt").state_dict(), model.state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)

    @pytest.mark.usefixtures("no_module_is_trusted")
    def test_operator_of_a_file_that_is_not_named_is_not_run_from_a_checkpoint(self, tmp_path: Path) -> None:
        torch.save({"model": OfFile(f"open({str(tmp_path / 'was_here')!r}, 'w')")}, tmp_path / "last.pt")
        with pytest.raises(DataError, match=r"last\.pt: its model has operators of theirs\.py, .*--modules FILE\.py"):
            weights.read(tmp_path / "last.pt")
        assert not (tmp_path / "was_here").exists()

    def test_loading_weights_leaves_shared_activations_unchanged(self, stock: Architecture, tmp_path: Path) -> None:
        weights.keep(build.model(stock.document(CLASSES), CLASSES), {}, tmp_path / "weights.pt")
        before = [(shared, repr(shared)) for shared in (Conv.default_act, ConvTranspose.default_act)]
        loaded = YOLO(tmp_path / "weights.pt").model
        assert loaded.model[0].act.inplace
        assert [(shared, repr(shared)) for shared in (Conv.default_act, ConvTranspose.default_act)] == before


def test_archive_whose_names_are_no_text_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\N{LATIN SMALL LETTER E WITH ACUTE}/data.pkl", b"")
    path.write_bytes(path.read_bytes().replace("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"\xe0\xff"))
    with pytest.raises(DataError, match=r"last\.pt"):
        weights.require_harmless(path)
