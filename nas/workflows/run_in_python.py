"""Plan and run a study for a Python program: with its progress in a line, and with how to go on after Ctrl-C."""

from collections.abc import Sequence

from nas.paths import RUNS
from nas.records.record import Record
from nas.study.study import Study
from nas.workflows import running
from nas.workflows.plan import Plan
from nas.workflows.progress_line import Show, line
from nas.workflows.request import Request
from nas.workflows.running import SupervisorOf


def plan(request: Request, show: Show) -> Plan:
    """Check a request, and show what is being checked; see `Plan.of`."""
    show("checking space, data and costs")
    return Plan.of(
        request,
        progress=lambda done, total: show(f"opening images: {done} of {total} checked"),
        measuring=lambda done, total: show(f"measuring latencies of the space: {done} of {total}"),
    )


def run(study: Study, show: Show, *, supervisor: SupervisorOf | None = None, again: str = "") -> None:
    """Run the trainings of a study that are not finished yet.

    Args:
        show: called about once a second with the state of the study in words.
        supervisor: what starts the workers and watches them; None for processes on this machine.
        again: what continues the study; empty for `nas.resume`.

    Raises:
        KeyboardInterrupt: it was interrupted; the message says what continues it.
    """

    def tick(study: Study, records: Sequence[Record]) -> None:
        show(line(study, records))

    try:
        running.supervise(study, supervisor=supervisor, show=tick)
    except KeyboardInterrupt:  # without the traceback of where it waited
        raise KeyboardInterrupt(
            "stopped; finished trials are saved, running ones go back into the queue. Continue with: "
            f"{again or resuming(study)}"
        ) from None


def resuming(study: Study) -> str:
    """Return the Python call that resumes a study."""
    runs = study.folder.parent
    where = "" if runs == RUNS.absolute() else f", runs={str(runs)!r}"
    return f"nas.resume({study.name!r}{where})"
