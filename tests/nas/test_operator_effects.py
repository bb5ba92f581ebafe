"""Effects of operators: the posterior against closed forms and planted effects, and the command `nas effects`."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner, Result

from nas.algorithms import operator_effects
from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.operator_effects import Effects, fit
from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.records.record import Record
from nas.report.effects import COLUMNS, Significance, estimate
from nas.study.study import Study
from search_spaces import Architecture, SearchSpace, space_file
from trials import Outcome

POINT = 0.01


def draw(rng: np.random.Generator, trials: int, effects: int) -> FloatArray:
    """Draw a design as random search does: first a probability of change for each architecture; the first is stock."""
    features = (rng.random((trials, effects)) < rng.random((trials, 1))).astype(np.float64)
    features[0] = 0.0
    return features


def fitted(features: FloatArray, accuracies: FloatArray, **changes: Any) -> Effects:
    trials = len(features)
    trainings: dict[str, Any] = {
        "groups": np.zeros(features.shape[1], dtype=np.intp),
        "architectures": np.arange(trials),
        "seeds": np.zeros(trials, dtype=np.intp),
    }
    return fit(features, accuracies, **(trainings | changes))


class Oracle:
    """The same posterior at one `lambda` and `rho`, from covariances of observations instead of precisions of effects.

    Generalised least squares for the flat columns and best linear unbiased prediction for the effects (Henderson).
    """

    def __init__(
        self, features: FloatArray, accuracies: FloatArray, flat: FloatArray, same: FloatArray, ratio: float, rho: float
    ) -> None:
        count = features.shape[1]
        covariance = ratio**2 * features @ features.T + (1 - rho) * np.eye(len(same)) + rho * same
        inverse = np.linalg.inv(covariance)
        information = flat.T @ inverse @ flat
        projection = inverse - inverse @ flat @ np.linalg.solve(information, flat.T @ inverse)
        degrees = len(accuracies) - flat.shape[1]
        square = accuracies @ projection @ accuracies
        self.log_likelihood = -0.5 * (
            np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1] + degrees * np.log(square)
        )
        self.means = ratio**2 * features.T @ projection @ accuracies
        shrunk = ratio**2 * np.eye(count) - ratio**4 * features.T @ projection @ features
        self.scales = np.sqrt(square / degrees * np.diag(shrunk))
        self.degrees = degrees


@pytest.fixture
def repeated() -> tuple[FloatArray, FloatArray, IndexArray, IndexArray]:
    """Features, accuracies, architectures and seeds of a study in which three architectures were repeated."""
    rng = np.random.default_rng(1)
    architectures = np.array([*range(14), 0, 3, 5, 0, 3, 5])
    seeds = np.array([0] * 14 + [1] * 3 + [2] * 3)
    features = draw(rng, 14, 6)[architectures]
    accuracies = 0.3 + features @ rng.normal(0, POINT, 6) + rng.normal(0, POINT, 20) + POINT * seeds
    return features, accuracies, architectures, seeds


def oracle(
    repeated: tuple[FloatArray, FloatArray, IndexArray, IndexArray], ratio: float = 0.7, rho: float = 0.4
) -> Oracle:
    features, accuracies, architectures, seeds = repeated
    flat = (seeds[:, None] == np.arange(3)).astype(np.float64)
    same = (architectures[:, None] == architectures).astype(np.float64)
    return Oracle(features, accuracies, flat, same, ratio, rho)


class TestPosterior:
    def test_posterior_of_effects_equals_the_closed_form(
        self, repeated: tuple[FloatArray, FloatArray, IndexArray, IndexArray]
    ) -> None:
        features, accuracies, architectures, seeds = repeated
        found = fitted(
            features, accuracies, architectures=architectures, seeds=seeds, ratios=(0.7,), correlations=(0.4,)
        )
        expected = oracle(repeated)
        assert expected.degrees == operator_effects.degrees_of_freedom(seeds) == 17
        assert found.means == pytest.approx(expected.means, rel=1e-9)
        reach = stats.t.ppf(0.975, expected.degrees) * expected.scales
        assert found.lower == pytest.approx(expected.means - reach, rel=1e-6)
        assert found.upper == pytest.approx(expected.means + reach, rel=1e-6)

    def test_grid_is_weighted_by_restricted_likelihood_and_half_cauchy_prior(
        self, repeated: tuple[FloatArray, FloatArray, IndexArray, IndexArray]
    ) -> None:
        features, accuracies, architectures, seeds = repeated
        ratios, correlations = (0.25, 0.5, 1.0, 2.0), (0.25, 0.75)
        found = fitted(
            features, accuracies, architectures=architectures, seeds=seeds, ratios=ratios, correlations=correlations
        )
        points = [(ratio, oracle(repeated, ratio, rho)) for ratio in ratios for rho in correlations]
        logs = np.array([one.log_likelihood + stats.halfcauchy.logpdf(ratio) + np.log(ratio) for ratio, one in points])
        weights = np.exp(logs - logs.max())
        weights[weights < 1e-4] = 0
        means = weights @ np.array([one.means for _, one in points]) / weights.sum()
        assert found.means == pytest.approx(means, rel=1e-9)

    def test_ridge_regression_has_the_same_means(self) -> None:
        rng = np.random.default_rng(2)
        features = draw(rng, 30, 8)
        accuracies = 0.5 + features @ rng.normal(0, POINT, 8) + rng.normal(0, POINT, 30)
        centred = features - features.mean(axis=0)
        ridge = np.linalg.solve(centred.T @ centred + np.eye(8) / 0.5**2, centred.T @ (accuracies - accuracies.mean()))
        assert fitted(features, accuracies, ratios=(0.5,)).means == pytest.approx(ridge, rel=1e-9)

    def test_effects_scale_with_the_accuracies(self) -> None:
        rng = np.random.default_rng(3)
        features, accuracies = draw(rng, 20, 5), rng.random(20)
        one, other = fitted(features, accuracies), fitted(features, 3 + 10 * accuracies)
        for name in ("means", "lower", "upper", "residual"):
            assert getattr(other, name) == pytest.approx(10 * getattr(one, name))

    def test_a_difference_between_seeds_is_no_effect(
        self, repeated: tuple[FloatArray, FloatArray, IndexArray, IndexArray]
    ) -> None:
        features, accuracies, architectures, seeds = repeated
        one, other = (
            fitted(features, accuracies + shift * (seeds == 2), architectures=architectures, seeds=seeds)
            for shift in (0.0, 0.5)
        )
        assert other.means == pytest.approx(one.means, abs=1e-9)
        assert other.upper == pytest.approx(one.upper, abs=1e-9)

    def test_repeats_that_hardly_differ_narrow_intervals_little(self) -> None:
        """Repeats remove the noise between seeds, not what is particular to an architecture."""
        rng = np.random.default_rng(4)
        lengths = []
        for _ in range(20):
            features = draw(rng, 24, 4)
            particular = features @ rng.normal(0, POINT, 4) + rng.normal(0, POINT, 24)
            first, second = particular + rng.normal(0, POINT / 3, (2, 24))
            both, architectures = np.concatenate([first, second]), np.tile(np.arange(24), 2)
            once = fitted(features, first)
            again = fitted(features[architectures], both, architectures=architectures, seeds=np.repeat([0, 1], 24))
            independent = fitted(features[architectures], both, seeds=np.repeat([0, 1], 24))
            lengths.append([(each.upper - each.lower).mean() for each in (once, again, independent)])
        once_length, again_length, independent_length = np.mean(lengths, axis=0)
        assert again_length > 0.9 * once_length
        assert independent_length < 0.8 * once_length

    def test_groups_of_effects_have_separate_scales(self) -> None:
        """A large effect of a scaling factor does not make the effects of operators less shrunk."""
        rng = np.random.default_rng(5)
        features = draw(rng, 40, 9)
        accuracies = features @ np.array([0.3, *[0.0] * 8]) + rng.normal(0, POINT, 40)
        apart = fitted(features, accuracies, groups=np.array([1, *[0] * 8]))
        together = fitted(features, accuracies)
        assert np.abs(apart.means[1:]).max() < 0.5 * np.abs(together.means[1:]).max()
        assert apart.lower[0] < 0.3 < apart.upper[0]

    def test_equal_accuracies_have_no_effects(self) -> None:
        found = fitted(draw(np.random.default_rng(6), 10, 3), np.full(10, 0.25))
        assert (found.means.tolist(), found.upper.tolist(), found.residual) == ([0.0] * 3, [0.0] * 3, 0.0)

    def test_effects_without_noise_are_found_exactly(self) -> None:
        features = draw(np.random.default_rng(7), 30, 4)
        planted = np.array([0.02, -0.01, 0.0, 0.03])
        assert fitted(features, 0.4 + features @ planted).means == pytest.approx(planted, abs=1e-4)

    def test_no_degree_of_freedom_is_refused(self) -> None:
        with pytest.raises(ValueError, match="3 trainings with 3 seeds leave no degree of freedom"):
            fitted(np.eye(3), np.arange(3.0), seeds=np.arange(3))


class TestSimulatedStudies:
    def test_intervals_have_their_nominal_coverage_of_planted_effects(self) -> None:
        rng = np.random.default_rng(0)
        covered = []
        for _ in range(200):
            features, effects = draw(rng, 30, 12), rng.normal(0, POINT, 12)
            found = fitted(features, 0.4 + features @ effects + rng.normal(0, POINT, 30))
            covered.append(((found.lower <= effects) & (effects <= found.upper)).mean())
        assert 0.92 <= np.mean(covered) <= 0.98

    def test_data_without_effects_give_few_claims(self) -> None:
        rng = np.random.default_rng(1)
        claims = []
        for _ in range(100):
            found = fitted(draw(rng, 30, 12), 0.4 + rng.normal(0, POINT, 30))
            claims.append(((found.lower > 0) | (found.upper < 0)).mean())
        assert np.mean(claims) < 0.01

    def test_three_lucky_trials_make_no_effect(self) -> None:
        """An operator whose three trials are 1.2 deviations of the noise too high: 2 standard errors."""
        rng = np.random.default_rng(2)
        features = draw(rng, 30, 12)
        features[:, 0] = 0.0
        features[[5, 6, 7], 0] = 1.0
        noise = rng.normal(0, POINT, 30)
        noise[[5, 6, 7]] = 1.2 * POINT
        found = fitted(features, 0.4 + noise)
        assert found.lower[0] < 0 < found.upper[0]
        assert 0 < found.means[0] < 0.6 * POINT


TIED = """\
name: tied
base: yolov9{scale}.yaml
scale: t
slots:
  - at: {layers: [4, 6]}
    tie: true
    choices: {UIB: {start_kernel: [0, 3]}}
