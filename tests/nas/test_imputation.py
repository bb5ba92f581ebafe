"""Final accuracies of trainings that were stopped at a rung: imputed, and what that does for effects."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nas.algorithms.arrays import FloatArray
from nas.algorithms.imputation import LEAST_TRAININGS, can_be_imputed, impute
from nas.algorithms.operator_effects import fit
from nas.algorithms.successive_halving import Stopping
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.report.effects import estimate
from nas.study.study import Study
from search_spaces import SearchSpace
from trials import Budget, Ending, Outcome

POINT = 0.01
NAN = np.nan


def stopped(seed: int, *, trials: int = 60, rungs: int = 2) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return features, effects, final accuracies and those at the rungs; the worse third is stopped at each rung."""
    rng = np.random.default_rng(seed)
    features = (rng.random((trials, 8)) < rng.random((trials, 1))).astype(np.float64)
    effects = rng.normal(0, POINT, 8)
    noise = rng.normal(0, POINT, trials)
    final = 0.4 + features @ effects + noise
    at_rungs = np.full((trials, rungs), NAN)
    left = np.arange(trials)
    for rung in range(rungs):
        share = 0.5 + 0.2 * rung
        at_rungs[left, rung] = share * final[left] + 0.7 * POINT * rng.standard_normal(len(left))
        left = left[np.argsort(-at_rungs[left, rung])[: 2 * len(left) // 3]]
    final[~np.isin(np.arange(trials), left)] = NAN
    return features, effects, final, at_rungs


def fitted(features: FloatArray, final: FloatArray, rungs: FloatArray | None) -> Any:
    trials = len(features)
    return fit(
        features,
        final,
        groups=np.zeros(features.shape[1], dtype=np.intp),
        architectures=np.arange(trials),
        seeds=np.zeros(trials, dtype=np.intp),
        rungs=rungs,
    )


class TestDraws:
    def test_only_missing_accuracies_are_drawn(self) -> None:
        features, _, final, rungs = stopped(0)
        drawn = impute(features, final, rungs, np.random.default_rng(0))
        known = ~np.isnan(final)
        assert np.array_equal(drawn[known], final[known])
        assert np.array_equal(can_be_imputed(final, rungs), ~known)
        assert np.isfinite(drawn).all()

    def test_draws_follow_the_regression_on_the_rung(self) -> None:
        """Without effects and noise, the final accuracy is a line in that at the rung."""
        rung = np.linspace(0.2, 0.3, 20)[:, None]
        final = np.where(rung[:, 0] > 0.24, 0.1 + rung[:, 0], NAN)
        drawn = impute(np.zeros((20, 1)), final, rung, np.random.default_rng(0))
        assert drawn == pytest.approx(0.1 + rung[:, 0], abs=1e-6)

    def test_draws_are_as_uncertain_as_what_they_stand_for(self) -> None:
        rng = np.random.default_rng(3)
        rung = rng.normal(0.25, POINT, (400, 1))
        truth = 0.4 + rung[:, 0] + rng.normal(0, POINT, 400)
        final = np.where(rung[:, 0] > 0.25, truth, NAN)
        drawn = impute(np.zeros((400, 1)), final, rung, rng)
        lost = np.isnan(final)
        assert drawn[lost].mean() == pytest.approx(truth[lost].mean(), abs=0.3 * POINT)
        assert (drawn - rung[:, 0])[lost].std() == pytest.approx(POINT, rel=0.15)

    def test_too_few_trainings_beyond_a_rung_impute_nothing(self) -> None:
        rung = np.linspace(0.2, 0.3, 12)[:, None]
        final = np.where(np.arange(12) > 12 - LEAST_TRAININGS, 0.4, NAN)
        assert not can_be_imputed(final, rung).any()
        assert np.array_equal(impute(np.zeros((12, 1)), final, rung, np.random.default_rng(0)), final, equal_nan=True)

    def test_trainings_that_reached_no_rung_stay_missing(self) -> None:
        features, _, final, rungs = stopped(0)
        lost = int(np.flatnonzero(np.isnan(final))[0])
        rungs[lost] = NAN
        assert not can_be_imputed(final, rungs)[lost]
        assert np.isnan(impute(features, final, rungs, np.random.default_rng(0))[lost])


class TestEffects:
    def test_intervals_contain_planted_effects_although_the_worse_were_stopped(self) -> None:
        covered = []
        for seed in range(25):
            features, effects, final, rungs = stopped(seed)
            finished = ~np.isnan(final)
            without, with_rungs = fitted(features[finished], final[finished], None), fitted(features, final, rungs)
            covered.append([((one.lower <= effects) & (effects <= one.upper)).mean() for one in (without, with_rungs)])
        left_out, imputed = np.mean(covered, axis=0)
        assert left_out < 0.88
        assert 0.92 < imputed < 0.98

    def test_same_trainings_give_the_same_intervals(self) -> None:
        features, _, final, rungs = stopped(1)
        one, other = (fitted(features, final, rungs) for _ in range(2))
        assert np.array_equal(one.lower, other.lower)

    def test_stopped_trainings_without_rungs_do_not_count(self) -> None:
        features, _, final, _ = stopped(2)
        finished = ~np.isnan(final)
        one, other = fitted(features, final, None), fitted(features[finished], final[finished], None)
        assert np.array_equal(one.upper, other.upper)

    def test_stopped_trials_with_a_score_at_a_rung_count(self, space: SearchSpace) -> None:
        rng = random.Random(0)
        records, rungs = list[Record](), dict[int, dict[int, float]]()
        for trial in range(16):
            architecture = space.sample(rng)
            is_stopped = trial > 9
            rungs[trial] = {1: 0.2 - 0.01 * trial}
            records.append(
                Record(
                    trial=trial,
                    state="pruned" if is_stopped else "complete",
                    ending="stopped" if is_stopped else "finished",
                    map50_95=None if is_stopped else 0.4 - 0.01 * trial,
                    fingerprint=str(trial),
                    picks=architecture.as_picks(),
                )
            )
        found = estimate(records, space, lambda _: {"gflops": 1.0}, rungs)
        assert (found.trials, found.stopped, found.imputed) == (10, 6, 6)
        four = [row.trials for row in found.rows if row.slot == "4"]
        assert sum(four) == sum("4" in record.picks for record in records)
        assert any(line.startswith("6 trials stopped early: final scores are imputed") for line in found.remarks())
        without = estimate(records, space, lambda _: {"gflops": 1.0})
        assert (without.stopped, without.imputed) == (6, 0)

    @pytest.mark.slow
    def test_study_with_rungs_imputes_its_stopped_trials(
        self,
        make_study: Callable[..., Study],
        score: Callable[..., Outcome],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Any,
    ) -> None:
        monkeypatch.setattr(worker, "evaluate", score)
        budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64, rungs=(1,))
        study = make_study(trials=20, budget=budget, stopping=Stopping(eta=2), sampler="random")
        Worker(study, deadline=float("inf")).run()
        records = study.records()
        lost = sum(record.ending == Ending.STOPPED for record in records)
        found = study.effects(records)
        assert lost > 0
        assert (found.stopped, found.imputed) == (lost, lost)
        assert sum(row.trials for row in found.rows if row.slot == "10") > sum(
            "10" in record.picks for record in records if record.finished
        )
        assert f"{lost} trials stopped early: final scores are imputed" in "\n".join(found.remarks())
