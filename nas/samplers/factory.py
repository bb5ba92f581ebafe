"""Choice of a sampler by a study's settings."""

from functools import partial

from optuna.samplers import GPSampler, NSGAIISampler

from nas.samplers.base import FilteredSampler, RandomSampler
from nas.samplers.ehvi_sampler import EHVISampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.samplers.optuna_samplers import POPULATION, TPE_STARTUP, FlatSampler, GroupedTPESampler
from nas.settings import Sampler, Settings
from search_spaces import Space


def make_sampler(settings: Settings, space: Space, feasible: FeasibilityFilter, *, trials: int) -> FilteredSampler:
    """Return the sampler of a study.

    Args:
        settings: name the sampler.
        space: to propose from.
        feasible: filter of its proposals.
        trials: of the study; TPE draws at random for the first half of a short one.
    """
    match settings.sampler:
        case Sampler.OURS:
            return EHVISampler(settings, space, feasible)
        case Sampler.TPE:
            startup = max(5, min(TPE_STARTUP, trials // 2))
            return GroupedTPESampler(space, feasible, seed=settings.budget.seed, startup=startup)
        case Sampler.NSGA2:
            nsga2 = partial(NSGAIISampler, population_size=POPULATION)
            return FlatSampler(space, feasible, nsga2, seed=settings.budget.seed)
        case Sampler.GP:
            return FlatSampler(space, feasible, GPSampler, seed=settings.budget.seed)
        case Sampler.RANDOM:
            return RandomSampler(space, feasible, seed=settings.budget.seed)
