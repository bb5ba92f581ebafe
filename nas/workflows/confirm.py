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
from nas.records.record import Record, stocks_of
from nas.report.confirmations import Confirmation
from nas.report.stock_models import contenders, ordered, rivals_of
from nas.settings import Judging
from nas.study.confirmation import FIRST_SEED, name_of, named_as_confirmations, number_of
from nas.study.expected_front import expected_front
from nas.study.folders import command
from nas.study.judging import images_to_begin_with
from nas.study.kinds import require_search
from nas.study.study import Study
from nas.workflows.begin import require_same_data
from nas.workflows.derived import (
    enqueued_seeds,
    fresh_settings,
    looks,
    require_learned,
    require_same_images,
    require_same_trainings,
)
from nas.workflows.other_images import ChosenImages
from nas.workflows.paired_plan import PairedPlan, without_result
from nas.workflows.trainings_plan import number_done
from search_spaces import Architecture
from search_spaces.errors import SpecError, StudyError
from trials.data.progress import Progress


def confirm(
    before: Study,
    *,
    seeds: int | None = None,
    top: int | None = None,
    epochs: int | None = None,
    from_scratch: bool = False,
    fraction: float | None = None,
    **changes: Any,
) -> Study:
    """Create or resume the confirmation of a search; its trainings are enqueued, not run.

    Args:
        seeds: with which every model is trained; those that an earlier call has enqueued remain. None: as before, or 5.
        top: number of finalists, the most accurate first; those that an earlier call has enqueued remain. None: as
            before, or all, at most 8.
        epochs: of each training. None: as before, or those of the search.
        from_scratch: start from random weights. With it, with `epochs` or with `fraction`, the confirmation with such
            trainings goes on, or another one is begun; otherwise the one that was begun last.
        fraction: of the training images that are trained on. None: as before, or those of the search.
        changes: to the run settings: workers, device, timeout, trial_memory or margin.

    Raises:
        DataError: the data set cannot be trained on any more, or its `test` split cannot be used.
        StudyError: the front is the stock model alone, or empty; the data set or the images that judge have changed;
            a study of its name has other settings; another process runs it; `before` is itself a confirmation,
            an ablation or a calibration; nothing was learned, and no longer trainings are asked for.
        SpecError: more workers than cores, fewer than two seeds, or a fraction without an image.
    """
    plan = ConfirmationPlan.of(
        before, seeds=seeds, top=top, epochs=epochs, from_scratch=from_scratch, fraction=fraction
    )
    return plan.begin(**changes)


_LEAST_MODELS = 2
"""Fewest stock models that can be compared with each other."""


