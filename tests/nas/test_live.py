"""What a person sees of a running search: tables that fit the terminal, lines where there is none."""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console
from typer.testing import CliRunner

from nas.cli import app, text_front
from nas.cli.activity import ImportAnnouncer, LinesStatus
from nas.cli.live import Watching
from nas.cli.live_table import LiveTable, live_table
from nas.locks import Lock
from nas.records.pace import pace
from nas.records.record import Record
from nas.records.trial_attributes import HOST
from nas.study.running_trials import running_trials
from nas.study.study import Study
from trials.budget import Budget


def record(trial: int, *, latency: float | None = None, state: str = "complete", **further: Any) -> Record:
    ended = {"ending": "finished", "map50_95": 0.4, "gflops": 6.0, "seconds": 30.0, "epochs": 3}
    summary = "DCNv4 2 · UIB 3, 4, 5, 6, 7, 8 · DySample 13 · DynamicConv 15, 18, 21"
    fields: dict[str, Any] = {"picks": {}, "summary": summary, "latency_ms": latency}
    return Record(**{**fields, "trial": trial, "state": state, **(ended if state == "complete" else {}), **further})


def printed(table: LiveTable, width: int, height: int = 24) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


class TestLiveTable:
    @pytest.mark.parametrize("width", [40, 80, 140])
    @pytest.mark.parametrize("height", [10, 24])
    def test_fits_the_terminal(self, make_study: Callable[..., Study], width: int, height: int) -> None:
        records = [record(trial, latency=1.5) for trial in range(20)]
        lines = printed(live_table(make_study(), records, "about 3 min left"), width, height)
        assert max(map(len, lines)) <= width
        assert len(lines) < height
        assert lines[-2].split()[:2] == ["19", "finished"] or lines[-2].split()[:3] == ["19", "*", "finished"]

    def test_shows_latency_where_there_is_one(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        assert "ms" not in printed(live_table(study, [record(0)], ""), 80)[1].split()
        assert "ms" in printed(live_table(study, [record(0, latency=1.5)], ""), 80)[1].split()

    @pytest.mark.parametrize("width", [80, 140])
    def test_has_no_empty_column(self, make_study: Callable[..., Study], width: int) -> None:
        """Older trials, which have no room, had a latency; the others are not scored yet."""
        records = [record(0, latency=1.5), *(record(trial, state="running") for trial in range(1, 20))]
        head = printed(live_table(make_study(), records, ""), width)[1].split()
        assert head == ["trial", "state", "epoch", "architecture"]

    def test_says_what_runs_and_how_long(self, make_study: Callable[..., Study]) -> None:
        lines = printed(live_table(make_study(), [record(0), record(1, state="running")], "about 3 min left"), 80)
        assert lines[0] == "small   1 of 6 trials   1 running   about 3 min left"
        assert lines[3].split()[:3] == ["1", "running", "0/3"]


@pytest.mark.parametrize(("trials", "is_warning", "lines"), [(2, True, 1), (1, True, 0), (1, False, 1)])
def test_the_slope_is_printed_once(
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trials: int,
    is_warning: bool,
    lines: int,
) -> None:
    """Below the front of an ended search, which is printed at once, there is a warning."""
    found = SimpleNamespace(sentence="it still gains", is_warning=is_warning)
    monkeypatch.setattr("nas.report.slope.slope", lambda *_, **__: found)
    study, watching = make_study(trials=trials), Watching()
    for _ in range(2):
        watching._print_slope(study, [record(0, role="stock")])
    assert capsys.readouterr().err.count("it still gains") == lines


class TestPace:
    def test_is_that_of_all_workers(self) -> None:
        found = pace([record(0), record(1, seconds=60.0)], workers=2, missing=4)
        assert found is not None
        assert (found.trials_per_hour, found.seconds_left) == (160.0, 90.0)

    def test_scores_of_other_studies_took_no_time(self) -> None:
        assert pace([record(0, detail="trained before, in other")], workers=1, missing=4) is None


class TestTextFront:
    def test_draws_trials_front_and_stock(self) -> None:
        lines = text_front.drawing([(7.0, 0.3)], [(6.0, 0.38), (8.0, 0.42)], [(7.6, 0.379)], cost="GFLOPs")
        assert lines[0] == "mAP50-95   ● front  · other trials  ★ stock model"
        assert lines[1].startswith("  0.420 ┤")
        assert lines[1].endswith("●")
        assert lines[-1].split() == ["6", "GFLOPs", "8"]
        assert len(lines) == text_front.HEIGHT + 3
        assert max(map(len, lines)) <= text_front.LEAST_COLUMNS

    def test_every_stock_model_of_several_members_is_drawn(self) -> None:
        stocks = [(7.6, 0.379), (6.5, 0.33)]
        legend, *lines = text_front.drawing([(7.0, 0.3)], [(6.0, 0.38), (8.0, 0.42)], stocks, cost="GFLOPs")
        assert legend.endswith("★ stock models")
        assert "".join(lines).count("★") == 2

    def test_one_architecture_is_no_figure(self) -> None:
        assert text_front.drawing([(7.0, 0.3)], [(7.0, 0.3)], [], cost="GFLOPs") == []
        assert text_front.drawing([], [], [], cost="GFLOPs") == []


class TestRunningTrials:
    def test_have_machine_process_and_heartbeat(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        number = study.optuna.ask().number
        study.storage.set_trial_user_attr(study.optuna_trials()[number]._trial_id, HOST, "lab3")
        files = study.files(number)
        files.folder.mkdir(parents=True)
        records = study.records()
        with Lock(files.lock).held():
            files.write_heartbeat()
            (found,) = running_trials(study, records)
            assert found.sentence.startswith(f"trial {number}  epoch 0 of 3  lab3, process ")
            assert found.sentence.endswith("heartbeat 1 s ago")
            result = CliRunner().invoke(app, ["status", study.name, "--runs", str(study.folder.parent)])
            assert found.sentence.partition(", heartbeat")[0] in result.output
        assert running_trials(study, records) == []
        assert study.optuna_trials()[number].state is TrialState.RUNNING


class TestStatus:
    WAITING = "waiting: architectures in the queue of a study that does not run"

    @pytest.fixture
    def study(self, make_study: Callable[..., Study], tmp_path: Path) -> Study:
        """Study whose stock model is trained first, for five epochs."""
        return make_study(base=Budget(data=tmp_path / "data.yaml", epochs=5, deploy_size=64))

    def status(self, study: Study, *options: str) -> str:
        result = CliRunner().invoke(app, ["status", study.name, "--runs", str(study.folder.parent), *options])
        assert result.exit_code == 0, result.output
        return result.output

    def test_of_a_running_study_names_the_training_of_its_stock_model(self, study: Study) -> None:
        with Lock(study.supervision_lock.path).held():
            shown = self.status(study)
            (row,) = json.loads(self.status(study, "--format", "json"))
        assert "stock model  epoch 0 of 5" in shown
        assert self.WAITING not in shown
        assert row["running"] is True
        assert [one["sentence"] for one in row["stock_trainings"]] == ["stock model  epoch 0 of 5"]

    def test_of_a_study_that_does_not_run_says_what_trains_its_queue(self, study: Study) -> None:
        shown = self.status(study)
        assert self.WAITING in " ".join(shown.split())
        assert "epoch 0 of 5" not in shown


class TestWatch:
    def test_shows_a_study_that_does_not_run_and_ends(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        study.optuna.ask()
        result = CliRunner().invoke(app, ["watch", study.name, "--runs", str(study.folder.parent)])
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("small   0 of 6 trials")
        assert "no process on this machine runs it; continue it with: nas resume small" in result.stderr

    def test_prints_trials_as_json(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        study.optuna.ask()
        words = ("--runs", str(study.folder.parent), "--format", "json")
        watched = CliRunner().invoke(app, ["watch", study.name, *words]).stdout.splitlines()
        listed = CliRunner().invoke(app, ["trials", study.name, *words]).stdout
        assert [json.loads(line) for line in watched] == json.loads(listed)

    def test_writes_nothing(
        self, make_study: Callable[..., Study], contents: Callable[[Path], dict[Path, Any]]
    ) -> None:
        study = make_study()
        before = contents(study.folder)
        CliRunner().invoke(app, ["watch", study.name, "--once", "--runs", str(study.folder.parent)])
        assert contents(study.folder) == before


class TestImportAnnouncer:
    def test_calls_once_before_the_import(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[str] = []
        announcer = ImportAnnouncer(lambda: calls.append("PyTorch"))
        monkeypatch.setattr(sys, "meta_path", [announcer, *sys.meta_path])
        assert announcer.find_spec("json") is None
        assert not calls
        assert announcer.find_spec("torch") is None
        assert (calls, announcer in sys.meta_path) == (["PyTorch"], False)


class TestLinesStatus:
    def test_prints_what_takes_long_once_and_what_has_changed(self) -> None:
        out = io.StringIO()
        with LinesStatus("counting", console=Console(file=out, width=80), seconds=(0.0, 0.0)) as status:
            wait_for(out, "counting ...\n")
            status.update("counted 3")
            wait_for(out, "counting ...\ncounted 3 ...\n")
        assert out.getvalue() == "counting ...\ncounted 3 ...\n"

    def test_is_silent_about_what_is_quick(self) -> None:
        out = io.StringIO()
        with LinesStatus("counting", console=Console(file=out)):
            pass
        assert out.getvalue() == ""


def wait_for(out: io.StringIO, text: str) -> None:
    limit = time.monotonic() + 20
    while out.getvalue() != text and time.monotonic() < limit:
        time.sleep(0.001)
