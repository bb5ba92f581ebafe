"""When a trial is taken for dead, with a clock passed in."""

import signal
from pathlib import Path

import pytest

from nas.execution import exit_causes
from nas.execution.watchdog import BUSY_SECONDS, GRACE_SECONDS, IDLE_SECONDS, Training, Watch
from nas.records.trial_files import TrialFiles
from trials import Ending


def watching(timeout: float | None, *, since: float) -> Watch:
    return Watch(training=Training(TrialFiles(Path("0003")), timeout), began=since)


def test_a_trial_within_its_time_lives() -> None:
    watch = watching(10.0, since=100.0)
    assert watch.verdict(100.0 + 10.0 + GRACE_SECONDS, sign=1, computed=0.0) is None


def test_a_trial_beyond_its_time_and_the_grace_is_dead_whatever_it_signs() -> None:
    watch = watching(10.0, since=100.0)
    for second in range(41):
        assert watch.verdict(100.0 + second, sign=second, computed=second) is None
    assert watch.verdict(141.0, sign=41, computed=41.0) == (
        "hung: still at it 41 s after it began, where 10 s are allowed"
    )


def test_a_long_trials_grace_is_a_share_of_its_time() -> None:
    watch = watching(1000.0, since=0.0)
    assert watch.verdict(1500.0, sign=1, computed=0.0) is None
    assert watch.verdict(1501.0, sign=2, computed=0.0) is not None


def test_without_a_time_a_sign_is_enough() -> None:
    watch = watching(None, since=0.0)
    for hour in range(100):
        assert watch.verdict(hour * 1700.0, sign=hour, computed=0.0) is None


@pytest.mark.parametrize(("load", "patience"), [(0.0, IDLE_SECONDS), (0.001, IDLE_SECONDS), (0.9, BUSY_SECONDS)])
def test_who_shows_none_is_dead_in_the_end(load: float, patience: float) -> None:
    watch = watching(None, since=0.0)
    watch.verdict(50.0, sign=1, computed=7.0)
    assert watch.verdict(50.0 + patience, sign=1, computed=7.0 + load * patience) is None
    assert watch.verdict(60.0 + patience, sign=1, computed=7.0 + load * patience) is not None


@pytest.mark.parametrize(
    ("code", "oom_killed", "ending", "cause"),
    [
        (3, False, Ending.CRASHED, "exit code 3"),
        (3, True, Ending.CRASHED, "exit code 3"),
        (-signal.SIGSEGV, False, Ending.CRASHED, "crash (SIGSEGV)"),
        (-signal.SIGTERM, False, Ending.CRASHED, "ended by SIGTERM"),
        (-63, False, Ending.CRASHED, "ended by signal 63"),
        (-signal.SIGKILL, True, Ending.OUT_OF_MEMORY, "on the host: killed by the kernel, which had no memory left"),
        (
            -signal.SIGKILL,
            False,
            Ending.CRASHED,
            "killed (SIGKILL), by someone or for want of memory: the kernel does not say",
        ),
    ],
)
def test_what_an_exit_code_says(code: int, *, oom_killed: bool, ending: Ending, cause: str) -> None:
    death = exit_causes.of_code(code, oom_killed=oom_killed)
    assert (death.ending, death.cause, death.again) == (ending, cause, True)


def test_a_hang_is_not_tried_again() -> None:
    death = exit_causes.of_hang("hung")
    assert (death.ending, death.again) == (Ending.TIMED_OUT, False)
