"""Real worker processes, with a formula instead of training."""

import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from nas.execution import recovery, supervisor, watchdog, worker
from nas.execution.exit_causes import ExitCause
from nas.execution.problem_line import PROBLEM
from nas.execution.supervisor import Supervisor
from nas.execution.worker import LOST, OUTGROWN
from nas.locks import Lock
from nas.records.record import Record
from nas.settings import RunSettings
from nas.study.study import Study
from search_spaces.errors import EnvironmentProblem, StudyError
from trials import Budget, Costs, Ending, Outcome, Scores

MakeStudy = Callable[..., Study]

slow = pytest.mark.slow  # each worker imports PyTorch

SCRIPT = """\
import importlib.util, os, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("fixtures", {conftest!r})
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
from nas.execution import worker

def evaluate(architecture, budget, folder, go_on, **options):
    {body}
    return fixtures._score(architecture, budget, folder, go_on, **options)

worker.evaluate = evaluate
worker.main()
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


class Forked:
    """Process forked from a server that has imported PyTorch, with the methods of `subprocess.Popen` that are used."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nas.execution.worker"])
        script = str(Path(__file__).with_name("saboteur.py"))
        arguments = (BOOT, {"command": [script, *command], "environment": environment, "log": str(log)})
        self._process = context.Process(target=runpy._run_code, args=arguments)  # type: ignore[attr-defined]
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


BOOT = """\
import logging, os, runpy, sys
os.setsid()
end = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.dup2(end, 1), os.dup2(end, 2)
os.environ.update(environment)
sys.argv = command
runpy.run_path(command[0], run_name="__main__")
"""


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers without importing PyTorch again.

    Coverage is not measured in them: `multiprocessing` ends forked processes by `os._exit`, which writes no coverage
    (coverage.py 7.17 without `patch = _exit`), so that tracing would slow them for nothing.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    monkeypatch.setattr(supervisor, "WORKER", ())
    monkeypatch.setattr(supervisor, "spawn", Forked)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0.1)


