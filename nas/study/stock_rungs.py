"""Compare the stock models of a study while they are trained: those that are dominated are not trained further."""

from nas.algorithms.dominance import Standing, dominator_of
from nas.records.trial_files import TrialFiles
from nas.study.study import Study
from nas.words import with_unit
from search_spaces import Architecture
from trials import Budget, Ending, Epoch


class StockRungs:
    """Standings of a study's stock models at the rungs of their trainings.

    They are read from the files of the trainings. A machine that shares the study sees those of others once they are
    stored there.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._noise = study, study.settings.stock_noise

    def reason_to_stop(self, stock: Architecture, epoch: Epoch, budget: Budget) -> str:
        """Return why a training is not to go on after an epoch, in words; empty if it is."""
        rungs = frozenset(budget.rungs)
        if epoch.epoch not in rungs:
            return ""
        own = self._study.space.member_name(stock)
        trainings = self._files().items()
        standings = {member: self._standing(model, files, rungs) for member, (model, files) in trainings}
        training = standings.pop(own)
        found = dominator_of(training, standings, epochs=budget.epochs, noise=self._noise)
        if found is None:
            return ""
        after = with_unit(found.rung, "epoch")
        return f"after {after} {found.name} leads by {found.lead:.3f} mAP50-95 and costs no more"

    def _files(self) -> dict[str, tuple[Architecture, TrialFiles]]:
        """Return each stock model with the files of its training, of the last one where it was retried, by member."""
        study = self._study
        if study.settings.stock_only:
            going = [one for one in study.records() if one.ending in {None, Ending.FINISHED, Ending.STOPPED}]
            every = [(study.architecture(one), study.files(one.trial)) for one in going]
        else:
            every = [(one.stock, one.files) for one in study.stock_trainings if not one.failure]
        return {study.space.member_name(architecture): (architecture, files) for architecture, files in every}

    def _standing(self, stock: Architecture, files: TrialFiles, rungs: frozenset[int]) -> Standing:
        if self._study.shared is not None:
            self._study.shared.fetch(files.progress)
        figures = self._study.feasible.figures(stock)
        best, accuracies = 0.0, dict[int, float]()
        for epoch in files.read_epochs():
            best = max(best, epoch.map50_95 or 0.0)
            if epoch.epoch in rungs and epoch.map50_95 is not None:
                accuracies[epoch.epoch] = best
        costs, outcome = tuple(figures[name] for name in self._study.settings.predicted_costs), files.read_outcome()
        return Standing(costs=costs, accuracies=accuracies, end=outcome.get("map50_95") if outcome else None)
