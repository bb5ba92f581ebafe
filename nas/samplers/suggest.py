"""Architecture of an Optuna trial."""

from typing import cast

from optuna.trial import Trial

from search_spaces import Architecture, Space
from search_spaces.operators import Value


def suggest(trial: Trial, space: Space) -> Architecture:
    """Ask a trial for each slot's operator and its free parameters, and for all scaling factors; of one member."""

    def choose(name: str, values: tuple[Value, ...]) -> Value:
        return cast("Value", trial.suggest_categorical(name, values))  # None is not among them

    return space.ask(choose)
