"""What a trial keeps and what leaves its study, without training anything."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from search_spaces import Architecture, Choice, SearchSpace, build
from search_spaces.operators import modules
from trials import weights

CLASSES = 3


def shuffled(architecture: Architecture) -> DetectionModel:
    """A model none of whose numbers are those of a new one."""
    model = build.model(architecture.document(CLASSES), CLASSES)
    model.names = {0: "cat", 1: "dog", 2: "cow"}
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.mul_(torch.empty_like(value).uniform_(0.9, 1.1)).add_(0.01)
        else:
            value.fill_(2**25 + 1)  # more than a float32 counts
    return model


@pytest.fixture
def own(tmp_path: Path, space_of: Callable[[str], SearchSpace], own_operator: str) -> Architecture:
    """With an operator from a file that is gone after that."""
    file = tmp_path / "own.py"
    file.write_text(own_operator, encoding="utf-8")
    modules.load(file)
    return space_of("v5").of({2: Choice.of("Twice", {"kernel": 3})})


@pytest.fixture(params=["stock", "motley"])
def model(request: pytest.FixtureRequest) -> DetectionModel:
    return shuffled(request.getfixturevalue(request.param))


class TestKept:
    def test_is_the_model_to_the_bit(self, model: DetectionModel, tmp_path: Path) -> None:
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

    def test_reading_draws_no_random_number(self, model: DetectionModel, tmp_path: Path) -> None:
        """Else a worker's first trial, which reads the stock model, would begin elsewhere than its second."""
        weights.keep(model, {}, tmp_path / "weights.pt")
        before = torch.random.get_rng_state()
        load_checkpoint(tmp_path / "weights.pt")
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_brings_a_users_operator(self, own: Architecture, tmp_path: Path) -> None:
        model = shuffled(own)
        weights.keep(model, {}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        (tmp_path / "own.py").unlink()
        code = f"""
import sys
sys.path.insert(0, {str(Path(build.__file__).parents[1])!r})
from ultralytics import YOLO
model = YOLO(sys.argv[1]).model
twice = [module for module in model.modules() if type(module).__name__ == "Twice"]
print(len(twice), float(model.model[2].cv1.bn.weight.detach().sum()))
"""
        told = {
            subprocess.run(
                [sys.executable, "-P", "-c", code, name], cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout.splitlines()[-1]
            for name in ("weights.pt", "exported.pt")
        }
        assert told == {f"1 {float(model.model[2].cv1.bn.weight.detach().sum())}"}

    def test_of_another_ultralytics_is_refused(self, stock: Architecture) -> None:
        model = build.model(stock.document(CLASSES), CLASSES)
        sizes = [(f"{name}x", value.dtype, tuple(value.shape)) for name, value in model.state_dict().items()]
        rows = [torch.zeros(10_000_000), torch.zeros(1000, dtype=torch.int64)]
        with pytest.raises(RuntimeError, match="Missing key"):
            weights.rebuilt(model.yaml, model.names, (), sizes, rows)

    def test_appears_whole_or_not_at_all(
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


class TestExported:
    def test_is_what_was_kept(self, model: DetectionModel, tmp_path: Path) -> None:
        weights.keep(model, {"imgsz": 64}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        exported = torch.load(tmp_path / "exported.pt", weights_only=False)
        theirs, ours = exported["model"].state_dict(), model.state_dict()
        assert list(theirs) == list(ours)
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert exported["train_args"] == {"imgsz": 64}
        assert exported["model"].criterion is None

    def test_its_tensors_lie_each_by_itself(self, stock: Architecture, tmp_path: Path) -> None:
        """Else a part of a model would be saved with all of it, and safetensors refuse it."""
        weights.save(shuffled(stock), {}, tmp_path / "weights.pt")
        values = [value for value in load_checkpoint(tmp_path / "weights.pt")[0].state_dict().values() if value.numel()]
        assert len({value.untyped_storage().data_ptr() for value in values}) == len(values)
        assert all(value.is_contiguous() for value in values)

    def test_of_a_stock_model_needs_nothing_of_ours(self, stock: Architecture, tmp_path: Path) -> None:
        weights.keep(shuffled(stock), {}, tmp_path / "weights.pt")
        weights.export(tmp_path / "weights.pt", tmp_path / "exported.pt")
        code = f"""
import sys
from importlib.abc import MetaPathFinder

class NoneOfOurs(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("nas", "trials", "search_spaces"):
            raise ImportError(name)

sys.meta_path.insert(0, NoneOfOurs())
from ultralytics import YOLO
print(len(YOLO({str(tmp_path / "exported.pt")!r}).names))
"""
        ran = subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ran.stdout.splitlines()[-1:] == [str(CLASSES)], ran.stderr
