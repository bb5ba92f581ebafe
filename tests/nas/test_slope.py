"""Whether a budget is long enough to rank."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.algorithms.seed_noise import SeedNoise
from nas.defaults import MARGIN
from nas.records.record import Record
from nas.report.slope import End, Steepness, decisive, median_difference, slope
from nas.settings import Settings
from trials import Budget


def record(trial: int, accuracy: float, **further: Any) -> Record:
    fields = {"trial": trial, "state": "complete", "ending": "finished", "fingerprint": str(trial), "picks": {}}
    role = "" if trial else "stock"
    return Record(**{**fields, "role": role, "map50_95": accuracy, "gflops": 8.0, **further})


def noise(deviation: float, degrees: int = 10) -> SeedNoise:
    return SeedNoise(deviation=deviation, low=0.5 * deviation, high=2 * deviation, degrees_of_freedom=degrees)


def settings(*, base: int | None = 24, epochs: int = 8) -> Settings:
    data = Path("/data.yaml")
    return Settings(
        space="small",
        scale="t",
        space_hash="0",
        data="digits",
        data_fingerprint="0",
        classes=("a", "b"),
        base=None if base is None else Budget(data=data, epochs=base),
        budget=Budget(data=data, epochs=epochs),
    )


MEASURE = "nas trust mine --measure"
CANDIDATES = [record(trial, 0.514 + trial * 0.012) for trial in range(3)]
"""With a fourth at 0.526, the median of the differences is 1.2 points."""


class TestSlope:
    def test_steep_stock_model_is_said_with_the_epochs_that_are_enough(self) -> None:
        found = slope(settings(), [*CANDIDATES, record(3, 0.526)], base=0.479)
        assert found is not None
        assert found.favours_fast
        assert found.sentence == (
            "the stock model still gains 3.5 points in another 8 epochs (90 %: 2.8 to 4.2), more than the 1.2 points "
            "between candidates: this ranking favours what learns fast; use at least --base-epochs 72 --epochs 24"
        )
        document = found.as_document()
        assert document["sentence"] == found.sentence
        assert document["enough"] == {"epochs": 24, "base_epochs": 72, "is_lower_bound": True}

    def test_before_there_are_candidates_the_margin_counts_and_no_budget_is_advised(self) -> None:
        found = slope(settings(), [record(0, 0.514)], base=0.479)
        assert found is not None
        assert (found.difference, found.architectures) == (MARGIN, 0)
        assert found.sentence == (
            "the stock model still gains 3.5 points in another 8 epochs (90 %: 2.8 to 4.2), more than the 0.5 "
            "points that matter: candidates that differ by less are ranked by how fast they learn; how many "
            "epochs are enough is told from 4 architectures on"
        )
        assert found.advised is None

    def test_architectures_of_another_member_tell_no_budget(self) -> None:
        found = slope(settings(), [record(0, 0.514)], base=0.479, member="v9t")
        assert found is not None
        assert found.sentence.startswith("the stock model of v9t still gains 3.5 points")
        assert found.sentence.endswith("; how many epochs are enough is told from 4 architectures of v9t on")

    def test_flat_stock_model_is_long_enough(self) -> None:
        found = slope(settings(), [*CANDIDATES, record(3, 0.526)], base=0.510)
        assert found is not None
        assert not found.favours_fast
        assert found.sentence == (
            "the stock model gains 0.4 points in another 8 epochs (90 %: -0.3 to 1.1), no more than the 1.2 points "
            "between candidates: no sign that the budget is too short to rank"
        )

    def test_gain_within_noise_cannot_be_told(self) -> None:
        found = slope(settings(), [record(0, 0.514)], base=0.503, noise=noise(0.5), measure=MEASURE)
        assert found is not None
        assert found.finding is Steepness.NOT_TOLD
        assert found.enough is None
        assert found.sentence == (
            "the stock model gains 1.1 points in another 8 epochs (90 %: -0.2 to 2.4), beside the 0.5 points that "
            "matter: whether the budget is long enough to rank cannot be told; a longer training tells: nas trust "
            "mine --measure"
        )

    def test_loss_says_nothing_about_the_budget(self) -> None:
        found = slope(settings(), [*CANDIDATES, record(3, 0.526)], base=0.531, measure=MEASURE)
        assert found is not None
        assert found.gain == pytest.approx(-1.7)
        assert found.finding is Steepness.NOT_TOLD
        assert found.sentence == (
            "the stock model loses 1.7 points in another 8 epochs (90 %: -2.4 to -1.0): where training costs accuracy, "
            "whether the budget is long enough to rank cannot be told; a longer training tells: nas trust "
            "mine --measure"
        )

    def test_equal_gain_and_difference_are_not_told_apart(self) -> None:
        found = slope(settings(), [*CANDIDATES, record(3, 0.526)], base=0.502, noise=noise(0.1))
        assert found is not None
        assert found.gain == pytest.approx(1.2)
        assert found.difference == pytest.approx(1.2)
        assert found.finding is Steepness.NOT_TOLD

    def test_more_seeds_narrow_the_interval(self) -> None:
        wide, narrow = (
            slope(settings(), [record(0, 0.514)], base=0.5, longer=[End(24, 0.52, seeds)], noise=noise(0.5))
            for seeds in (1, 5)
        )
        assert wide is not None
        assert narrow is not None
        assert wide.gain == narrow.gain == pytest.approx(0.3)
        assert narrow.high - narrow.low == pytest.approx((wide.high - wide.low) * (1.2 / 2) ** 0.5)

    def test_equal_lengths_count_as_seeds_of_one(self) -> None:
        one = slope(settings(), [record(0, 0.5)], base=0.4, longer=[End(24, 0.53, 2), End(24, 0.5, 1)])
        other = slope(settings(), [record(0, 0.5)], base=0.4, longer=[End(24, 0.52, 3)])
        assert one is not None
        assert other is not None
        assert one.gain == pytest.approx(other.gain)
        assert one.low == pytest.approx(other.low)

    @pytest.mark.parametrize(("true", "finding"), [(0.5, Steepness.STEEP), (0.499, Steepness.FLAT)])
    def test_a_wrong_finding_is_made_in_at_most_five_per_cent(self, true: float, finding: Steepness) -> None:
        """At the difference itself either finding would be wrong; the interval is that of the true noise."""
        rng = np.random.default_rng(0)
        found = [
            slope(
                settings(),
                [record(0, 0.5 + 0.003 * one)],
                base=0.4,
                longer=[End(24, 0.5 + 2 * true / 100 + 0.003 * other)],
            )
            for one, other in rng.standard_normal((2000, 2))
        ]
        wrong = np.mean([one is not None and one.finding is finding for one in found])
        assert 0.03 < wrong < 0.065

    def test_longer_training_gives_the_exponent(self) -> None:
        points = [(24, 0.6 - 2.4 / 24), (32, 0.6 - 2.4 / 32), (48, 0.6 - 2.4 / 48)]
        found = slope(
            settings(), [record(0, points[1][1])], base=points[0][1], longer=[End(24, points[2][1])], noise=noise(0.01)
        )
        assert found is not None
        assert found.enough is not None
        assert not found.enough.is_lower_bound
        assert found.enough.epochs == pytest.approx(8 * found.gain / MARGIN, abs=1)

    def test_longer_training_shows_a_gain_that_a_short_one_does_not(self) -> None:
        """The digits of the preset quick: three further epochs lose what six had gained."""
        stock = [record(0, 0.379)]
        short = slope(settings(base=6, epochs=3), stock, base=0.385)
        assert short is not None
        assert (short.finding, short.is_longer) == (Steepness.NOT_TOLD, False)
        found = slope(settings(base=6, epochs=3), stock, base=0.385, longer=[End(9, 0.439)])
        assert found is not None
        assert found.favours_fast
        assert found.gain == pytest.approx(3)

    def test_from_scratch_needs_a_longer_training(self) -> None:
        there = [record(0, 0.4)]
        assert slope(settings(base=None), there, base=None) is None
        found = slope(settings(base=None), there, base=None, longer=[End(24, 0.5)])
        assert found is not None
        assert found.epochs == 8
        assert found.gain == pytest.approx(5)
        assert "--base-epochs" not in found.sentence

    def test_nothing_is_said_before_the_stock_model_has_learned(self) -> None:
        assert slope(settings(), [], base=0.4) is None
        assert slope(settings(), [record(0, 0.514)], base=0.0) is None


class TestDifferenceBetweenCandidates:
    def test_median_ignores_what_failed(self) -> None:
        found = median_difference([*CANDIDATES, record(3, 0.52), record(4, 0.53), record(5, 0.01)])
        assert found is not None
        assert found[0] < 0.02
        assert found[1] == 6

    def test_few_candidates_have_none(self) -> None:
        assert median_difference(CANDIDATES) is None


def test_of_several_stock_models_one_that_advises_a_budget_decides() -> None:
    records = [*CANDIDATES, record(3, 0.526)]
    advising, unknown = slope(settings(), records, base=0.479), slope(settings(), [record(0, 0.514)], base=0.479)
    flat = slope(settings(), records, base=0.510)
    assert advising is not None
    assert unknown is not None
    assert flat is not None
    assert decisive([flat, unknown, advising]) is advising
    assert decisive([flat, unknown]) is unknown