insert:
  - after: [9]
    choices: {DCNv4: {}}
macro:
  width: [0.5, 1]
  image_size: [320, 640]
"""


def record_of(trial: int, architecture: Architecture, accuracy: float) -> Record:
    return Record(
        trial=trial,
        state="complete",
        ending="finished",
        map50_95=accuracy,
        fingerprint=architecture.fingerprint,
        picks=architecture.as_picks(),
    )


class TestRecords:
    @pytest.fixture
    def tied(self, tmp_path: Path) -> SearchSpace:
        path = tmp_path / "tied.yaml"
        path.write_text(TIED)
        return space_file.load(path)

    def test_tied_slots_insertions_and_scaling_factors_have_one_effect_each(self, tied: SearchSpace) -> None:
        slot, insertion = tied.slots
        width, size = tied.scaling_factors
        uib = slot.of("UIB")
        architectures = [
            tied.stock,
            *(tied.with_choice(tied.stock, slot, choice) for choice in uib),
            tied.with_choice(tied.stock, insertion, insertion.of("DCNv4")[0]),
            tied.with_factor(tied.stock, width, 0.5),
            tied.with_factor(tied.stock, size, 320.0),
        ]
        gflops = dict(zip(architectures, (8.0, 7.0, 6.0, 9.0, 2.0, 4.0), strict=True))
        requested: list[Architecture] = []

        def figures(architecture: Architecture) -> Mapping[str, float]:
            requested.append(architecture)
            return {"gflops": gflops[architecture], "latency_ms": 2 * gflops[architecture]}

        records = [record_of(index, one, 0.4 + 0.001 * index) for index, one in enumerate(architectures)]
        found = estimate(records, tied, figures)
        rows = {(row.slot, row.operator): row for row in found.rows}
        costs = {key: (row.gflops_percent_least, row.gflops_percent_most, row.trials) for key, row in rows.items()}
        assert costs == {
            ("4", "UIB"): (-25.0, -12.5, 2),
            ("after-9", "DCNv4"): (12.5, 12.5, 1),
            ("width", "0.5"): (-75.0, -75.0, 1),
            ("image_size", "320"): (-50.0, -50.0, 1),
        }
        assert rows["4", "UIB"].layers == (4, 6)
        assert rows["4", "UIB"].latency_percent_least == -25.0
        assert len(requested) == len(architectures)

    def test_effects_of_the_same_trials_are_aliases(self, space: SearchSpace) -> None:
        four, six, ten = space.slots
        both = space.of({"4": four.of("UIB")[0], "6": six.of("DynamicConv")[0]})
        architectures = [space.stock, both, *(space.of({"10": choice}) for choice in ten.of("DySample"))]
        architectures += [space.with_choice(both, ten, choice) for choice in ten.of("DySample")]
        records = [record_of(index, one, 0.4 + 0.01 * index) for index, one in enumerate(architectures)]
        found = estimate(records, space, lambda _: {"gflops": 1.0})
        aliases = {f"{row.operator} {row.slot}": row.aliases for row in found.rows}
        assert aliases == {"UIB 4": ("DynamicConv 6",), "DynamicConv 6": ("UIB 4",), "DySample 10": ()}
        assert any(line.startswith("2 effects had exactly the trials of another") for line in found.remarks())

    def test_trials_without_a_final_score_are_left_out_and_reported(self, space: SearchSpace) -> None:
        four = space.slots[0]
        architectures = [space.stock, *(space.of({"4": choice}) for choice in four.choices if not choice.is_stock)]
        records = [record_of(index, one, 0.4) for index, one in enumerate(architectures)]
        stopped = replace(records[-1], trial=9, ending="stopped", state="pruned")
        found = estimate([*records, stopped], space, lambda _: {"gflops": 1.0})
        assert (found.trials, found.stopped) == (len(records), 1)
        assert any(line.startswith("1 trial stopped early") for line in found.remarks())


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def searched(
    make_study: Callable[..., Study], score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Study]:
    """Search the small space, where UIB in layer 4 loses 10 points and DySample in layer 10 gains 5."""

    def planted(architecture: Architecture, *arguments: Any, **options: Any) -> Outcome:
        outcome = score(architecture, *arguments, **options)
        assert outcome.scores is not None
        operators = {layer: choice.operator for layer, choice in architecture.picks}
        accuracy = 0.5 - 0.1 * (operators.get(4) == "UIB") + 0.05 * (operators.get(10) == "DySample")
        noise = 0.01 * (outcome.scores.map50_95 - 0.5)
        return replace(outcome, scores=replace(outcome.scores, map50_95=accuracy + noise))

    def search(trials: int) -> Study:
        made = make_study(trials=trials)
        monkeypatch.setattr(worker, "evaluate", planted)
        Worker(made, deadline=float("inf")).run()
        return made

    return search


class TestCommand:
    def test_effects_table_lists_better_operators_first(self, searched: Callable[[int], Study]) -> None:
        study = searched(24)
        printed = nas("effects", "small", "--runs", study.folder.parent)
        assert printed.exit_code == 0
        title, headings, *lines = printed.stdout.splitlines()
        assert title == "Effects of operators in small: mAP50-95 and costs, compared with stock"
        assert headings.split("  ")[0] == "slot"
        assert len(lines) == 5
        assert lines[0].split()[:2] == ["10", "DySample"]
        assert lines[0].rstrip().endswith(Significance.BETTER)
        assert lines[-1].split()[:2] == ["4", "UIB"]
        assert lines[-1].rstrip().endswith(Significance.WORSE)
        basis, assumed, residual = printed.stderr.splitlines()
        assert basis.startswith("From 24 finished trials of 24 architectures: ")
        assert assumed.startswith("Assumed: effects of slots add up ")
        assert residual.startswith("The residual, of interactions and noise, has a standard deviation of 0.")

    def test_effects_have_exact_gflops_and_intervals_around_what_was_planted(
        self, searched: Callable[[int], Study]
    ) -> None:
        study = searched(24)
        runs = ("--runs", study.folder.parent)
        rows = json.loads(nas("effects", "small", *runs, "--format", "json").stdout)
        assert all(tuple(row) == COLUMNS for row in rows)
        uib = next(row for row in rows if (row["slot"], row["operator"]) == ("4", "UIB"))
        assert uib["verdict"] == "worse"
        assert uib["lower_points"] < -10 < uib["upper_points"]
        assert uib["latency_percent_least"] is None
        (space,), table = study.space.members, study.scoring.cost_table
        slot = space.slots[0]
        alone = [table.cost(space.with_choice(space.stock, slot, one)).gflops for one in slot.of("UIB")]
        stock = table.cost(space.stock).gflops
        ends = uib["gflops_percent_least"], uib["gflops_percent_most"]
        assert ends == pytest.approx((100 * (min(alone) / stock - 1), 100 * (max(alone) / stock - 1)))
        (first, *_) = csv.DictReader(io.StringIO(nas("effects", "small", *runs, "--format", "csv").stdout))
        assert tuple(first) == COLUMNS
        assert (first["layers"], first["verdict"]) == ("[10]", "better")
        assert [row.as_row() for row in study.effects().rows] == rows

    @pytest.mark.parametrize(("shown", "expected"), [("table", ""), ("json", "[]\n")])
    def test_too_few_trials_are_reported_instead_of_effects(
        self, searched: Callable[[int], Study], shown: str, expected: str
    ) -> None:
        study = searched(4)
        printed = nas("effects", "small", "--runs", study.folder.parent, "--format", shown)
        assert (printed.exit_code, printed.stdout) == (0, expected)
        basis = "4 finished trials of 4 architectures"
        least = "at least 5 architectures, and 4 trials more than seeds are needed"
        assert printed.stderr == f"Too few trials to estimate effects from: {basis} ({least}).\n"

    def test_effects_of_an_unknown_study_are_an_error(self, tmp_path: Path) -> None:
        assert nas("effects", "nothing", "--runs", tmp_path).exit_code == 2
