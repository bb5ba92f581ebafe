"""Scalar reward of a model, for given targets: accuracy with a penalty for costs.

A search without a reward finds the Pareto front, which has a model for every target; a reward selects one of them.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import inf, prod

# google-research, Apache-2.0: the default of `rl_cost_model_exponent` in tunas/mobile_architecture_search.py;
# the formula is `reward_for_single_cost_model` in tunas/search_space_utils.py.
TUNAS_BETA = -0.10
# MnasNet, section 3: doubling the latency is taken to buy 5 % of accuracy, and 2 ** -0.07 is 0.95.
MNASNET_EXPONENT = -0.07
# TuNAS' penalty, on one side only.
LINEAR_BETA = -0.10


class Reward(StrEnum):
    """Formula by which a cost T weighs against its target T0, for an accuracy that is mAP50-95 between 0 and 1.

    The examples are a model of mAP 0.40 with a target of 10 GFLOPs.

    `tunas`: accuracy - 0.10 * sum |T / T0 - 1| (absolute reward of TuNAS, arXiv 2008.06120; one cost there).
        For "as good as possible at this size": a model that is cheaper than the target is penalised as
        much as a more expensive one, because it does not use the budget. With beta = -0.10, 10 % off the
        target cost 0.01, which is one point of mAP, at any accuracy. It was made for ImageNet, where models
        score 0.75; where a short training scores 0.10, the same beta holds a model closer to its target.
        Example: T = 12 gives 0.38, and so does T = 8.

    `mnasnet`: accuracy * prod (T / T0) ** -0.07 (soft reward, MnasNet, arXiv 1807.11626).
        For "cheaper is always worth something": double the cost takes 5 % of the accuracy, half the cost adds
        5 %, without end. With the same exponent on both sides T0 scales all rewards alike, and does not change
        the ranking: this is a price, not a target. On the mAP scale it is relative: 5 % of 0.40 are 0.02,
        5 % of 0.10 only 0.005, so that costs hardly matter among models that learned little.
        Example: T = 12 gives 0.3949, T = 8 gives 0.4063.

    `mnasnet-hard`: accuracy * prod max(1, T / T0) ** -1 (hard reward, MnasNet, arXiv 1807.11626).
        For "at most this, or nearly": up to the target only accuracy counts, above it twice the cost halves it.
        Example: T = 12 gives 0.3333, T = 8 gives 0.40.

    `linear`: accuracy - 0.10 * sum max(0, T / T0 - 1) (ours: TuNAS' penalty, on the upper side only).
        For "up to here it is free": below the target only accuracy counts, above it each 10 % cost one
        point of mAP. For a ceiling that must not be crossed at all, set a limit instead.
        Example: T = 12 gives 0.38, T = 8 gives 0.40.
    """

    TUNAS = "tunas"
    MNASNET = "mnasnet"
    MNASNET_HARD = "mnasnet-hard"
    LINEAR = "linear"


def reward(kind: Reward, accuracy: float, costs: Sequence[tuple[float, float]]) -> float:
    """Return the reward of one model, higher is better; without costs it is the accuracy.

    It may be negative for a model far from its targets. Rewards compare only between models that were
    trained alike, and under the same kind and targets.

    Args:
        kind: the formula; see `Reward`.
        accuracy: mAP50-95 between 0 and 1, not in percent.
        costs: pairs of value and target in the same unit, such as gflops or latency_ms.

    Raises:
        ValueError: the accuracy is not between 0 and 1, or a value or target is not above 0 and finite.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy must be between 0 and 1, got {accuracy} (percent are divided by 100)")
    ratios = [_ratio(value, target) for value, target in costs]
    match Reward(kind):
        case Reward.TUNAS:
            return accuracy + TUNAS_BETA * sum(abs(ratio - 1) for ratio in ratios)
        case Reward.MNASNET:
            return accuracy * prod(ratio**MNASNET_EXPONENT for ratio in ratios)
        case Reward.MNASNET_HARD:
            return accuracy / prod(max(1.0, ratio) for ratio in ratios)
        case Reward.LINEAR:
            return accuracy + LINEAR_BETA * sum(max(0.0, ratio - 1) for ratio in ratios)


def _ratio(value: float, target: float) -> float:
    """Return the value in units of its target."""
    if not 0 < target < inf:
        raise ValueError(f"a target must be above 0 and finite, got {target} (leave out a cost without target)")
    if not 0 < value < inf:
        raise ValueError(f"a cost must be above 0 and finite, got {value} (a model that costs nothing was not counted)")
    return value / target
