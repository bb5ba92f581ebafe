"""Find the studies beside a search that train models of it again: with other seeds, longer, or from scratch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from nas.records.record import Record
from nas.records.trial_files import TrialFiles
from nas.settings import Settings
from nas.study.confirmation import have_in_common
from nas.study.folders import STUDY
from nas.study.study_file import StudyFile

_CALIBRATION = "-calibrate"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trainings of a search, or of a study that trains models of it again.

    Attributes:
        records: all of them.
        base: mAP50-95 of the stock model after its training before all trials; None without one.
        bases: the same of several members, by name, without those that have none.
        rungs: accuracies at rungs, by trial and epoch.
        repeats: whether it trains with the budget of the search, so that only seeds differ.
        selects: whether its seeds are those by which the search selects.
    """

    name: str
    settings: Settings
    records: Sequence[Record]
    base: float | None = None
    bases: Mapping[str, float] = field(default_factory=dict)
    rungs: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    repeats: bool = False
    selects: bool = False

    @classmethod
    def of(
        cls,
        folder: Path,
        file: StudyFile,
        records: Sequence[Record],
        *,
        search: Settings | None = None,
        reads_rungs: bool = True,
    ) -> Self:
        """Return the trainings of a study.

        Args:
            folder: of the study.
            file: of the study.
            records: all of them.
            search: settings of the search whose models it trains; None for the search itself.
            reads_rungs: whether the accuracies at rungs are read, from one file a trial.
        """
        settings = file.settings
        return cls(
            name=folder.name,
            settings=settings,
            records=records,
            base=base_accuracy(folder, settings),
            bases=base_accuracies(folder, settings),
            rungs=_rungs(folder, records) if reads_rungs and settings.budget.rungs else {},
            repeats=search is not None and _is_equal_but_seeds(settings, search),
            selects=search is None or settings.budget.seed == search.budget.seed,
        )

    @property
    def epochs(self) -> int:
        """Epochs of a candidate."""
        return self.settings.budget.epochs

    def of_member(self, member: str) -> Self:
        """Return the trainings of one of several members, as those of a single space; all for an empty name."""
        if not member:
            return self
        own = [record for record in self.records if record.member == member]
        return replace(self, records=own, base=self.bases.get(member), bases={})


def base_accuracy(folder: Path, settings: Settings) -> float | None:
    """Return the mAP50-95 after the training of a study's stock model before all trials; None before its end.

    None, too, in a study of several members: no single training is that of all.
    """
    if settings.members:
        return None
    outcome = TrialFiles.of_stock_model(folder).read_outcome() if settings.base is not None else None
    return outcome.get("map50_95") if outcome else None


def base_accuracies(folder: Path, settings: Settings) -> dict[str, float]:
    """Return what `base_accuracy` does of each of several members whose training has a score, by name."""
    if settings.base is None or not settings.members:
        return {}
    outcomes = {
        name: each.read_outcome() for name, each in TrialFiles.of_stock_models(folder, settings.members).items()
    }
    return {name: each["map50_95"] for name, each in outcomes.items() if each and each.get("map50_95") is not None}


def calibration_of(search: str) -> str:
    """Return the name of the study that measures noise and slope of a search."""
    return f"{search}{_CALIBRATION}"


def search_of_calibration(name: str) -> str | None:
    """Return the name of the search that a calibration of this name belongs to; None for any other name."""
    return name.removesuffix(_CALIBRATION) if name.endswith(_CALIBRATION) else None


def measures_noise(file: StudyFile) -> bool:
    """Return whether a study is a calibration: of few seeds, or of one long training of the stock model."""
    before = file.settings.confirms
    return before is not None and (file.name == calibration_of(before) or before.endswith(_CALIBRATION))


def trained_again(search: Path, settings: Settings) -> Iterator[Path]:
    """Yield the folders of the studies that train models of a search again, and of those that train theirs.

    Args:
        search: folder of the search.
        settings: of the search.

    Raises:
        StudyError: the `study.json` of such a study cannot be read.
    """
    for folder in sorted(search.parent.glob(f"{search.name}-*")):
        if not (folder / STUDY).is_file():
            continue
        file = StudyFile.read(folder)
        if file.settings.confirms == search.name and have_in_common(settings, file.settings):
            yield folder
            yield from trained_again(folder, file.settings)


def _is_equal_but_seeds(one: Settings, other: Settings) -> bool:
    """Return whether trainings of two studies differ in nothing but their seeds."""
    seedless = [each.budget.model_copy(update={"seed": 0, "rungs": ()}) for each in (one, other)]
    return seedless[0] == seedless[1] and one.base == other.base and one.subset == other.subset


def _rungs(folder: Path, records: Sequence[Record]) -> dict[int, dict[int, float]]:
    """Return the accuracies of finished trials at validated epochs."""
    epochs = {one.trial: TrialFiles.of(folder, one.trial).read_epochs() for one in records if one.finished}
    return {
        trial: {epoch.epoch: epoch.map50_95 for epoch in each if epoch.map50_95 is not None}
        for trial, each in epochs.items()
    }
