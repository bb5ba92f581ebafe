"""Ablate a trial: train it, itself with the stock layer put back in one slot at a time, and the stock model.

All are trained with the same fresh seeds, other ones than those of the search and of its confirmation, by either of
which the trial may have been selected.
"""

from dataclasses import dataclass

from nas.defaults import ABLATION_SEEDS
from nas.records.paired import LEAST_SEEDS
from nas.study.ablations import FIRST_SEED, Ablated, name_of
from nas.study.folders import command
from nas.study.kinds import require_search
from nas.study.study import Study
from nas.workflows.begin import require_same_data
from nas.workflows.derived import (
    enqueued_seeds,
    fresh_settings,
    looks,
    open_beside,
    require_learned,
    require_same_images,
    require_same_trainings,
)
from nas.workflows.other_images import ChosenImages
from nas.workflows.paired_plan import PairedPlan
from nas.workflows.trainings_plan import number_done
from search_spaces.errors import SpecError, StudyError
from trials import Ending
from trials.data.progress import Progress

_WITH_ARCHITECTURE = frozenset({Ending.FINISHED, Ending.STOPPED})
"""Endings of the trials that can be ablated: their architecture can be trained."""


@dataclass(frozen=True, kw_only=True)
class AblationPlan(PairedPlan):
    """Trainings of an ablation; nothing is written yet.

    Attributes:
        ablated: the trial with its slots.
    """

    ablated: Ablated

    @classmethod
    def of(
        cls,
        search: Study,
        *,
        trial: int,
        seeds: int | None = None,
        epochs: int | None = None,
        fraction: float | None = None,
        val_images: int | None = None,
        progress: Progress | None = None,
    ) -> "AblationPlan":
        """Plan the ablation of a trial, or how one that exists goes on.

        Args:
            search: study with the trial.
            trial: its number.
            seeds: with which every model is trained; those that an earlier call has enqueued remain. None: as before,
                or 3.
            epochs: of each training. None: as before, or those of the search.
            fraction: of the training images that are trained on. None: as before, or those of the search.
            val_images: number of images by which the models are compared. None: as before, or those of the search.
            progress: called with how many of how many images were opened, if that takes longer than two seconds.

        Raises:
            DataError: the data set cannot be trained on any more.
            SpecError: no such trial, fewer than two seeds, or a fraction without an image.
            StudyError: the trial is stock or has failed; no slot can be put back; the data set has changed; the
                ablation exists with other settings; nothing was learned, and no longer trainings are asked for;
                `search` itself trains models again with fresh seeds.
        """
        if seeds is not None and seeds < LEAST_SEEDS:
            raise SpecError(f"seeds: two are the least from which noise can be estimated, got {seeds}")
        require_search(search.folder, search.file, "ablate")
        _require_ablatable(search, trial)
        require_same_data(search)
        ablated = search.ablated(trial)
        if all(reason for _, reason in ablated.parts):
            lines = "; ".join(f"{part.title}: {reason}" for part, reason in ablated.parts)
            raise StudyError(f"trial {trial} of {search.name}: no slot can be put back to stock: {lines}")
        name = name_of(search.name, trial)
        earlier = open_beside(search, name)
        enqueued = earlier.records() if earlier is not None else []
        images = ChosenImages.asked_for(search, fraction=fraction, val_images=val_images, progress=progress)
        require_same_images(search, earlier, images)
        if not enqueued:
            advice = f"{command('ablate', search.folder)} --trial {trial}"
            require_learned(search, epochs=epochs, images=images, advice=advice)
        number = max(seeds or 0, enqueued_seeds(enqueued)) or ABLATION_SEEDS
        settings = fresh_settings(search, earlier, FIRST_SEED, epochs=epochs, images=images)
        if earlier is not None:
            require_same_trainings(earlier, settings, f"ablate {search.name} --trial {trial}")
        return cls(
            search=search,
            study=name,
            earlier=earlier,
            ablated=ablated,
            settings=settings,
            models=tuple(ablated.models),
            seeds=number,
            looks=looks(earlier, enqueued, number),
            done=number_done(enqueued),
        )


def _require_ablatable(search: Study, trial: int) -> None:
    """Refuse a trial whose architecture is stock, or has not been trained with success; an unknown one comes later.

    Raises:
        StudyError: it is one of those.
    """
    for record in search.records():
        if record.trial != trial:
            continue
        if record.fingerprint in {stock.fingerprint for stock in search.space.stocks}:
            raise StudyError(f"trial {trial} of {search.name} is the stock model: it has no slot to put back")
        if record.ending not in _WITH_ARCHITECTURE:
            which = f"trial {trial} of {search.name} is {record.status}"
            raise StudyError(f"{which}, without a score; ablate one that has finished")
