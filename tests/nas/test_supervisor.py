"""Real worker processes, a formula in the place of training."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nas import supervisor
from nas.config import Run
from nas.study import Study
from nas.supervisor import Supervisor
from search_spaces.errors import StudyError

MakeStudy = Callable[..., Study]

pytestmark = pytest.mark.slow  # each worker imports PyTorch

SCRIPT = """\
import importlib.util, os, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("fixtures", {conftest!r})
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
from nas import work

def evaluate(architecture, budget, folder, go_on, **known):
    {body}
    return fixtures._score(architecture, budget, folder, go_on, **known)

work.evaluate = evaluate
work.main()
"""


@pytest.fixture
def workers_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let workers run a line of Python before they score."""

    def prepare(body: str) -> None:
        script = tmp_path / "worker.py"
        script.write_text(SCRIPT.format(conftest=str(Path(__file__).with_name("conftest.py")), body=body))
        monkeypatch.setattr(supervisor, "WORKER", (sys.executable, str(script)))

    return prepare


def with_workers(study: Study, count: int) -> Study:
    study.set_run(study.file.run.model_copy(update={"workers": count}))
    return study


def test_two_workers_share_a_study(make_study: MakeStudy, workers_that: Callable[[str], None]) -> None:
    workers_that("time.sleep(0.2)")
    study = with_workers(make_study(trials=9), 2)
    Supervisor(study, lambda: None).run()
    records = study.records()
    assert sum(record.finished for record in records) == 9
    assert len({record.fingerprint for record in records}) == len(records) == 9
    assert [record.role for record in records[:3]] == ["stock", "cheapest", "costliest"]


def test_a_crash_costs_its_trial_and_not_the_study(
    make_study: MakeStudy, workers_that: Callable[[str], None], tmp_path: Path
) -> None:
    mark = tmp_path / "crashed"
    workers_that(f"not Path({str(mark)!r}).exists() and (Path({str(mark)!r}).touch(), os._exit(11))")
    study = make_study(trials=4)
    Supervisor(study, lambda: None).run()
    records = study.records()
    assert sum(record.finished for record in records) == 4
    assert [record.state for record in records].count("fail") == 1


def test_workers_that_die_again_and_again_end_the_search(
    make_study: MakeStudy, workers_that: Callable[[str], None]
) -> None:
    workers_that("os._exit(11)")
    with pytest.raises(StudyError, match="died"):
        Supervisor(make_study(trials=4), lambda: None).run()


def test_ctrl_c_puts_running_trials_back(make_study: MakeStudy, workers_that: Callable[[str], None]) -> None:
    workers_that("time.sleep(60)")
    study = make_study(trials=4)

    def interrupt() -> None:
        if any(record.state == "running" and record.fingerprint for record in study.records()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Supervisor(study, interrupt).run()
    records = study.records()
    assert not any(record.state == "running" for record in records)
    assert [record.role for record in records if record.state == "waiting"].count("stock") == 1


def test_kill_9_loses_no_finished_trial(make_study: MakeStudy, workers_that: Callable[[str], None]) -> None:
    workers_that("time.sleep(0.3)")
    study = make_study(trials=8)
    pid = os.fork()
    if not pid:  # a supervisor that can be killed
        Supervisor(Study.open(study.folder), lambda: None).run()
        os._exit(0)
    while sum(record.finished for record in study.records()) < 3:
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    finished = [record for record in study.records() if record.finished]
    resumed = Study.open(study.folder)
    resumed.set_run(Run(trials=8))
    Supervisor(resumed, lambda: None).run()
    records = resumed.records()
    assert records[: len(finished)] == finished
    done = [record.fingerprint for record in records if record.finished]
    assert len(done) == len(set(done)) == 8
