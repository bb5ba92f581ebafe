"""Studies damaged in every way are found damaged, repaired without loss, and found clean."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from nas import addresses, html_page
from nas.cli import app
from nas.execution import recovery, worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.study.consistency import FoundFiles, Repair, StoredTrial, compare_trials
from nas.study.named_addresses import remember
from nas.study.study import Study
from nas.workflows import running
from trials import Outcome

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

MakeStudy = Callable[..., Study]
Damage = Callable[["Broken"], object]
Contents = Callable[[Path], dict[Path, Any]]
TRIALS = 4


class InThisProcess:
    """Stand-in for a supervisor: one worker in this process."""

    def __init__(self, study: Study, on_tick: Callable[[Sequence[Record]], None]) -> None:
        self._study, self._on_tick = study, on_tick

    def run(self) -> None:
        recovery.recover(self._study)
        Worker(self._study, deadline=float("inf")).run()
        self._on_tick(self._study.records())


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "page", lambda *_, **__: "<html>")  # else five megabytes a time


class Broken:
    """Study to be damaged.

    Attributes:
        folder: of the study.
        database: MLflow's file.
    """

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.database = folder, database

    def storage(self, *statements: str) -> None:
        """Change Optuna's storage."""
        with closing(sqlite3.connect(self.folder / "study.db")) as database, database:
            for statement in statements:
                assert database.execute(statement).rowcount != 0, statement

    def change(self, file: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the mapping in a JSON file."""
        fields = json.loads((self.folder / file).read_text())
        change(fields)
        (self.folder / file).write_text(json.dumps(fields))

    def track_in(self, uri: str) -> None:
        """Let the study name another MLflow, as its user does."""
        self.change("study.json", lambda fields: fields.update(tracking=uri))
        remember(uri, addresses.TRACKING, self.folder)

    def halve(self, file: str) -> None:
        whole = (self.folder / file).read_bytes()
        (self.folder / file).write_bytes(whole[: len(whole) // 2])

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(tracking_uri=f"sqlite:///{self.database}")

    def runs(self) -> Mapping[str, Any]:
        """Return MLflow's runs by name."""
        (experiment,) = [one for one in self.mlflow.search_experiments() if one.name.startswith("nas/")]
        return {run.info.run_name: run for run in self.mlflow.search_runs([experiment.experiment_id])}

    def nas(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["fsck", "small", *arguments, "--runs", str(self.folder.parent)])


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory,
    study_maker: Callable[[Path], MakeStudy],
    score: Callable[..., Outcome],
    whole_weights: Callable[[Callable[..., Outcome]], Callable[..., Outcome]],
) -> tuple[Path, Path]:
    """The folder of a finished study, and a copy of all files around it, MLflow's among them."""
    root = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_page, "page", lambda *_, **__: "<html>")
        patch.setattr(running, "Supervisor", InThisProcess)
        patch.setattr(worker, "evaluate", whole_weights(score))
        study = study_maker(root)(trials=TRIALS, tracking=f"sqlite:///{root / 'runs' / 'mlflow.db'}")
        running.supervise(study)
        study.storage.engine.dispose()
    shutil.copytree(root / "runs", root / "copy")
    return study.folder, root / "copy"


@pytest.fixture
def broken(template: tuple[Path, Path], tmp_path: Path) -> Broken:
    """The study as it was, in the place where it was; MLflow's database at another one, for its engine is cached."""
    folder, copy = template
    shutil.rmtree(folder.parent)
    shutil.copytree(copy, folder.parent, ignore=shutil.ignore_patterns("mlflow.db*"))
    shutil.copyfile(copy / "mlflow.db", tmp_path / "mlflow.db")
    study = Broken(folder, tmp_path / "mlflow.db")
    study.track_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return study


def test_finished_study_is_clean(broken: Broken, contents: Contents) -> None:
    before = contents(broken.folder)
    result = broken.nas()
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"small: {TRIALS} trials in Optuna, {TRIALS + 1} runs in MLflow: they and the files agree" in result.stderr
    assert contents(broken.folder) == before


_SECOND = "trial_id = (SELECT trial_id FROM trials WHERE number = 2)"


def _orphan(broken: Broken) -> None:
    shutil.copytree(broken.folder / "trials/0001", broken.folder / "trials/0042")


def _lose_last_trial(broken: Broken) -> None:
    last = "trial_id = (SELECT trial_id FROM trials WHERE number = 3)"
    tables = "trial_values", "trial_params", "trial_user_attributes"
    deletions = [f"DELETE FROM {table} WHERE {last}" for table in tables]  # noqa: S608 - names of a test
    broken.storage(*deletions, "DELETE FROM trials WHERE number = 3")
    (broken.folder / "records.jsonl").unlink()


