"""Architecture of an Optuna trial."""

from typing import cast

from optuna.trial import Trial

from search_spaces import Architecture, SearchSpace
from search_spaces.operators import Value


def suggest(trial: Trial, space: SearchSpace) -> Architecture:
    """Ask a trial for each slot's operator and its free parameters, and for all scaling factors."""
    values: dict[str, Value] = {}
    for slot in space.slots:
        name = f"{slot.name}.operator"
        values[name] = operator = str(trial.suggest_categorical(name, slot.operators))
        for parameter, options in slot.free(operator).items():
            full = f"{slot.name}.{operator}.{parameter}"
            values[full] = cast("Value", trial.suggest_categorical(full, options))  # None is not among them
    for factor in space.scaling_factors:
        values[factor.parameter] = trial.suggest_categorical(factor.parameter, factor.values)
    return space.architecture(values)
