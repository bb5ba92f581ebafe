"""Agreement of two rankings, given a third: Kendall's tau, and its partial form.

Accuracy follows cost, so two rankings of the same models agree although neither tells models of equal cost apart. The
partial coefficient removes what both have in common with the cost:

    tau_xy.z = (tau_xy - tau_xz * tau_yz) / sqrt((1 - tau_xz^2) * (1 - tau_yz^2))

Source: Kendall, "Partial rank correlation", Biometrika 32(3/4), 1942.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite, sqrt

LEAST = 4
"""Fewest models whose orders are compared: of three models, one in six orders agrees by chance."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of two rankings of the same models.

    Attributes:
        models: that both rank.
        same: pairs that both order alike.
        inverted: pairs that they order differently; equal ones count in neither.
        tau: Kendall's tau-b.
        partial: given the third ranking; None if one of the two is the order of the third.
    """

    models: int
    same: int
    inverted: int
    tau: float
    partial: float | None


def agreement(first: Sequence[float], second: Sequence[float], given: Sequence[float]) -> Agreement | None:
    """Compare two rankings of the same models, given a third; None for fewer than four, or if all values are equal.

    Raises:
        ValueError: the sequences differ in length.
    """
    if not len(first) == len(second) == len(given):
        raise ValueError(f"values of the same models: got {len(first)}, {len(second)} and {len(given)}")
    if len(first) < LEAST:
        return None
    tau = _tau(first, second)
    if tau is None:
        return None
    signs = [
        (first[one] - first[other]) * (second[one] - second[other]) for one, other in combinations(range(len(first)), 2)
    ]
    return Agreement(
        models=len(first),
        same=sum(sign > 0 for sign in signs),
        inverted=sum(sign < 0 for sign in signs),
        tau=tau,
        partial=_partial(tau, _tau(first, given), _tau(second, given)),
    )


def _partial(tau: float, first: float | None, second: float | None) -> float | None:
    """Return the partial coefficient; a third ranking without any order explains nothing."""
    with_first, with_second = first or 0.0, second or 0.0
    rest = (1 - with_first**2) * (1 - with_second**2)
    return None if rest <= 0 else (tau - with_first * with_second) / sqrt(rest)


def _tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b; None if all values of one are equal."""
    from scipy import stats  # noqa: PLC0415 - half a second, which a front without repeats need not cost

    value = float(stats.kendalltau(first, second).statistic)
    return value if isfinite(value) else None
