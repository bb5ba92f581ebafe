import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import optuna
import pytest

from nas.execution.retrying import retry
from nas.records.trial_attributes import ACCURACY, ENDING, FINGERPRINT
from nas.samplers.base import SpaceExhaustedError
from nas.samplers.ehvi_sampler import EHVISampler
from nas.samplers.feasibility import FeasibilityFilter
from nas.samplers.suggest import suggest
from nas.settings import Sampler
from nas.study.study import Study
from search_spaces import OPERATORS, Choice, SearchSpace
from search_spaces.operators import Parameters, Site
from search_spaces.space_file import parse
from search_spaces.yaml_text import parse_yaml
from trials import Limits
from trials.costing.cost import CostTable

MakeStudy = Callable[..., Study]


@pytest.fixture(scope="module")
def table(space: SearchSpace) -> CostTable:
    return CostTable(space, 2, 64)


def test_repaired_architecture_is_within_limits(table: CostTable, space: SearchSpace) -> None:
    rng = random.Random(0)
    costs = sorted(table.cost(space.sample(rng)).gflops for _ in range(30))
    feasible = FeasibilityFilter(space, lambda: table, Limits(gflops=costs[5]))
    for _ in range(30):
        repaired = feasible.repair(space.sample(rng), rng)
        assert repaired is not None
        assert table.cost(repaired).gflops <= costs[5]


def test_repair_leaves_an_architecture_within_limits_unchanged(table: CostTable, space: SearchSpace) -> None:
    rng = random.Random(0)
    architecture = space.sample(rng)
    assert FeasibilityFilter(space, lambda: table, Limits()).repair(architecture, rng) == architecture


def test_repair_fails_for_an_impossible_limit(table: CostTable, space: SearchSpace) -> None:
    assert FeasibilityFilter(space, lambda: table, Limits(params=1)).repair(space.stock, random.Random(0)) is None


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


def test_repair_changes_scaling_factors_insertions_and_tied_slots() -> None:
    space = parse(parse_yaml(WIDE))
    table, rng = CostTable(space, 2, 96), random.Random(0)
    least, most = (table.cost(table.extreme(lambda layer: layer.macs, cheapest=flag)).gflops for flag in (True, False))
    limit = least + (most - least) / 4
    feasible = FeasibilityFilter(space, lambda: table, Limits(gflops=limit))
    found = [feasible.repair(space.sample(rng), rng) for _ in range(40)]
    repaired = [architecture for architecture in found if architecture is not None]
    assert len(repaired) > 30
    assert all(table.cost(architecture).gflops <= limit for architecture in repaired)
    assert all(space.architecture(space.values(architecture)) == architecture for architecture in repaired)
    assert {name for architecture in repaired for name, _ in architecture.macro} > {"width.P4", "image_size"}


