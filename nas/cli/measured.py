"""`nas latency front`: measure the latencies of a Pareto front that a search predicted."""

from typing import TYPE_CHECKING, Any

from nas.cli import opening, show
from nas.cli.fronts import nothing_learned
from nas.cli.options import Name, Runs, Shown
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.study import Study
    from trials.latency.prediction_error import Observation


@show.reports_errors
def front(
    study: Name,
    runs: Runs = RUNS,
    shown: Shown = "table",
) -> None:
    """Measure the Pareto front and the stock model of a study, on the device for which its search predicted.

    nas latency front v9t-digits
    """
    from search_spaces.errors import StudyError

    opened = opening.opened(study, runs)
    problem = StudyError(
        f"{study} is running, and its trainings would disturb the measurement; wait for it, or stop it first"
    )
    with opened.supervision_lock.held_at_once(problem):
        measured = measure(opened)
    records = opened.records()
    rows: list[dict[str, Any]] = [
        {
            "trial": record.trial,
            "predicted_ms": record.latency_ms,
            "measured_ms": record.measured_ms,
            "error_percent": 100 * ((record.latency_ms or 0.0) / record.measured_ms - 1),
            "summary": record.summary,
        }
        for record in records
        if record.measured_ms is not None
    ]
    columns = {
        "trial": "trial",
        "predicted_ms": "predicted ms",
        "measured_ms": "measured ms",
        "error_percent": "error, %",
        "summary": "architecture",
    }
    show.rows(rows, shown, title=f"Latencies of {study} on {opened.settings.latency}", columns=columns)
    _print_unsteady(measured)
    show.lines(nothing_learned(opened, records))


def measure(study: "Study") -> "dict[int, Observation]":
    """Measure the members of the front that are not measured yet, with a progress bar."""
    from nas.workflows import measure_front

    measured: dict[int, Observation] = {}
    with show.progress("measuring the front's latency", "Stopped; measured latencies are saved.") as show_progress:
        for trial, checked in measure_front.measure_front(study):
            measured[trial] = checked
            show_progress(len(measured), len(study.front()) + 1)
    return measured


def measure_after_search(study: "Study") -> None:
    """Measure the front after a search that predicted latencies, if this machine is the device."""
    from nas.workflows import measure_front

    if study.latency_table is None:
        return
    if not measure_front.is_device(study.latency_table):
        show.lines([f"latencies are predicted for {study.settings.latency}, which is not this machine: not measured"])
        return
    measured = measure(study)
    if measured:
        worst = max(abs(checked.error) for checked in measured.values())
        show.lines([f"{len(measured)} latencies measured; predictions were at most {worst:.0%} off"])
    _print_unsteady(measured)


def _print_unsteady(measured: "dict[int, Observation]") -> None:
    unsteady = [str(trial) for trial, checked in measured.items() if not checked.steady]
    if unsteady:
        show.lines([f"trial {', '.join(unsteady)}: the device was not steady meanwhile (was something else running?)"])
