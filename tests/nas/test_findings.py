"""What MLflow is sent of the studies that train a search's models again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from nas import html_page
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.study import identity
from nas.study.study import Study
from nas.study.tracking_state import TrackingState
from nas.tracking.findings import Findings
from nas.workflows import running
from nas.workflows.ablate import AblationPlan
from nas.workflows.confirm import confirm
from nas.workflows.findings import findings_of, stage_of
from search_spaces import Architecture
from search_spaces.errors import StudyError
from trials import Budget, Outcome
from trials.data import datasets

MakeStudy = Callable[..., Study]


def run(study: Study) -> None:
    Worker(study, deadline=float("inf")).run()


@pytest.fixture
def searched(
    make_study: MakeStudy,
    score: Callable[..., Outcome],
    judged_as_scored: Callable[..., Callable[..., Outcome]],
    monkeypatch: pytest.MonkeyPatch,
) -> Study:
    """A search whose trial 1 is more accurate than the stock model; a seed changes scores a little."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        outcome = score(architecture, budget, *arguments, **options)
        assert outcome.scores is not None
        accuracy = (
            0.5 + 0.02 * len(architecture.picks) + 0.0001 * (int(architecture.fingerprint, 16) % (budget.seed + 3))
        )
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy))

    monkeypatch.setattr(worker, "evaluate", judged_as_scored(scoring))
    make = partial(make_study, data_fingerprint=datasets.load("digits").fingerprint)
    study = make(trials=2, start="start: [{4: {UIB: {}}, 10: {DySample: {}}}]")
    run(study)
    return study


def test_search_has_no_findings_before_another_study_trains_its_models(searched: Study) -> None:
    assert stage_of(searched) is None
    assert findings_of(searched) == Findings()


def test_effects_of_operators_are_findings_of_a_search(
    make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "evaluate", score)
    study = make_study(trials=12)
    run(study)
    found, effects = findings_of(study), study.effects()
    assert effects.rows
    assert [row["operator"] for row in json.loads(found.tables["effects.json"])] == [
        row.operator for row in effects.rows
    ]
    assert found.lines == ()
    assert "Effects of operators:" in found.remarks
    assert set(effects.remarks()) <= set(found.remarks)


def test_verdict_and_ablations_are_findings_of_their_search(searched: Study) -> None:
    confirmation, ablation = confirm(searched, seeds=3), AblationPlan.of(searched, trial=1).begin()
    for study in (confirmation, ablation):
        run(study)
    verdict, judged = searched.verdict(), searched.ablation(1)
    assert verdict is not None
    assert judged is not None
    found = findings_of(searched)
    assert list(found.lines) == [*verdict.lines(), "", *judged.lines()]
    (finalist,) = verdict.finalists
    assert found.trials[1].sentence == finalist.sentence
    assert (found.trials[1].difference, found.trials[1].seeds) == (finalist.difference, 3)
    assert json.loads(found.tables["verdict.json"])["lines"] == verdict.lines()
    assert json.loads(found.tables["ablation-0001.json"])["lines"] == judged.lines()
    stages = [stage_of(confirmation), stage_of(ablation)]
    assert [(stage.kind, stage.folder) for stage in stages if stage is not None] == [
        ("confirm", searched.folder),
        ("ablate", searched.folder),
    ]
    assert findings_of(confirmation).lines == tuple(verdict.lines())
    assert findings_of(ablation).lines == tuple(judged.lines())
    assert findings_of(confirmation).trials == {}  # its trials have other numbers


def test_study_that_cannot_be_read_is_named(
    searched: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(*_: Any, **__: Any) -> None:
        raise StudyError("small-confirm/study.json: cannot be read")

    monkeypatch.setattr(Study, "verdict", unreadable)
    assert findings_of(searched) == Findings()
    assert "effects of small: small-confirm/study.json: cannot be read" in caplog.text


def test_studies_beside_one_whose_runs_have_no_end_are_sent(
    searched: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(running, "sync", lambda study: sent.append(study.name))
    confirmation, ablation = confirm(searched, seeds=3), AblationPlan.of(searched, trial=1).begin()
    running._send_beside(searched)
    assert not sent  # not tracked by this machine
    TrackingState(study_id="a", status="FINISHED").write(ablation.folder)
    TrackingState(study_id="b").write(confirmation.folder)
    running._send_beside(searched)
    assert sent == ["small-confirm"]
    with confirmation.supervision_lock.held():
        running._send_beside(searched)
    assert sent == ["small-confirm"]
    (ablation.folder / "study.json").write_text("{")
    running._send_beside(searched)
    assert "MLflow lacks the runs of the studies beside small: " in caplog.text


def test_copies_beside_a_copied_study_are_sent_once(
    searched: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmation = confirm(searched, seeds=3)
    TrackingState(study_id="b", status="FINISHED").write(confirmation.folder)
    for one in (searched, confirmation):
        one.storage.engine.dispose()
    shutil.copytree(searched.folder.parent, tmp_path / "copied")
    copy = Study.open(tmp_path / "copied" / searched.name)
    sent: list[Path] = []

    def sync(study: Study) -> None:
        sent.append(study.folder)
        identity.verify(study)

    monkeypatch.setattr(running, "sync", sync)
    for _ in range(2):
        running._send_beside(copy)
        running._send_beside(searched)
        assert sent == [tmp_path / "copied" / confirmation.name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1 on MLflow 3.17
def test_mlflow_shows_the_verdict_when_a_confirmation_has_ended(
    searched: Study, track_in: Callable[[Study, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InThisProcess:
        def __init__(self, study: Study, tick: Callable[[list[Record]], None]) -> None:
            self._study, self._tick = study, tick

        def run(self) -> None:
            run(self._study)
            self._tick(self._study.records())

    monkeypatch.setattr(html_page, "page", lambda *_, **__: "<html>")
    monkeypatch.setattr(running, "Supervisor", InThisProcess)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    track_in(searched, uri)
    running.supervise(searched)
    running.supervise(confirm(searched, seeds=3))
    verdict = searched.verdict()
    assert verdict is not None
    client = MlflowClient(tracking_uri=uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = {(one.data.tags["nas.study"], one.info.run_name): one for one in client.search_runs(experiments)}
    note = runs["small", "small"].data.tags["mlflow.note.content"]
    assert [line.strip() for line in note.splitlines()[: len(verdict.lines())]] == verdict.lines()
    assert runs["small", "trial-0001"].data.tags["nas.verdict"] == verdict.finalists[0].sentence
    assert runs["small", "small"].info.status == "FINISHED"
    stage = runs["small-confirm", "small-confirm"].data.tags
    assert stage["mlflow.parentRunId"] == runs["small", "small"].info.run_id
    assert stage["nas.stage"] == "confirm"
