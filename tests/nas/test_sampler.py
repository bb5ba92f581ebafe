import random
from collections import Counter
from collections.abc import Callable

import optuna
import pytest

from nas.sampler import FINGERPRINT, Feasible, FeasibleTPE, SpaceExhaustedError
from nas.study import Study
from nas.work import _suggested
from search_spaces import SearchSpace
from trials import Limits
from trials.cost import CostTable

MakeStudy = Callable[..., Study]


@pytest.fixture(scope="module")
def table(space: SearchSpace) -> CostTable:
    return CostTable(space, 2, 64)


def test_a_repaired_architecture_is_within_limits(table: CostTable, space: SearchSpace) -> None:
    rng = random.Random(0)
    costs = sorted(table.cost(space.sample(rng)).gflops for _ in range(30))
    feasible = Feasible(space, lambda: table, Limits(gflops=costs[5]))
    for _ in range(30):
        repaired = feasible.repaired(space.sample(rng), rng)
        assert repaired is not None
        assert table.cost(repaired).gflops <= costs[5]


def test_what_is_within_limits_is_left_alone(table: CostTable, space: SearchSpace) -> None:
    rng = random.Random(0)
    architecture = space.sample(rng)
    assert Feasible(space, lambda: table, Limits()).repaired(architecture, rng) == architecture


def test_no_architecture_is_within_an_impossible_limit(table: CostTable, space: SearchSpace) -> None:
    assert Feasible(space, lambda: table, Limits(params=1)).repaired(space.stock, random.Random(0)) is None


def _propose(study: Study, count: int) -> list[str]:
    """Ask, and tell a formula, without any worker."""
    told = []
    for _ in range(count):
        trial = study.optuna.ask()
        try:
            architecture = _suggested(trial, study)
        except SpaceExhaustedError:
            study.optuna.tell(trial, state=optuna.trial.TrialState.PRUNED)
            break
        trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
        told.append(architecture.fingerprint)
        study.optuna.tell(trial, [len(architecture.picks) / 10, study.table.cost(architecture).gflops])
    return told


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_every_architecture_of_a_small_space_is_proposed_once(make_study: MakeStudy, space: SearchSpace) -> None:
    # Random proposals from the start: what is tested is the gate, not TPE.
    study = make_study(trials=10_000)
    told = _propose(study, space.size + 5)
    assert len(told) == space.size
    assert set(Counter(told).values()) == {1}


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_the_first_proposal_is_the_stock_model(make_study: MakeStudy, space: SearchSpace) -> None:
    assert _propose(make_study(), 1) == [space.stock.fingerprint]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_proposals_depend_on_seed_and_history_alone(make_study: MakeStudy) -> None:
    assert _propose(make_study("one"), 16) == _propose(make_study("two"), 16)


def test_parameters_have_one_spelling(make_study: MakeStudy) -> None:
    study = make_study()
    assert isinstance(study.sampler, FeasibleTPE)
    assert set(study.space.parameters) == {
        "4.operator",
        "4.UIB.start_kernel",
        "4.DynamicConv.kernels",
        "6.operator",
        "6.UIB.start_kernel",
        "6.DynamicConv.kernels",
        "10.operator",
        "10.DySample.style",
    }
