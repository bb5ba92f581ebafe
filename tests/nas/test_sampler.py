import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest

from nas.sampler import FINGERPRINT, Feasible, FeasibleTPE, SpaceExhaustedError
from nas.study import Study
from nas.work import _suggested
from search_spaces import OPERATORS, Choice, SearchSpace
from search_spaces.base import parse_yaml
from search_spaces.operators import Parameters, Site
from search_spaces.space_file import parse
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


WIDE = """
name: wide
base: yolov8{scale}.yaml
scale: n
slots:
  - {at: {layers: [4, 6]}, tie: true, choices: {UIB: {expansion: [2, 4]}}}
  - {at: {layers: [8]}, choices: {DCNv4: {groups: [8, 16]}}}
insert:
  - {after: 9, choices: {UIB: {}}}
macro: {depth: [1, 2], width: {P4: [0.75, 1], P5: [0.75, 1]}, image_size: [64, 96]}
"""


NARROW = """
name: narrow
base: yolov8{scale}.yaml
scale: n
slots: [{at: {layers: [7]}, choices: {DynamicConv: {}}}]
macro: {width: {P4: [0.75], P5: [0.75]}}
"""


def test_dials_insertions_and_tied_slots_are_repaired_too() -> None:
    space = parse(parse_yaml(WIDE))
    table, rng = CostTable(space, 2, 96), random.Random(0)
    least, most = (table.cost(table.extreme(lambda layer: layer.macs, cheapest=flag)).gflops for flag in (True, False))
    limit = least + (most - least) / 4
    feasible = Feasible(space, lambda: table, Limits(gflops=limit))
    found = [feasible.repaired(space.sample(rng), rng) for _ in range(40)]
    repaired = [architecture for architecture in found if architecture is not None]
    assert len(repaired) > 30
    assert all(table.cost(architecture).gflops <= limit for architecture in repaired)
    assert all(space.architecture(space.values(architecture)) == architecture for architecture in repaired)
    assert {name for architecture in repaired for name, _ in architecture.macro} > {"width.P4", "image_size"}


def test_what_two_dials_make_impossible_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that takes either of two narrower layers, but not one that is narrow on both sides."""

    def narrow(site: Site, _parameters: Parameters) -> str | None:
        return "too narrow on both sides" if (site.c_in, site.c_out) == (96, 192) else None

    monkeypatch.setitem(OPERATORS, "DynamicConv", replace(OPERATORS["DynamicConv"], obstacle=narrow))
    space = parse(parse_yaml(NARROW))
    dynamic = {"7": Choice.of("DynamicConv", {})}
    both = space.of(dynamic, {"width.P4": 0.75, "width.P5": 0.75})
    assert space.obstacle(both) == "layer 7: DynamicConv: too narrow on both sides"
    assert space.obstacle(space.of(dynamic, {"width.P5": 0.75})) is None
    feasible = Feasible(space, lambda: CostTable(space, 2, 64), Limits())
    assert feasible.repaired(both, random.Random(0)) is None
    assert feasible.repaired(space.of(dynamic), random.Random(0)) == space.of(dynamic)


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
