"""Pareto front by expected accuracies: scores that noise has raised come down."""

from collections.abc import Sequence
from dataclasses import replace

from nas.records.record import Record, mean_over_seeds, pareto_front_of
from nas.samplers.ehvi_sampler import EHVISampler
from nas.study.study import Study


def expected_front(study: Study, records: Sequence[Record]) -> list[Record]:
    """Return the Pareto front by the posterior mean accuracy of every model, given all trials.

    Returns:
        The members' records, each with its posterior mean as `expected`.
    """
    expected = EHVISampler(study.settings, study.space, study.feasible).expected_accuracies(study.optuna)
    scored = {record.trial: record for record in mean_over_seeds(records)}
    smoothed = [replace(record, map50_95=expected.get(record.fingerprint)) for record in scored.values()]
    front = pareto_front_of([record for record in smoothed if record.map50_95 is not None], study.settings.objectives)
    return [replace(scored[record.trial], expected=record.map50_95) for record in front]
