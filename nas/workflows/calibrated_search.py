"""Set epochs and seeds of a search from a calibration: `nas search --calibrate`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from nas.algorithms.seed_noise import SeedNoise, least_difference
from nas.defaults import MARGIN
from nas.report.budget import seeds_that_detect
from nas.report.slope import Slope, Steepness
from nas.report.trusting import noise_of, slopes_of
from nas.study.folders import STUDY
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.study.trained_again import Trained
from nas.words import with_unit
from nas.workflows.calibrate import enqueue, longer_stock, size_of
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import measure
from nas.workflows.plan import Plan
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from search_spaces.errors import StudyError

MOST_GROWTH = 4
"""Largest factor by which a calibration lets the epochs grow."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Request with the epochs and seeds that a calibration has chosen.

    Attributes:
        noise: between seeds, in points.
        slope: of the stock model; of several that which decides on the epochs.
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
        bound = f" (at most {MOST_GROWTH} times the epochs of before)" if self.is_bounded else ""
        least = least_difference(noise, new.seeds)
        flags = _flags(new.base_epochs if self.has_base else None, new.epochs, new.seeds)
        return (
            f"noise: {deviation}; {with_unit(new.seeds, 'seed')} can tell {least:.1f} points",
            f"slope: {self.slope.gain_in_words}, beside the {MARGIN:g} that matter{told}",
            f"so the search trains with {flags}{bound}",
        )


def seconds(plan: Plan) -> float:
    """Estimate how long a calibration takes, by timed trainings.

    Raises:
        EstimateError: the stock model cannot be trained, or timing takes too long.
    """
    search = PlannedSearch.of_settings(plan.file.settings, plan.file.run, plan.data, plan.sealed)
    found = measure(plan.space, search, CheckCache.of_user())
    one = found.typical if plan.file.settings.members else found.stock
    return found.once + found.base + size_of(plan.space).budgets * one / plan.file.run.workers


def calibrated(request: Request, plan: Plan, train: Callable[[Study], object]) -> Calibrated:
    """Train a calibration, or what is missing of it, and return the request with the epochs and seeds that follow.

    Args:
        plan: of the calibration.
        train: runs a study.

    Raises:
        StudyError: a training is missing or has failed, or the stock model has learned nothing; the search exists with
            other epochs or seeds.
    """
    short = plan.begin()
    enqueue(short)
    longest = longer_stock(short)
    for study in (short, longest):
        if study.unfinished_trials(study.records()):
            train(study)
    found = chosen(request, *(Trained.of(one.folder, one.file, one.records()) for one in (short, longest)))
    _require_same_budget(found, short.folder.with_name(str(found.request.study)))
    return found


def _require_same_budget(found: Calibrated, search: Path) -> None:
    """Refuse to go on with a search that was begun with other epochs or seeds than a calibration chooses.

    Raises:
        StudyError: it is such a search.
    """
    if not (search / STUDY).is_file():
        return
    there = StudyFile.read(search).settings
    base = None if there.base is None else there.base.epochs
    before = _flags(base, there.budget.epochs, there.seeds)
    new = found.request
    after = _flags(new.base_epochs if found.has_base else None, new.epochs, new.seeds)
    if before != after:
        raise StudyError(
            f"{search.name}: was begun with {before}, and its calibration chooses {after}: give these instead of "
            "--calibrate, with another --study or without --study, to begin a search with them"
        )


def _flags(base: int | None, epochs: int | None, seeds: int) -> str:
    """Return the options of a search that set its epochs and seeds."""
    return f"{'' if base is None else f'--base-epochs {base} '}--epochs {epochs} --seeds {seeds}"


def chosen(request: Request, short: Trained, longest: Trained) -> Calibrated:
    """Return the request with the epochs and seeds that follow from a calibration, and the study's name.

    Epochs grow until the stock model, of several members each, gains no more than the points that matter in those of a
    candidate. Seeds are the fewest that tell twice those points.

    Args:
        request: with `calibrate`.
        short: stock model and neighbours with two seeds.
        longest: stock model for three times as many epochs.

    Raises:
        StudyError: a training is missing or has failed, or the stock model has learned nothing.
    """
    noise = noise_of(short, [])
    slopes = slopes_of(short, [longest])
    slope = None if slopes.missing else slopes.decisive
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