def _as_running(broken: Broken, *, with_outcome: bool = True) -> None:
    broken.storage(
        "UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE number = 2",
        f"DELETE FROM trial_values WHERE {_SECOND}",  # noqa: S608 - text of a test
        f"DELETE FROM trial_user_attributes WHERE {_SECOND} AND key = 'ending'",  # noqa: S608 - the same
    )
    (broken.folder / "records.jsonl").unlink()
    if not with_outcome:
        (broken.folder / "trials/0002/outcome.json").unlink()


def _as_failed(broken: Broken) -> None:
    _as_running(broken, with_outcome=False)
    broken.storage("UPDATE trials SET state = 'FAIL' WHERE number = 2")


def _as_waiting(broken: Broken) -> None:
    _as_running(broken)
    broken.storage("UPDATE trials SET state = 'WAITING', datetime_start = NULL WHERE number = 2")


def _as_another_waiting(broken: Broken) -> None:
    _as_waiting(broken)
    changed = "UPDATE trial_user_attributes SET value_json = '\"0123456789ab\"' WHERE key = 'fingerprint'"
    broken.storage(f"{changed} AND {_SECOND}")


def _second_run(broken: Broken, **tags: str) -> None:
    run = broken.runs()["trial-0001"]
    broken.mlflow.create_run(run.info.experiment_id, 1, {**run.data.tags, **tags})


def _delete_run(broken: Broken, name: str) -> None:
    broken.mlflow.delete_run(broken.runs()[name].info.run_id)


def _reopen(broken: Broken, name: str) -> None:
    broken.mlflow.update_run(broken.runs()[name].info.run_id, status="RUNNING")


def _other_metric(broken: Broken) -> None:
    broken.mlflow.log_metric(broken.runs()["trial-0001"].info.run_id, "gflops", 99.0, step=0)


def _other_tag(broken: Broken) -> None:
    broken.mlflow.set_tag(broken.runs()["trial-0001"].info.run_id, "nas.fingerprint", "0123456789ab")


def _other_parent(broken: Broken) -> None:
    broken.mlflow.set_tag(broken.runs()["trial-0001"].info.run_id, "mlflow.parentRunId", "nobody")


def _another_row(broken: Broken) -> None:
    path = broken.folder / "records.jsonl"
    path.write_text(path.read_text().replace('"trial": 1,', '"trial": 1,', 1).replace('"epochs": 3', '"epochs": 2', 1))


REPAIRABLE: dict[str, tuple[str, Damage]] = {
    "outcome missing": ("trials/0001/outcome.json", lambda b: (b.folder / "trials/0001/outcome.json").unlink()),
    "outcome half": ("trials/0001/outcome.json", lambda b: b.halve("trials/0001/outcome.json")),
    "outcome altered": (
        "trials/0001/outcome.json",
        lambda b: b.change("trials/0001/outcome.json", lambda fields: fields.update(gflops=9.5)),
    ),
    "model missing": ("trials/0001/model.yaml", lambda b: (b.folder / "trials/0001/model.yaml").unlink()),
    "model empty": ("trials/0001/model.yaml", lambda b: (b.folder / "trials/0001/model.yaml").write_text("")),
    "model of another trial": (
        "trials/0001/model.yaml",
        lambda b: shutil.copyfile(b.folder / "trials/0002/model.yaml", b.folder / "trials/0001/model.yaml"),
    ),
    "temporary file of a trial": (
        "trials/0001/.outcome.json.0123456789ab.tmp",
        lambda b: (b.folder / "trials/0001/.outcome.json.0123456789ab.tmp").touch(),
    ),
    "temporary file of the study": (
        ".study.json.0123456789ab.tmp",
        lambda b: (b.folder / ".study.json.0123456789ab.tmp").touch(),
    ),
    "upload of a model": ("mlflow/model", lambda b: (b.folder / "mlflow/model/data").mkdir(parents=True)),
    "upload": ("mlflow/front.csv", lambda b: (b.folder / "mlflow/front.csv").touch()),
    "tracking state missing": ("tracking.json", lambda b: (b.folder / "tracking.json").unlink()),
    "tracking state half": ("tracking.json", lambda b: b.halve("tracking.json")),
    "tracking state of another study": (
        "tracking.json",
        lambda b: b.change("tracking.json", lambda fields: fields.update(study_id="0")),
    ),
    "tracking state with a stranger": (
        "tracking.json",
        lambda b: b.change("tracking.json", lambda fields: fields["finished"].append(77)),
    ),
    "another row in records": ("records.jsonl", _another_row),
    "measured latencies": ("measured.json", lambda b: (b.folder / "measured.json").write_text("[1")),
    "orphan": ("trials/0042", _orphan),
    "trial lost by the storage": (f"trials/{TRIALS - 1:04d}", _lose_last_trial),
    "running with an outcome": ("trials/0002", _as_running),
    "running without an outcome": ("trials/0002", lambda b: _as_running(b, with_outcome=False)),
    "interrupted and not in the queue": ("trials/0002", _as_failed),
    "waiting with an outcome": ("trials/0002", _as_waiting),
    "waiting with files of another trial": ("trials/0002", _as_another_waiting),
    "MLflow missing": ("in MLflow", lambda b: b.database.unlink()),
    "run deleted": ("in MLflow, trial-0001", lambda b: _delete_run(b, "trial-0001")),
    "run of the study deleted": ("in MLflow", lambda b: _delete_run(b, "small")),
    "run running": ("in MLflow, trial-0001", lambda b: _reopen(b, "trial-0001")),
    "run of the study running": ("in MLflow", lambda b: _reopen(b, "small")),
    "run twice": ("in MLflow, trial-0001", _second_run),
    "run of no trial": ("in MLflow, trial-0042", lambda b: _second_run(b, **{"nas.trial": "42"})),
    "run with another metric": ("in MLflow, trial-0001", _other_metric),
    "run with another tag": ("in MLflow, trial-0001", _other_tag),
    "run under another one": ("in MLflow, trial-0001", _other_parent),
}


