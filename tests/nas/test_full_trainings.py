"""Full trainings by `nas train`: their folders, what is passed to Ultralytics, and resuming."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.models.yolo.detect import DetectionTrainer

from nas.study.full_trainings import full_trainings, next_folder, unfinished
from nas.workflows import full_training, yolo_command
from search_spaces.errors import SpecError
from trials.training.full_training import FullTrainer, restore_checkpoints

HEADER = "epoch,time,metrics/mAP50-95(B)\n"


def begin(folder: Path, *scores: float, epochs: int = 3) -> Path:
    """Stand-in for a training of so many epochs."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    (folder / "args.yaml").write_text(f"epochs: {epochs}\n")
    rows = [f"{number},1.0,{score}\n" for number, score in enumerate(scores, start=1)]
    (folder / "results.csv").write_text("".join([HEADER, *rows]) + "4,1")  # the last line is torn
    if scores:
        (folder / "weights" / "last.pt").touch()
    return folder


def test_full_trainings_are_read_from_their_folders(tmp_path: Path) -> None:
    assert full_trainings(tmp_path) == []
    begin(next_folder(tmp_path, 4), 0.1, 0.3, 0.2)
    begin(next_folder(tmp_path, 4), 0.2)
    begin(next_folder(tmp_path, 11))
    first, second, third = full_trainings(tmp_path)
    assert (first.folder, second.folder) == (tmp_path / "full/trial-0004", tmp_path / "full/trial-0004-2")
    assert (first.trial, first.epochs, first.of, first.map50_95) == (4, 3, 3, 0.3)
    assert second.sentence == f"trial 4 trained in full: 1 of 3 epochs, mAP50-95 0.200: {second.folder}"
    assert (third.epochs, third.map50_95) == (0, None)


def test_the_last_training_that_has_not_ended_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no full training of s has begun"):
        unfinished(tmp_path, None, name="s")
    begin(tmp_path / "full/trial-0004")
    with pytest.raises(SpecError, match="had not saved an epoch yet"):
        unfinished(tmp_path, 4, name="s")
    begin(tmp_path / "full/trial-0004", 0.1)
    assert unfinished(tmp_path, 4, name="s").trial == unfinished(tmp_path, None, name="s").trial == 4
    unfinished(tmp_path, 4, name="s").finish()
    with pytest.raises(SpecError, match=r"the full training of trial 4 of s has finished: .*best\.pt"):
        unfinished(tmp_path, 4, name="s")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sequence[str]]:
    """Return the command lines that Ultralytics gets; it trains nothing."""
    commands: list[Sequence[str]] = []

    def run(words: Sequence[str], *, trust: bool) -> None:
        commands.append([*words, "--trust"] if trust else words)
        begin(tmp_path / "full/trial-0004", 0.1, 0.2)

    monkeypatch.setattr(yolo_command, "run", run)
    return commands


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """Stand-in for a study whose trial 4 is exported."""
    exported = SimpleNamespace(
        record=SimpleNamespace(trial=4), train_arguments=("model=m.yaml", "data=d.yaml"), deploy_size=640
    )
    return SimpleNamespace(folder=tmp_path, name="s", export=lambda **_: exported, space=None)


def test_arguments_are_passed_to_ultralytics(study: Any, commands: list[Sequence[str]], tmp_path: Path) -> None:
    done = full_training.train(study, ["epochs=2", "device=0,1"], trial=4, best=None)
    assert commands == [
        [
            *("train", "model=m.yaml", "data=d.yaml", "imgsz=640", "epochs=2", "device=0,1"),
            *(f"project={tmp_path / 'full'}", "name=trial-0004", "exist_ok=True"),
        ]
    ]
    assert (done.is_finished, done.map50_95) == (True, 0.2)


def test_resuming_goes_on_from_the_last_whole_checkpoint(
    study: Any, commands: list[Sequence[str]], tmp_path: Path
) -> None:
    weights = begin(tmp_path / "full/trial-0004", 0.1) / "weights"
    (weights / "last.pt").write_text("torn")
    (weights / "last.pt.earlier").write_text("whole")
    full_training.resume(study, ["device=1"], trial=None)
    assert commands == [["train", f"model={weights / 'last.pt'}", "resume=True", "device=1"]]
    assert (weights / "last.pt").read_text() == "whole"


@pytest.mark.parametrize("text", [b"epoch\n\xff\n", b"epoch,metrics/mAP50-95(B)\nmany,nan\ninf,best\n", b"a\n\0\n"])
def test_damaged_results_are_of_no_epoch(text: bytes, study: Any, tmp_path: Path) -> None:
    (begin(tmp_path / "full/trial-0004", 0.1) / "results.csv").write_bytes(text)
    found = full_trainings(study.folder)[0]
    assert (found.epochs, found.map50_95) == (0, None)


def test_trust_is_passed_on(study: Any, commands: list[Sequence[str]], tmp_path: Path) -> None:
    full_training.train(study, [], trial=4, best=None, trust=True)
    begin(tmp_path / "full/trial-0004-2", 0.1)
    full_training.resume(study, [], trial=None, trust=True)
    assert [words[-1] for words in commands] == ["--trust", "--trust"]


def test_what_nas_train_chooses_cannot_be_given(study: Any, commands: list[Sequence[str]]) -> None:
    with pytest.raises(SpecError) as caught:
        full_training.train(study, ["model=other.yaml", "epochs=3", "name=mine"], trial=4, best=None)
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == ["model=other.yaml", "name=mine"]
    assert commands == []


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    bare = FullTrainer.__new__(FullTrainer)
    bare.last, bare.best = tmp_path / "last.pt", tmp_path / "best.pt"
    bare.last.write_text("last 1")
    bare.best.write_text("best 1")
    return bare


def save(monkeypatch: pytest.MonkeyPatch, write: Callable[[Any], None]) -> None:
    monkeypatch.setattr(DetectionTrainer, "save_model", write)


def test_saving_replaces_checkpoints(trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(monkeypatch, lambda one: one.last.write_text("last 2"))  # the epoch is not the best
    trainer.save_model()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"last.pt": "last 2", "best.pt": "best 1"}


def test_a_kill_while_saving_loses_no_checkpoint(trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(one: Any) -> None:
        one.last.write_text("la")
        raise KeyboardInterrupt

    save(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_model()
    restore_checkpoints(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"last.pt": "last 1", "best.pt": "best 1"}
