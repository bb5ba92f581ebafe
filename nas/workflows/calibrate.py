"""Measure the noise between seeds and the slope of the stock model, with the fewest trainings that do.

The stock model and two neighbours, each of which differs from it in one slot, are trained with two seeds at the budget
of a search; the stock model also for three times as many epochs. Of several members each has its stock model and one
neighbour, and each stock model is trained longer: members learn at different speeds. The seeds are the first of the
search, so that its own trial of the stock model is not trained a second time. Both are studies beside the search, and
resume as any other.
"""

import random
from dataclasses import dataclass
from math import ceil
from typing import Any

from nas.settings import Settings
from nas.study.folders import STUDY, command
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.study.trained_again import calibration_of
from nas.workflows.begin import require_same_data
from nas.workflows.derived import derived_study, enqueue_missing, open_beside
from nas.workflows.trainings_plan import TrainingsPlan, number_done, seconds_of_training
from search_spaces import Architecture, JoinedSpace, Space
from search_spaces.errors import StudyError

NEIGHBOURS, SEEDS, LONGER = 2, 2, 3
"""Architectures beside the stock model; seeds of each; factor of the epochs of the longer training."""
_NEIGHBOURS_OF_SEVERAL = 1
"""Architectures beside each of several stock models."""
_ATTEMPTS = 1000


@dataclass(frozen=True, kw_only=True)
class Size:
    """Number of trainings of a calibration.

    Attributes:
        stocks: number of stock models.
    """

    stocks: int

    @property
    def neighbours(self) -> int:
        """Architectures beside each stock model."""
        return NEIGHBOURS if self.stocks == 1 else _NEIGHBOURS_OF_SEVERAL

    @property
    def models(self) -> int:
        """Architectures that are trained with two seeds."""
        return self.stocks * (1 + self.neighbours)

    @property
    def trials(self) -> int:
        """Trainings at the budget of the search."""
        return self.models * SEEDS

    @property
    def budgets(self) -> int:
        """Epochs of a whole calibration, in those of a candidate."""
        return self.trials + LONGER * self.stocks

    @property
    def short_in_words(self) -> str:
        """Models that are trained with two seeds, in words."""
        several = f"{self.stocks} stock models and a neighbour of each"
        return f"{'the stock model and two neighbours' if self.stocks == 1 else several} with two seeds"

    @property
    def longer_in_words(self) -> str:
        """Models that are trained three times as long, in words."""
        return "the stock model" if self.stocks == 1 else "the stock models"


def size_of(space: Space) -> Size:
    """Return the size of the calibration of a search in a space."""
    return Size(stocks=len(_stocks_of(space)))


def _stocks_of(space: Space) -> list[Architecture]:
    """Return the stock models of the members of which architectures are proposed."""
    return [member.stock for member in (space.open_members if isinstance(space, JoinedSpace) else space.members)]


def calibration(search: Study, **changes: Any) -> Study:
    """Create or resume the study that trains the stock model and two neighbours with two seeds.

    Args:
        changes: to the run settings: workers, device, timeout or trial_memory.

    Raises:
        DataError: the data set cannot be trained on any more.
        StudyError: the data set has changed, no neighbour is within the limits, or another process runs the study.
        SpecError: more workers than cores.
    """
    require_same_data(search)
    name, settings = calibration_of(search.name), calibration_settings(search.settings, search.name)
    _require_same_epochs(search, name, settings)
    study = derived_study(search, name, settings, trials=size_of(search.searched).trials, changes=changes)
    enqueue(study)
    return study


def _require_same_epochs(search: Study, name: str, settings: Settings) -> None:
    """Refuse to measure with other epochs what a calibration has measured, such as the one that has set the epochs.

    Raises:
        StudyError: such a calibration exists.
    """
    folder = search.folder.with_name(name)
    if not (folder / STUDY).is_file():
        return
    there = StudyFile.read(folder).settings
    if there.budget.epochs != settings.budget.epochs:
        raise StudyError(
            f"{name}: has measured noise and slope with --epochs {there.budget.epochs}, as "
            f"{command('trust', search.folder)} shows; to measure with --epochs {settings.budget.epochs}, rename the "
            f"folder {folder}, and repeat this"
        )


