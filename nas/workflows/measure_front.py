"""Latency of a study's Pareto front, measured on the device of its latency table."""

from collections.abc import Iterator

from nas.records.record import stock_of
from nas.study.latency_tables import is_this_machine
from nas.study.study import Study
from search_spaces.errors import SpecError
from trials.latency import prediction_error, runtimes
from trials.latency.prediction_error import Observation
from trials.latency.space_latencies import SpaceLatencies


def measure_front(study: Study) -> Iterator[tuple[int, Observation]]:
    """Measure the front's models and the stock model on this idle machine, each in turns with the stock model.

    Yields the latency of each trial's model; one that was measured before is skipped.

    Raises:
        LatencyError: this machine is not the table's device, or a model does not run.
        SpecError: the study has no latency table.
    """
    table = study.latency_table
    if table is None:
        raise SpecError(f"{study.name}: the search had no latency table (nas search --latency NAME)")
    records = study.records()
    stock = stock_of(records)
    shown = [*study.front(records), *([stock] if stock else [])]
    missing = {record.trial: record for record in shown if record.measured_ms is None}
    profile = table.recorded.profile
    with runtimes.open_for(profile) as here:
        profile.require(here.profile, f"the table {profile.name}")
        for trial, record in missing.items():
            architecture = study.architecture(record)
            (checked,) = prediction_error.observe(table.of_member(architecture), here, [architecture])
            study.measured_latencies.add(trial, checked.measured_ms)
            yield trial, checked


def is_device(table: SpaceLatencies | None) -> bool:
    """Return whether this machine is the table's device, as far as it can be determined without measuring."""
    return table is not None and is_this_machine(table.recorded.profile)
