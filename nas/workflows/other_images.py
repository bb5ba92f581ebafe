"""Choose other images for trainings that repeat those of a search: another fraction of its data set.

They are chosen as those of the search are: by class and by its seed. So those of the smaller number are among those of
the larger.
"""

from dataclasses import dataclass
from typing import Any, Self

from nas.settings import Settings
from nas.study.study import Study
from nas.workflows.amount import number_of
from trials.budget import Subset
from trials.data import datasets, holdout
from trials.data.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ChosenImages:
    """Images that the trainings of a study read.

    Attributes:
        subset: their numbers; None for all.
        fingerprint: of the data set that they are.
    """

    subset: Subset | None
    fingerprint: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those of a study with these settings."""
        return cls(subset=settings.subset, fingerprint=settings.data_fingerprint)

    @classmethod
    def asked_for(
        cls,
        search: Study,
        *,
        fraction: float | None = None,
        val_images: int | None = None,
        progress: Progress | None = None,
    ) -> Self | None:
        """Return the images that are asked for instead of those of a search; None if none are.

        Args:
            fraction: of the images of `train`, without sealed ones; None for as many as the search has read.
            val_images: number of those of `val`, all if there are fewer; None for as many as the search has read.
            progress: called with how many of how many images were opened, if that takes longer than two seconds.

        Raises:
            DataError: the images cannot be used.
            SpecError: a fraction without an image.
        """
        if fraction is None and val_images is None:
            return None
        settings, sealed = search.settings, holdout.read(search.sealed) if search.sealed else None
        labeled = datasets.read_labels(settings.data, sealed=sealed, progress=progress)
        of_train, of_val = (len(split.images) for split in labeled.splits)
        before = settings.subset
        train, val = (before.train, before.val) if before else (of_train, of_val)
        train = train if fraction is None else number_of(fraction, of_train)
        val = val if val_images is None else min(val_images, of_val)
        seed = before.seed if before else settings.budget.seed
        subset = None
        if (train, val) != (of_train, of_val):
            subset = Subset(seed=seed, train=train, val=val, of_train=of_train, of_val=of_val)
        data = datasets.check_images(labeled, sealed=sealed, subset=subset, progress=progress)
        return cls(subset=subset, fingerprint=data.fingerprint)

    @property
    def settings(self) -> dict[str, Any]:
        """Changes to the settings of the search."""
        return {"subset": self.subset, "data_fingerprint": self.fingerprint}


def growth(before: Subset | None, after: Subset | None) -> float:
    """Return how many times as many images an epoch trains on as one of the search does."""
    shares = [1.0 if one is None else one.train / one.of_train for one in (before, after)]
    return shares[1] / shares[0]
