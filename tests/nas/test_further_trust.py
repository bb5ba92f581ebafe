"""`nas trust A B`: what to expect of a further search, from several of its kind."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import nas
from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.study.study import Study
from nas.workflows.calibrate import NEIGHBOURS, SEEDS, calibration
from nas.workflows.confirm import confirm
from nas.workflows.further_trust import differences, require_same_kind, trust_in_further
from search_spaces import Architecture
from search_spaces.errors import StudyError
from trials import Budget, Outcome
from trials.data import datasets

MakeStudy = Callable[..., Study]
NOISE = 0.01


@pytest.fixture(scope="module")
def searched(
    study_maker: Callable[[Path], MakeStudy],
    score: Callable[..., Outcome],
    judged_as_scored: Callable[[Callable[..., Outcome]], Callable[..., Outcome]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Study]:
    """Two searches of one kind, both calibrated, the first confirmed; scores are those of equal architectures."""

    def scoring(architecture: Architecture, budget: Budget, *arguments: Any, **options: Any) -> Outcome:
        outcome = score(architecture, budget, *arguments, **options)
        assert outcome.scores is not None
        luck = np.random.default_rng([int(architecture.fingerprint[:8], 16), budget.seed])
        accuracy = 0.4 + NOISE * float(luck.standard_normal())
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy, map50=accuracy))

    root = tmp_path_factory.mktemp("pooled")
    make_study, fingerprint = study_maker(root), datasets.load("digits").fingerprint
    studies = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "evaluate", judged_as_scored(scoring))
        for seed, name in enumerate(("one", "two")):
            budget = Budget(data=root / "data.yaml", epochs=3, deploy_size=64, seed=seed)
            study = make_study(name, trials=8, sampler="random", data_fingerprint=fingerprint, budget=budget)
            Worker(study, deadline=float("inf")).run()
            Worker(calibration(study), deadline=float("inf")).run()
            studies.append(study)
        Worker(confirm(studies[0], seeds=3, top=2), deadline=float("inf")).run()
    return studies


def command(studies: list[Study], *arguments: str) -> Result:
    names = [study.name for study in studies]
    return CliRunner().invoke(app, ["trust", *names, "--runs", str(studies[0].folder.parent), *arguments])


def changed(study: Study, **changes: Any) -> Study:
    """Return the study with other settings, which are not stored."""
    other = Study.open(study.folder)
    other.settings = study.settings.model_copy(update=changes)
    return other


class TestPooled:
    def test_noise_of_both_is_pooled(self, searched: list[Study]) -> None:
        found, each = trust_in_further(searched), [study.trust().noise for study in searched]
        assert found.noise is not None
        freedom = [noise.degrees_of_freedom for noise in each if noise is not None]
        assert freedom[1] == NEIGHBOURS * (SEEDS - 1)
        assert found.noise.degrees_of_freedom == sum(freedom)
        assert found.noise.low < 100 * NOISE < found.noise.high
        assert found.shrinkage is not None
        assert found.shrinkage.low < found.shrinkage.expected < found.shrinkage.high

    def test_confirmation_on_the_images_of_the_search_has_changed_nothing_but_the_seed(
        self, searched: list[Study]
    ) -> None:
        verdict = searched[0].verdict()
        assert verdict is not None
        assert all(one.image_error is not None for one in verdict.finalists)  # matches on them are stored, too
        assert trust_in_further(searched).measured["one"].remark == ""

    def test_text_and_json_say_what_python_returns(self, searched: list[Study]) -> None:
        found, verdict = nas.trust_further("one", "two", runs=searched[0].folder.parent), searched[0].verdict()
        assert command(searched).stdout.splitlines() == found.lines()
        assert found.lines()[0] == (
            "Trust in a further search like one (8 architectures) and two (8 architectures), --epochs 3"
        )
        assert found.shrinkage is not None
        expected = f"{found.shrinkage.expected:.1f} points ({found.shrinkage.low:.1f} to {found.shrinkage.high:.1f})"
        assert found.recommendation() == [
            f"Of what the finalists of a further search have over stock, expect {expected} to be luck."
        ]
        assert verdict is not None
        assert verdict.shrinkage is not None
        assert [line[:14] for line in found.lines() if line.startswith("measured")] == ["measured  one:"]
        document = json.loads(command(searched, "--format", "json").stdout)
        assert document["lines"] == found.lines()
        assert document["shrinkage"]["expected"] == found.shrinkage.expected
        assert document["measured"]["one"]["before"] == verdict.shrinkage[0]

    def test_commands_that_measure_noise_are_named(self, searched: list[Study]) -> None:
        found = replace(trust_in_further(searched), measure=("nas trust two --measure",))
        assert found.recommendation()[0].endswith(
            " to be luck. More repeats make that narrower: nas trust two --measure"
        )
        nothing = replace(found, noise=None, shrinkage=None)
        assert nothing.lines()[1] == "noise     not measured"
        assert nothing.recommendation() == [
            "Noise is not measured, so nothing can be predicted: nas trust two --measure"
        ]


class TestRefused:
    def test_measure_is_for_one_search(self, searched: list[Study]) -> None:
        where = searched[0].folder.parent
        result = command(searched, "--measure")
        line = f"measure: is done for one search at a time: nas trust one --runs {where} --measure\n"
        assert (result.exit_code, result.stderr) == (2, line)

    def test_options_of_trainings_need_measure(self, searched: list[Study]) -> None:
        result = command(searched, "--workers", "1")
        assert result.exit_code == 2
        assert result.stderr.startswith("workers: nothing is trained without --measure")

    def test_study_that_is_no_search(self, searched: list[Study]) -> None:
        beside = [searched[0], Study.open(searched[0].folder.with_name("one-calibrate"))]
        result = command(beside)
        runs = searched[0].folder.parent
        line = f"one-calibrate trains models of another study again; ask: nas trust one --runs {runs}\n"
        assert (result.exit_code, result.stderr) == (2, line)

    def test_same_search_twice(self, searched: list[Study]) -> None:
        line = "one: is named twice; the same trainings count once (leave one out)\n"
        assert command([searched[0], searched[0]]).stderr == line
        twin = changed(searched[1], budget=searched[0].settings.budget)
        with pytest.raises(StudyError, match="two: has the same --seed 0 as one; the same trainings count once"):
            trust_in_further([searched[0], twin])

    def test_searches_of_two_kinds_in_one_line(self, searched: list[Study]) -> None:
        first, second = searched
        budget = second.settings.budget.model_copy(update={"epochs": 8, "batch": 4})
        other = changed(second, budget=budget, space_hash="0", data_fingerprint="1", scale="s")
        with pytest.raises(StudyError) as raised:
            require_same_kind(first, other)
        assert str(raised.value) == (
            "two: is a search of another kind than one: --scale s, not t, --space small of other content, --data "
            "digits of other content, --epochs 8, not 3, --batch 4, not 8 (searches that are pooled may differ in "
            "--seed and --trials only)"
        )

    def test_initial_weights_of_another_kind(self, searched: list[Study]) -> None:
        first, second = searched
        based = second.settings.model_copy(update={"base": second.settings.budget})
        assert differences(first.settings, based) == ["--base-epochs 3, not 0"]
        assert differences(first.settings, second.settings) == []
