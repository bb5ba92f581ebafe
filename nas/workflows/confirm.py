"""Confirm a search: train its finalists and the stock model with fresh seeds, which judge what the search selected.

A search shows the best of many scores, and the best is in part luck. Seeds that selected an architecture say nothing
about its gain; seeds that the search has not used do. All models are trained with the same seeds, so that their
differences are paired. The queue has the first seed of all models, then the second of all, so that a confirmation that
is interrupted has whole pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from nas.defaults import MOST_FINALISTS, SEEDS
from nas.records.paired import LEAST_SEEDS
from nas.records.record import Record
from nas.settings import Judging, Settings
from nas.study.confirmation import FIRST_SEED, name_of
from nas.study.expected_front import expected_front
from nas.study.judging import has_judged, settings_of
from nas.study.kinds import require_search
from nas.study.study import Study
from nas.workflows.begin import require_same_data
from nas.workflows.derived import (
    derived_study,
    enqueue_missing,
    enqueued_seeds,
    fresh_settings,
    looks,
    open_beside,
    require_learned,
    require_same_trainings,
)
from nas.workflows.trainings_plan import TrainingsPlan, number_done, seconds_of_training
from search_spaces import Architecture
from search_spaces.errors import DataError, SpecError, StudyError
from trials.data.holdout import LEAST_JUDGING
from trials.data.unseen_images import judging_images


def confirm(
    before: Study,
    *,
    seeds: int | None = None,
    top: int | None = None,
    epochs: int | None = None,
    from_scratch: bool = False,
    **changes: Any,
) -> Study:
    """Create or resume the confirmation of a search; its trainings are enqueued, not run.

    Args:
        seeds: with which every model is trained; those that an earlier call has enqueued remain. None: as before, or 5.
        top: number of finalists, the most accurate first; those that an earlier call has enqueued remain. None: as
            before, or all, at most 8.
        epochs: of each training. None: as before, or those of the search.
        from_scratch: start from random weights.
        changes: to the run settings: workers, device, timeout, trial_memory or margin.

    Raises:
        DataError: the data set cannot be trained on any more, or its `test` split cannot be used.
        StudyError: the front is the stock model alone, or empty; the data set or the images that judge have changed;
            the confirmation exists with other settings; another process runs it; `before` is itself a confirmation,
            an ablation or a calibration; nothing was learned, and no longer trainings are asked for.
        SpecError: more workers than cores, or fewer than two seeds.
    """
    plan = ConfirmationPlan.of(before, seeds=seeds, top=top, epochs=epochs, from_scratch=from_scratch)
    return plan.begin(**changes)


@dataclass(frozen=True, kw_only=True)
class ConfirmationPlan:
    """Trainings of a confirmation; nothing is written yet.

    Attributes:
        search: to be confirmed.
        settings: of the study that trains them.
        models: architectures, the stock model first.
        seeds: with which every model is trained.
        looks: numbers of seeds at which verdicts are due, this one last.
        done: number of trainings that need not be run again.
    """

    search: Study
    settings: Settings
    models: tuple[Architecture, ...]
    seeds: int
    looks: tuple[int, ...]
    done: int

    @classmethod
    def of(
        cls,
        before: Study,
        *,
        seeds: int | None = None,
        top: int | None = None,
        epochs: int | None = None,
        from_scratch: bool = False,
    ) -> Self:
        """Plan a confirmation, or how one that exists goes on; arguments and errors are those of `confirm`."""
        if seeds is not None and seeds < LEAST_SEEDS:
            raise SpecError(f"seeds: two are the least from which noise can be estimated, got {seeds} (5 are usual)")
        require_search(before.folder, before.file, "confirm")
        require_same_data(before)
        earlier = open_beside(before, name_of(before.name))
        enqueued = earlier.records() if earlier is not None else []
        seeds_before = enqueued_seeds(enqueued)
        goes_on = top is None and seeds_before > 0
        if not seeds_before:
            require_learned(before, epochs=epochs, advice=f"nas confirm {before.name}")
        finalists = [] if goes_on else [before.architecture(record) for record in finalists_of(before, top=top)]
        models = {one.fingerprint: one for one in (before.space.stock, *_architectures(earlier, enqueued), *finalists)}
        if len(models) == 1:
            raise StudyError(f"{before.name}: nothing to confirm, its front holds no other model than the stock one")
        number = max(seeds or 0, seeds_before) or SEEDS
        settings = fresh_settings(before, earlier, FIRST_SEED, epochs=epochs, from_scratch=from_scratch)
        settings = settings.model_copy(update={"judging": _judging(before, earlier)})
        if earlier is not None:  # one verdict does not mix trainings of two lengths, or of two kinds of initial weights
            require_same_trainings(earlier, settings, f"confirm {before.name}")
        lost = set() if earlier is None else _without_result(earlier)
        return cls(
            search=before,
            settings=settings,
            models=tuple(models.values()),
            seeds=number,
            looks=looks(earlier, enqueued, number),
            done=number_done([record for record in enqueued if record.trial not in lost]),
        )

    def of_trainings(self, workers: int | None = None) -> TrainingsPlan:
        """Return how many trainings are left, and how long they take.

        Args:
            workers: that train at once; None for those of the search.
        """
        left = max(0, len(self.models) * self.seeds - self.done)
        epochs = self.settings.budget.epochs
        one = seconds_of_training(self.search, [model.fingerprint for model in self.models], epochs)
        return TrainingsPlan(
            study=name_of(self.search.name),
            models=len(self.models),
            seeds=tuple(self.settings.budget.seed + repeat for repeat in range(self.seeds)),
            epochs=epochs,
            trainings=left,
            seconds=None if one is None else one * left / (workers or self.search.file.run.workers),
        )

    def begin(self, **changes: Any) -> Study:
        """Create or resume the study; its trainings are enqueued, not run.

        Args:
            changes: to the run settings: workers, device, timeout or trial_memory.

        Raises:
            StudyError: another process runs it.
            SpecError: more workers than cores.
        """
        name, trials = name_of(self.search.name), len(self.models) * self.seeds
        study = derived_study(self.search, name, self.settings, trials=trials, changes=changes | {"looks": self.looks})
        with study.supervision_lock.held_at_once(study.already_running()):
            enqueue_missing(study, self.models, self.seeds, lost=_without_result(study))
        return study


def finalists_of(before: Study, *, top: int | None = None) -> list[Record]:
    """Return the members of the front that are confirmed, without the stock model, most accurate first.

    The front is that of expected scores, from which part of the luck is gone, if there is one beside the stock model.
    """
    records, stock = before.records(), before.space.stock.fingerprint
    expected = [one for one in expected_front(before, records) if one.fingerprint != stock]
    front = expected or [one for one in before.front(records) if one.fingerprint != stock]
    ranked = sorted(front, key=lambda one: -(one.map50_95 or 0.0) if one.expected is None else -one.expected)
    return ranked[: MOST_FINALISTS if top is None else top]


def _architectures(earlier: Study | None, enqueued: Sequence[Record]) -> list[Architecture]:
    """Return the architectures of a confirmation, in the order of the queue."""
    if earlier is None:
        return []
    first = {record.fingerprint: record for record in reversed(enqueued)}
    return [earlier.architecture(record) for record in sorted(first.values(), key=lambda record: record.trial)]


def _judging(before: Study, earlier: Study | None) -> Judging | None:
    """Return the images that judge: as the confirmation was begun, or as the data set has them now.

    Raises:
        DataError: the images cannot be used, or are too few.
        StudyError: they have changed since the confirmation was begun.
    """
    if earlier is not None:
        _ = earlier.judging  # refuses what has changed
        return earlier.settings.judging
    found = judging_images(before.settings.data, before.sealed)
    if found is not None and len(found.images) < LEAST_JUDGING:
        raise DataError(
            f"{found.images[0]}: the only image of {found.source}; two are the least that judge, 50 are few"
        )
    return settings_of(found)


def _without_result(study: Study) -> set[int]:
    """Return the finished trainings whose result on the images that judge is lost."""
    judging = study.settings.judging
    if judging is None:
        return set()
    finished = [record.trial for record in study.records() if record.finished]
    return {trial for trial in finished if not has_judged(study.files(trial), judging)}
