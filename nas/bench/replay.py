"""Samplers replayed on a table of trained architectures: what each would have found, trial by trial, in seconds.

What is measured is the hypervolume that a player's rows have, as a share of the whole table's, from one reference for
all: the table's box, extended by 5 %.
"""

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from multiprocessing import get_context
from statistics import fmean
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.hypervolume import hypervolume, reference_point
from nas.algorithms.pareto import Point, pareto_front
from nas.algorithms.proposer import Proposer
from nas.algorithms.successive_halving import Stopping, extrapolated, should_promote
from nas.bench.learning_curves import synthetic
from nas.bench.optimizers import OPTIMIZERS, RANDOM, REPEATING, STOPPING, Optimizer
from nas.bench.tables import Table
from nas.records.record import Record
from nas.study.repeats import next_repeat

Permuted = Literal["no", "accuracies", "outcomes"]

_POINT = 0.01
"""A point of mAP, of 0 to 1."""
_USUAL_NOISE = 0.5 * _POINT
POOL = 1000
"""How many candidates `asking` chooses from."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What all players of one repeat find.

    Attributes:
        shown: the table as players know it; its accuracies are not shown.
        true: what the rows are worth.
        told: the accuracies that players are told, with noise.
        curves: those after each epoch, a row for each of the table's; the last column is `told`.
        noise: the standard deviation of what is told.
        seed: of what is told of a row that is trained again.
    """

    shown: Table
    true: Table
    told: FloatArray
    curves: FloatArray
    noise: float
    seed: int

    def again(self, row: int, repeat: int) -> float:
        """The accuracy that a row is told to have when it is trained with another seed."""
        rng = np.random.default_rng([self.seed, row, repeat])
        return float(self.true.accuracies[row] + self.noise * rng.standard_normal())


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """How games are made, and how far they go.

    Attributes:
        trials: after which a player is stopped; chance, which costs nothing, goes on to the end of the table.
        noise: the standard deviation that is added to every accuracy, in points of mAP, once for each row and repeat.
        permuted: which figures are dealt to other rows in every repeat. Of `accuracies` nothing can be predicted, but
            cheap rows are the better ones then, and costs stay known. With `outcomes`, costs are dealt along, and
            players do not see it: what one finds that takes no row twice is a random order of all there is.
        epochs: of a whole training. A table knows where trainings ended; how they got there is made up (`curves`).
        stopping: how trainings are judged before their end, where a player's name ends in `-stopping`.
        seeds: with how many whoever stands on the front is trained, where it ends in `-racing`.
    """

    trials: int = 100
    noise: float = 0.0
    permuted: Permuted = "no"
    seed: int = 0
    epochs: int = 1
    stopping: Stopping | None = None
    seeds: int = 1

    def game(self, table: Table, repeat: int) -> Problem:
        """The same one for every player."""
        rng = np.random.default_rng([self.seed, repeat])
        true = table
        if self.permuted != "no":
            true = table.dealt(rng.permutation(len(table)), with_costs=self.permuted == "outcomes")
        noise = self.noise * _POINT
        told = true.accuracies + noise * rng.standard_normal(len(table))
        shown = table if self.permuted == "outcomes" else true
        curves = synthetic(told, self.epochs, rng)
        return Problem(shown=shown, true=true, told=told, curves=curves, noise=noise, seed=int(rng.integers(2**32)))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One player's game.

    Attributes:
        rows: as they were taken, one more than once if it was trained again.
        finished: those that were trained to their end.
        shares: of the table's hypervolume, in truth, that finished rows have; one for each trial, which is as many
            epochs as a whole training has.
        reported: the same of those rows alone that look best, with noise, after the last counted trial.
        inflation: by how much the hypervolume of those looks larger than it is, as a share of what it is.
        expected: as `reported`, of those rows that the player expects to be best; None if it expects nothing.
    """

    sampler: str
    repeat: int
    rows: tuple[int, ...]
    finished: tuple[int, ...]
    shares: tuple[float, ...]
    reported: float
    inflation: float
    expected: float | None

    def trials_to(self, share: float) -> float:
        """The number of trials after which it has so much; infinite if it was stopped before."""
        return next((trial for trial, reached in enumerate(self.shares, 1) if reached >= share), inf)

    def share_after(self, trials: int) -> float:
        """What it has then, or has at its end, if that comes first."""
        return self.shares[min(trials, len(self.shares)) - 1]


def replay_one(table: Table, rules: ReplaySettings, game: tuple[str, int]) -> Replay:
    """One game.

    Args:
        game: the player's name, and the number of the repeat.
    """
    sampler, repeat = game
    played = rules.game(table, repeat)
    seed = int(np.random.SeedSequence([rules.seed, repeat]).generate_state(1)[0])
    trials = len(table) if sampler == RANDOM else min(rules.trials, len(table))
    stopping = rules.stopping if sampler.endswith(STOPPING) else None
    own = replace(rules, stopping=stopping, seeds=rules.seeds if sampler.endswith(REPEATING) else 1)
    player = OPTIMIZERS[sampler.removesuffix(STOPPING).removesuffix(REPEATING)](played.shown, seed)
    trained = _trained(player, played, own, trials * rules.epochs)
    ended = [training for training in trained if training.epochs == rules.epochs]
    finished = [training.row for training in ended]
    budgets = rules.epochs * np.arange(1, trials + 1)
    counts = np.searchsorted([training.spent for training in ended], budgets, side="right")
    measured = _Measured(played.true)
    shares = [0.0, *measured.shares(finished)]
    counted = ended[: counts[min(rules.trials, trials) - 1]]
    reported, inflation = measured.reported(_means(counted))
    thought = player.expected()
    expected = None if thought is None else measured.reported({one.row: thought[one.row] for one in counted})[0]
    return Replay(
        sampler=sampler,
        repeat=repeat,
        rows=tuple(training.row for training in trained),
        finished=tuple(finished),
        shares=tuple(shares[count] for count in counts),
        reported=reported,
        inflation=inflation,
        expected=expected,
    )


def replay_all(
    table: Table, rules: ReplaySettings, samplers: Sequence[str], repeats: int, *, jobs: int = 1
) -> Iterator[Replay]:
    """Every player's games, as they end, in their order.

    Args:
        jobs: processes that play at the same time; what comes out does not depend on it.
    """
    games = [(sampler, repeat) for sampler in dict.fromkeys(samplers) for repeat in range(repeats)]
    played = partial(replay_one, table, rules)
    if jobs == 1:
        yield from map(played, games)
        return
    ignored = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    pool = ProcessPoolExecutor(min(jobs, len(games)), get_context("spawn"), initializer=signal.signal, initargs=ignored)
    try:
        yield from pool.map(played, games)
    finally:
        pool.shutdown(cancel_futures=True)


def time_proposals(table: Table, counts: Sequence[int], *, seed: int = 0) -> Iterator[dict[str, float]]:
    """How long our proposer thinks after so many trials, in seconds, over a pool of a thousand candidates.

    The history is made of the table's rows, drawn again and again, with noise. `fitting` is a proposal for which
    hyperparameters are fitted, `asking` the next one, which keeps them.
    """
    candidates = table.candidates()
    for count in counts:
        rng = np.random.default_rng([seed, count])
        tried, pool = (rng.integers(len(table), size=size) for size in (count, POOL))
        accuracies = table.accuracies[tried] + _USUAL_NOISE * rng.standard_normal(count)
        proposer, seconds = Proposer(seed), []
        for _ in range(2):
            began = perf_counter()
            proposer.choose(candidates[pool], candidates[tried], accuracies)
            seconds.append(perf_counter() - began)
        yield {"trials": count, "fitting": seconds[0], "asking": seconds[1]}


class _Training(NamedTuple):
    """One row's.

    Attributes:
        repeat: how often the row was trained before.
        accuracy: that it is told to have at its end.
        spent: what all trainings so far have cost, in epochs.
    """

    row: int
    repeat: int
    epochs: int
    accuracy: float
    spent: int


def _trained(player: Optimizer, game: Problem, rules: ReplaySettings, epochs: int) -> list[_Training]:
    """What a player has trained until so many epochs are spent; what would be cut off at the end is not begun."""
    trained: list[_Training] = []
    rungs = () if rules.stopping is None else rules.stopping.rungs(rules.epochs)
    standings: dict[int, list[Point]] = {rung: [] for rung in rungs}
    spent, had = 0, set[int]()
    while len(had) < len(game.told):
        row, repeat = _raced(trained, game, rules) or (player.ask(), 0)
        judged = (rung for rung in rungs if not _goes_on(game, row, rung, standings[rung], rules))
        ended = next(judged, rules.epochs)
        accuracy = game.again(row, repeat) if repeat else float(game.told[row])
        spent += ended
        if spent > epochs:
            break
        trained.append(_Training(row, repeat, ended, accuracy, spent))
        had.add(row)
        if ended == rules.epochs:
            player.tell(row, accuracy)
            continue
        reached = game.curves[:, ended - 1]
        gains = [one.accuracy - reached[one.row] for one in trained if one.epochs == rules.epochs]
        player.tell(row, *(extrapolated(float(reached[row]), gains) or (np.nan,)))
    return trained


def _raced(trained: Sequence[_Training], game: Problem, rules: ReplaySettings) -> tuple[int, int] | None:
    """The row that is trained again now, and how often it was before, as a study of the first cost would have it."""
    if rules.seeds == 1:
        return None
    told = [
        Record(
            trial=number,
            state="complete",
            ending="finished",
            map50_95=one.accuracy,
            map50=one.accuracy,
            gflops=float(game.shown.costs[one.row, 0]),
            repeat=one.repeat,
            fingerprint=game.shown.names[one.row],
            picks={},
        )
        for number, one in enumerate(trained)
    ]
    wanted = next_repeat(told, ("map50_95", "gflops"), rules.seeds)
    return None if wanted is None else (trained[wanted[0].trial].row, wanted[1])


def _goes_on(game: Problem, row: int, rung: int, others: list[Point], rules: ReplaySettings) -> bool:
    """Whether a row's training goes on at a rung, where it is noted."""
    assert rules.stopping is not None  # noqa: S101 - else there is no rung
    own = (float(game.curves[row, :rung].max()), *game.shown.costs[row].tolist())
    goes = should_promote(own, others, game.shown.directions, rules.stopping.eta)
    others.append(own)
    return goes


