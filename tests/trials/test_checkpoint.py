"""Resumed trainings end with the same bits as uninterrupted ones.

Not tested here, since it needs a GPU: the gradient scaler of fp16.
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
from trials.training.double_buffer import DoubleBufferedFile
from trials.training.ema import move_to_flat_buffers
from trials.training.short_training import ShortTraining, TrainingResult
from trials.weights import save

CLASSES = 10
EPOCHS = 3
STOCK = "yolov5n"
TinyBudget = Callable[..., Budget]


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process's part of a training.

    Attributes:
        asked: the epochs that `go_on` was called for, in order.
    """

    result: TrainingResult
    asked: list[int] = field(default_factory=list)


def forward(_number: int, _epoch: Epoch) -> bool:
    return True


@pytest.fixture
def document(motley: Architecture) -> Callable[[str], dict[str, Any]]:
    """Return a model YAML by what is special about the training."""
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
    """Train in this process; `until` is the epoch after which `go_on` returns False."""

    def train(document: Mapping[str, Any], budget: Budget, name: str = "trial", *, until: int | None = None) -> Process:
        asked: list[int] = []

        def go_on(number: int, _epoch: Epoch) -> bool:
            asked.append(number)
            return number != until

        trial = folder / name
        trial.mkdir(exist_ok=True)
        weights, checkpoint = trial / "weights.pt", trial / "checkpoint.bin"
        result = short_training.train(
            document, budget, scenes, trial, go_on, weights=weights, checkpoint_path=checkpoint
        )
        return Process(result=result, asked=asked)

    return train


def figures(result: TrainingResult) -> list[tuple[object, ...]]:
    """Return the fields of the epochs without the seconds that they took."""
    return [(epoch.epoch, epoch.losses, epoch.map50_95, epoch.map50) for epoch in result.epochs]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "weights.pt")[0].state_dict()


def same(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> bool:
    return these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)


