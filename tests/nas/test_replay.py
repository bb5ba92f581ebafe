from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from nas.algorithms.hypervolume import hypervolume
from nas.algorithms.successive_halving import Stopping
from nas.bench import summary
from nas.bench.learning_curves import synthetic
from nas.bench.optimizers import OPTIMIZERS, OptunaOptimizer
from nas.bench.replay import (
    Permuted,
    Replay,
    ReplaySettings,
    points_of,
    reference_of,
    replay_all,
    replay_one,
    time_proposals,
)
from nas.bench.tables import Table, read_yolobench

TRIALS = 24
QUICK = [name for name in OPTIMIZERS if name != "gp"]
every_sampler = pytest.mark.parametrize("sampler", QUICK)


@pytest.fixture(scope="module")
def table(trained: Path) -> Table:
    return read_yolobench(trained)


@pytest.fixture(scope="module")
def small(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Every ninth row."""
    header, *lines = trained.read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("small") / "small.csv"
    path.write_text("\n".join([header, *lines[::9]]), encoding="utf-8")
    return read_yolobench(path)


class Cheapest:
    """Optimizer that proposes the cheapest remaining row by the visible costs."""

    def __init__(self, table: Table, _seed: int) -> None:
        self._rows: Iterator[int] = iter(np.argsort(table.costs[:, 0]).tolist())

    def ask(self) -> int:
        return next(self._rows)

    def tell(self, row: int, accuracy: float, extra_noise: float = 0.0) -> None:
        pass

    def predict(self) -> None:
        pass


@every_sampler
def test_every_row_is_proposed_once_up_to_the_whole_hypervolume(small: Table, sampler: str) -> None:
    replay = replay_one(small, ReplaySettings(trials=1000, noise=0.5), (sampler, 0))
    assert sorted(replay.rows) == list(range(len(small)))
    assert replay.shares[-1] == pytest.approx(1.0)
    assert all(before <= after for before, after in pairwise(replay.shares))


@every_sampler
def test_replay_depends_on_seed_and_repeat(table: Table, sampler: str) -> None:
    settings = ReplaySettings(trials=14, noise=1.0)
    first = replay_one(table, settings, (sampler, 3))
    assert replay_one(table, settings, (sampler, 3)) == first
    assert replay_one(table, settings, (sampler, 4)).rows != first.rows
    assert replay_one(table, replace(settings, seed=1), (sampler, 3)).rows != first.rows


def test_share_is_relative_to_the_hypervolume_of_the_whole_table(small: Table) -> None:
    replay = replay_one(small, ReplaySettings(), ("random", 0))
    points = points_of(small, small.accuracies)

    def volume(rows: Iterator[int] | tuple[int, ...]) -> float:
        return hypervolume([points[row] for row in rows], small.directions, reference_of(small))

    whole = volume(tuple(range(len(small))))
    shares = [volume(replay.rows[:count]) / whole for count in range(1, len(small) + 1)]
    assert replay.shares == pytest.approx(shares)


def test_ehvi_sampler_needs_fewer_trials_than_random_search(table: Table) -> None:
    replays = list(replay_all(table, ReplaySettings(trials=TRIALS), ("random", "ours"), 5))
    row = summary.summarize(replays, TRIALS)[1]
    assert row["sampler"] == "ours"
    assert isinstance(row["fewer_95"], float)
    assert row["fewer_95"] > 2


@pytest.mark.parametrize("permuted", ["accuracies", "outcomes"])
def test_permuted_outcomes_are_unpredictable_and_permuted_accuracies_leave_costs(
    small: Table, permuted: Permuted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "cheapest", Cheapest)
    settings = ReplaySettings(trials=8, permuted=permuted)
    replays = list(replay_all(small, settings, ("random", "cheapest"), 150))
    grouped = summary.by_sampler(replays)
    shares = {sampler: np.array([replay.share_after(8) for replay in group]) for sampler, group in grouped.items()}
    differences = shares["cheapest"] - shares["random"]
    errors = differences.mean() / (differences.std() / np.sqrt(len(differences)))
    assert abs(errors) < 3 if permuted == "outcomes" else errors > 5  # cheap rows are better


def test_without_noise_the_reported_front_is_the_true_one(table: Table) -> None:
    replay = replay_one(table, ReplaySettings(trials=TRIALS), ("random", 0))
    assert replay.reported == pytest.approx(replay.share_after(TRIALS))
    assert replay.inflation == pytest.approx(0.0)


def test_noise_inflates_the_reported_front(table: Table) -> None:
    replays = list(replay_all(table, ReplaySettings(trials=100, noise=3.0), ("random",), 10))
    assert all(replay.reported < replay.share_after(100) for replay in replays)
    assert np.median([replay.inflation for replay in replays]) > 0.01


def test_samplers_of_a_repeat_have_the_same_problem(table: Table) -> None:
    settings = ReplaySettings(noise=1.0, permuted="outcomes")
    first, again, other = (settings.problem(table, repeat) for repeat in (0, 0, 1))
    assert (first.observed == again.observed).all()
    assert not (first.observed == other.observed).any()
    assert np.std(first.observed - first.true.accuracies) == pytest.approx(0.01, rel=0.2)
    assert first.visible is table


def test_draw_is_mapped_to_the_nearest_remaining_row(table: Table) -> None:
    optimizer = OPTIMIZERS["tpe"](table, 0)
    assert isinstance(optimizer, OptunaOptimizer)
    drawn = table.codes[100].astype(float)
    assert optimizer._nearest(drawn) == 100
    optimizer._remaining.remove(100)
    assert (table.codes[optimizer._nearest(drawn)] != drawn).sum() == 1  # one column, by one step or another family


def test_optuna_trial_has_the_values_of_the_row(table: Table) -> None:
    optimizer = OPTIMIZERS["nsga2"](table, 0)
    assert isinstance(optimizer, OptunaOptimizer)
    row = optimizer.ask()
    optimizer.tell(row, 0.5)
    *_, trial = optimizer._study.get_trials(deepcopy=False)
    assert trial.params["family"] == table.columns["family"][row]
    codes = [trial.params[name] for name in ("depth", "width", "resolution")]
    assert codes == table.codes[row, 1:].tolist()
    assert trial.values == [0.5, table.costs[row, 0]]
    assert "NSGAIISampler:generation" in trial.system_attrs


def test_results_do_not_depend_on_the_number_of_processes(small: Table) -> None:
    settings = ReplaySettings(trials=6)
    assert list(replay_all(small, settings, ("ours",), 1, jobs=2)) == list(replay_all(small, settings, ("ours",), 1))


def test_time_of_proposals_is_measured(table: Table) -> None:
    rows = list(time_proposals(table, (10, 30)))
    assert [row["trials"] for row in rows] == [10, 30]
    assert all(row["fitting"] > 0 and row["asking"] > 0 for row in rows)


def replays_of(sampler: str, trials: list[float], limit: int) -> list[Replay]:
    """Return replays that reach the whole hypervolume after so many trials."""
    return [
        Replay(
            sampler=sampler,
            repeat=repeat,
            rows=tuple(range(limit)),
            finished=tuple(range(limit)),
            shares=tuple(1.0 if trial >= needed else 0.5 for trial in range(1, limit + 1)),
            reported=0.5,
            inflation=0.0,
            expected=None,
        )
        for repeat, needed in enumerate(trials)
    ]


def test_ended_replays_count_as_infinite() -> None:
    replays = replays_of("random", [40, 60, 50], 99) + replays_of("ours", [10, inf, inf], 30)
    random, ours = summary.summarize(replays, 30)
    assert (ours["trials_95"], ours["trials_95_low"], ours["trials_95_high"]) == (None, 10, None)
    assert ours["fewer_95"] is None
    assert random["trials_95"] == 50  # random search is not limited to 30 trials
    assert (random["share_20"], random["share_30"]) == (0.5, 0.5)


def test_interval_with_an_infinite_median_begins_at_0() -> None:
    replays = replays_of("random", [40, 60, 50], 99) + replays_of("ours", [10, 20, inf], 30)
    _, ours = summary.summarize(replays, 30)
    assert (ours["fewer_95"], ours["fewer_95_low"]) == (2.5, 0)


def test_no_speedup_without_random_search() -> None:
    (ours,) = summary.summarize(replays_of("ours", [10, 20], 30), 30)
    assert (ours["trials_95"], ours["fewer_95"]) == (15, None)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 300)), min_size=1, max_size=30))
def test_interval_contains_the_ratio(pairs: list[tuple[int, int]]) -> None:
    needed, by_random = np.array(pairs, dtype=float).T
    fewer = summary.speedup(needed, by_random)
    assert fewer is not None
    ratio, low, high = fewer
    assert all(map(isfinite, fewer))
    assert low <= ratio <= high


def test_quartiles_are_not_interpolated() -> None:
    assert summary.quartiles(np.array([3.0, 1.0, inf, 2.0])) == (2.5, 1.0, 3.0)
    assert summary.quartiles(np.array([1.0, inf, inf])) == (inf, 1.0, inf)


class TestStopping:
    """Successive halving on synthetic learning curves."""

    SETTINGS = ReplaySettings(trials=30, epochs=9, stopping=Stopping(eta=3))

    def test_synthetic_curves_rise_to_the_tables_accuracies(self, table: Table) -> None:
        curves = synthetic(table.accuracies, 9, np.random.default_rng(0))
        assert np.array_equal(curves[:, -1], table.accuracies)
        assert (np.diff(curves.mean(axis=0)) > 0).all()
        first, last = (kendalltau(curves[:, epoch], table.accuracies).statistic for epoch in (0, 6))
        assert 0.2 < first < last < 1.0

    def test_stopping_leaves_epochs_for_more_trainings(self, table: Table) -> None:
        plain, stopping = (replay_one(table, self.SETTINGS, (name, 0)) for name in ("ours", "ours-stopping"))
        assert plain.rows == plain.finished
        assert len(plain.shares) == len(stopping.shares) == 30
        assert len(stopping.rows) > 45 > len(stopping.finished)
        assert set(stopping.finished) < set(stopping.rows)
        assert len(set(stopping.rows)) == len(stopping.rows)

    def test_stopping_depends_on_the_name_of_the_sampler(self, table: Table) -> None:
        assert (
            replay_one(table, self.SETTINGS, ("ours", 0)).rows
            == replay_one(table, ReplaySettings(trials=30), ("ours", 0)).rows
        )
        assert (
            replay_one(table, ReplaySettings(trials=30), ("ours-stopping", 0)).rows
            == replay_one(table, ReplaySettings(trials=30), ("ours", 0)).rows
        )

    def test_share_with_stopping_is_that_of_finished_rows(self, table: Table) -> None:
        replay = replay_one(table, self.SETTINGS, ("random-stopping", 1))
        points = points_of(table, table.accuracies)
        volume = hypervolume([points[row] for row in replay.finished], table.directions, reference_of(table))
        assert replay.shares[-1] == pytest.approx(volume / hypervolume(points, table.directions, reference_of(table)))
        assert all(before <= after for before, after in pairwise(replay.shares))


class TestRepeatedEvaluation:
    """Pareto front that is trained with more than one seed."""

    SETTINGS = ReplaySettings(trials=40, noise=2.0, seeds=2)

    def test_repeats_count_as_trials(self, table: Table) -> None:
        replay = replay_one(table, self.SETTINGS, ("ours-racing", 0))
        counts = Counter(replay.rows)
        assert sum(counts.values()) == len(replay.shares) == 40
        assert set(counts.values()) == {1, 2}

    def test_repeating_depends_on_the_name_of_the_sampler(self, table: Table) -> None:
        one, other = (
            replay_one(table, settings, ("ours", 0)).rows
            for settings in (self.SETTINGS, ReplaySettings(trials=40, noise=2.0))
        )
        assert one == other

    def test_two_seeds_reduce_the_inflation(self, table: Table) -> None:
        once, twice = (
            [replay_one(table, self.SETTINGS, (name, repeat)).inflation for repeat in range(10)]
            for name in ("random", "random-racing")
        )
        assert np.mean(twice) < np.mean(once)

    def test_predicted_front_is_better_than_the_reported_one(self, table: Table) -> None:
        replays = [replay_one(table, self.SETTINGS, ("ours", repeat)) for repeat in range(6)]
        assert np.mean([replay.expected for replay in replays]) > np.mean([replay.reported for replay in replays])
        assert replay_one(table, self.SETTINGS, ("random", 0)).expected is None

    def test_repeated_evaluation_depends_on_row_and_repeat(self, table: Table) -> None:
        problem = self.SETTINGS.problem(table, 0)
        assert problem.evaluate_again(3, 1) == problem.evaluate_again(3, 1) != problem.evaluate_again(3, 2)
        many = np.array([problem.evaluate_again(3, repeat) for repeat in range(1, 200)])
        assert many.mean() == pytest.approx(problem.true.accuracies[3], abs=0.006)
        assert many.std() == pytest.approx(0.02, rel=0.2)