def plan_of(search: Study, workers: int | None = None) -> TrainingsPlan:
    """Return how many trainings `nas trust --measure` has left for a search, and how long they take.

    Args:
        workers: that train at once; None for those of the search.

    Raises:
        DataError: the data set cannot be trained on any more.
        StudyError: the data set has changed, or a calibration of other epochs exists.
    """
    require_same_data(search)
    name, budget = calibration_of(search.name), search.settings.budget
    _require_same_epochs(search, name, calibration_settings(search.settings, search.name))
    short, longest = (open_beside(search, each) for each in (name, f"{name}-x{LONGER}"))
    done = [0 if study is None else number_done(study.records()) for study in (short, longest)]
    size, stocks = size_of(search.searched), _stocks_of(search.searched)
    left = max(0, size.trials - done[0]), max(0, size.stocks - done[1])
    one = seconds_of_training(search, [stock.fingerprint for stock in stocks], budget.epochs)
    number = workers or search.file.run.workers
    rounds = ceil(left[0] / number) + LONGER * ceil(left[1] / number)
    return TrainingsPlan(
        study=name,
        models=size.models,
        seeds=tuple(budget.seed + repeat for repeat in range(SEEDS)),
        epochs=budget.epochs,
        trainings=sum(left),
        seconds=None if one is None else one * rounds,
    )


def calibration_settings(settings: Settings, search: str) -> Settings:
    """Return the settings of the calibration of a search with these settings.

    Args:
        search: name of the search.
    """
    budget = settings.budget.model_copy(update={"rungs": ()})
    return settings.model_copy(update={"budget": budget, "stopping": None, "seeds": 1, "confirms": search})


def without_calibrated(settings: Settings) -> Settings:
    """Return the settings of a search with one value in place of each that a calibration sets."""
    budget, base = (
        None if each is None else each.model_copy(update={"epochs": 1, "rungs": ()})
        for each in (settings.budget, settings.base)
    )
    return settings.model_copy(update={"budget": budget, "base": base, "seeds": 1})


def enqueue(study: Study) -> None:
    """Enqueue the trainings that a calibration lacks.

    Raises:
        StudyError: no neighbour is within the limits, or another process runs the study.
    """
    with study.supervision_lock.held_at_once(study.already_running()):
        enqueue_missing(study, [*_stocks_of(study.searched), *neighbours(study)], SEEDS)


def longer_stock(short: Study, **changes: Any) -> Study:
    """Create or resume the study that trains the stock models of a calibration three times as long.

    Args:
        changes: to the run settings: workers, device, timeout or trial_memory.

    Raises:
        StudyError: another process runs the study.
        SpecError: more workers than cores.
    """
    budget = short.settings.budget
    grown = budget.model_copy(update={"epochs": LONGER * budget.epochs})
    settings = short.settings.model_copy(update={"budget": grown, "confirms": short.name})
    stocks = _stocks_of(short.searched)
    study = derived_study(short, f"{short.name}-x{LONGER}", settings, trials=len(stocks), changes=changes)
    with study.supervision_lock.held_at_once(study.already_running()):
        enqueue_missing(study, stocks, 1)
    return study


def neighbours(study: Study) -> list[Architecture]:
    """Return two architectures that differ from the stock model in one slot, the same for the same seed.

    Of several members it is one of each; none of a member without any within the limits, of which nothing is searched.

    Raises:
        StudyError: there are not so many within the limits.
    """
    rng = random.Random(study.settings.budget.seed)  # noqa: S311 - proposals, not secrets
    number = size_of(study.searched).neighbours
    found = [one for stock in _stocks_of(study.searched) for one in _neighbours_of(study, stock, number, rng)]
    if len(found) < number:
        raise StudyError(f"{study.name}: no {number} architectures within the limits differ from stock in one slot")
    return found


def _neighbours_of(study: Study, stock: Architecture, number: int, rng: random.Random) -> list[Architecture]:
    """Return at most so many architectures within the limits that differ from a stock model in one slot."""
    space, found = study.space.member_of(stock), dict[str, Architecture]()
    for _ in range(_ATTEMPTS):
        one = space.mutate(stock, rng)
        if one != stock and study.feasible.allows(one):
            found.setdefault(one.fingerprint, one)
        if len(found) == number:
            break
    return list(found.values())
