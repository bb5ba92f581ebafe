"""Defaults of a confirmation and an ablation.

The command line reads them for its help, so nothing heavy is imported here.
"""

SEEDS = 5
"""Fresh seeds with which every model is trained."""
MOST_FRESH_SEEDS = 20
"""Fresh seeds beyond which more of them are no advice: longer trainings or another search cost less."""
MARGIN = 0.5
"""Points of mAP50-95 within which two models count as equally accurate."""
MOST_FINALISTS = 8
"""Finalists at most: each costs a training for every seed."""
ABLATION_SEEDS = 3
"""Fresh seeds with which every model of an ablation is trained."""