def _means(trainings: Sequence[_Training]) -> dict[int, float]:
    """Of each row, over its trainings."""
    told: dict[int, list[float]] = {}
    for training in trainings:
        told.setdefault(training.row, []).append(training.accuracy)
    return {row: fmean(accuracies) for row, accuracies in told.items()}


class _Measured:
    """Hypervolumes of rows of a table, as shares of the whole table's."""

    def __init__(self, table: Table) -> None:
        self._table, self._points = table, points_of(table, table.accuracies)
        self._reference = reference_point(self._points, table.directions)
        self._whole = self._volume(self._points)

    def shares(self, rows: Sequence[int]) -> Iterator[float]:
        """After each row."""
        best: list[Point] = []
        share = 0.0
        for row in rows:
            grown = [*best, self._points[row]]
            on_front = [grown[index] for index in pareto_front(grown, self._table.directions)]
            if self._points[row] in on_front:
                share = self._volume(on_front) / self._whole
            best = on_front
            yield share

    def reported(self, accuracies: Mapping[int, float]) -> tuple[float, float]:
        """The share of the rows that look best by these accuracies, and by how much they look better than that."""
        looks = {row: (accuracy, *self._points[row][1:]) for row, accuracy in accuracies.items()}
        rows = list(looks)
        chosen = [rows[index] for index in pareto_front(list(looks.values()), self._table.directions)]
        true = self._volume([self._points[row] for row in chosen])
        return true / self._whole, self._volume([looks[row] for row in chosen]) / true - 1.0

    def _volume(self, points: Sequence[Point]) -> float:
        return hypervolume(points, self._table.directions, self._reference)


def reference_of(table: Table) -> Point:
    """The point from which hypervolumes are measured."""
    return reference_point(points_of(table, table.accuracies), table.directions)


def points_of(table: Table, accuracies: FloatArray) -> list[Point]:
    """Accuracy and the costs' logarithms of every row."""
    return [tuple(point) for point in np.column_stack([accuracies, table.costs]).tolist()]
