"""Export of a trial: the printed commands, and weights of a foreign study."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.deployment.formats import ExportedFormat
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study import deployment
from nas.study.study import Study
from search_spaces import build
from search_spaces.errors import EnvironmentProblem, StudyError
from trials import Budget, Outcome
from trials.data import datasets
from trials.weights import keep


@pytest.fixture
def study(
    make_study: Callable[..., Study], score: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Study:
    """Study with one finished trial, which began from a checkpoint and has a model's weights."""
    start = tmp_path / "start.pt"
    start.touch()
    monkeypatch.setattr(worker, "evaluate", score)
    data = datasets.load("digits").path
    study = make_study(trials=1, budget=Budget(data=data, epochs=1, image_size=64, deploy_size=64, weights=start))
    Worker(study, deadline=float("inf")).run()
    classes = len(study.settings.classes)
    model = build.model(study.space.stock.document(classes), classes)
    keep(model, {"imgsz": 64}, study.files(0).weights)
    return study


def test_folder_that_cannot_be_made_is_an_error_with_a_remedy(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match=r"cannot be made .* choose another --out"):
        study.export(trial=0, folder=tmp_path / "file" / "out")


def test_printed_commands_start_from_the_weights(study: Study, tmp_path: Path) -> None:
    exported = study.export(trial=0, folder=tmp_path / "out")
    assert f" pretrained={tmp_path / 'out' / 'weights.pt'} " in exported.train
    assert f" pretrained={tmp_path / 'start.pt'} " in exported.retrain  # as the trial did


def test_the_printed_commands_can_be_pasted_into_a_shell(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "what? a%20b #c 'd'"
    exported = study.export(trial=0, folder=folder)
    words = shlex.split(exported.train, comments=True)
    for name, file in (("model", "model.yaml"), ("data", "data.yaml"), ("pretrained", "weights.pt")):
        assert f"{name}={folder / file}" in words
    assert f"model={folder / 'model.yaml'}" in shlex.split(exported.retrain, comments=True)


def test_printed_commands_name_no_missing_weights(study: Study, tmp_path: Path) -> None:
    study.files(0).weights.unlink()
    (tmp_path / "start.pt").unlink()
    exported = study.export(trial=0, folder=tmp_path / "out")
    assert "pretrained" not in exported.train + exported.retrain


def test_the_card_lists_every_file_and_folder(study: Study, tmp_path: Path) -> None:
    whole = study.export(trial=0, folder=tmp_path / "out")
    found = ExportedFormat(name="onnx", path=whole.folder / "weights.onnx", unchecked="no runtime")
    folder = ExportedFormat(name="ncnn", path=whole.folder / "weights_ncnn_model")
    failed = ExportedFormat(name="mnn", problem="not installed")
    (whole.folder / "weights_ncnn_model").mkdir()
    more = replace(whole, formats=(found, folder, failed), standalone=whole.folder / "standalone")
    files = ["model.yaml", "weights.pt", "data.yaml", "summary.json"]
    assert list(deployment._card_files(whole)) == files
    assert list(deployment._card_files(more)) == [*files, "weights.onnx", "weights_ncnn_model/", "standalone/"]


def test_pickle_of_a_foreign_study_is_not_loaded(study: Study, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"model": Runs()}, study.files(0).weights)
    with pytest.raises(StudyError, match=r"weights\.pt: not written by a trial of this package, and not opened"):
        study.export(trial=0, folder=tmp_path / "out")
    assert not (tmp_path / "ran").exists()
