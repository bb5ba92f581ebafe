"""Evaluation of one candidate: exact cost, measured latency, and scores of a short training.

The names below are imported when they are first used: `evaluate` needs PyTorch, which a report of scores does not.
"""

from typing import TYPE_CHECKING

from search_spaces.lazy_names import importer

if TYPE_CHECKING:
    from trials.budget import Budget, Limits, Recipe
    from trials.evaluation import evaluate
    from trials.scores import Costs, Ending, Epoch, Outcome, Scores

_HOMES = {
    "Budget": "trials.budget",
    "Costs": "trials.scores",
    "Ending": "trials.scores",
    "Epoch": "trials.scores",
    "Limits": "trials.budget",
    "Outcome": "trials.scores",
    "Recipe": "trials.budget",
    "Scores": "trials.scores",
    "evaluate": "trials.evaluation",
}

__all__ = ["Budget", "Costs", "Ending", "Epoch", "Limits", "Outcome", "Recipe", "Scores", "evaluate"]


__getattr__ = importer(__name__, _HOMES)
