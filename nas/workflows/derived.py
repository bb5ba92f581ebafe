"""Create or resume a study that trains some architectures of another one again.

With fresh seeds, all models are trained with the same ones, so that their differences are paired. The queue has the
first seed of all models, then the second of all, so that a study that is interrupted has whole pairs.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nas._version import __version__
from nas.records.record import Record
from nas.records.trial_attributes import REPEAT, ROLE
from nas.report.other_images import change_in_words
from nas.settings import Settings
from nas.study.folders import SPACE, STUDY, default_storage, runs_option, study_folder
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.begin import changed_run, create_or_resume, require_equal_settings, require_same_data
from nas.workflows.other_images import ChosenImages, growth
from search_spaces import Architecture, joined_file
from search_spaces.errors import StudyError
from trials import recipes
from trials.data import holdout
from trials.data.datasets import DIGITS


def derived_study(before: Study, name: str, settings: Settings, *, trials: int, changes: Mapping[str, Any]) -> Study:
    """Create or resume a study beside another, with a copy of its space, its latency table and its sealed images.

    The stock model that the other has trained is copied, where the new study would train the same.

    Args:
        trials: number of its trainings.
        changes: to the run settings of `before`.

    Raises:
        DataError: the list of its sealed images is missing or damaged.
        StudyError: a study of that name exists with other settings, or another process runs it; the user has not named
            the storage.
        SpecError: more workers than cores.
    """
    folder = study_folder(name, before.folder.parent)
    file = StudyFile(
        name=folder.name,
        settings=settings,
        run=changed_run(before.file.run, {**changes, "trials": trials, "earlier": 0}),
        storage=default_storage(folder) if before.database else before.storage_address,
        tracking=before.file.tracking,
        version=__version__,
    )
    table = before.latency_table
    text = joined_file.text(before.folder / SPACE)
    sealed = holdout.read(before.sealed) if before.sealed else None
    study = create_or_resume(folder, file, text, table.recorded if table else None, sealed)
    study.stock_trainings.copy_from(before.stock_trainings)
    return study


def open_beside(before: Study, name: str) -> Study | None:
    """Return the study of that name beside another, whichever study it is derived from; None if there is none."""
    folder = before.folder.with_name(name)
    return Study.open(folder) if (folder / STUDY).is_file() else None


def require_learned(before: Study, *, epochs: int | None, images: ChosenImages | None = None, advice: str) -> None:
    """Refuse to train models of a search again in which nothing was learned, unless in more steps.

    Args:
        epochs: of each training; None for those of the search.
        images: that the trainings read; None for those of the search.
        advice: command that trains them.

    Raises:
        StudyError: nothing was learned, and the trainings would not be longer.
    """
    trained = before.settings.budget.epochs
    warning = before.nothing_learned()
    times = 1.0 if images is None else growth(before.settings.subset, images.subset)
    if warning and (epochs or trained) * times <= trained:
        longer = f"{advice}{runs_option(before.folder.parent)} --epochs {3 * trained}"
        raise StudyError(f"{before.name}: {' '.join(warning)} For longer trainings of these models: {longer}")


def require_same_images(search: Study, earlier: Study | None, images: ChosenImages | None) -> None:
    """Refuse to go on with a derived study that reads other images than its search, if those have changed.

    Args:
        earlier: the derived study, if there is one already.
        images: that are asked for, and were read just now; None if none are.

    Raises:
        StudyError: they have changed.
    """
    if earlier is not None and images is None and earlier.settings.subset != search.settings.subset:
        require_same_data(earlier)


def enqueued_seeds(records: Sequence[Record]) -> int:
    """Return the number of seeds of a derived study; 0 if it was interrupted while its queue was filled."""
    last = max((record.repeat for record in records), default=0)
    return 1 + last if last > 0 else 0


def looks(
    earlier: Study | None, enqueued: Sequence[Record], seeds: int, *, models: Collection[Architecture] = ()
) -> tuple[int, ...]:
    """Return the numbers of seeds at which verdicts on a derived study are due, that of this call last.

    Seeds or models that are added after all trainings have ended are added to a verdict; before that, they only delay
    it.

    Args:
        earlier: the study, if there is one already.
        enqueued: its records.
        seeds: its number of seeds from now on.
        models: that it trains from now on; none are those of before.
    """
    before = enqueued_seeds(enqueued)
    stored = earlier.file.run.looks if earlier is not None else ()
    due = stored or ((before,) if before else ())
    is_extended = {model.fingerprint for model in models} > {record.fingerprint for record in enqueued}
    if not due or (due[-1] == seeds and not is_extended):
        return due or (seeds,)
    was_judged = all(record.ending is not None for record in enqueued)
    return (*due, seeds) if was_judged else (*due[:-1], seeds)


def fresh_settings(
    before: Study,
    earlier: Study | None,
    first_seed: int,
    *,
    epochs: int | None,
    from_scratch: bool = False,
    images: ChosenImages | None = None,
) -> Settings:
    """Return the settings of trainings with fresh seeds; what is not given is as in the earlier call, or in the search.

    Args:
        before: the search.
        earlier: the derived study, if there is one already.
        first_seed: difference to the search's seed.
        epochs: of each training.
        from_scratch: start from random weights.
        images: that the trainings read.
    """
    there = earlier.settings if earlier is not None else None
    settings, budget = before.settings, before.settings.budget
    length = epochs or (there.budget.epochs if there else budget.epochs)
    changed: dict[str, Any] = {"epochs": length, "seed": budget.seed + first_seed, "rungs": ()}
    read = images or ChosenImages.of(there or settings)
    changed_settings: dict[str, Any] = {"stopping": None, "seeds": 1, "confirms": before.name, **read.settings}
    if settings.inherits and (from_scratch or (there is not None and not there.inherits)):
        recipe = recipes.DIGITS_SCRATCH if settings.data == DIGITS else recipes.SCRATCH
        changed |= {"weights": None, "recipe": recipe.model_copy(update={"pgi": budget.recipe.pgi})}
        changed_settings |= {"base": None, "member_weights": ()}
    return settings.model_copy(update={**changed_settings, "budget": budget.model_copy(update=changed)})


def require_same_trainings(earlier: Study, settings: Settings, command: str) -> None:
    """Refuse to add other trainings to a derived study than it has: its results would not mix them.

    Args:
        earlier: the derived study.
        settings: that it would have now.
        command: that goes on with it, without options.

    Raises:
        StudyError: names the options that differ, or else the settings.
    """
    there, where = earlier.settings, runs_option(earlier.folder.parent)
    rename = f"to begin another one, rename the folder {earlier.folder}"
    flags = []
    if there.budget.epochs != settings.budget.epochs:
        flags.append(f"--epochs {there.budget.epochs}, not {settings.budget.epochs}")
    if there.inherits != settings.inherits:
        flags.append("the weights that the search used, not --from-scratch")
    if there.subset != settings.subset:
        flags.append(f"other images ({change_in_words(settings.subset, there.subset)})")
    if flags:
        trained = f"{earlier.name}: its trainings have {' and '.join(flags)}"
        raise StudyError(f"{trained}; go on with them: nas {command}{where}; {rename}")
    require_equal_settings(earlier.name, there, settings, advice=rename)


def enqueue_missing(study: Study, models: Sequence[Architecture], seeds: int, *, lost: Collection[int] = ()) -> None:
    """Enqueue the trainings that the study lacks, seed by seed.

    Args:
        lost: trials whose result is lost, so that they are trained again.
    """
    stocks = {stock.fingerprint for stock in study.space.stocks}
    enqueued = {(record.fingerprint, record.repeat) for record in study.records() if record.trial not in lost}
    for repeat in range(seeds):
        for model in models:
            if (model.fingerprint, repeat) not in enqueued:
                role = {ROLE: "stock"} if model.fingerprint in stocks else {}
                study.enqueue(model, **{REPEAT: repeat}, **role)