def checkpoint_of(folder: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """Read the state and the tensors of a trial's checkpoint."""
    found = DoubleBufferedFile(folder / "checkpoint.bin").read()
    assert found is not None
    return found


def assert_same_checkpoint(one: Path, other: Path) -> None:
    """Compare weights, EMA and moments to the bit, and all counters."""
    (this, these), (that, those) = (checkpoint_of(folder) for folder in (one, other))
    assert all(torch.equal(*pair) for pair in zip(these, those, strict=True))
    for state in (this, that):
        for epoch in state["epochs"]:
            del epoch["seconds"]
    assert this == that


def assert_resumes_exactly(
    run: Callable[..., Process], document: Mapping[str, Any], budget: Budget, folder: Path
) -> None:
    """Stop after every epoch and resume; the end is as without a stop."""
    whole = run(document, budget, "whole")
    for epoch in range(1, budget.epochs):
        part = run(document, budget, "parts", until=epoch)
        assert part.asked == list(range(1, epoch + 1))
        assert part.result.stopped
        assert not (folder / "parts" / "weights.pt").exists()
        for left in ("checkpoint.tmp", "weights.tmp"):  # by a process that was killed while it wrote
            (folder / "parts" / left).write_bytes(b"half")
    last = run(document, budget, "parts")
    assert last.asked == list(range(1, budget.epochs + 1))
    assert last.result.epochs[:-1] == part.result.epochs
    assert figures(last.result) == figures(whole.result)
    assert last.result.coverage == whole.result.coverage
    assert same(weights(folder / "parts"), weights(folder / "whole"))
    assert_same_checkpoint(folder / "parts", folder / "whole")


class TestResumedTraining:
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
    def test_resumed_training_is_equal_for_every_kind_of_model(
        self,
        name: str,
        epochs: int,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        recipe = Recipe(fliplr=0.5, mosaic=0.5, pgi=name == "auxiliary branch")
        assert_resumes_exactly(run, document(name), tiny(epochs=epochs, rungs=(2,), recipe=recipe), folder)

    @pytest.mark.parametrize(
        "optimizer", ["SGD", *(pytest.param(name, marks=pytest.mark.slow) for name in ("MuSGD", "RMSProp"))]
    )
    def test_resumed_training_is_equal_for_every_optimizer(
        self,
        optimizer: str,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        assert_resumes_exactly(run, document(STOCK), tiny(recipe=Recipe(optimizer=optimizer)), folder)

    def test_resumed_training_is_equal_in_bf16(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        assert_resumes_exactly(run, document("every operator"), tiny(epochs=2, precision="bf16"), folder)

    @pytest.mark.slow
    def test_resumed_training_is_equal_in_the_memory_format_of_a_gpu(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(short_training, "training_format", lambda _model: torch.contiguous_format)
        assert_resumes_exactly(run, document(STOCK), tiny(), folder)

    def test_resumed_training_is_equal_with_another_learning_rate_for_new_tensors(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        start = folder / "start.pt"
        save(build.model(document(STOCK), CLASSES), {}, start)
        recipe = Recipe(new_rate=3.0, warmup_epochs=1.0)
        assert_resumes_exactly(run, document("every operator"), tiny(weights=start, recipe=recipe), folder)

    def test_resumed_training_restores_the_strides_of_every_tensor(
        self,
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        scenes: datasets.DataSet,
        folder: Path,
    ) -> None:
        """The fused kernel takes weights, gradients and moments as they lie in memory."""

        def strides(trainer: ShortTraining) -> list[tuple[int, ...]]:
            moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
            return [value.stride() for value in (*trainer.model.parameters(), *moments)]

        arguments = (document(STOCK), tiny(), scenes, folder, lambda number, _: number != 1)
        trainer = ShortTraining(*arguments, checkpoint_path=folder / "checkpoint.bin")
        trainer.train()
        again = ShortTraining(*arguments, checkpoint_path=folder / "checkpoint.bin")
        again._setup_train()
        assert strides(again) == strides(trainer)
        assert again.model.model[1].conv.weight.is_contiguous(memory_format=torch.channels_last)


class TestFlatBuffers:
    def test_every_tensor_becomes_a_view_of_a_flat_buffer(self) -> None:
        values = [torch.rand(3), torch.rand(2, 5), torch.tensor(7), nn.Parameter(torch.rand(()))]
        before = [value.detach().clone() for value in values]
        floats, counts = move_to_flat_buffers(values)
        assert all(torch.equal(*pair) for pair in zip(values, before, strict=True))
        assert (floats.dtype, counts.dtype) == (torch.float32, torch.int64)
        floats.add_(1.0)
        assert all(torch.equal(value, start + 1) for value, start in zip(values, before, strict=True) if value.ndim)
        values[2].fill_(8)
        assert 8 in counts

    def test_flat_buffer_keeps_the_order_in_memory(self) -> None:
        value = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
        before, strides = value.clone(), value.stride()
        move_to_flat_buffers([torch.rand(1), value])
        assert value.stride() == strides
        assert torch.equal(value, before)

    def test_tensors_in_a_flat_buffer_are_aligned_as_by_pytorch(self) -> None:
        """At other addresses a matrix product may add in another order: scores would depend on writing checkpoints."""
        values = [torch.rand(size) for size in (1, 17, 5)] + [torch.tensor(3), torch.tensor(4)]
        move_to_flat_buffers(values)
        assert all(value.data_ptr() % 64 == 0 for value in values)

    def test_optimizer_updates_the_flat_buffer(self) -> None:
        layer = nn.Linear(4, 2)
        (row,) = move_to_flat_buffers(layer.state_dict(keep_vars=True).values())
        before = row.clone()
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        layer(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        assert not torch.equal(row, before)
        assert torch.equal(row[:8].view(2, 4), layer.weight)

    def test_training_without_a_checkpoint_is_equal(
        self, document: Callable[[str], dict[str, Any]], tiny: TinyBudget, scenes: datasets.DataSet, folder: Path
    ) -> None:
        arguments = (document("every operator"), tiny(epochs=2), scenes, folder, forward)
        written = ShortTraining(*arguments, checkpoint_path=folder / "checkpoint.bin")
        written.train()
        without = ShortTraining(*arguments)
        without.train()
        assert same(written.model.state_dict(), without.model.state_dict())
        assert all(torch.equal(*pair) for pair in zip(written.ema.shadow, without.ema.shadow, strict=True))


KILLED = """
import json, os, signal, sys
from pathlib import Path
from trials import Budget
from trials.data import datasets
from trials.training import short_training

document, budget, folder = json.loads(sys.argv[1]), Budget.model_validate_json(sys.argv[2]), Path(sys.argv[3])
batches = []
preprocess = short_training.ShortTraining.preprocess_batch

def killed(trainer, batch):
    batches.append(batch)
    if len(batches) == 4:  # the second one of the second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return preprocess(trainer, batch)

short_training.ShortTraining.preprocess_batch = killed
files = {"weights": folder / "weights.pt", "checkpoint_path": folder / "checkpoint.bin"}
short_training.train(document, budget, datasets.load(budget.data), folder, lambda *_: True, **files)
"""


class TestKilledTraining:
    def test_killed_training_resumes_after_the_last_whole_epoch(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        budget, trial = tiny(), folder / "killed"
        trial.mkdir()
        finished = subprocess.run(
            [sys.executable, "-c", KILLED, json.dumps(document(STOCK)), budget.model_dump_json(), str(trial)],
            env={**os.environ, "PYTHONPATH": str(Path(search_spaces.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == -signal.SIGKILL, finished.stderr[-2000:]
        assert {path.name for path in trial.iterdir()} == {"ultralytics", "checkpoint.bin"}
        state, _ = checkpoint_of(trial)
        assert [epoch["epoch"] for epoch in state["epochs"]] == [1]
        resumed, whole = run(document(STOCK), budget, "killed"), run(document(STOCK), budget, "whole")
        assert resumed.asked == [1, 2]
        assert resumed.result.epochs[0] == Epoch(**state["epochs"][0])  # not trained again
        assert figures(resumed.result) == figures(whole.result)
        assert same(weights(trial), weights(folder / "whole"))
        assert_same_checkpoint(trial, folder / "whole")

    @pytest.mark.slow
    def test_training_killed_during_a_write_resumes(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        write_half, starts = double_buffer._write_half, list[int]()

        def killed(file: BinaryIO, start: int, *rest: Any) -> None:
            starts.append(start)
            if len(starts) == 2:  # after the second epoch
                file.seek(start)
                file.write(b"half")
                raise KeyboardInterrupt
            write_half(file, start, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(double_buffer, "_write_half", killed)
            with pytest.raises(KeyboardInterrupt):
                run(document(STOCK), tiny(epochs=EPOCHS), "killed")
        assert [epoch["epoch"] for epoch in checkpoint_of(folder / "killed")[0]["epochs"]] == [1]
        resumed, whole = (run(document(STOCK), tiny(epochs=EPOCHS), name) for name in ("killed", "whole"))
        assert resumed.asked == [1, 2, 3]
        assert figures(resumed.result) == figures(whole.result)
        assert same(weights(folder / "killed"), weights(folder / "whole"))


class TestNoEpochLeft:
    @pytest.fixture
    def untrained(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Return a function after whose call no batch can be trained or validated."""

        def refuse(*_: object) -> NoReturn:
            raise AssertionError("there is nothing left to train")

        return lambda: monkeypatch.setattr(DetectionModel, "loss", refuse)

    def test_a_finished_training_is_returned_without_training(
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
        spent = sum(epoch.seconds for epoch in first.result.epochs)
        assert again == Process(result=replace(first.result, earlier_seconds=spent), asked=[1, 2])
        assert same(weights(folder / "trial"), before)

    def test_a_training_ends_at_the_epoch_where_go_on_now_returns_false(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
        untrained: Callable[[], None],
    ) -> None:
        """`go_on` is not called again after it returned False, as in an uninterrupted training."""
        first = run(document(STOCK), tiny(epochs=EPOCHS), until=2)
        untrained()
        again = run(document(STOCK), tiny(epochs=EPOCHS), until=1)
        assert again.asked == [1]
        assert again.result.stopped
        assert again.result.epochs == first.result.epochs[:1]
        assert not (folder / "trial" / "weights.pt").exists()


class TestIdentity:
    @pytest.fixture
    def set_up(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        scenes: datasets.DataSet,
        folder: Path,
    ) -> Callable[..., ShortTraining]:
        """Return a function that sets up a training where a checkpoint of one epoch of the stock model's lies."""
        run(document(STOCK), tiny(epochs=EPOCHS), until=1)

        def ready(name: str = STOCK, **changes: object) -> ShortTraining:
            budget = tiny(**{"epochs": EPOCHS, **changes})
            path = folder / "trial" / "checkpoint.bin"
            trainer = ShortTraining(document(name), budget, scenes, folder, forward, checkpoint_path=path)
            trainer._setup_train()
            return trainer

        return ready

    def test_checkpoint_of_another_training_is_ignored(self, set_up: Callable[..., ShortTraining]) -> None:
        others: list[dict[str, Any]] = [
            {"name": "every operator"},
            {"seed": 1},
            {"epochs": EPOCHS + 1},
            {"rungs": (2,)},
            {"batch": 4},
            {"recipe": Recipe(fliplr=0.0, learning_rate=1e-3)},
        ]
        for changes in others:
            trainer = set_up(**changes)
            assert (trainer.start_epoch, trainer.epochs_done, dict(trainer.optimizer.state)) == (0, [], {}), changes

    def test_training_with_another_time_limit_resumes(self, set_up: Callable[..., ShortTraining]) -> None:
        trainer = set_up(timeout=600.0)
        assert trainer.start_epoch == 1
        assert [epoch.epoch for epoch in trainer.epochs_done] == [1]

    @pytest.mark.slow
    def test_changed_initial_weights_do_not_prevent_resuming(
        self,
        run: Callable[..., Process],
        document: Callable[[str], dict[str, Any]],
        tiny: TinyBudget,
        folder: Path,
    ) -> None:
        """Start from a checkpoint that has all tensors of the model."""
        start = folder / "start.pt"
        save(build.model(document(STOCK), CLASSES), {}, start)
        first = run(document(STOCK), tiny(weights=start), "whole")
        run(document(STOCK), tiny(weights=start), "parts", until=1)
        save(build.model(document(STOCK), CLASSES), {}, start)
        again = run(document(STOCK), tiny(weights=start), "parts")
        assert again.result.coverage == first.result.coverage
        assert again.result.coverage.share == 1.0
        assert same(weights(folder / "parts"), weights(folder / "whole"))