FAST = (
    "upload of a model",
    "outcome altered",
    "model missing",
    "orphan",
    "running with an outcome",
    "run with another metric",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in REPAIRABLE])
def test_damage_is_found_and_repaired_without_loss(broken: Broken, name: str) -> None:
    address, damage = REPAIRABLE[name]
    results = _results(broken)
    damage(broken)
    found = json.loads(broken.nas("--format", "json").stdout)
    addresses = [finding["address"] for finding in found["findings"]]
    assert any(one.endswith(address) for one in addresses), addresses
    assert all(finding["repair"] for finding in found["findings"])
    repaired = broken.nas("--repair", "--format", "json")
    assert repaired.exit_code == 0, repaired.output
    document = json.loads(repaired.stdout)
    assert document["clean"]
    assert {(one["address"], one["problem"]) for one in document["findings"] if one["repaired"]} >= {
        (one["address"], one["problem"]) for one in found["findings"]
    }
    assert broken.nas().exit_code == 0
    without_outcome = {"running without an outcome", "interrupted and not in the queue"}
    lost = {"waiting with files of another trial"} | without_outcome
    assert _results(broken) == {number: each for number, each in results.items() if number != 2 or name not in lost}


def _results(broken: Broken) -> dict[int, tuple[Any, ...]]:
    """Return fingerprint, scores and values of every finished trial."""
    study = Study.open(broken.folder)
    records = study.records()
    values = [trial.values for trial in study.optuna_trials()]
    study.storage.engine.dispose()
    return {
        record.trial: (record.fingerprint, record.map50_95, record.gflops, record.epochs, values[record.trial])
        for record in records
        if record.finished
    }


UNREPAIRABLE: dict[str, tuple[str, Damage]] = {
    "study file half": ("study.json", lambda b: b.halve("study.json")),
    "study file missing": ("study.json", lambda b: (b.folder / "study.json").unlink()),
    "space half": ("space.yaml", lambda b: (b.folder / "space.yaml").write_text("slots: [")),
    "space missing": ("space.yaml", lambda b: (b.folder / "space.yaml").unlink()),
    "storage half": ("study.db", lambda b: b.halve("study.db")),
    "storage missing": ("study.db", lambda b: (b.folder / "study.db").unlink()),
    "storage of another study": (
        "study.db",
        lambda b: b.storage("UPDATE study_user_attributes SET value_json = '\"x\"' WHERE key = 'study_id'"),
    ),
    "values altered": (
        "study.db trial 1",
        lambda b: b.storage("UPDATE trial_values SET value = 0.5 WHERE trial_id = 2 AND objective = 0"),
    ),
    "epochs missing": ("trials/0001/progress.jsonl", lambda b: (b.folder / "trials/0001/progress.jsonl").unlink()),
    "weights half": ("trials/0000/weights.pt", lambda b: b.halve("trials/0000/weights.pt")),
    "tracking server away": (
        "in MLflow",
        lambda b: b.track_in("http://127.0.0.1:9"),
    ),
}


