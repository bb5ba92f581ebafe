import numpy as np
import pytest

from nas.algorithms.acquisition import CostPartition
from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.gaussian_process import Features
from nas.algorithms.proposer import Candidates, Proposer, _observations_at_last_fit, _subset

COUNT = 200


def landscape() -> tuple[Candidates, FloatArray]:
    """Return candidates whose accuracy grows with cost, and towards 0.7 of a second feature."""
    rng = np.random.default_rng(0)
    costs, other = rng.random(COUNT), rng.random(COUNT)
    features = Features(np.column_stack([costs, other]), np.ones((COUNT, 1)))
    return Candidates(features, costs[:, None]), 0.3 + 0.3 * np.sqrt(costs) - 0.2 * np.abs(other - 0.7)


def chosen_rows(trials: int, *, seed: int = 0, running: int = 0) -> list[int]:
    """Return rows in the order in which they are chosen; the last `running` have no score yet at each choice."""
    candidates, accuracies = landscape()
    chosen: list[int] = []
    proposer = Proposer(seed)
    for _ in range(trials):
        tried = np.array(chosen, dtype=np.intp)
        scores = accuracies[tried].copy()
        scores[len(scores) - min(running, len(scores)) :] = np.nan
        rest = np.setdiff1d(np.arange(COUNT), tried)
        chosen.append(int(rest[proposer.choose(candidates[rest], candidates[tried], scores)]))
    return chosen


def share(chosen: list[int]) -> float:
    """Return the share of the whole hypervolume."""
    candidates, accuracies = landscape()

    floor = float(accuracies.min())

    def volume(rows: IndexArray) -> float:
        partition = CostPartition.of(
            candidates.costs[rows], accuracies[rows], floor=floor, lower=np.zeros(1), upper=np.ones(1)
        )
        return float((partition.volumes * (partition.best_accuracies - floor)).sum())

    return volume(np.array(chosen)) / volume(np.arange(COUNT))


def test_first_candidates_are_spread_over_the_costs() -> None:
    candidates, _ = landscape()
    first = np.sort(candidates.costs[chosen_rows(3), 0])
    assert first[0] < 0.36 < first[1] < 0.69 < first[2]


def test_front_is_found_in_a_tenth_of_the_trials() -> None:
    rng = np.random.default_rng(0)
    drawn = [share(list(rng.permutation(COUNT)[:20])) for _ in range(20)]
    found = [share(chosen_rows(20, seed=seed)) for seed in range(5)]
    assert min(found) > 0.96 > max(drawn)


def test_proposal_depends_on_seed_and_history_alone() -> None:
    assert chosen_rows(12) == chosen_rows(12)
    assert chosen_rows(12) != chosen_rows(12, seed=1)
    candidates, accuracies = landscape()
    tried = np.array(chosen_rows(12), dtype=np.intp)
    rest = np.setdiff1d(np.arange(COUNT), tried)
    fresh = Proposer(0).choose(candidates[rest], candidates[tried], accuracies[tried])
    assert int(rest[fresh]) == chosen_rows(13)[12]


def test_running_candidates_are_imputed() -> None:
    chosen = chosen_rows(24, running=4)
    assert len(set(chosen)) == 24
    assert share(chosen) > 0.95


def test_reward_is_maximised_if_there_is_one() -> None:
    candidates, accuracies = landscape()
    penalty = -np.abs(candidates.costs[:, 0] - 0.5)
    rewarded = Candidates(candidates.features, candidates.costs, np.column_stack([np.ones(COUNT), penalty]))
    chosen: list[int] = []
    proposer = Proposer(0)
    for _ in range(15):
        tried = np.array(chosen, dtype=np.intp)
        rest = np.setdiff1d(np.arange(COUNT), tried)
        chosen.append(int(rest[proposer.choose(rewarded[rest], rewarded[tried], accuracies[tried])]))
    rewards = accuracies + penalty
    assert rewards[chosen].max() > np.sort(rewards)[-3]


def test_lucky_score_is_shrunk_to_the_posterior_mean() -> None:
    """One of many equals has a score that is far too high."""
    features = Features(np.linspace(0, 1, 40)[:, None], np.ones((40, 1)))
    candidates = Candidates(features, np.linspace(0, 1, 40)[:, None])
    scores = 0.3 + 0.01 * np.random.default_rng(0).standard_normal(30)
    scores[12] = 0.36
    tried = candidates[np.arange(30)]
    _, _, means = Proposer(0, noise=0.01)._condition(tried, scores, np.zeros(30), np.arange(30), np.arange(0))
    assert means[12] < 0.33


def test_posterior_mean_of_a_lucky_score_is_near_the_truth() -> None:
    candidates, accuracies = landscape()
    rows = np.array(chosen_rows(30), dtype=np.intp)
    scores = accuracies[rows].copy()
    scores[10] += 0.05
    means = Proposer(0, noise=0.02).posterior_means(candidates[rows], scores)
    assert abs(means[10] - accuracies[rows[10]]) < 0.02
    others = np.delete(np.abs(means - accuracies[rows]), 10)
    assert np.median(others) < 0.01


def test_extrapolated_accuracy_weighs_less_than_a_measured_one() -> None:
    """Half of the accuracies were extrapolated, and badly; measured neighbours correct them."""
    candidates = Candidates(Features(np.linspace(0, 1, 40)[:, None], np.ones((40, 1))), np.linspace(0, 1, 40)[:, None])
    scores = np.where(np.arange(40) % 2, 0.3, 0.5)
    extra_noise = np.where(np.arange(40) % 2, 0.0, 0.1)
    proposer = Proposer(0, noise=0.005)
    _, _, means = proposer._condition(candidates, scores, extra_noise, np.arange(40), np.arange(0))
    assert means == pytest.approx(np.full(40, 0.3), abs=0.02)


def test_empty_pool_is_an_error() -> None:
    candidates, _ = landscape()
    nothing = candidates[np.arange(0)]
    with pytest.raises(ValueError, match="the pool is empty"):
        Proposer(0).choose(nothing, nothing, np.array([]))


def test_hyperparameters_are_fitted_at_growing_intervals() -> None:
    fitted = [_observations_at_last_fit(count) for count in range(1, 1001)]
    assert fitted[:20] == list(range(1, 21))
    assert all(count >= last for count, last in zip(range(1, 1001), fitted, strict=True))
    assert len(set(fitted)) < 70
    assert fitted[-1] > 1000 / 1.2


def test_subset_of_many_observations_holds_the_front() -> None:
    rng = np.random.default_rng(0)
    costs, accuracies = rng.random((3000, 1)), rng.random(3000)
    rows = _subset(costs, accuracies, 400)
    best = [row for row in range(3000) if accuracies[row] >= accuracies[costs[:, 0] <= costs[row, 0]].max()]
    assert set(best) <= set(rows.tolist())
    assert 350 < len(rows) <= 400
    assert list(rows) == sorted(rows)
