from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.algorithms.rewards import Reward, reward

every_kind = pytest.mark.parametrize("kind", Reward)

accuracies = st.floats(0, 1)
amounts = st.floats(0.01, 1000)
costs = st.lists(st.tuples(amounts, amounts), max_size=3)


@pytest.mark.parametrize(
    ("kind", "at_12", "at_8"),
    [
        (Reward.TUNAS, 0.38, 0.38),
        (Reward.MNASNET, 0.3949, 0.4063),
        (Reward.MNASNET_HARD, 1 / 3, 0.40),
        (Reward.LINEAR, 0.38, 0.40),
    ],
)
def test_rewards_in_the_docstring_are_right(kind: Reward, at_12: float, at_8: float) -> None:
    assert reward(kind, 0.40, [(12.0, 10.0)]) == pytest.approx(at_12, abs=5e-5)
    assert reward(kind, 0.40, [(8.0, 10.0)]) == pytest.approx(at_8, abs=5e-5)


@given(accuracy=accuracies, targets=st.lists(amounts, max_size=3))
@every_kind
def test_reward_on_target_is_the_accuracy(kind: Reward, accuracy: float, targets: list[float]) -> None:
    assert reward(kind, accuracy, [(target, target) for target in targets]) == accuracy


@given(accuracy=st.floats(0.01, 1), target=amounts, excess=st.floats(0.01, 10), others=costs)
@every_kind
def test_on_target_is_better_than_above_at_equal_accuracy(
    kind: Reward, accuracy: float, target: float, excess: float, others: list[tuple[float, float]]
) -> None:
    meeting = reward(kind, accuracy, [(target, target), *others])
    costlier = reward(kind, accuracy, [(target * (1 + excess), target), *others])
    assert meeting > costlier


@given(low=accuracies, high=accuracies, pairs=costs)
@every_kind
def test_reward_is_monotonic_in_accuracy(
    kind: Reward, low: float, high: float, pairs: list[tuple[float, float]]
) -> None:
    low, high = sorted((low, high))
    assert reward(kind, low, pairs) <= reward(kind, high, pairs)


@given(accuracy=accuracies, target=amounts, share=st.floats(0, 0.99))
def test_tunas_is_symmetric(accuracy: float, target: float, share: float) -> None:
    dearer = reward(Reward.TUNAS, accuracy, [(target * (1 + share), target)])
    cheaper = reward(Reward.TUNAS, accuracy, [(target * (1 - share), target)])
    assert dearer == pytest.approx(cheaper, abs=1e-12)
    assert dearer == pytest.approx(accuracy - 0.10 * share, abs=1e-12)


@given(accuracy=accuracies, target=amounts, share=st.floats(0.001, 1))
def test_linear_has_no_penalty_below_the_target(accuracy: float, target: float, share: float) -> None:
    assert reward(Reward.LINEAR, accuracy, [(target * share, target)]) == accuracy


@given(accuracy=st.floats(0.01, 1), value=amounts, target=amounts)
def test_mnasnet_scales_by_a_constant_for_each_doubling(accuracy: float, value: float, target: float) -> None:
    single = reward(Reward.MNASNET, accuracy, [(value, target)])
    double = reward(Reward.MNASNET, accuracy, [(2 * value, target)])
    assert double / single == pytest.approx(2**-0.07)


@given(
    models=st.tuples(st.tuples(accuracies, amounts), st.tuples(accuracies, amounts)),
    targets=st.tuples(amounts, amounts),
)
def test_mnasnet_ranking_does_not_depend_on_the_target(
    models: tuple[tuple[float, float], tuple[float, float]], targets: tuple[float, float]
) -> None:
    (first, second), (third, fourth) = (
        [reward(Reward.MNASNET, accuracy, [(value, target)]) for accuracy, value in models] for target in targets
    )
    assert first * fourth == pytest.approx(second * third)  # the ratio of two rewards does not move


@pytest.mark.parametrize("wrong", [0.0, -1.0, nan, inf])
@every_kind
def test_invalid_target_is_an_error(kind: Reward, wrong: float) -> None:
    with pytest.raises(ValueError, match="a target must be above 0 and finite, got"):
        reward(kind, 0.4, [(8.0, 10.0), (3.0, wrong)])


@pytest.mark.parametrize("wrong", [0.0, -1.0, nan, inf])
@every_kind
def test_invalid_cost_is_an_error(kind: Reward, wrong: float) -> None:
    with pytest.raises(ValueError, match="a cost must be above 0 and finite, got"):
        reward(kind, 0.4, [(wrong, 10.0)])


@pytest.mark.parametrize("wrong", [-0.01, 37.3, nan])
@every_kind
def test_accuracy_outside_0_to_1_is_an_error(kind: Reward, wrong: float) -> None:
    with pytest.raises(ValueError, match="accuracy must be between 0 and 1, got"):
        reward(kind, wrong, [])
