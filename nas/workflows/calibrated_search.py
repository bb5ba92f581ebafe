"""Set epochs and seeds of a search from a calibration: `nas search --calibrate`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from nas.algorithms.seed_noise import SeedNoise, least_difference
from nas.defaults import MARGIN
from nas.report.budget import seeds_that_detect
from nas.report.slope import Slope, Steepness
from nas.report.trusting import noise_of, slope_of
from nas.study.study import Study
from nas.study.trained_again import Trained
from nas.words import with_unit
from nas.workflows.calibrate import BUDGETS, enqueue, longer_stock
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import Search, measure
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from search_spaces.errors import StudyError

MOST_GROWTH = 4
"""Largest factor by which a calibration lets the epochs grow."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Request with the epochs and seeds that a calibration has chosen.

    Attributes:
        noise: between seeds, in points.
        slope: of the stock model.
        is_bounded: whether the slope asks for more epochs than a calibration sets.
        has_base: whether the stock model is trained before all trials.
    """

    request: Request
    noise: SeedNoise
    slope: Slope
    is_bounded: bool
    has_base: bool

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was measured, and what follows from it, in words."""
        noise, new = self.noise, self.request
        deviation = f"{noise.deviation:.2f} points between seeds ({noise.low:.2f} to {noise.high:.2f})"
        told = "" if self.slope.finding is not Steepness.NOT_TOLD else ": not told from noise, so epochs stay"
        bound = f", at most {MOST_GROWTH} times as many" if self.is_bounded else ""
        least = least_difference(noise, new.seeds)
        base = f"--base-epochs {new.base_epochs} " if self.has_base else ""
        return (
            f"noise: {deviation}; {with_unit(new.seeds, 'seed')} can tell {least:.1f} points",
            f"slope: the stock model {self.slope.amount}, beside the {MARGIN:g} that matter{told}",
            f"so the search trains with {base}--epochs {new.epochs}{bound}, --seeds {new.seeds}",
        )


def seconds(request: Request, plan: Plan) -> float:
    """Estimate how long a calibration takes, by timing a few steps of the stock model.

    Raises:
        LatencyError: a step failed, as a trial's would.
    """
    found = measure(plan.space, Search.of(request, plan.space), CheckCache(None))
    return found.base + BUDGETS * found.stock / plan.file.run.workers


def calibrated(request: Request, plan: Plan, train: Callable[[Study], object]) -> Calibrated:
    """Train a calibration, or what is missing of it, and return the request with the epochs and seeds that follow.

    Args:
        plan: of the calibration.
        train: runs a study.

    Raises:
        StudyError: a training is missing or has failed, or the stock model has learned nothing.
    """
    short = plan.begin()
    enqueue(short)
    longest = longer_stock(short)
    for study in (short, longest):
        if study.remaining_trials(study.records()):
            train(study)
    return chosen(request, *(Trained.of(one.folder, one.file, one.records()) for one in (short, longest)))


def chosen(request: Request, short: Trained, longest: Trained) -> Calibrated:
    """Return the request with the epochs and seeds that follow from a calibration, and the study's name.

    Epochs grow until the stock model gains no more than the points that matter in those of a candidate. Seeds are the
    fewest that tell twice those points.

    Args:
        request: with `calibrate`.
        short: stock model and neighbours with two seeds.
        longest: stock model for three times as many epochs.

    Raises:
        StudyError: a training is missing or has failed, or the stock model has learned nothing.
    """
    noise = noise_of(short, [])
    slope = slope_of(short, [longest])
    if noise is None or slope is None:
        what = "the noise between seeds" if noise is None else "how much the stock model gains"
        raise StudyError(
            f"{short.name} does not show {what}: a training is missing, failed or learned nothing; look at it with: "
            f"nas trials {short.name}, continue with the same command"
        )
    epochs, base = short.epochs, short.settings.base
    wanted = slope.enough.epochs if slope.enough else epochs
    grown = min(wanted, MOST_GROWTH * epochs)
    new = replace(
        request,
        calibrate=False,
        study=short.settings.confirms or request.study,
        epochs=grown,
        base_epochs=request.base_epochs if base is None else ceil(base.epochs * grown / epochs),
        seeds=max(seeds_that_detect(noise), request.seeds),
    )
    return Calibrated(request=new, noise=noise, slope=slope, is_bounded=wanted > grown, has_base=base is not None)
