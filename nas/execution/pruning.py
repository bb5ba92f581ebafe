"""Promote or prune a training at a rung, and pass a trial's outcome to Optuna."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import Trial

from nas.algorithms.pareto import Point, directions_for
from nas.algorithms.successive_halving import should_promote
from nas.records.trial_attributes import REPEAT, ROLE, RUNG
from nas.settings import Settings
from nas.study.study import Study
from search_spaces import Architecture
from trials import Ending, Epoch, Limits


def limits_of(attributes: Mapping[str, Any], settings: Settings) -> Limits:
    """Return a trial's limits: none for the stock model, which is the reference, and for repeats; else the study's.

    Where only stock models are trained, they hold for these.

    Args:
        attributes: user attributes of the trial.
        settings: of the study.
    """
    is_reference = attributes.get(ROLE) == "stock" and not settings.stock_only
    return Limits() if is_reference or REPEAT in attributes else settings.limits


def promote(study: Study, trial: Trial, architecture: Architecture, epoch: Epoch) -> bool:
    """Store the standing of a training at a rung; return whether it is promoted, else it is to be pruned.

    The stock model is always promoted. So is a training that has a standing at this rung already: it was promoted
    then, and is now repeated with another seed, or retried for a reason outside of the architecture.
    """
    stopping, name = study.settings.stopping, f"{RUNG}{epoch.epoch}"
    promoted_before = name in trial.user_attrs or REPEAT in trial.user_attrs
    if stopping is None or epoch.map50_95 is None or epoch.epoch >= study.settings.budget.epochs or promoted_before:
        return True
    earlier = [values[0] for key, values in trial.user_attrs.items() if key.startswith(RUNG)]
    accuracy = max([epoch.map50_95, *earlier])
    standing = _standing(study, accuracy, architecture)
    others = [tuple(values[1:]) for values in study.storage.rung_values(study.optuna._study_id, name)]  # noqa: SLF001 - Optuna's storages take it
    trial.set_user_attr(name, (accuracy, *standing))
    directions = directions_for(costs=len(standing) - 1)
    return trial.user_attrs.get(ROLE) == "stock" or should_promote(standing, others, directions, stopping.eta)


def _standing(study: Study, accuracy: float, architecture: Architecture) -> Point:
    """Return the values that are compared at a rung: the reward, or the accuracy and the costs before training."""
    figures = study.feasible.figures(architecture)
    if study.settings.reward:
        return (study.settings.rewarded(accuracy, figures),)
    return (accuracy, *(figures[name] for name in study.settings.predicted_costs))


def store_outcome(settings: Settings, trial: Trial, fields: Mapping[str, Any]) -> list[float] | None:
    """Store an outcome as the trial's user attributes and constraints.

    Args:
        fields: as `stored_outcome.outcome_fields` returns them.

    Returns:
        The objective values to pass to Optuna; None for a trial without scores.
    """
    for name, value in fields.items():
        trial.set_user_attr(name, value)
    for name, ceiling in settings.limits.model_dump(exclude_none=True).items():
        if name in fields:
            trial.set_constraint(name, fields[name] / ceiling - 1)
    match Ending(fields["ending"]):
        case Ending.FINISHED:
            return settings.objective_values(fields)
        case Ending.BROKEN:
            return None
        case Ending.STOPPED:  # among pruned trials, those with more epochs are better
            trial.set_constraint("rungs_left", 1 - fields["epochs"] / settings.budget.epochs)
            return None
        case _:  # a sampler ignores a failed trial; from a pruned one with a constraint it learns to avoid the region
            trial.set_constraint("ending", 1.0)
            return None
