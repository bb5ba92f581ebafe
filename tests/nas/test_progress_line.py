"""Progress of a study in one line."""

import io
from collections.abc import Callable

import pytest

from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.study import Study
from nas.workflows.progress_line import line, progress_line
from trials import Outcome


class Terminal(io.StringIO):
    """Stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_line_counts_trials_and_is_cleared_at_the_end(
    make_study: Callable[..., Study], score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, terminal = make_study(trials=3), Terminal()
    monkeypatch.setattr(worker, "evaluate", score)
    with progress_line(terminal) as show:
        show(line(study, study.records()))
        Worker(study, deadline=float("inf")).run()
        show(line(study, study.records()))
    before, after, end = terminal.getvalue().split("\r\x1b[K")[1:]
    assert before == "small: 0 of 3 trials, 0 running"
    assert after.startswith("small: 3 of 3 trials, 0 running, best mAP50-95 0.")
    assert not end


def test_no_terminal_gets_no_line(make_study: Callable[..., Study]) -> None:
    study, stream = make_study(trials=3), io.StringIO()
    with progress_line(stream) as show:
        show(line(study, study.records()))
    assert not stream.getvalue()
