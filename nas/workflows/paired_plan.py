"""Plan of trainings of several models with the same fresh seeds: what a confirmation and an ablation have in common."""

from dataclasses import dataclass
from typing import Any

from nas.settings import Settings
from nas.study.judging import has_judged
from nas.study.study import Study
from nas.workflows.derived import derived_study, enqueue_missing
from nas.workflows.other_images import growth
from nas.workflows.trainings_plan import TrainingsPlan, seconds_of_training
from search_spaces import Architecture


@dataclass(frozen=True, kw_only=True)
class PairedPlan:
    """Trainings of several models with the same fresh seeds, in a study beside their search; nothing is written yet.

    Attributes:
        search: study whose models they are.
        study: name of the study that trains them.
        earlier: that study, if there is one already.
        settings: of that study.
        models: architectures, the stock model first.
        seeds: with which every model is trained.
        looks: numbers of seeds at which results are due, this one last.
        done: number of trainings that need not be run again.
    """

    search: Study
    study: str
    earlier: Study | None
    settings: Settings
    models: tuple[Architecture, ...]
    seeds: int
    looks: tuple[int, ...]
    done: int

    def of_trainings(self, workers: int | None = None) -> TrainingsPlan:
        """Return how many trainings are left, and how long they take.

        Args:
            workers: that train at once; None for those of the search.
        """
        left = max(0, len(self.models) * self.seeds - self.done)
        epochs, times = self.settings.budget.epochs, growth(self.search.settings.subset, self.settings.subset)
        one = seconds_of_training(self.search, [model.fingerprint for model in self.models], epochs)
        first = times * self._stock_seconds if left else 0.0
        return TrainingsPlan(
            study=self.study,
            models=len(self.models),
            seeds=tuple(self.settings.budget.seed + repeat for repeat in range(self.seeds)),
            epochs=epochs,
            trainings=left,
            seconds=None if one is None else first + times * one * left / (workers or self.search.file.run.workers),
        )

    @property
    def trains_stock_first(self) -> bool:
        """Whether the stock model, whose weights all trainings start from, is to be trained on other images first."""
        if self.settings.base is None or self.settings.subset == self.search.settings.subset:
            return False
        there = None if self.earlier is None else self.earlier.stock_trainings
        return there is None or bool(there.pending or there.failure)

    @property
    def _stock_seconds(self) -> float:
        """Seconds that the search has trained the stock model for, if that is to be done again; 0 otherwise."""
        stocks = self.search.stock_trainings if self.trains_stock_first else ()
        return sum(float(outcome["seconds"]) for one in stocks if (outcome := one.outcome()))

    def begin(self, **changes: Any) -> Study:
        """Create or resume the study; its trainings are enqueued, not run.

        Args:
            changes: to the run settings: workers, device, timeout, trial_memory or margin.

        Raises:
            StudyError: another process runs it.
            SpecError: more workers than cores.
        """
        before = None if self.earlier is None else self.earlier.file.run.margin
        changes |= {"looks": self.looks, "margin": changes.get("margin") or before}
        trials = len(self.models) * self.seeds
        study = derived_study(self.search, self.study, self.settings, trials=trials, changes=changes)
        with study.supervision_lock.held_at_once(study.already_running()):
            enqueue_missing(study, self.models, self.seeds, lost=without_result(study))
        return study


def without_result(study: Study) -> set[int]:
    """Return the finished trainings whose result on the images that judge is lost."""
    judging = study.settings.judging
    if judging is None:
        return set()
    finished = [record.trial for record in study.records() if record.finished]
    return {trial for trial in finished if not has_judged(study.files(trial), judging)}
