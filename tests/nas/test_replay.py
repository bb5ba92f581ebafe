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
every_player = pytest.mark.parametrize("sampler", QUICK)


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
    """A player who takes what he believes to be cheapest: good at anything but chance."""

    def __init__(self, table: Table, _seed: int) -> None:
        self._rows: Iterator[int] = iter(np.argsort(table.costs[:, 0]).tolist())

    def ask(self) -> int:
        return next(self._rows)

    def tell(self, row: int, accuracy: float, doubt: float = 0.0) -> None:
        pass

    def expected(self) -> None:
        """It has no opinion."""


@every_player
def test_a_player_takes_every_row_once_and_then_has_it_all(small: Table, sampler: str) -> None:
    replay = replay_one(small, ReplaySettings(trials=1000, noise=0.5), (sampler, 0))
    assert sorted(replay.rows) == list(range(len(small)))
    assert replay.shares[-1] == pytest.approx(1.0)
    assert all(before <= after for before, after in pairwise(replay.shares))


@every_player
def test_the_seed_decides_a_game(table: Table, sampler: str) -> None:
    rules = ReplaySettings(trials=14, noise=1.0)
    first = replay_one(table, rules, (sampler, 3))
    assert replay_one(table, rules, (sampler, 3)) == first
    assert replay_one(table, rules, (sampler, 4)).rows != first.rows
    assert replay_one(table, replace(rules, seed=1), (sampler, 3)).rows != first.rows


def test_a_share_is_of_the_whole_tables_hypervolume(small: Table) -> None:
    replay = replay_one(small, ReplaySettings(), ("random", 0))
    points = points_of(small, small.accuracies)

    def volume(rows: Iterator[int] | tuple[int, ...]) -> float:
        return hypervolume([points[row] for row in rows], small.directions, reference_of(small))

    whole = volume(tuple(range(len(small))))
    shares = [volume(replay.rows[:count]) / whole for count in range(1, len(small) + 1)]
    assert replay.shares == pytest.approx(shares)


def test_ours_needs_fewer_trials_than_chance(table: Table) -> None:
    replays = list(replay_all(table, ReplaySettings(trials=TRIALS), ("random", "ours"), 5))
    row = summary.summarize(replays, TRIALS)[1]
    assert row["sampler"] == "ours"
    assert isinstance(row["fewer_95"], float)
    assert row["fewer_95"] > 2


@pytest.mark.parametrize("permuted", ["accuracies", "outcomes"])
def test_dealing_leaves_no_player_more_than_it_should(
    small: Table, permuted: Permuted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "cheapest", Cheapest)
    rules = ReplaySettings(trials=8, permuted=permuted)
    replays = list(replay_all(small, rules, ("random", "cheapest"), 150))
    played = summary.by_sampler(replays)
    shares = {sampler: np.array([replay.share_after(8) for replay in own]) for sampler, own in played.items()}
    apart = shares["cheapest"] - shares["random"]
    errors = apart.mean() / (apart.std() / np.sqrt(len(apart)))
    assert abs(errors) < 3 if permuted == "outcomes" else errors > 5  # costs are worth something by themselves


def test_without_noise_what_looks_best_is_best(table: Table) -> None:
    replay = replay_one(table, ReplaySettings(trials=TRIALS), ("random", 0))
    assert replay.reported == pytest.approx(replay.share_after(TRIALS))
    assert replay.inflation == pytest.approx(0.0)


def test_noise_makes_the_front_look_better_than_it_is(table: Table) -> None:
    replays = list(replay_all(table, ReplaySettings(trials=100, noise=3.0), ("random",), 10))
    assert all(replay.reported < replay.share_after(100) for replay in replays)
    assert np.median([replay.inflation for replay in replays]) > 0.01


def test_all_players_are_told_the_same(table: Table) -> None:
    rules = ReplaySettings(noise=1.0, permuted="outcomes")
    first, again, other = rules.game(table, 0), rules.game(table, 0), rules.game(table, 1)
    assert (first.told == again.told).all()
    assert not (first.told == other.told).any()
    assert np.std(first.told - first.true.accuracies) == pytest.approx(0.01, rel=0.2)
    assert first.shown is table


