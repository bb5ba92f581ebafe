"""Latency of a study's Pareto front, measured on the device of its table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nas.records.record import stock_of
from search_spaces.errors import SpecError
from trials.latency import prediction_error, runtimes
from trials.latency.prediction_error import Checked

if TYPE_CHECKING:
    from nas.study.study import Study
from nas.study.latency_tables import is_here


def measure_front(study: "Study") -> Iterator[tuple[int, Checked]]:
    """Measure the front's members and the stock model, in turns with it, on this idle host; by their trials' numbers.

    What was measured before is not measured again.

    Raises:
        LatencyError: this host is not the device of the study's table, or a model does not run.
        SpecError: the study has no table.
    """
    table = study.latency_table
    if table is None:
        raise SpecError(f"{study.name}: the search had no latency table (nas search --latency NAME)")
    records = study.records()
    stock = stock_of(records)
    shown = [*study.front(records), *([stock] if stock else [])]
    wanted = {record.trial: record for record in shown if record.measured_ms is None}
    profile = table.recorded.profile
    with runtimes.open_runtime(profile.runtime, threads=profile.threads, device_name=profile.name) as here:
        profile.require(here.profile, f"the table {profile.name}")
        for trial, record in wanted.items():
            (checked,) = prediction_error.check(table, here, [study.architecture(record)])
            study.note_latency(trial, checked.measured_ms)
            yield trial, checked


def is_device(study: "Study") -> bool:
    """Whether this host is the device of the study's table, as far as it can be told without measuring."""
    return study.latency_table is not None and is_here(study.latency_table.recorded.profile)
