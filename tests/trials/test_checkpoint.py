"""A training that goes on: from wherever it was left, to the same bits as one that was never left.

What a GPU alone does is not tested here: the scaler of fp16's gradients.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

import search_spaces
from search_spaces import Architecture, build
from trials import Budget, Epoch, Recipe
from trials.data import datasets
from trials.training import double_buffer, short_training
from trials.training.double_buffer import Halves
from trials.training.ema import joined
from trials.training.short_training import ShortTraining, Trained
from trials.weights import save

CLASSES = 10
EPOCHS = 3
STOCK = "yolov5n"
TinyBudget = Callable[..., Budget]


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process's part of a training.

    Attributes:
        heard: the epochs that `go_on` was asked about, in order.
    """

    trained: Trained
    heard: list[int] = field(default_factory=list)


def forward(_number: int, _epoch: Epoch) -> bool:
    return True


@pytest.fixture
def document(motley: Architecture) -> Callable[[str], dict[str, Any]]:
    """By what is special about the training."""
    architectures = {
        STOCK: Architecture(base="yolov5{scale}.yaml", scale="n", picks=()),
        "every operator": motley,
        "two heads": Architecture(base="yolov10{scale}.yaml", scale="n", picks=()),
        "two heads, no dfl": Architecture(base="yolo26{scale}.yaml", scale="n", picks=()),
        "auxiliary branch": Architecture(base="yolov9{scale}.yaml", scale="t", picks=()),
    }
    return lambda name: architectures[name].document(CLASSES)


@pytest.fixture
def run(scenes: datasets.DataSet, folder: Path) -> Callable[..., Process]:
    """Train in this process; `until` is the epoch after which it is told to stop."""

    def train(document: Mapping[str, Any], budget: Budget, name: str = "trial", *, until: int | None = None) -> Process:
        heard: list[int] = []

        def go_on(number: int, _epoch: Epoch) -> bool:
            heard.append(number)
            return number != until

        own = folder / name
        own.mkdir(exist_ok=True)
        files = {"weights": own / "weights.pt", "standing": own / "checkpoint.bin"}
        return Process(trained=short_training.train(document, budget, scenes, own, go_on, **files), heard=heard)

    return train


def figures(trained: Trained) -> list[tuple[object, ...]]:
    """All that is known of the epochs but the seconds that they took."""
    return [(epoch.epoch, epoch.losses, epoch.map50_95, epoch.map50) for epoch in trained.epochs]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "weights.pt")[0].state_dict()


def same(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> bool:
    return these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)


