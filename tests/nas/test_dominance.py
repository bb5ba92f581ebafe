"""Trainings of stock models that are hopeless on the way."""

import pytest

from nas.algorithms.dominance import Standing, dominator_of, least_difference, rungs_of


def standing(cost: float, *accuracies: float, end: float | None = None) -> Standing:
    """Return a training that has reached the rungs 1, 3, 9 with these accuracies."""
    return Standing(costs=(cost,), accuracies=dict(zip((1, 3, 9), accuracies, strict=False)), end=end)


def test_training_that_a_cheaper_one_leads_by_more_than_noise_is_dominated() -> None:
    others = {"v9t": standing(7, 0.1, 0.5), "v8n": standing(7, 0.1, 0.6)}
    found = dominator_of(standing(8, 0.1, 0.2), others, epochs=10, noise=0.02)
    assert found is not None
    assert (found.name, found.rung) == ("v8n", 3)
    assert found.lead == pytest.approx(0.4)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(standing(8.1, 0.9, 0.9), id="costlier"),
        pytest.param(standing(7, 0.1, 0.25), id="within noise"),
        pytest.param(standing(7), id="no rung reached"),
        pytest.param(standing(7, 0.9, 0.2), id="led before, at the last rung of both no more"),
    ],
)
def test_training_goes_on(other: Standing) -> None:
    assert dominator_of(standing(8, 0.1, 0.2), {"other": other}, epochs=10, noise=0.02) is None


def test_trainings_are_compared_at_the_last_rung_of_both() -> None:
    found = dominator_of(standing(8, 0.1, 0.2, 0.5), {"other": standing(8, 0.1, 0.5)}, epochs=10, noise=0.02)
    assert found is not None
    assert found.rung == 3


def test_gains_that_differ_much_are_noise() -> None:
    trainings = {"v9t": standing(7, 0.1, 0.48, end=0.5), "v5n": standing(9, 0.1, 0.4, end=0.9)}
    assert dominator_of(standing(8, 0.1, 0.2), {"v9t": trainings["v9t"]}, epochs=10, noise=0.02) is not None
    assert dominator_of(standing(8, 0.1, 0.2), trainings, epochs=10, noise=0.02) is None


def test_less_counts_towards_the_end() -> None:
    """The accuracies of v10n beside v11n in docs/search.md."""
    for epochs, is_dominated in ((9, False), (4, True)):
        found = dominator_of(standing(6.6, 0.0, 0.174), {"v11n": standing(6.4, 0.0, 0.33)}, epochs=epochs, noise=0.02)
        assert (found is not None) == is_dominated


def test_one_model_counts_only_in_all_costs() -> None:
    costs = Standing(costs=(7, 9), accuracies={1: 0.9})
    assert dominator_of(Standing(costs=(8, 8), accuracies={1: 0.1}), {"other": costs}, epochs=10, noise=0.02) is None


def test_noise_is_twice_the_deviation_of_a_difference() -> None:
    assert least_difference(0.02) == pytest.approx(0.0566, abs=1e-4)


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [(1, ()), (3, (1, 2)), (9, (1, 2, 3, 4, 5, 6, 7, 8)), (60, (7, 13, 20, 27, 33, 40, 47, 53))],
)
def test_rungs_are_after_each_ninth(epochs: int, rungs: tuple[int, ...]) -> None:
    assert rungs_of(epochs) == rungs