@pytest.mark.usefixtures("forked")
class TestSabotage:
    @pytest.fixture
    def order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Let every fourth architecture misbehave from now on."""
        folder = tmp_path / "order"
        folder.mkdir()
        monkeypatch.setenv("SABOTAGE", str(folder))
        return folder

    def test_misbehaving_candidates_do_not_affect_the_others(
        self, make_study: MakeStudy, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        budget = Budget(data=tmp_path / "data.yaml", epochs=1, deploy_size=64, timeout=2.0)
        clean = make_study("clean", trials=8, budget=budget)
        Supervisor(clean, lambda _: None).run()
        request.getfixturevalue("order")
        monkeypatch.setattr(watchdog, "GRACE_SECONDS", 5.0)  # on a busy machine a crash takes time to be noticed
        study = make_study("sabotaged", trials=23, budget=budget)
        study.set_run(study.file.run.model_copy(update={"trial_memory": 2**28}))
        Supervisor(study, lambda _: None).run()

        records = study.records()
        assert Counter(record.ending for record in records if record.ending) == {
            "finished": 18,
            "diverged": 1,
            "out_of_memory": 1,
            "timed_out": 1,
            "crashed": 2,
            "broken": 2,  # one architecture, twice; not counted
        }
        assert [record.state for record in records if not record.ending] == ["fail"] * 2  # their first crashes
        assert len({record.fingerprint for record in records}) == 24
        details = {record.ending: record.detail for record in records if not record.finished and record.ending}
        assert details["out_of_memory"].startswith("on the host: RuntimeError: ")
        assert details["timed_out"].startswith("hung: ")
        text = (study.folder / "workers" / "0.log").read_text()
        assert text.count("in misbehave") >= 3  # where it hung, and where it crashed, twice

        scores = [
            {record.fingerprint: record.map50_95 for record in one.records() if record.finished}
            for one in (clean, study)
        ]
        both = scores[0].keys() & scores[1].keys()
        assert len(both) >= 3
        assert [scores[0][one] for one in both] == [scores[1][one] for one in both]

    @slow
    def test_study_stops_with_a_reason_if_every_candidate_crashes(
        self, make_study: MakeStudy, order: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SABOTAGE_ALWAYS", "exits")
        study = make_study(trials=50)
        with pytest.raises(StudyError, match=r"^the study stopped: 3 architectures in a row killed their workers: "):
            Supervisor(study, lambda _: None).run()
        assert len(list(order.iterdir())) == 3


@slow
def test_two_workers_share_a_study(make_study: MakeStudy, workers_that: Callable[[str], None]) -> None:
    workers_that("time.sleep(0.2)")
    study = with_workers(make_study(trials=9), 2)
    Supervisor(study, lambda _: None).run()
    records = study.records()
    assert sum(record.finished for record in records) == 9
    assert len({record.fingerprint for record in records}) == len(records) == 9
    assert [record.role for record in records[:3]] == ["stock", "cheapest", "costliest"]


@slow
def test_crash_ends_its_trial_but_not_the_study(
    make_study: MakeStudy, workers_that: Callable[[str], None], tmp_path: Path
) -> None:
    mark = tmp_path / "crashed"
    workers_that(f"not Path({str(mark)!r}).exists() and (Path({str(mark)!r}).touch(), os._exit(11))")
    study = make_study(trials=4)
    Supervisor(study, lambda _: None).run()
    records = study.records()
    assert sum(record.finished for record in records) == 4
    assert [record.state for record in records].count("fail") == 1


class TestExitsOutsideOfTrials:
    @pytest.fixture
    def leaving(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
        """Let workers only append to a file and run a line of Python."""
        marks = tmp_path / "marks"

        def prepare(line: str) -> Path:
            code = f"import sys; marks = open({str(marks)!r}, 'a+'); marks.write('x'); {line}"
            monkeypatch.setattr(supervisor, "WORKER", (sys.executable, "-c", code))
            monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0.1)
            monkeypatch.setattr(supervisor, "_PAUSE_SECONDS", 0.01)
            return marks

        return prepare

    def test_workers_that_exit_repeatedly_end_the_search(
        self, make_study: MakeStudy, leaving: Callable[[str], Path]
    ) -> None:
        marks = leaving("sys.exit('no module named nas')")
        expected = (
            r"^worker 0 died 4 times outside of trials \(exit code 1\); no module named nas \(all of it: .*0\.log\)$"
        )
        with pytest.raises(StudyError, match=expected):
            Supervisor(make_study(trials=4), lambda _: None).run()
        assert len(marks.read_text()) == 4

    def test_restarts_wait_each_time_twice_as_long(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = tmp_path / "0.log"
        log.write_text("Killed\n")
        worker = supervisor._WorkerProcess(index=0, device="cpu", log=log)
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)
        pauses = []
        for _ in range(supervisor._RESTARTS):
            supervisor._count_exit(worker, ExitCause(text="exit code 1"), [])
            pauses.append(worker.not_before - 100)
        assert pauses == [1, 2, 4]

    def test_worker_without_memory_for_pytorch_ends_the_search_with_one_line(
        self, make_study: MakeStudy, leaving: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        marks = leaving("raise ImportError('libtorch_cpu.so: failed to map segment from shared object')")
        monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * 2**30, 4 * 2**30))
        with pytest.raises(EnvironmentProblem) as found:
            Supervisor(make_study(trials=4), lambda _: None).run()
        line = str(found.value)
        assert line.startswith("worker 0: libtorch_cpu.so: failed to map segment from shared object: this shell limits")
        assert "4.0 GiB (ulimit -v)" in line
        assert len(line.splitlines()) == 1
        assert marks.read_text() == "x"

    def test_worker_that_hangs_in_the_stock_model_training_is_killed(
        self, make_study: MakeStudy, leaving: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = make_study(trials=4, base=Budget(data=Path("data.yaml"), epochs=5, deploy_size=64))
        assert study.stock_training is not None
        lock = study.stock_training.files.lock
        lock.parent.mkdir()
        leaving(f"import os, time; open({str(lock)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
        monkeypatch.setattr(watchdog, "IDLE_SECONDS", 0.5)
        monkeypatch.setattr(watchdog, "BUSY_SECONDS", 0.5)
        with pytest.raises(StudyError, match=r"^worker 0 died 4 times outside of trials \(hung: no step in 0 min, "):
            Supervisor(study, lambda _: None).run()

    @pytest.mark.parametrize("lost", ["0", "0,1"])
    def test_worker_of_a_lost_gpu_is_not_started_again_and_the_others_go_on(
        self,
        make_study: MakeStudy,
        leaving: Callable[[str], Path],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        lost: str,
    ) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        is_lost = f"__import__('os').environ['CUDA_VISIBLE_DEVICES'] in {lost.split(',')!r}"
        printed = f"sys.stderr.write({PROBLEM + 'it fell off the bus'!r})"
        marks = leaving(f"{is_lost} and ({printed}, sys.exit({LOST}))")
        study = make_study(trials=4)
        study.set_run(study.file.run.model_copy(update={"workers": 2, "device": "0,1"}))
        if lost == "0":
            Supervisor(study, lambda _: None).run()
        else:
            with pytest.raises(EnvironmentProblem) as raised:
                Supervisor(study, lambda _: None).run()
            assert "worker 1 on device 1: it fell off the bus" in str(raised.value)
        assert marks.read_text() == "xx" + "x" * (lost == "0")  # the other one looks for what this one has left
        assert caplog.messages[0] == ("worker 0 on device 0: it fell off the bus; it is not started again in this run")

    def test_outgrown_workers_are_replaced_without_limit(
        self, make_study: MakeStudy, leaving: Callable[[str], Path]
    ) -> None:
        marks = leaving(f"sys.exit({OUTGROWN} if marks.tell() < 6 else 0)")
        Supervisor(make_study(trials=4), lambda _: None).run()
        assert len(marks.read_text()) == 6


@slow
def test_ctrl_c_enqueues_running_trials_again(make_study: MakeStudy, workers_that: Callable[[str], None]) -> None:
    workers_that("time.sleep(60)")
    study = make_study(trials=4)

    def interrupt(records: Sequence[Record]) -> None:
        if any(record.state == "running" and record.fingerprint for record in records):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Supervisor(study, interrupt).run()
    records = study.records()
    assert not any(record.state == "running" for record in records)
    assert [record.role for record in records if record.state == "waiting"].count("stock") == 1


@slow
def test_sigkill_loses_no_finished_trial(make_study: MakeStudy, workers_that: Callable[[str], None]) -> None:
    workers_that("time.sleep(0.3)")
    study = make_study(trials=8)
    pid = os.fork()
    if not pid:  # a supervisor that can be killed
        Supervisor(Study.open(study.folder), lambda _: None).run()
        os._exit(0)
    while sum(record.finished for record in study.records()) < 3:
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    finished = [record for record in study.records() if record.finished]
    resumed = Study.open(study.folder)
    resumed.set_run(RunSettings(trials=8))
    Supervisor(resumed, lambda _: None).run()
    records = resumed.records()
    assert records[: len(finished)] == finished
    done = [record.fingerprint for record in records if record.finished]
    assert len(done) == len(set(done)) == 8


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


def supervised_elsewhere(study: Study) -> int:
    """Supervise a study in a process that can be killed."""
    pid = os.fork()
    if not pid:
        Supervisor(Study.open(study.folder), lambda _: None).run()
        os._exit(0)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


@slow
def test_workers_exit_with_their_supervisor_during_a_training(
    make_study: MakeStudy, workers_that: Callable[[str], None]
) -> None:
    workers_that("time.sleep(3600)")
    study = make_study(trials=2)
    pid = supervised_elsewhere(study)
    wait_for(lambda: study.files(0).read_holder())
    worker = study.files(0).read_holder()
    assert worker is not None
    kill(pid)
    wait_for(lambda: not is_alive(worker), seconds=5.0)


ORPHAN = """\
import fcntl, os, sys, time
from pathlib import Path
lock = open({lock!r}, "a")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("finished", [False, True])
def test_resumed_search_recovers_the_trials_of_orphaned_workers(
    make_study: MakeStudy, finished: bool, tmp_path: Path
) -> None:
    budget = Budget(data=tmp_path / "data.yaml", epochs=1, deploy_size=64)
    study = make_study(trials=2, budget=budget)
    stock = study.optuna_trials()[0]
    assert study.storage.set_trial_state_values(stock._trial_id, TrialState.RUNNING)  # by another supervisor's worker
    study.storage.set_trial_user_attr(stock._trial_id, "host", socket.gethostname())
    files = study.files(stock.number)
    files.folder.mkdir(parents=True)
    code = ORPHAN.format(lock=str(files.lock))
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as orphan,
        ExitStack() as last,
    ):
        last.callback(orphan.kill)  # else a failure would wait for its end
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == "ready\n"
        ticks = 0

        def tick(records: Sequence[Record]) -> None:
            nonlocal ticks
            ticks += 1
            ended = [record for record in records if record.ending]
            assert all(record.finished for record in ended)  # else the orphan would never be killed
            if len(ended) == 1 and orphan.poll() is None and ticks > 5:
                if finished:
                    costs = Costs(params=1, gflops=1.0)
                    scores = Scores(map50_95=0.5, map50=0.5, costs=costs)
                    files.write_outcome(
                        Outcome(architecture=study.space.stock, ending=Ending.FINISHED, costs=costs, scores=scores)
                    )
                orphan.kill()

        Supervisor(study, tick).run()
    records = study.records()
    assert sum(record.finished for record in records) == 2
    assert not any(record.state == "running" for record in records)
    tries = [record for record in records if record.role == "stock"]
    assert [record.state for record in tries] == (["complete"] if finished else ["fail", "complete"])
    assert tries[-1].map50_95 == 0.5 or not finished


