"""What a trial is told at a rung, and what Optuna is told at a trial's end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import Trial, TrialState

from nas.algorithms.pareto import Point, directions_for
from nas.algorithms.successive_halving import should_promote
from nas.records.trial_attributes import REPEAT, ROLE, RUNG
from nas.settings import Settings
from search_spaces import Architecture
from trials import Ending, Epoch, Limits

if TYPE_CHECKING:
    from nas.study.study import Study


def limits_for(attributes: Mapping[str, Any], limits: Limits) -> Limits:
    """Those of a trial by what is known of it: none for the stock model, which is the reference, outside the front."""
    return Limits() if attributes.get(ROLE) == "stock" or REPEAT in attributes else limits


def judge(study: "Study", trial: Trial, architecture: Architecture, epoch: Epoch) -> bool:
    """Note where a training stands at a rung, and say whether it goes on.

    The stock model always does, and so does one that has been judged before: it went on, and is trained again with
    another seed, or after something that was no fault of its own.
    """
    stopping, name = study.settings.stopping, f"{RUNG}{epoch.epoch}"
    judged = name in trial.user_attrs or REPEAT in trial.user_attrs
    if stopping is None or epoch.map50_95 is None or epoch.epoch >= study.settings.budget.epochs or judged:
        return True
    earlier = [values[0] for key, values in trial.user_attrs.items() if key.startswith(RUNG)]
    accuracy = max([epoch.map50_95, *earlier])
    own = _standing(study, accuracy, architecture)
    others = [
        tuple(other.user_attrs[name][1:])
        for other in study.trials()
        if name in other.user_attrs and other.state != TrialState.FAIL
    ]
    trial.set_user_attr(name, (accuracy, *own))
    directions = directions_for(costs=len(own) - 1)
    return trial.user_attrs.get(ROLE) == "stock" or should_promote(own, others, directions, stopping.eta)


def _standing(study: "Study", accuracy: float, architecture: Architecture) -> Point:
    """What a training is judged by: its reward, or its accuracy and what it is known to cost."""
    figures = study.feasible.figures(architecture)
    if study.settings.reward:
        return (study.settings.rewarded(accuracy, figures),)
    return (accuracy, *(figures[name] for name in study.settings.known_costs))


def settle(settings: Settings, trial: Trial, fields: Mapping[str, Any]) -> list[float] | None:
    """Store how a trial ended, and what it says to the sampler.

    Args:
        fields: as `records.told` says them.

    Returns:
        What Optuna is to be told, or None if the trial has no scores.
    """
    for name, value in fields.items():
        trial.set_user_attr(name, value)
    for name, ceiling in settings.limits.model_dump(exclude_none=True).items():
        if name in fields:
            trial.set_constraint(name, fields[name] / ceiling - 1)
    match Ending(fields["ending"]):
        case Ending.FINISHED:
            return _values(settings, fields)
        case Ending.BROKEN:
            return None
        case Ending.STOPPED:  # among pruned trials, those that came further are the better ones
            trial.set_constraint("rungs_left", 1 - fields["epochs"] / settings.budget.epochs)
            return None
        case _:  # a failed trial would teach the sampler nothing; a pruned one with a constraint says: not there
            trial.set_constraint("ending", 1.0)
            return None


def _values(settings: Settings, fields: Mapping[str, Any]) -> list[float]:
    """The objectives, or one reward."""
    if settings.reward is None:
        return [float(fields[name]) for name in settings.objectives]
    figures = {name: float(fields[name]) for name in settings.targets}
    return [settings.rewarded(float(fields["map50_95"]), figures)]
