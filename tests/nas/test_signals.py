"""SIGTERM and SIGHUP during a search."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from nas import signals
from nas.records.record import Record
from nas.study.study import Study
from nas.workflows import running

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    """Set the handlers of a process in a terminal: under nohup SIGHUP is ignored, in a background job SIGINT."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_first_signal_is_like_ctrl_c(number: signal.Signals) -> None:
    put_in_order = False
    with signals.as_ctrl_c():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt:
            for again in ENDING:
                os.kill(os.getpid(), again)
            put_in_order = True
    assert put_in_order
    assert signal.getsignal(number) == signal.SIG_DFL


def test_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.as_ctrl_c():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_thread_does_not_change_signal_handlers() -> None:
    calls = []

    def look() -> None:
        with signals.as_ctrl_c():
            calls.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert calls == [before]


@pytest.fixture
def tracked(make_study: Callable[..., Study], track_in: Callable[[Study, str], None], tmp_path: Path) -> Study:
    study = make_study()
    track_in(study, f"sqlite:///{tmp_path}/mlflow.db")
    return study


class Interrupted:
    """Stand-in for a supervisor that gets a signal while it runs, and another while it cleans up."""

    number: signal.Signals

    def __init__(self, study: Study, on_tick: Callable[[Sequence[Record]], None]) -> None:
        self._study, self._on_tick = study, on_tick

    def run(self) -> None:
        self._on_tick(self._study.records())
        try:
            os.kill(os.getpid(), self.number)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            self._on_tick(self._study.records())


@pytest.mark.parametrize("number", [*ENDING, signal.SIGINT])
def test_ended_search_ends_its_run_as_killed(
    tracked: Study, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number == signal.SIGINT:
        monkeypatch.setattr(os, "kill", lambda *_: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(Interrupted, "number", number, raising=False)
    monkeypatch.setattr(running, "Supervisor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.supervise(tracked)
    client = MlflowClient(tracking_uri=tracked.file.tracking)
    experiment = client.get_experiment_by_name(f"nas/{tracked.settings.space}")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("small", "KILLED")


class Quick(Interrupted):
    """Stand-in for a supervisor that has nothing to do."""

    def run(self) -> None:
        self._on_tick(self._study.records())


def test_closed_terminal_does_not_end_a_search(tracked: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(_study: Study, _records: Sequence[Record]) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(running, "Supervisor", Quick)
    running.supervise(tracked, show=show)


def test_search_continues_without_mlflow(
    tracked: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nas.tracking.tracker", None)
    monkeypatch.setattr(running, "Supervisor", Quick)
    running.supervise(tracked)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("MLflow cannot be imported: ")
    assert line.endswith("(pip install mlflow); the search goes on without it")
