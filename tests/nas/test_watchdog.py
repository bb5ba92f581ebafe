"""Watchdog of a training, with a clock passed in, and causes of exits."""

import signal
from pathlib import Path

import pytest

from nas.execution import exit_causes
from nas.execution.watchdog import BUSY_SECONDS, GRACE_SECONDS, IDLE_SECONDS, AwakeClock, Training, Watchdog
from nas.records.trial_files import TrialFiles
from trials import Ending


def watching(timeout: float | None, *, since: float) -> Watchdog:
    return Watchdog(training=Training(TrialFiles(Path("0003")), timeout), began=since)


def test_training_within_its_timeout_is_not_killed() -> None:
    watchdog = watching(10.0, since=100.0)
    assert watchdog.reason_to_kill(100.0 + 10.0 + GRACE_SECONDS, heartbeat=1, cpu_seconds=0.0) is None


def test_training_beyond_timeout_and_grace_is_killed_despite_its_heartbeat() -> None:
    watchdog = watching(10.0, since=100.0)
    for second in range(41):
        assert watchdog.reason_to_kill(100.0 + second, heartbeat=second, cpu_seconds=second) is None
    assert watchdog.reason_to_kill(141.0, heartbeat=41, cpu_seconds=41.0) == (
        "hung: still running 41 s after its start; 10 s are allowed"
    )


def test_grace_of_a_long_training_is_a_share_of_its_timeout() -> None:
    watchdog = watching(1000.0, since=0.0)
    assert watchdog.reason_to_kill(1500.0, heartbeat=1, cpu_seconds=0.0) is None
    assert watchdog.reason_to_kill(1501.0, heartbeat=2, cpu_seconds=0.0) is not None


def test_without_timeout_a_heartbeat_is_enough() -> None:
    watchdog = watching(None, since=0.0)
    for hour in range(100):
        assert watchdog.reason_to_kill(hour * 1700.0, heartbeat=hour, cpu_seconds=0.0) is None


@pytest.mark.parametrize(("load", "patience"), [(0.0, IDLE_SECONDS), (0.001, IDLE_SECONDS), (0.9, BUSY_SECONDS)])
def test_training_without_heartbeat_is_killed(load: float, patience: float) -> None:
    watchdog = watching(None, since=0.0)
    watchdog.reason_to_kill(50.0, heartbeat=1, cpu_seconds=7.0)
    assert watchdog.reason_to_kill(50.0 + patience, heartbeat=1, cpu_seconds=7.0 + load * patience) is None
    assert watchdog.reason_to_kill(60.0 + patience, heartbeat=1, cpu_seconds=7.0 + load * patience) is not None


def test_process_that_waits_for_a_kernel_of_a_gpu_has_the_time_of_an_idle_one() -> None:
    """PyTorch waits for the GPU in a loop that takes a whole core."""
    watchdog = Watchdog(training=Training(TrialFiles(Path("0003")), None, on_gpu=True), began=0.0)
    assert watchdog.reason_to_kill(0.0, heartbeat=1, cpu_seconds=0.0) is None
    assert watchdog.reason_to_kill(IDLE_SECONDS, heartbeat=1, cpu_seconds=IDLE_SECONDS) is None
    assert watchdog.reason_to_kill(IDLE_SECONDS + 10, heartbeat=1, cpu_seconds=IDLE_SECONDS) == (
        "hung: no step in 30 min, waiting for the GPU"
    )


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
            "killed (SIGKILL) by a user or because memory ran out; the kernel does not say which",
        ),
    ],
)
def test_exit_code_gives_ending_and_cause(code: int, *, oom_killed: bool, ending: Ending, cause: str) -> None:
    found = exit_causes.from_code(code, oom_killed=oom_killed)
    assert (found.ending, found.text, found.retry) == (ending, cause, True)


def test_hang_is_not_retried() -> None:
    found = exit_causes.from_hang("hung")
    assert (found.ending, found.retry) == (Ending.TIMED_OUT, False)


def test_time_in_which_the_supervisor_was_stopped_does_not_count() -> None:
    times = iter([100.0, 101.0, 102.0, 102.0 + 2 * IDLE_SECONDS, 103.0 + 2 * IDLE_SECONDS])
    clock = AwakeClock(lambda: next(times))
    watchdog = watching(None, since=clock.read())
    looks = [watchdog.reason_to_kill(clock.read(), heartbeat=1, cpu_seconds=0.0) for _ in range(3)]
    assert looks == [None, None, None]