class Lasting:
    """Worker process that exits after some polls."""

    pid, returncode = -1, 0

    def __init__(self, polls: int) -> None:
        self._polls = polls

    def poll(self) -> int | None:
        self._polls -= 1
        return None if self._polls >= 0 else self.returncode


@pytest.mark.parametrize("polls", [(0, 1), (1, 1), (1, 0)], ids=["before", "at once", "after"])
def test_what_a_lost_gpu_leaves_is_looked_for_whenever_the_other_worker_exits(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, polls: tuple[int, int]
) -> None:
    started: list[str] = []

    def spawn(_command: object, _environment: object, log: Path) -> Lasting:
        log.touch()
        started.append(log.name)
        index = int(log.stem)
        process = Lasting(polls[index])
        process.pid, process.returncode = -index - 1, 0 if index else LOST
        return process

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(supervisor, "spawn", spawn)
    monkeypatch.setattr(supervisor, "_kill_group", lambda _: None)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0)
    study = make_study(trials=4)
    study.set_run(study.file.run.model_copy(update={"workers": 2, "device": "0,1"}))
    Supervisor(study, lambda _: None).run()
    assert started == ["0.log", "1.log", "1.log"]


class InThisProcess(Lasting):
    """Worker that has run all trials it finds when it is polled first, and has exited when it is polled next."""

    def __init__(self, study: Study, and_then: Callable[[], None] = lambda: None) -> None:
        super().__init__(polls=1)
        self._study, self._and_then = study, and_then

    def poll(self) -> int | None:
        if self._polls == 1:
            worker.Worker(self._study, deadline=float("inf")).run()
            self._and_then()
        return super().poll()


