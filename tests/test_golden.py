"""What older versions wrote opens, resumes, exports and validates today; tests/golden/README.md says what it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from nas.study.score_cache import ScoreCache
from nas.study.study import Study
from nas.workflows.begin import resume
from nas.workflows.running import supervise
from search_spaces import Architecture, build, space_file
from search_spaces.model_reader import model_document
from trials import Budget, Ending, evaluate
from trials.costing import cost
from trials.data.datasets import DataSet
from trials.latency import timings
from trials.latency.latency_table import LatencyTable
from trials.training import checkpoint
from trials.training.checkpoint import identity_by_places

GOLDEN = Path(__file__).parent / "golden"
ORIGIN = "/tmp/golden"  # noqa: S108 - where the archive was made
EXPECTED = {
    0: {"fingerprint": "c88844d733a5", "params": 34388, "gflops": 0.003386368, "map50_95": 0.54859, "map50": 0.94143},
    1: {"fingerprint": "287e9b10f5dc", "params": 35336, "gflops": 0.003410236, "map50_95": 0.49537, "map50": 0.87833},
    2: {"fingerprint": "86a4b2a387ac", "params": 36932, "gflops": 0.003357696, "map50_95": 0.55605, "map50": 0.86545},
}
INTERRUPTED = "4cf6af6b945a"
SUMMARIES = {
    0: "stock",
    1: "UIB 2 · DynamicConv 4 · MMQA 6 · DySample 8 · DCNv4 10",
    2: "FasterBlock 2 · UIB after-7",
}


@pytest.fixture
def golden(extract_golden: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive's folder."""
    folder = extract_golden("2026-11", tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture
def study(golden: Path) -> Study:
    return Study.open(golden / "runs" / "golden-data")


def test_records_equal_the_stored_ones(study: Study) -> None:
    records = {record.trial: record for record in study.records() if record.ending == "finished"}
    assert {n: {name: getattr(record, name) for name in EXPECTED[n]} for n, record in records.items()} == EXPECTED
    assert {number: record.summary for number, record in records.items()} == SUMMARIES
    assert [record.trial for record in study.front()] == [2]


def test_records_are_rebuilt_without_their_file(study: Study) -> None:
    before = study.records()
    (study.folder / "records.jsonl").unlink()
    assert Study.open(study.folder).records() == before


def test_parameters_of_optuna_spell_the_architecture_of_the_model_file(study: Study) -> None:
    for number in EXPECTED:
        record = study.records()[number]
        architecture = study.architecture(record)
        assert architecture.fingerprint == EXPECTED[number]["fingerprint"]
        assert Architecture.from_yaml(study.files(number).model.read_text(encoding="utf-8")) == architecture


def test_costs_of_stored_trials_are_counted_as_before(study: Study) -> None:
    table = cost.table(study.space, 2, 64)
    for number, expected in EXPECTED.items():
        counted = table.cost(study.architecture(study.records()[number]))
        assert (counted.params, round(counted.gflops, 9)) == (expected["params"], expected["gflops"])


@pytest.mark.parametrize("file", ["export/trial-000{}/weights.pt", "trials/000{}/weights.pt"])
@pytest.mark.parametrize("number", EXPECTED)
def test_stored_weights_validate_to_the_recorded_score(study: Study, file: str, number: int) -> None:
    metrics: Any = YOLO(study.folder / file.format(number)).val(
        data=study.folder / "export/trial-0000/data.yaml",
        imgsz=64,
        batch=4,
        plots=False,
        verbose=False,
        workers=0,
        project=study.folder / "val",
    )
    assert metrics.box.map == pytest.approx(EXPECTED[number]["map50_95"], abs=0.001)


@pytest.mark.parametrize("number", EXPECTED)
def test_stored_study_exports_the_same_models(study: Study, number: int, tmp_path: Path) -> None:
    exported = study.export(trial=number, folder=tmp_path / "exported")
    again, before = (folder / "model.yaml" for folder in (exported.folder, study.folder / f"export/trial-000{number}"))
    assert model_document(str(again))["backbone"] == model_document(str(before))["backbone"]
    image = torch.rand(1, 3, 64, 64)
    models = [YOLO(folder / "weights.pt").model.eval() for folder in (exported.folder, before.parent)]
    torch.testing.assert_close(*(model(image)[0] for model in models))


@pytest.mark.parametrize("number", EXPECTED)
def test_stored_exported_model_files_build(study: Study, number: int) -> None:
    document = model_document(str(study.folder / f"export/trial-000{number}/model.yaml"))
    built = build.model(document, 2).fuse(verbose=False)
    assert sum(parameter.numel() for parameter in built.parameters()) == EXPECTED[number]["params"]


def test_stored_study_resumes_with_the_interrupted_architecture_first(golden: Path) -> None:
    study = resume("golden-data", runs=golden / "runs", trials=4, workers=1)
    supervise(study)
    finished = {record.fingerprint: record for record in study.records() if record.ending == "finished"}
    assert finished.keys() == {INTERRUPTED, *(str(expected["fingerprint"]) for expected in EXPECTED.values())}
    assert finished[INTERRUPTED].epochs == 40
    assert (finished[INTERRUPTED].map50_95 or 0) > 0.3


def test_training_resumes_from_a_stored_checkpoint(study: Study, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_was_made(document: dict[str, Any], budget: Budget, data: DataSet) -> str:
        """With the places and versions of then; in one process, operators and base models have the first place."""
        modules = [f"{ORIGIN}/runs/golden-data/modules/my_ops.py"]
        origin = {**document["nas"], "base": f"{ORIGIN}/tiny.yaml", "modules": modules}
        places = {name: Path(str(getattr(budget, name)).replace(str(golden), ORIGIN)) for name in ("data", "weights")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "__version__", "2.14.1+cu130")
            patch.setattr(checkpoint, "ultralytics_version", "8.4.190")
            return identity_by_places({**document, "nas": origin}, budget.model_copy(update=places), data)

    monkeypatch.setattr(checkpoint, "identity_by_places", as_it_was_made)
    base = study.stock_training
    assert base is not None
    outcome = evaluate(
        study.architecture(study.records()[3]),
        study.settings.budget.model_copy(update={"weights": base.weights}),
        study.files(3).folder,
        lambda _number, _epoch: True,
    )
    assert outcome.ending is Ending.FINISHED
    assert len(outcome.epochs) == 40
    stored = [json.loads(line) for line in study.files(3).progress.read_text(encoding="utf-8").splitlines()]
    assert [epoch.losses for epoch in outcome.epochs[:19]] == [epoch["losses"] for epoch in stored[:19]]
    assert [epoch.seconds for epoch in outcome.epochs[:19]] == [epoch["seconds"] for epoch in stored[:19]]


def test_stored_latency_table_predicts(golden: Path) -> None:
    space = space_file.load(golden / "space.yaml")
    table = LatencyTable(space, 2, 64, timings.read(golden / "cache/latency/golden.csv"))
    assert 0 < table.predict(space.stock) < 1000


def test_stored_score_cache_is_read(golden: Path) -> None:
    cache = ScoreCache(golden / "cache/scores")
    names = [path.stem for path in sorted((golden / "cache/scores").rglob("*.json"))]
    assert len(names) == 4
    read = [cache.read(name) for name in names]
    scores = [one.scores["map50_95"] for one in read if one is not None]
    assert {expected["map50_95"] for expected in EXPECTED.values()} < set(scores)


def test_golden_archives_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 2_000_000
