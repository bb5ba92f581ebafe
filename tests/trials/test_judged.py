"""A finished training is evaluated once on the images that judge, and its matches are stored."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.models.yolo.detect import DetectionValidator

from search_spaces import Architecture
from search_spaces.errors import EnvironmentProblem, ScoreError
from trials import Budget, evaluate
from trials.accuracy.average_precision import map50_95
from trials.accuracy.judged import JUDGED, Judged
from trials.accuracy.matches import Matches
from trials.accuracy.resampling import RESAMPLES, image_weights
from trials.data import datasets
from trials.data.splits import labeled_image
from trials.data.unseen_images import JudgingImages, judging_set
from trials.scores import Accuracy, Ending
from trials.training import short_training

TinyBudget = Callable[..., Budget]


@pytest.fixture
def judging(scenes: datasets.DataSet) -> JudgingImages:
    """The images of val, on which the score is known."""
    (source,) = map(Path, scenes.val)
    return judging_set("test", scenes.classes, [labeled_image(str(path), source) for path in source.iterdir()])


@pytest.fixture
def _model_that_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what the model detects by the labelled boxes, moved a little, and by false ones.

    Two epochs teach nothing, and a mAP of 0 would be equal by any code.
    """
    theirs = DetectionValidator.update_metrics

    def update(self: DetectionValidator, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        for index in range(len(preds)):
            rng = np.random.default_rng(int(Path(batch["im_file"][index]).stem))
            labels = self._prepare_batch(index, batch)
            moved = labels["bboxes"] + torch.as_tensor(rng.normal(0, 1, labels["bboxes"].shape), dtype=torch.float32)
            boxes = torch.cat([moved, torch.as_tensor(rng.uniform(0, 64, (9, 4)), dtype=torch.float32)])
            confidences = torch.as_tensor(np.round(rng.random(len(boxes)), 2), dtype=torch.float32)  # some are equal
            order = confidences.argsort(descending=True)
            classes = torch.cat([labels["cls"], torch.as_tensor(rng.integers(0, 10, 9))])
            preds[index] = {"bboxes": boxes[order], "conf": confidences[order], "cls": classes[order].float()}
        theirs(self, preds, batch)

    monkeypatch.setattr(DetectionValidator, "update_metrics", update)


@pytest.fixture
def judge(stock: Architecture, tiny: TinyBudget, judging: JudgingImages, folder: Path) -> Callable[..., Any]:
    """Evaluate the stock model with a budget that learns next to nothing."""

    def run() -> Any:
        return evaluate(stock, tiny(), folder, lambda *_: True, judging=judging)

    return run


def arrays(judged: Judged) -> dict[str, Any]:
    return {**vars(judged), **vars(judged.matches), "matches": None}


def same(one: Judged, other: Judged) -> bool:
    these, those = arrays(one), arrays(other)
    return these.keys() == those.keys() and all(np.array_equal(these[name], those[name]) for name in these)


@pytest.mark.usefixtures("_model_that_finds")
def test_judged_with_the_validator_of_the_score(
    judge: Callable[..., Any], judging: JudgingImages, folder: Path
) -> None:
    outcome = judge()
    judged = Judged.read(folder / JUDGED)
    assert 0.05 < judged.map50_95 < judged.map50 < 1
    assert outcome.judged == Accuracy(map50_95=judged.map50_95, map50=judged.map50)
    # Ultralytics rounds the scores of a training to five digits.
    assert (round(judged.map50_95, 5), round(judged.map50, 5)) == (outcome.scores.map50_95, outcome.scores.map50)
    assert judged.fingerprint == judging.fingerprint
    ones = np.ones((1, len(judging.images)), int)
    assert map50_95(judged.matches, ones)[0] == pytest.approx(judged.map50_95, abs=1e-12)
    assert np.array_equal(judged.resampled, map50_95(judged.matches, image_weights(len(judging.images))))
    labels = [Path(path.replace("/images/", "/labels/")).with_suffix(".txt") for path in judging.images]
    counts = [len(label.read_text().splitlines()) for label in labels]
    assert np.bincount(judged.matches.label_image, minlength=len(counts)).tolist() == counts


def test_killed_before_it_is_judged_trains_no_epoch_twice(
    judge: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judge()
    expected = Judged.read(folder / JUDGED)
    for name in (JUDGED, "checkpoint.bin", "weights.pt"):
        (folder / name).unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(short_training, "judge", killed)
        with pytest.raises(KeyboardInterrupt):
            judge()
    assert not (folder / JUDGED).exists()
    trained: list[int] = []
    monkeypatch.setattr(short_training, "seed_epoch", lambda *given: trained.append(given[-1]))
    again = judge()
    assert trained == []
    assert again.judged == whole.judged
    assert same(Judged.read(folder / JUDGED), expected)


def test_a_training_without_such_images_is_not_judged(stock: Architecture, tiny: TinyBudget, folder: Path) -> None:
    outcome = evaluate(stock, tiny(epochs=1), folder, lambda *_: True)
    assert outcome.ending is Ending.FINISHED
    assert outcome.judged is None
    assert not (folder / JUDGED).exists()


def test_full_disk_is_no_fault_of_the_candidate(
    judge: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Judged, "write", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        judge()
    assert not (folder / JUDGED).exists()


def example() -> Judged:
    matches = Matches(
        images=2,
        image=np.array([0, 1, 1], np.int32),
        confidence=np.array([0.9, 0.5, 0.5], np.float32),
        category=np.array([0, 1, 0], np.int32),
        correct=np.array([[True] * 10, [True] * 4 + [False] * 6, [False] * 10]),
        label_image=np.array([0, 1], np.int32),
        label_category=np.array([0, 1], np.int32),
    )
    return Judged.of(matches, map50_95=0.6, map50=0.9, fingerprint="ab12")


def test_file_comes_back_as_it_was(tmp_path: Path) -> None:
    example().write(tmp_path / JUDGED)
    assert same(Judged.read(tmp_path / JUDGED), example())


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "pickled", "other"])
def test_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / JUDGED
    example().write(path)
    whole = path.read_bytes()
    match damage:
        case "torn":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            middle = whole.index(b"resampled") + 400
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
        case "pickled":
            with path.open("wb") as file:
                np.save(file, np.array([{}], dtype=object), allow_pickle=True)
        case _:
            np.savez(path, image=np.zeros(3), images=np.zeros(3))
    with pytest.raises(ScoreError, match=f"{path}: damaged: "):
        Judged.read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"judged\.npz: missing"):
        Judged.read(tmp_path / JUDGED)


def test_number_of_an_image_that_is_not_there_is_damage(tmp_path: Path) -> None:
    wrong = replace(example(), matches=replace(example().matches, images=1))
    wrong.write(tmp_path / JUDGED)
    with pytest.raises(ScoreError, match="an image's number is not from 0 to 1"):
        Judged.read(tmp_path / JUDGED)


def test_resamples_are_the_same_everywhere() -> None:
    weights = image_weights(5)
    assert weights.shape == (RESAMPLES, 5)
    assert (weights.sum(axis=1) == 5).all()
    assert weights[:2].tolist() == image_weights.__wrapped__(5)[:2].tolist()
    assert weights.mean(axis=0) == pytest.approx(np.ones(5), abs=0.1)