def test_a_draw_becomes_the_nearest_row_that_is_left(table: Table) -> None:
    player = OPTIMIZERS["tpe"](table, 0)
    assert isinstance(player, OptunaOptimizer)
    drawn = table.codes[100].astype(float)
    assert player._nearest(drawn) == 100
    player._left.remove(100)
    assert (table.codes[player._nearest(drawn)] != drawn).sum() == 1  # one column, by one step or another family


def test_the_study_is_told_of_the_row_itself(table: Table) -> None:
    player = OPTIMIZERS["nsga2"](table, 0)
    assert isinstance(player, OptunaOptimizer)
    row = player.ask()
    player.tell(row, 0.5)
    *_, trial = player._study.get_trials(deepcopy=False)
    assert trial.params["family"] == table.columns["family"][row]
    codes = [trial.params[name] for name in ("depth", "width", "resolution")]
    assert codes == table.codes[row, 1:].tolist()
    assert trial.values == [0.5, table.costs[row, 0]]
    assert "NSGAIISampler:generation" in trial.system_attrs


def test_processes_change_nothing(small: Table) -> None:
    rules = ReplaySettings(trials=6)
    assert list(replay_all(small, rules, ("ours",), 1, jobs=2)) == list(replay_all(small, rules, ("ours",), 1))


def test_how_long_ours_thinks(table: Table) -> None:
    rows = list(time_proposals(table, (10, 30)))
    assert [row["trials"] for row in rows] == [10, 30]
    assert all(row["fitting"] > 0 and row["asking"] > 0 for row in rows)


def replays_of(sampler: str, trials: list[float], limit: int) -> list[Replay]:
    """Games in which everything was found after so many trials."""
    return [
        Replay(
            sampler=sampler,
            repeat=repeat,
            rows=tuple(range(limit)),
            finished=tuple(range(limit)),
            shares=tuple(1.0 if trial >= taken else 0.5 for trial in range(1, limit + 1)),
            reported=0.5,
            inflation=0.0,
            expected=None,
        )
        for repeat, taken in enumerate(trials)
    ]


def test_who_was_stopped_counts_as_more_trials_than_it_was_given() -> None:
    replays = replays_of("random", [40, 60, 50], 99) + replays_of("ours", [10, inf, inf], 30)
    chance, ours = summary.summarize(replays, 30)
    assert (ours["trials_95"], ours["trials_95_low"], ours["trials_95_high"]) == (None, 10, None)
    assert ours["fewer_95"] is None
    assert chance["trials_95"] == 50  # which nobody stops
    assert (chance["share_20"], chance["share_30"]) == (0.5, 0.5)


def test_an_interval_that_rests_on_who_was_stopped_begins_at_0() -> None:
    replays = replays_of("random", [40, 60, 50], 99) + replays_of("ours", [10, 20, inf], 30)
    _, ours = summary.summarize(replays, 30)
    assert (ours["fewer_95"], ours["fewer_95_low"]) == (2.5, 0)


def test_without_chance_nothing_is_compared_with_it() -> None:
    (ours,) = summary.summarize(replays_of("ours", [10, 20], 30), 30)
    assert (ours["trials_95"], ours["fewer_95"]) == (15, None)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 300)), min_size=1, max_size=30))
def test_the_interval_holds_the_ratio(pairs: list[tuple[int, int]]) -> None:
    taken, chances = np.array(pairs, dtype=float).T
    fewer = summary.speedup(taken, chances)
    assert fewer is not None
    ratio, low, high = fewer
    assert all(map(isfinite, fewer))
    assert low <= ratio <= high


def test_a_quartile_is_one_of_the_values() -> None:
    assert summary.quartiles(np.array([3.0, 1.0, inf, 2.0])) == (2.5, 1.0, 3.0)
    assert summary.quartiles(np.array([1.0, inf, inf])) == (inf, 1.0, inf)


