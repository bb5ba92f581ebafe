import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from nas.cli import app
from nas.execution import worker
from nas.execution.retrying import retry
from nas.execution.worker import Worker
from nas.records.record import Record, mean_over_seeds, pareto_front_of, stock_of
from nas.study.repeats import gains, next_repeat
from nas.study.study import Study
from search_spaces import Architecture
from trials import Budget, Outcome

MakeStudy = Callable[..., Study]
Score = Callable[..., Outcome]
BOTH = ("map50_95", "gflops")


def scored(trial: int, name: str, accuracy: float, gflops: float, repeat: int = 0, **changes: Any) -> Record:
    record = Record(
        trial=trial,
        state="complete",
        ending="finished",
        map50_95=accuracy,
        map50=accuracy,
        gflops=gflops,
        fingerprint=name,
        repeat=repeat,
        picks={},
    )
    return replace(record, **changes)


def history(count: int = 6) -> list[Record]:
    """Records of the stock model and of better and costlier models."""
    stock = scored(0, "stock", 0.05, 3.0, role="stock")
    return [stock, *(scored(trial, f"a{trial}", trial / 10, float(trial)) for trial in range(1, count))]


def test_front_is_decided_by_means_over_seeds() -> None:
    records = [scored(0, "lucky", 0.6, 2.0), scored(1, "steady", 0.55, 2.0), scored(2, "lucky", 0.4, 2.0, repeat=1)]
    (best,) = pareto_front_of(records, BOTH)
    assert best.trial == 1
    mean = mean_over_seeds(records)[0]
    assert (mean.trial, mean.seeds) == (0, 2)
    assert mean.map50_95 == mean.map50 == pytest.approx(0.5)


def test_stock_model_is_repeated_first_then_the_front() -> None:
    records = history()
    for expected in ("stock", "a5", "a4", "a3", "a2", "a1"):
        wanted = next_repeat(records, BOTH, seeds=2)
        assert wanted is not None
        record, repeat = wanted
        assert (record.fingerprint, repeat) == (expected, 1)
        records.append(replace(record, trial=len(records), repeat=1, role=""))
    assert next_repeat(records, BOTH, seeds=2) is None
    again = next_repeat(records, BOTH, seeds=3)
    assert again is not None
    assert (again[0].fingerprint, again[1]) == ("stock", 2)


def test_no_trial_is_repeated_with_few_scores_or_one_seed() -> None:
    assert next_repeat(history(5), BOTH, seeds=2) is None
    assert next_repeat(history(6), BOTH, seeds=1) is None


@pytest.mark.parametrize("state", ["running", "waiting", "pruned"])
def test_running_or_failed_repeat_is_not_enqueued_again(state: str) -> None:
    records = history()
    other = Record(trial=6, state=state, fingerprint="stock", repeat=1, picks={})
    wanted = next_repeat([*records, other], BOTH, seeds=2)
    assert wanted is not None
    assert wanted[0].fingerprint == "a5"


def test_gains_are_paired_by_seed() -> None:
    records = [
        scored(0, "stock", 0.50, 3.0, role="stock"),
        scored(1, "other", 0.52, 3.0),
        scored(2, "stock", 0.40, 3.0, repeat=1),
        scored(3, "other", 0.43, 3.0, repeat=1),
        scored(4, "other", 0.90, 3.0, repeat=2),
    ]
    stock = stock_of(records)
    assert stock is not None
    assert stock.map50_95 == pytest.approx(0.45)
    assert gains(records, records[1], stock) == pytest.approx([0.02, 0.03])


def noisy(score: Score, calls: list[tuple[str, int]]) -> Score:
    """Return the formula's scores with an error that depends on the seed."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        calls.append((architecture.fingerprint, budget.seed))
        outcome = score(architecture, budget, *arguments, **options)
        assert outcome.scores is not None
        error = hashlib.sha256(f"{architecture.fingerprint}{budget.seed}".encode()).digest()[0] / 1000
        accuracy = 0.7 * outcome.scores.map50_95 + error
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy))

    return scoring


@pytest.fixture
def raced(make_study: MakeStudy, score: Score, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, list[tuple[str, int]]]:
    study, calls = make_study(trials=40, seeds=2), list[tuple[str, int]]()
    monkeypatch.setattr(worker, "evaluate", noisy(score, calls))
    Worker(study, deadline=float("inf")).run()
    return study, calls


def test_a_study_trains_its_front_with_two_seeds_within_its_trials(raced: tuple[Study, list[tuple[str, int]]]) -> None:
    study, calls = raced
    assert len(calls) == len(set(calls)) == 40
    trained = Counter(fingerprint for fingerprint, _ in calls)
    assert set(trained.values()) == {1, 2}
    records = study.records()
    for number, (fingerprint, seed) in enumerate(calls):
        assert (records[number].fingerprint, records[number].repeat) == (fingerprint, seed)
    once = [record for record in study.front() if record.seeds == 1]
    assert len(once) <= 1  # the last one may have come too late
    assert trained[study.space.stock.fingerprint] == 2


def test_front_has_the_means_over_seeds(raced: tuple[Study, list[tuple[str, int]]]) -> None:
    study, _ = raced
    result = CliRunner().invoke(app, ["pareto", study.name, "--runs", str(study.folder.parent)])
    assert result.exit_code == 0
    assert "seeds" in result.stdout
    assert "the mean of 2 seeds" in result.stderr or "nothing that was tried is more accurate" in result.stderr


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_retry_of_a_repeat_keeps_its_seed(make_study: MakeStudy) -> None:
    study = make_study()
    study.enqueue(study.space.stock, repeat=1)
    trial = study.optuna.ask()
    while "repeat" not in trial.user_attrs:
        study.optuna.tell(trial, [0.5, 1.0])
        trial = study.optuna.ask()
    retry(study, trial.number, "killed")
    study.optuna.tell(trial, state=TrialState.FAIL)
    assert study.records()[-1].repeat == 1
    assert study.scoring.budget(study.space.stock, 1).seed == study.settings.budget.seed + 1