@dataclass(frozen=True, kw_only=True)
class ConfirmationPlan(PairedPlan):
    """Trainings of a confirmation; nothing is written yet.

    Attributes:
        beside: the other confirmations of the search, first begun first.
    """

    beside: tuple[Study, ...]

    @property
    def finalists(self) -> tuple[Architecture, ...]:
        """Models that are judged; of a study of stock models alone all of them, each by the cheaper ones."""
        if self.search.settings.stock_only:
            return self.models
        return tuple(model for model in self.models if not model.is_stock)

    @property
    def stocks(self) -> int:
        """Number of other models, stock ones, with which they are compared."""
        return len(self.models) - len(self.finalists)

    @property
    def others(self) -> str:
        """The other confirmations in words, with the epochs of their trainings."""
        named = [Confirmation(name=one.name, settings=one.settings, records=one.records()) for one in self.beside]
        return ", ".join(one.describe(self.search.settings) for one in named)

    @classmethod
    def of(
        cls,
        before: Study,
        *,
        seeds: int | None = None,
        top: int | None = None,
        epochs: int | None = None,
        from_scratch: bool = False,
        fraction: float | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Plan a confirmation, or how one that exists goes on; arguments and errors are those of `confirm`.

        Args:
            progress: called with how many of how many images were opened, if that takes longer than two seconds.
        """
        if seeds is not None and seeds < LEAST_SEEDS:
            raise SpecError(f"seeds: two are the least from which noise can be estimated, got {seeds} (5 are usual)")
        require_search(before.folder, before.file, "confirm", stock_only=True)
        require_same_data(before)
        existing = [Study.open(folder) for folder in named_as_confirmations(before.folder)]
        images = ChosenImages.asked_for(before, fraction=fraction, progress=progress)
        earlier = _asked_for(before, existing, epochs=epochs, from_scratch=from_scratch, images=images)
        enqueued = earlier.records() if earlier is not None else []
        require_same_images(before, earlier, images)
        seeds_before = enqueued_seeds(enqueued)
        goes_on = top is None and seeds_before > 0
        if not seeds_before:
            require_learned(before, epochs=epochs, images=images, advice=command("confirm", before.folder))
        finalists = [] if goes_on else finalists_of(before, top=top)
        models = with_stocks(before, finalists, earlier=_architectures(earlier, enqueued))
        number = max(seeds or 0, seeds_before) or SEEDS
        settings = fresh_settings(before, earlier, FIRST_SEED, epochs=epochs, from_scratch=from_scratch, images=images)
        # A confirmation of stock models has several seeds of each, and a front of their means like any other.
        settings = settings.model_copy(update={"judging": _judging(before, earlier), "stock_only": False})
        if earlier is not None:
            require_same_trainings(earlier, settings, f"confirm {before.name}")
        lost = set() if earlier is None else without_result(earlier)
        return cls(
            search=before,
            study=_next_name(before, existing) if earlier is None else earlier.folder.name,
            earlier=earlier,
            beside=tuple(one for one in existing if one is not earlier),
            settings=settings,
            models=models,
            seeds=number,
            looks=looks(earlier, enqueued, number, models=models),
            done=number_done([record for record in enqueued if record.trial not in lost]),
        )


def with_stocks(
    before: Study, finalists: Sequence[Record], *, earlier: Sequence[Architecture] = ()
) -> tuple[Architecture, ...]:
    """Return the models of a confirmation: the stock models with which finalists are compared, then the finalists.

    Finalists that are stock models, of a study of these alone, are compared with each other.

    Args:
        earlier: models that are trained already.

    Raises:
        StudyError: there is nothing to compare.
    """
    of_stocks = before.settings.stock_only
    stocks = [] if of_stocks else _stocks_beside(before, finalists)
    models = {one.fingerprint: one for one in (*stocks, *earlier, *map(before.architecture, finalists))}
    if of_stocks and len(models) < _LEAST_MODELS:
        raise StudyError(
            f"{before.name}: nothing to confirm, one model leads all others by more than noise and costs no more, or "
            f"no other has a score ({command('confirm', before.folder)} --top 2 compares the two most accurate anyway)"
        )
    if not of_stocks and all(model.is_stock for model in models.values()):
        raise StudyError(f"{before.name}: nothing to confirm, its front holds no other model than the stock one")
    return tuple(models.values())


def _stocks_beside(before: Study, finalists: Sequence[Record]) -> list[Architecture]:
    """Return the stock models with which finalists are compared: that of the space, or several of a joined one."""
    if not before.settings.members:
        return [before.space.stock]
    rivals = rivals_of(finalists, stocks_of(before.records()), before.settings)
    return [before.architecture(one) for one in rivals]


def finalists_of(before: Study, *, top: int | None = None) -> list[Record]:
    """Return the members of the front that are confirmed, without the stock model, most accurate first.

    The front is that of expected scores, from which part of the luck is gone, if there is one beside the stock model.
    Of stock models alone those that could be on the front, or with `top` the most accurate of all.
    """
    records, stocks = before.records(), {stock.fingerprint for stock in before.space.stocks}
    if before.settings.stock_only:
        every = [one for one in ordered(records) if one.finished and one.within]
        return contenders(every, before.settings)[:MOST_FINALISTS] if top is None else every[:top]
    expected = [one for one in expected_front(before, records) if one.fingerprint not in stocks]
    front = expected or [one for one in before.front(records) if one.fingerprint not in stocks]
    ranked = sorted(front, key=lambda one: -(one.map50_95 or 0.0) if one.expected is None else -one.expected)
    return ranked[: MOST_FINALISTS if top is None else top]


def _asked_for(
    before: Study,
    existing: Sequence[Study],
    *,
    epochs: int | None,
    from_scratch: bool,
    images: ChosenImages | None,
) -> Study | None:
    """Return the confirmation that goes on; None if another one is to be begun.

    One verdict does not mix trainings of two lengths, of two kinds of initial weights, or on other images. So with any
    of these options it is the one with such trainings, otherwise the one that was begun last.

    Args:
        before: the search.
        existing: its confirmations, first begun first.
        images: that are asked for; None for those of the search.
    """
    if epochs is not None or from_scratch or images is not None:
        inherits = before.settings.inherits and not from_scratch
        subset = before.settings.subset if images is None else images.subset
        existing = [
            one
            for one in existing
            if one.settings.inherits == inherits
            and one.settings.subset == subset
            and epochs in {None, one.settings.budget.epochs}
        ]
    return existing[-1] if existing else None


def _next_name(before: Study, existing: Sequence[Study]) -> str:
    """Return the name of a confirmation that is to be begun."""
    numbers = [number_of(before.name, one.folder.name) or 1 for one in existing]
    return name_of(before.name, 1 + max(numbers, default=0))


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
    return images_to_begin_with(before.settings.data, before.sealed)
