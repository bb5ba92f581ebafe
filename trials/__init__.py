"""Evaluation of one candidate: exact cost, measured latency, and scores of a short training."""

from trials.budget import Budget, Limits, Recipe
from trials.evaluation import evaluate
from trials.scores import Costs, Ending, Epoch, Outcome, Scores

__all__ = ["Budget", "Costs", "Ending", "Epoch", "Limits", "Outcome", "Recipe", "Scores", "evaluate"]