def standing(folder: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """What is said of where a training stands, and its numbers."""
    found = Halves(folder / "checkpoint.bin").read()
    assert found is not None
    return found


def assert_same_standing(one: Path, other: Path) -> None:
    """Weights, moving average and moments to the bit, and all that is counted."""
    (this, these), (that, those) = (standing(folder) for folder in (one, other))
    assert all(torch.equal(*pair) for pair in zip(these, those, strict=True))
    for state in (this, that):
        for epoch in state["epochs"]:
            del epoch["seconds"]
    assert this == that


def assert_goes_on(run: Callable[..., Process], document: Mapping[str, Any], budget: Budget, folder: Path) -> None:
    """Stopped after every epoch and begun again, it ends as if it had never stopped."""
    whole = run(document, budget, "whole")
    for epoch in range(1, budget.epochs):
        part = run(document, budget, "parts", until=epoch)
        assert part.heard == list(range(1, epoch + 1))
        assert part.trained.stopped
        assert not (folder / "parts" / "weights.pt").exists()
        for left in ("checkpoint.tmp", "weights.tmp"):  # by a process that was killed while it wrote
            (folder / "parts" / left).write_bytes(b"half")
    last = run(document, budget, "parts")
    assert last.heard == list(range(1, budget.epochs + 1))
    assert last.trained.epochs[:-1] == part.trained.epochs
    assert figures(last.trained) == figures(whole.trained)
    assert last.trained.coverage == whole.trained.coverage
    assert same(weights(folder / "parts"), weights(folder / "whole"))
    assert_same_standing(folder / "parts", folder / "whole")


class TestGoesOnToTheBit:
    @pytest.mark.parametrize(
        ("name", "epochs"),
        [
            ("every operator", 2),
            ("two heads", 2),
            ("auxiliary branch", 2),
            *(
                pytest.param(name, 4, marks=pytest.mark.slow)
                for name in (STOCK, "every operator", "two heads", "two heads, no dfl", "auxiliary branch")
            ),
        ],
    )
    def test_whatever_the_model(
        self,
        name: str,
        epochs: int,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        recipe = Recipe(fliplr=0.5, mosaic=0.5, pgi=name == "auxiliary branch")
        assert_goes_on(run, document(name), tiny(epochs=epochs, rungs=(2,), recipe=recipe), folder)

    @pytest.mark.parametrize(
        "optimizer", ["SGD", *(pytest.param(name, marks=pytest.mark.slow) for name in ("MuSGD", "RMSProp"))]
    )
    def test_whatever_the_optimizer(
        self,
        optimizer: str,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        assert_goes_on(run, document(STOCK), tiny(recipe=Recipe(optimizer=optimizer)), folder)

    def test_in_bf16(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        assert_goes_on(run, document("every operator"), tiny(epochs=2, precision="bf16"), folder)

    @pytest.mark.slow
    def test_in_the_layout_of_a_gpu(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(short_training, "layout", lambda _device: torch.contiguous_format)
        assert_goes_on(run, document(STOCK), tiny(), folder)

    def test_with_a_rate_of_its_own_for_what_is_new(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        start = folder / "start.pt"
        save(build.model(document(STOCK), CLASSES), {}, start)
        recipe = Recipe(new_rate=3.0, warmup_epochs=1.0)
        assert_goes_on(run, document("every operator"), tiny(weights=start, recipe=recipe), folder)

    def test_each_tensor_in_its_own_layout(
        self,
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        scenes: datasets.DataSet,
        folder: Path,
    ) -> None:
        """One kernel for all tensors takes weights, gradients and moments as they lie in memory."""

        def strides(trainer: ShortTraining) -> list[tuple[int, ...]]:
            moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
            return [value.stride() for value in (*trainer.model.parameters(), *moments)]

        arguments = (document(STOCK), tiny(), scenes, folder, lambda number, _: number != 1)
        trainer = ShortTraining(*arguments, standing=folder / "checkpoint.bin")
        trainer.train()
        again = ShortTraining(*arguments, standing=folder / "checkpoint.bin")
        again._setup_train()
        assert strides(again) == strides(trainer)
        assert again.model.model[1].conv.weight.is_contiguous(memory_format=torch.channels_last)


class TestLaidOutInARow:
    """`joined`: what is written is written at once."""

    def test_every_tensor_is_a_view_of_its_place(self) -> None:
        values = [torch.rand(3), torch.rand(2, 5), torch.tensor(7), nn.Parameter(torch.rand(()))]
        before = [value.detach().clone() for value in values]
        floats, counts = joined(values)
        assert all(torch.equal(*pair) for pair in zip(values, before, strict=True))
        assert (floats.dtype, counts.dtype) == (torch.float32, torch.int64)
        floats.add_(1.0)
        assert all(torch.equal(value, start + 1) for value, start in zip(values, before, strict=True) if value.ndim)
        values[2].fill_(8)
        assert 8 in counts

    def test_its_numbers_keep_their_order_in_memory(self) -> None:
        value = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
        before, strides = value.clone(), value.stride()
        joined([torch.rand(1), value])
        assert value.stride() == strides
        assert torch.equal(value, before)

    def test_it_begins_where_pytorch_would_let_it_begin(self) -> None:
        """Else a matrix product may add up in another order, and a score depend on whether a file is kept."""
        values = [torch.rand(size) for size in (1, 17, 5)] + [torch.tensor(3), torch.tensor(4)]
        joined(values)
        assert all(value.data_ptr() % 64 == 0 for value in values)

    def test_a_parameter_is_trained_on_in_its_place(self) -> None:
        layer = nn.Linear(4, 2)
        (row,) = joined(layer.state_dict(keep_vars=True).values())
        before = row.clone()
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        layer(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        assert not torch.equal(row, before)
        assert torch.equal(row[:8].view(2, 4), layer.weight)

    def test_a_training_is_the_same_without_a_file(
        self, document: Callable[[str], dict[str, Any]], tiny: TinyBudget, scenes: datasets.DataSet, folder: Path
    ) -> None:
        arguments = (document("every operator"), tiny(epochs=2), scenes, folder, forward)
        kept = ShortTraining(*arguments, standing=folder / "checkpoint.bin")
        kept.train()
        without = ShortTraining(*arguments)
        without.train()
        assert same(kept.model.state_dict(), without.model.state_dict())
        assert all(torch.equal(*pair) for pair in zip(kept.ema.kept, without.ema.kept, strict=True))


KILLED = """
import json, os, signal, sys
from pathlib import Path
from trials import Budget, datasets, training

document, budget, folder = json.loads(sys.argv[1]), Budget.model_validate_json(sys.argv[2]), Path(sys.argv[3])
batches = []
preprocess = training.ShortTraining.preprocess_batch

def killed(trainer, batch):
    batches.append(batch)
    if len(batches) == 4:  # the second one of the second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return preprocess(trainer, batch)

training.ShortTraining.preprocess_batch = killed
files = {"weights": folder / "weights.pt", "standing": folder / "checkpoint.bin"}
training.train(document, budget, datasets.load(budget.data), folder, lambda *_: True, **files)
"""


class TestAfterAnEndThatNobodyWanted:
    def test_killed(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        budget, own = tiny(), folder / "killed"
        own.mkdir()
        finished = subprocess.run(
            [sys.executable, "-c", KILLED, json.dumps(document(STOCK)), budget.model_dump_json(), str(own)],
            env={**os.environ, "PYTHONPATH": str(Path(search_spaces.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == -signal.SIGKILL, finished.stderr[-2000:]
        assert {path.name for path in own.iterdir()} == {"ultralytics", "checkpoint.bin"}
        state, _ = standing(own)
        assert [epoch["epoch"] for epoch in state["epochs"]] == [1]
        resumed, whole = run(document(STOCK), budget, "killed"), run(document(STOCK), budget, "whole")
        assert resumed.heard == [1, 2]
        assert resumed.trained.epochs[0] == Epoch(**state["epochs"][0])  # not trained again
        assert figures(resumed.trained) == figures(whole.trained)
        assert same(weights(own), weights(folder / "whole"))
        assert_same_standing(own, folder / "whole")

    @pytest.mark.slow
    def test_while_it_wrote_where_it_stands(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        put, starts = double_buffer._put, list[int]()

        def killed(file: BinaryIO, start: int, *rest: Any) -> None:
            starts.append(start)
            if len(starts) == 2:  # after the second epoch
                file.seek(start)
                file.write(b"half")
                raise KeyboardInterrupt
            put(file, start, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(double_buffer, "_put", killed)
            with pytest.raises(KeyboardInterrupt):
                run(document(STOCK), tiny(epochs=EPOCHS), "killed")
        assert [epoch["epoch"] for epoch in standing(folder / "killed")[0]["epochs"]] == [1]
        resumed, whole = (run(document(STOCK), tiny(epochs=EPOCHS), name) for name in ("killed", "whole"))
        assert resumed.heard == [1, 2, 3]
        assert figures(resumed.trained) == figures(whole.trained)
        assert same(weights(folder / "killed"), weights(folder / "whole"))


class TestNothingLeft:
    @pytest.fixture
    def untrained(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """From here on no batch can be trained or validated."""

        def refuse(*_: object) -> NoReturn:
            raise AssertionError("there is nothing left to train")

        return lambda: monkeypatch.setattr(DetectionModel, "loss", refuse)

    def test_of_a_training_that_was_complete(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        untrained: Callable[[], None],
    ) -> None:
        first = run(document("two heads"), tiny())
        before = weights(folder / "trial")
        (folder / "trial" / "weights.pt").unlink()  # killed between the last epoch and the weights
        untrained()
        again = run(document("two heads"), tiny())
        spent = sum(epoch.seconds for epoch in first.trained.epochs)
        assert again == Process(trained=replace(first.trained, before=spent), heard=[1, 2])
        assert same(weights(folder / "trial"), before)

    def test_of_one_that_is_to_stop_earlier_than_it_did(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        untrained: Callable[[], None],
    ) -> None:
        """As if it were trained now: nobody is asked again who has said no."""
        first = run(document(STOCK), tiny(epochs=EPOCHS), until=2)
        untrained()
        again = run(document(STOCK), tiny(epochs=EPOCHS), until=1)
        assert again.heard == [1]
        assert again.trained.stopped
        assert again.trained.epochs == first.trained.epochs[:1]
        assert not (folder / "trial" / "weights.pt").exists()


class TestOfAnotherTraining:
    @pytest.fixture
    def begun(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        scenes: datasets.DataSet,
        folder: Path,
    ) -> Callable[..., ShortTraining]:
        """A training that has found one epoch of the stock model's, ready to begin."""
        run(document(STOCK), tiny(epochs=EPOCHS), until=1)

        def ready(name: str = STOCK, **changes: object) -> ShortTraining:
            budget = tiny(**{"epochs": EPOCHS, **changes})
            standing = folder / "trial" / "checkpoint.bin"
            trainer = ShortTraining(document(name), budget, scenes, folder, forward, standing=standing)
            trainer._setup_train()
            return trainer

        return ready

    def test_it_is_not_gone_on_with(self, begun: Callable[..., ShortTraining]) -> None:
        others: list[dict[str, Any]] = [
            {"name": "every operator"},
            {"seed": 1},
            {"epochs": EPOCHS + 1},
            {"rungs": (2,)},
            {"batch": 4},
            {"recipe": Recipe(fliplr=0.0, learning_rate=1e-3)},
        ]
        for changes in others:
            trainer = begun(**changes)
            assert (trainer.start_epoch, trainer.epochs_done, dict(trainer.optimizer.state)) == (0, [], {}), changes

    def test_but_it_is_with_more_time(self, begun: Callable[..., ShortTraining]) -> None:
        trainer = begun(timeout=600.0)
        assert trainer.start_epoch == 1
        assert [epoch.epoch for epoch in trainer.epochs_done] == [1]

    @pytest.mark.slow
    def test_what_it_began_with_does_not_matter_any_more(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        """All comes from where the training stood."""
        start = folder / "start.pt"
        save(build.model(document(STOCK), CLASSES), {}, start)
        first = run(document(STOCK), tiny(weights=start), "whole")
        run(document(STOCK), tiny(weights=start), "parts", until=1)
        save(build.model(document(STOCK), CLASSES), {}, start)
        again = run(document(STOCK), tiny(weights=start), "parts")
        assert again.trained.coverage == first.trained.coverage
        assert again.trained.coverage.share == 1.0
        assert same(weights(folder / "parts"), weights(folder / "whole"))