@pytest.mark.parametrize("name", UNREPAIRABLE)
def test_damage_that_cannot_be_repaired_is_named_and_nothing_is_written(
    broken: Broken, contents: Contents, name: str
) -> None:
    address, damage = UNREPAIRABLE[name]
    damage(broken)
    before = contents(broken.folder)
    for arguments in ((), ("--repair",)):
        result = broken.nas(*arguments)
        assert result.exit_code == 1, result.output
        (line,) = result.stdout.splitlines()
        assert line.startswith(f"small{'' if address.startswith('in') else '/'}"), line
        assert f"{address}: " in line
    assert contents(broken.folder) == before


def test_nothing_is_repaired_while_the_study_runs(broken: Broken) -> None:
    (broken.folder / "trials/0001/outcome.json").unlink()
    with Study.open(broken.folder).supervision_lock.held():
        assert broken.nas().exit_code == 1
        refused = broken.nas("--repair")
    assert refused.exit_code == 2
    assert "small is running in another process: stop it first" in refused.stderr
    assert not (broken.folder / "trials/0001/outcome.json").exists()


def test_running_study_is_read_without_what_changes(broken: Broken) -> None:
    _as_running(broken, with_outcome=False)
    with Study.open(broken.folder).supervision_lock.held():
        result = broken.nas()
    assert result.exit_code == 0
    assert "small is running: trials without an ending, and MLflow, were not compared" in result.stderr


def test_other_outcome_stays_beside_the_one_of_the_storage(broken: Broken) -> None:
    REPAIRABLE["outcome altered"][1](broken)
    changed = (broken.folder / "trials/0001/outcome.json").read_bytes()
    assert broken.nas("--repair").exit_code == 0
    assert (broken.folder / "trials/0001/outcome.json.differs").read_bytes() == changed


def test_written_outcome_and_model_are_those_of_the_trial(broken: Broken) -> None:
    files = [broken.folder / "trials/0001" / name for name in ("outcome.json", "model.yaml")]
    before = [json.loads(files[0].read_text()), files[1].read_text()]
    for file in files:
        file.unlink()
    assert broken.nas("--repair").exit_code == 0
    assert json.loads(files[0].read_text()) == before[0]
    study = Study.open(broken.folder)
    architecture = study.architecture(study.records()[1])
    assert architecture.fingerprint == study.records()[1].fingerprint
    assert f"fingerprint: {architecture.fingerprint}" in files[1].read_text()


def test_copy_is_repaired_without_a_change_to_the_original(broken: Broken) -> None:
    before = {run.info.run_id: (run.info.status, run.data.to_dictionary()) for run in broken.runs().values()}
    copy = broken.folder.with_name("copy")
    shutil.copytree(broken.folder, copy)
    (copy / "trials/0001/outcome.json").unlink()
    result = CliRunner().invoke(app, ["fsck", "copy", "--repair", "--runs", str(copy.parent)])
    assert result.exit_code == 0, result.output
    runs = broken.mlflow.search_runs([next(iter(broken.runs().values())).info.experiment_id])
    assert len(runs) == 2 * len(before)
    after = {run.info.run_id: (run.info.status, run.data.to_dictionary()) for run in runs}
    assert {run: each for run, each in after.items() if run in before} == before


def test_unknown_study_is_refused_with_the_nearest_name(broken: Broken) -> None:
    result = CliRunner().invoke(app, ["fsck", "smal", "--runs", str(broken.folder.parent)])
    assert result.exit_code == 2
    assert "did you mean 'small'?" in result.stderr


def test_check_imports_no_pytorch(broken: Broken) -> None:
    code = (
        "import sys; from pathlib import Path; from nas.workflows.fsck import check; "
        "found = check(Path(sys.argv[1])); assert not any(one.findings for one in found), found; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(broken.folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_gap_among_trials_is_found() -> None:
    trials = [StoredTrial(number=number, state="waiting") for number in (0, 2)]
    (finding,) = compare_trials("s", trials, {}, expected_values={})
    assert (finding.address, finding.repair) == ("s/study.db", Repair.NONE)


def test_trial_of_another_machine_is_left_to_it() -> None:
    trial = StoredTrial(number=0, state="running", is_elsewhere=True)
    assert list(compare_trials("s", [trial], {0: FoundFiles()}, expected_values={})) == []
    assert len(list(compare_trials("s", [StoredTrial(number=0, state="running")], {}, expected_values={}))) == 1
