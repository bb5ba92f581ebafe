"""Evaluation of one candidate: exact cost, measured latency, and scores of a short training.

The names below are imported when they are first used: `evaluate` needs PyTorch, which a report of scores does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trials.budget import Budget, Limits, Recipe
    from trials.evaluation import evaluate
    from trials.scores import Costs, Ending, Epoch, Outcome, Scores

_HOMES = {
    "Budget": "budget",
    "Costs": "scores",
    "Ending": "scores",
    "Epoch": "scores",
    "Limits": "budget",
    "Outcome": "scores",
    "Recipe": "budget",
    "Scores": "scores",
    "evaluate": "evaluation",
}

__all__ = ["Budget", "Costs", "Ending", "Epoch", "Limits", "Outcome", "Recipe", "Scores", "evaluate"]


def __getattr__(name: str) -> Any:
    """Import a name on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