@pytest.fixture
def orphaned(
    make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> tuple[Study, Lock]:
    """A study whose stock model's trial a worker of another supervisor runs; it exits when its lock is released."""
    study = make_study(trials=3)
    stock = study.optuna_trials()[0]
    assert study.storage.set_trial_state_values(stock._trial_id, TrialState.RUNNING)
    files = study.files(stock.number)
    orphan = Lock(files.lock)
    assert orphan.take()
    files.write_heartbeat()
    monkeypatch.setattr(worker, "evaluate", score)
    monkeypatch.setattr(supervisor, "_kill_group", lambda _: None)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0)
    return study, orphan


def assert_complete(study: Study) -> None:
    records = study.records()
    assert [record.role for record in records if record.finished] == ["cheapest", "costliest", "stock"]
    assert not any(record.state == "waiting" for record in records)


def test_orphan_may_exit_while_the_last_worker_leaves_for_want_of_trials(
    orphaned: tuple[Study, Lock], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, orphan = orphaned
    monkeypatch.setattr(supervisor, "spawn", lambda *_: InThisProcess(study, orphan.release))
    Supervisor(study, lambda _: None).run()
    assert_complete(study)


def test_orphan_may_exit_while_the_search_begins(orphaned: tuple[Study, Lock], monkeypatch: pytest.MonkeyPatch) -> None:
    study, orphan = orphaned
    recover = recovery.recover

    def slow_recover(*arguments: Any) -> dict[int, int | None]:
        ended = recover(*arguments)
        orphan.release()
        return ended

    monkeypatch.setattr(recovery, "recover", slow_recover)
    monkeypatch.setattr(supervisor, "spawn", lambda *_: InThisProcess(study))
    Supervisor(study, lambda _: None).run()
    assert_complete(study)


def test_records_are_read_once_a_tick(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(trials=4)
    reads: list[list[Record]] = []
    ticks: list[Sequence[Record]] = []
    read = Study.records

    def counted(study: Study) -> list[Record]:
        reads.append(read(study))
        return reads[-1]

    monkeypatch.setattr(Study, "records", counted)
    monkeypatch.setattr(supervisor, "spawn", lambda *_: Lasting(3))
    monkeypatch.setattr(supervisor, "_kill_group", lambda _: None)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0)
    Supervisor(study, ticks.append).run()
    assert len(ticks) == 4
    _left, _queue, *read_by_tick = reads
    assert all(given is records for given, records in zip(ticks[:-1], read_by_tick, strict=False))
    assert ticks[-1] is reads[-1]
    assert len(reads) == 2 + len(ticks) + 1  # the last watch finds that no worker runs


def test_a_finished_study_needs_no_worker(
    make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(trials=2)
    monkeypatch.setattr(worker, "evaluate", score)
    worker.Worker(study, deadline=float("inf")).run()
    started: list[object] = []
    monkeypatch.setattr(supervisor, "spawn", lambda *command: started.append(command))
    ticks: list[Sequence[Record]] = []
    Supervisor(study, ticks.append).run()
    assert not started
    assert [record.ending for record in ticks[-1] if record.ending] == ["finished"] * 2
