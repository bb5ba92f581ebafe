"""Confirm a search: train its finalists and the stock model with fresh seeds, which judge what the search selected.

A search shows the best of many scores, and the best is in part luck. Seeds that selected an architecture say nothing
about its gain; seeds that the search has not used do. All models are trained with the same seeds, so that their
differences are paired. The queue has the first seed of all models, then the second of all, so that a confirmation that
is interrupted has whole pairs.
"""

from collections.abc import Sequence
from typing import Any

from nas.records.record import Record
from nas.records.trial_attributes import REPEAT, ROLE
from nas.report.defaults import MOST_FINALISTS, SEEDS
from nas.report.verdict import LEAST_SEEDS
from nas.settings import Settings
from nas.study.confirmation import FIRST_SEED, is_confirmation, name_of
from nas.study.expected_front import expected_front
from nas.study.folders import STUDY
from nas.study.study import Study
from nas.workflows.begin import require_equal_settings, require_same_data
from nas.workflows.derived import derived_study
from search_spaces import Architecture
from search_spaces.errors import SpecError, StudyError
from trials import recipes
from trials.data.datasets import DIGITS


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
        changes: to the run settings: workers, device, timeout or trial_memory.

    Raises:
        DataError: the data set cannot be trained on any more.
        StudyError: the front is the stock model alone, or empty; the data set has changed; the confirmation exists with
            other settings; another process runs it; `before` is itself a confirmation.
        SpecError: more workers than cores, or fewer than two seeds.
    """
    if seeds is not None and seeds < LEAST_SEEDS:
        raise SpecError(f"seeds: two are the least from which noise can be estimated, got {seeds} (5 are usual)")
    if is_confirmation(before.file):
        raise StudyError(f"{before.name}: is itself a confirmation; go on with it by: nas confirm {_search(before)}")
    require_same_data(before)
    earlier = _opened(before)
    enqueued = earlier.records() if earlier is not None else []
    seeds_before = _seeds_of(enqueued)
    goes_on = top is None and seeds_before > 0
    finalists = [] if goes_on else [before.architecture(record) for record in finalists_of(before, top=top)]
    models = {one.fingerprint: one for one in (before.space.stock, *_architectures(earlier, enqueued), *finalists)}
    if len(models) == 1:
        raise StudyError(f"{before.name}: nothing to confirm, its front holds no other model than the stock one")
    number = max(seeds or 0, seeds_before) or SEEDS
    settings = _settings(before, earlier, epochs=epochs, from_scratch=from_scratch)
    if earlier is not None:  # one verdict does not mix trainings of two lengths, or of two kinds of initial weights
        advice = f"to begin another confirmation, rename the folder {earlier.folder}"
        require_equal_settings(earlier.name, earlier.settings, settings, advice=advice)
    study = derived_study(before, name_of(before.name), settings, trials=len(models) * number, changes=changes)
    with study.supervision_lock.held_at_once(study.already_running()):
        _enqueue_missing(study, list(models.values()), number)
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


def _opened(before: Study) -> Study | None:
    """Return the study of the confirmation's name, of whichever search; None if there is none."""
    folder = before.folder.with_name(name_of(before.name))
    return Study.open(folder) if (folder / STUDY).is_file() else None


def _architectures(earlier: Study | None, enqueued: Sequence[Record]) -> list[Architecture]:
    """Return the architectures of a confirmation, in the order of the queue."""
    if earlier is None:
        return []
    first = {record.fingerprint: record for record in reversed(enqueued)}
    return [earlier.architecture(record) for record in sorted(first.values(), key=lambda record: record.trial)]


def _seeds_of(enqueued: Sequence[Record]) -> int:
    """Return the number of seeds of a confirmation; 0 if it was interrupted while its queue was filled."""
    last = max((record.repeat for record in enqueued), default=0)
    return 1 + last if last > 0 else 0


def _settings(before: Study, earlier: Study | None, *, epochs: int | None, from_scratch: bool) -> Settings:
    """Return the settings of a confirmation; what is not given is as in the earlier call, or as in the search."""
    there = earlier.settings if earlier is not None else None
    settings, budget = before.settings, before.settings.budget
    length = epochs or (there.budget.epochs if there else budget.epochs)
    changed: dict[str, Any] = {"epochs": length, "seed": budget.seed + FIRST_SEED, "rungs": ()}
    changed_settings: dict[str, Any] = {"stopping": None, "seeds": 1, "confirms": before.name}
    if settings.inherits and (from_scratch or (there is not None and not there.inherits)):
        recipe = recipes.DIGITS_SCRATCH if settings.data == DIGITS else recipes.SCRATCH
        changed |= {"weights": None, "recipe": recipe.model_copy(update={"pgi": budget.recipe.pgi})}
        changed_settings["base"] = None
    return settings.model_copy(update={**changed_settings, "budget": budget.model_copy(update=changed)})


def _enqueue_missing(study: Study, models: Sequence[Architecture], seeds: int) -> None:
    """Enqueue the trainings that the study lacks, seed by seed."""
    stock = study.space.stock.fingerprint
    enqueued = {(record.fingerprint, record.repeat) for record in study.records()}
    for repeat in range(seeds):
        for model in models:
            if (model.fingerprint, repeat) not in enqueued:
                role = {ROLE: "stock"} if model.fingerprint == stock else {}
                study.enqueue(model, **{REPEAT: repeat}, **role)


def _search(confirmation: Study) -> str:
    return str(confirmation.settings.confirms)