def test_repair_refuses_an_incompatible_pair_of_scaling_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that takes either of two narrower layers, but not one that is narrow on both sides."""

    def narrow(site: Site, _parameters: Parameters) -> str | None:
        return "too narrow on both sides" if (site.c_in, site.c_out) == (96, 192) else None

    monkeypatch.setitem(OPERATORS, "DynamicConv", replace(OPERATORS["DynamicConv"], incompatibility=narrow))
    space = parse(parse_yaml(NARROW))
    dynamic = {"7": Choice.of("DynamicConv", {})}
    both = space.of(dynamic, {"width.P4": 0.75, "width.P5": 0.75})
    assert space.incompatibility(both) == "layer 7: DynamicConv: too narrow on both sides"
    assert space.incompatibility(space.of(dynamic, {"width.P5": 0.75})) is None
    feasible = FeasibilityFilter(space, lambda: CostTable(space, 2, 64), Limits())
    assert feasible.repair(both, random.Random(0)) is None
    assert feasible.repair(space.of(dynamic), random.Random(0)) == space.of(dynamic)


def _propose(study: Study, count: int) -> list[str]:
    """Return the fingerprints of this many proposals."""
    return [trial.user_attrs[FINGERPRINT] for trial in _asked(study, count)]


def _asked(study: Study, count: int) -> list[optuna.trial.FrozenTrial]:
    """Ask for trials and tell a formula of their architectures, without a worker."""
    finished = []
    for _ in range(count):
        trial = study.optuna.ask()
        try:
            architecture = suggest(trial, study.space)
        except SpaceExhaustedError:
            study.optuna.tell(trial, state=optuna.trial.TrialState.PRUNED)
            break
        trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
        trial.set_user_attr(ACCURACY, len(architecture.picks) / 10)
        values = [len(architecture.picks) / 10, study.scoring.cost_table.cost(architecture).gflops]
        finished.append(study.optuna.tell(trial, values))
    return finished


@pytest.mark.parametrize("sampler", [sampler for sampler in Sampler if sampler is not Sampler.GP])  # it takes minutes
@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_every_architecture_of_a_small_space_is_proposed_once(
    make_study: MakeStudy, space: SearchSpace, sampler: Sampler
) -> None:
    study = make_study(trials=10_000, sampler=sampler)
    proposed = _propose(study, space.size + 5)
    assert len(proposed) == space.size
    assert set(Counter(proposed).values()) == {1}


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_first_proposal_is_the_stock_model(make_study: MakeStudy, space: SearchSpace) -> None:
    assert _propose(make_study(), 1) == [space.stock.fingerprint]


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_proposals_depend_on_seed_and_history_alone(make_study: MakeStudy, sampler: Sampler) -> None:
    one, two = (make_study(name, sampler=sampler) for name in ("one", "two"))
    first = _propose(one, 16)
    assert first == _propose(two, 16)
    here, elsewhere = _propose(one, 3), _propose(Study.open(two.folder), 3)  # another process goes on
    assert here == elsewhere
    assert not {*first} & {*here}


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_retry_of_a_killed_trial_changes_no_later_proposal(make_study: MakeStudy, sampler: Sampler) -> None:
    whole, killed = (make_study(name, sampler=sampler) for name in ("whole", "killed"))
    undisturbed = _propose(whole, 16)
    proposed = _propose(killed, 5)
    killed.optuna.ask()  # killed before it had an architecture
    for _ in range(2):
        trial = killed.optuna.ask()
        trial.set_user_attr(FINGERPRINT, suggest(trial, killed.space).fingerprint)
        retry(killed, trial.number, "killed")
        killed.optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert proposed + _propose(Study.open(killed.folder), 11) == undisturbed


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_proposals_are_within_limits(make_study: MakeStudy, sampler: Sampler) -> None:
    study = make_study(sampler=sampler)
    ceiling = study.scoring.cost_table.cost(study.space.stock).gflops * 0.99
    limited = make_study("limited", sampler=sampler, limits=Limits(gflops=ceiling))
    proposed = [limited.space.architecture(trial.params) for trial in _asked(limited, 16)]
    assert proposed[0] == limited.space.stock
    assert all(limited.scoring.cost_table.cost(architecture).gflops <= ceiling for architecture in proposed[1:])
    assert len({architecture.fingerprint for architecture in proposed}) == 16


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_running_trials_of_other_workers_count_as_tried(make_study: MakeStudy) -> None:
    study = make_study()
    _propose(study, 8)
    first = study.optuna.ask()
    first.set_user_attr(FINGERPRINT, suggest(first, study.space).fingerprint)
    assert isinstance(study.sampler, EHVISampler)
    tried, accuracies, extra_noise = study.sampler._history(study.optuna, except_for=0)
    assert len(tried) == 8  # all but the trial that asks
    assert np.isnan(accuracies).sum() == 1
    assert np.isfinite(accuracies).sum() == 7
    assert not extra_noise.any()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_stopped_trials_are_extrapolated_and_failed_ones_are_the_worst(make_study: MakeStudy) -> None:
    study = make_study()
    for index in range(6):
        trial = study.optuna.ask()
        architecture = suggest(trial, study.space)
        trial.set_user_attr(FINGERPRINT, architecture.fingerprint)
        if index < 4:
            trial.set_user_attr("rung:1", (0.1 * index, 0.1 * index, 1.0))
            trial.set_user_attr(ACCURACY, 0.1 * index + 0.2)
            study.optuna.tell(trial, [0.1 * index + 0.2, 1.0])
            continue
        if index == 4:
            trial.set_user_attr("rung:1", (0.05, 0.05, 1.0))
        trial.set_user_attr(ENDING, "stopped" if index == 4 else "diverged")
        study.optuna.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert isinstance(study.sampler, EHVISampler)
    _, accuracies, extra_noise = study.sampler._history(study.optuna, except_for=0)
    assert accuracies == pytest.approx([0.3, 0.4, 0.5, 0.25, 0.3])
    assert extra_noise == pytest.approx([0.0] * 5, abs=1e-12)


def test_sampler_parameters_are_named_by_slot_operator_and_parameter(make_study: MakeStudy) -> None:
    study = make_study()
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