class TestStopping:
    """Trainings that are judged before their end, on curves that are made up."""

    RULES = ReplaySettings(trials=30, epochs=9, stopping=Stopping(eta=3))

    def test_curves_end_where_the_table_says_and_rise_on_the_way(self, table: Table) -> None:
        curves = synthetic(table.accuracies, 9, np.random.default_rng(0))
        assert np.array_equal(curves[:, -1], table.accuracies)
        assert (np.diff(curves.mean(axis=0)) > 0).all()
        first, last = (kendalltau(curves[:, epoch], table.accuracies).statistic for epoch in (0, 6))
        assert 0.2 < first < last < 1.0

    def test_stopped_trainings_leave_epochs_for_more(self, table: Table) -> None:
        plain, stopping = (replay_one(table, self.RULES, (name, 0)) for name in ("ours", "ours-stopping"))
        assert plain.rows == plain.finished
        assert len(plain.shares) == len(stopping.shares) == 30
        assert len(stopping.rows) > 45 > len(stopping.finished)
        assert set(stopping.finished) < set(stopping.rows)
        assert len(set(stopping.rows)) == len(stopping.rows)

    def test_a_name_decides_who_stops(self, table: Table) -> None:
        assert (
            replay_one(table, self.RULES, ("ours", 0)).rows
            == replay_one(table, ReplaySettings(trials=30), ("ours", 0)).rows
        )
        assert (
            replay_one(table, ReplaySettings(trials=30), ("ours-stopping", 0)).rows
            == replay_one(table, ReplaySettings(trials=30), ("ours", 0)).rows
        )

    def test_a_share_is_of_what_was_finished_by_then(self, table: Table) -> None:
        replay = replay_one(table, self.RULES, ("random-stopping", 1))
        points = points_of(table, table.accuracies)
        volume = hypervolume([points[row] for row in replay.finished], table.directions, reference_of(table))
        assert replay.shares[-1] == pytest.approx(volume / hypervolume(points, table.directions, reference_of(table)))
        assert all(before <= after for before, after in pairwise(replay.shares))


class TestRacing:
    """A front that is trained with more than one seed."""

    RULES = ReplaySettings(trials=40, noise=2.0, seeds=2)

    def test_repeats_are_paid_for(self, table: Table) -> None:
        replay = replay_one(table, self.RULES, ("ours-racing", 0))
        taken = Counter(replay.rows)
        assert sum(taken.values()) == len(replay.shares) == 40
        assert set(taken.values()) == {1, 2}

    def test_a_name_decides_who_races(self, table: Table) -> None:
        one, other = (
            replay_one(table, rules, ("ours", 0)).rows for rules in (self.RULES, ReplaySettings(trials=40, noise=2.0))
        )
        assert one == other

    def test_a_front_with_two_seeds_looks_less_better_than_it_is(self, table: Table) -> None:
        once, twice = (
            [replay_one(table, self.RULES, (name, repeat)).inflation for repeat in range(10)]
            for name in ("random", "random-racing")
        )
        assert np.mean(twice) < np.mean(once)

    def test_what_is_expected_is_nearer_to_the_truth_than_what_was_told(self, table: Table) -> None:
        games = [replay_one(table, self.RULES, ("ours", repeat)) for repeat in range(6)]
        assert np.mean([game.expected for game in games]) > np.mean([game.reported for game in games])
        assert replay_one(table, self.RULES, ("random", 0)).expected is None

    def test_another_seed_tells_another_accuracy_and_the_same_one_each_time(self, table: Table) -> None:
        game = self.RULES.game(table, 0)
        assert game.again(3, 1) == game.again(3, 1) != game.again(3, 2)
        many = np.array([game.again(3, repeat) for repeat in range(1, 200)])
        assert many.mean() == pytest.approx(game.true.accuracies[3], abs=0.006)
        assert many.std() == pytest.approx(0.02, rel=0.2)
