"""Replay of samplers on a table of trained architectures: what each would have found, trial by trial, in seconds.

The metric is the hypervolume of the rows found, as a share of the whole table's. The reference point is the same for
all: the worst values of the table, extended by 5 % of their range.
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
"""One point of mAP, on a scale of 0 to 1."""
_TYPICAL_NOISE = 0.5 * _POINT
POOL = 1000
"""Candidates that `time_proposals` chooses from."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One instance of the benchmark, the same for all samplers of a repeat.

    Attributes:
        visible: the table with the costs that samplers see. They see accuracies by `ask` and `tell` alone.
        true: the table with the true accuracies and costs.
        observed: accuracies with noise, `(rows,)`.
        curves: observed accuracies after each epoch, `(rows, epochs)`; the last column is `observed`.
        noise: standard deviation of the noise.
        seed: of the noise of repeated evaluations.
    """

    visible: Table
    true: Table
    observed: FloatArray
    curves: FloatArray
    noise: float
    seed: int

    def evaluate_again(self, row: int, repeat: int) -> float:
        """Return the accuracy of a row that is trained with another seed."""
        rng = np.random.default_rng([self.seed, row, repeat])
        return float(self.true.accuracies[row] + self.noise * rng.standard_normal())


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Settings of all replays of a benchmark.

    Attributes:
        trials: of each sampler; random search, which costs nothing, goes on to the end of the table.
        noise: standard deviation added to every accuracy, in points of mAP, once for each row and repeat.
        permuted: what is permuted between rows in every repeat. With `accuracies`, only costs are predictive: cheap
            rows are better. With `outcomes`, costs are permuted as well, and samplers see the unpermuted ones: nothing
            is predictive, and every sampler is a random search (control).
        seed: of all random draws.
        epochs: of a whole training. Learning curves are synthetic.
        stopping: successive halving, for samplers whose name ends in `-stopping`.
        seeds: number of seeds with which each member of the Pareto front is trained, for samplers whose name ends in
            `-racing`.
    """

    trials: int = 100
    noise: float = 0.0
    permuted: Permuted = "no"
    seed: int = 0
    epochs: int = 1
    stopping: Stopping | None = None
    seeds: int = 1

    def problem(self, table: Table, repeat: int) -> Problem:
        """Return the problem of a repeat."""
        rng = np.random.default_rng([self.seed, repeat])
        true = table
        if self.permuted != "no":
            true = table.permuted(rng.permutation(len(table)), with_costs=self.permuted == "outcomes")
        noise = self.noise * _POINT
        observed = true.accuracies + noise * rng.standard_normal(len(table))
        visible = table if self.permuted == "outcomes" else true
        curves = synthetic(observed, self.epochs, rng)
        seed = int(rng.integers(2**32))
        return Problem(visible=visible, true=true, observed=observed, curves=curves, noise=noise, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Result of one sampler on one problem.

    Attributes:
        sampler: its name.
        repeat: number of the problem.
        rows: trained, in order; a row can occur more than once, with other seeds.
        finished: those of them that were trained to the end.
        shares: true share of the table's hypervolume of the finished rows, after each trial. A trial is the epochs of a
            whole training.
        reported: true share of the rows that look best with noise, after the last counted trial.
        inflation: relative excess of the hypervolume that these rows seem to have over the true one.
        expected: as `reported`, for the rows that are best by the sampler's predictions; None if it predicts nothing.
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
        """Return the number of trials to a share; infinite if the replay ended before."""
        return next((trial for trial, reached in enumerate(self.shares, 1) if reached >= share), inf)

    def share_after(self, trials: int) -> float:
        """Return the share after so many trials, or at the end of the replay."""
        return self.shares[min(trials, len(self.shares)) - 1]


def replay_one(table: Table, settings: ReplaySettings, job: tuple[str, int]) -> Replay:
    """Replay one sampler on one problem.

    Args:
        table: of trained architectures.
        settings: of the benchmark.
        job: name of the sampler, and number of the repeat.
    """
    sampler, repeat = job
    problem = settings.problem(table, repeat)
    seed = int(np.random.SeedSequence([settings.seed, repeat]).generate_state(1)[0])
    trials = len(table) if sampler == RANDOM else min(settings.trials, len(table))
    stopping = settings.stopping if sampler.endswith(STOPPING) else None
    adapted = replace(settings, stopping=stopping, seeds=settings.seeds if sampler.endswith(REPEATING) else 1)
    optimizer = OPTIMIZERS[sampler.removesuffix(STOPPING).removesuffix(REPEATING)](problem.visible, seed)
    trained = _train(optimizer, problem, adapted, trials * settings.epochs)
    ended = [training for training in trained if training.epochs == settings.epochs]
    finished = [training.row for training in ended]
    budgets = settings.epochs * np.arange(1, trials + 1)
    counts = np.searchsorted([training.spent for training in ended], budgets, side="right")
    volumes = _HypervolumeShares(problem.true)
    shares = [0.0, *volumes.after_each(finished)]
    counted = ended[: counts[min(settings.trials, trials) - 1]]
    reported, inflation = volumes.of_best(_mean_accuracies(counted))
    predicted = optimizer.predict()
    expected = None if predicted is None else volumes.of_best({one.row: predicted[one.row] for one in counted})[0]
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
    table: Table, settings: ReplaySettings, samplers: Sequence[str], repeats: int, *, jobs: int = 1
) -> Iterator[Replay]:
    """Yield the replays of all samplers on all problems, in order.

    Args:
        table: of trained architectures.
        settings: of the benchmark.
        samplers: their names; equal ones are replayed once.
        repeats: number of problems.
        jobs: number of processes; results do not depend on it.
    """
    pairs = [(sampler, repeat) for sampler in dict.fromkeys(samplers) for repeat in range(repeats)]
    run = partial(replay_one, table, settings)
    if jobs == 1:
        yield from map(run, pairs)
        return
    ignored = (signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    pool = ProcessPoolExecutor(min(jobs, len(pairs)), get_context("spawn"), initializer=signal.signal, initargs=ignored)
    try:
        yield from pool.map(run, pairs)
    finally:
        pool.shutdown(cancel_futures=True)


def time_proposals(table: Table, counts: Sequence[int], *, seed: int = 0) -> Iterator[dict[str, float]]:
    """Measure the time of a proposal after so many trials, in seconds, over a pool of 1000 candidates.

    The history is sampled from the table's rows with replacement, with noise. `fitting` is a proposal that fits the
    hyperparameters, `asking` the next one, which does not.
    """
    candidates = table.candidates()
    for count in counts:
        rng = np.random.default_rng([seed, count])
        tried, pool = (rng.integers(len(table), size=size) for size in (count, POOL))
        accuracies = table.accuracies[tried] + _TYPICAL_NOISE * rng.standard_normal(count)
        proposer, seconds = Proposer(seed), []
        for _ in range(2):
            began = perf_counter()
            proposer.choose(candidates[pool], candidates[tried], accuracies)
            seconds.append(perf_counter() - began)
        yield {"trials": count, "fitting": seconds[0], "asking": seconds[1]}


class _Training(NamedTuple):
    """One training of a row.

    Attributes:
        row: that is trained.
        repeat: number of trainings of the row before.
        epochs: trained.
        accuracy: observed at the end of a whole training.
        spent: epochs of all trainings up to this one.
    """

    row: int
    repeat: int
    epochs: int
    accuracy: float
    spent: int


def _train(optimizer: Optimizer, problem: Problem, settings: ReplaySettings, epochs: int) -> list[_Training]:
    """Train what an optimizer proposes until the epochs are spent; a training that would not fit is not begun."""
    trained: list[_Training] = []
    rungs = () if settings.stopping is None else settings.stopping.rungs(settings.epochs)
    points: dict[int, list[Point]] = {rung: [] for rung in rungs}
    spent, rows = 0, set[int]()
    while len(rows) < len(problem.observed):
        row, repeat = _next_repeat(trained, problem, settings) or (optimizer.ask(), 0)
        stopped_at = (rung for rung in rungs if not _is_promoted(problem, row, rung, points[rung], settings))
        ended = next(stopped_at, settings.epochs)
        accuracy = problem.evaluate_again(row, repeat) if repeat else float(problem.observed[row])
        spent += ended
        if spent > epochs:
            break
        trained.append(_Training(row, repeat, ended, accuracy, spent))
        rows.add(row)
        if ended == settings.epochs:
            optimizer.tell(row, accuracy)
            continue
        reached = problem.curves[:, ended - 1]
        gains = [one.accuracy - reached[one.row] for one in trained if one.epochs == settings.epochs]
        optimizer.tell(row, *(extrapolated(float(reached[row]), gains) or (np.nan,)))
    return trained


def _next_repeat(trained: Sequence[_Training], problem: Problem, settings: ReplaySettings) -> tuple[int, int] | None:
    """Return the row to train with another seed, and its number of trainings, as a study of the first cost decides."""
    if settings.seeds == 1:
        return None
    records = [
        Record(
            trial=number,
            state="complete",
            ending="finished",
            map50_95=one.accuracy,
            map50=one.accuracy,
            gflops=float(problem.visible.costs[one.row, 0]),
            repeat=one.repeat,
            fingerprint=problem.visible.names[one.row],
            picks={},
        )
        for number, one in enumerate(trained)
    ]
    wanted = next_repeat(records, ("map50_95", "gflops"), settings.seeds)
    return None if wanted is None else (trained[wanted[0].trial].row, wanted[1])


def _is_promoted(problem: Problem, row: int, rung: int, others: list[Point], settings: ReplaySettings) -> bool:
    """Return whether a row's training is promoted at a rung; add its point to the others."""
    assert settings.stopping is not None  # noqa: S101 - else there is no rung
    point = (float(problem.curves[row, :rung].max()), *problem.visible.costs[row].tolist())
    promoted = should_promote(point, others, problem.visible.directions, settings.stopping.eta)
    others.append(point)
    return promoted


def _mean_accuracies(trainings: Sequence[_Training]) -> dict[int, float]:
    """Return the mean accuracy of each row over its trainings."""
    by_row: dict[int, list[float]] = {}
    for training in trainings:
        by_row.setdefault(training.row, []).append(training.accuracy)
    return {row: fmean(accuracies) for row, accuracies in by_row.items()}


class _HypervolumeShares:
    """Hypervolumes of rows of a table, as shares of the whole table's."""

    def __init__(self, table: Table) -> None:
        self._table, self._points = table, points_of(table, table.accuracies)
        self._reference = reference_point(self._points, table.directions)
        self._whole = self._volume(self._points)

    def after_each(self, rows: Sequence[int]) -> Iterator[float]:
        """Yield the share after each row."""
        front: list[Point] = []
        share = 0.0
        for row in rows:
            points = [*front, self._points[row]]
            front = [points[index] for index in pareto_front(points, self._table.directions)]
            if self._points[row] in front:
                share = self._volume(front) / self._whole
            yield share

    def of_best(self, accuracies: Mapping[int, float]) -> tuple[float, float]:
        """Return the true share of the rows that are best by these accuracies, and their relative excess over it."""
        points = {row: (accuracy, *self._points[row][1:]) for row, accuracy in accuracies.items()}
        rows = list(points)
        best = [rows[index] for index in pareto_front(list(points.values()), self._table.directions)]
        true = self._volume([self._points[row] for row in best])
        return true / self._whole, self._volume([points[row] for row in best]) / true - 1.0

    def _volume(self, points: Sequence[Point]) -> float:
        return hypervolume(points, self._table.directions, self._reference)


def reference_of(table: Table) -> Point:
    """Return the reference point of a table's hypervolume."""
    return reference_point(points_of(table, table.accuracies), table.directions)


def points_of(table: Table, accuracies: FloatArray) -> list[Point]:
    """Return accuracy and the costs' logarithms of every row."""
    return [tuple(point) for point in np.column_stack([accuracies, table.costs]).tolist()]
