"""Slope of the stock model of a search that is planned, from the score cache where its trainings are in it."""

from nas.records.record import Record
from nas.report.slope import Slope, slope
from nas.study.score_cache import ScoreCache, training_key, weights_digest
from nas.workflows.plan import Plan
from trials import Ending


def cached_slope(plan: Plan) -> Slope | None:
    """Return what the stock model gains in a candidate's epochs; None unless both of its trainings are in the cache.

    Raises:
        EnvironmentProblem: the checkpoint of the settings cannot be read.
    """
    settings, stock = plan.file.settings, plan.space.stock
    cache = ScoreCache.of_user() if plan.file.run.cache else None
    if settings.base is None or settings.members or cache is None:
        return None
    before = training_key(stock, settings.base, plan.data, weights_digest(settings.base.weights))
    trial = training_key(stock, settings.budget, plan.data, before)
    base, candidate = cache.read(before), cache.read(trial)
    if base is None or candidate is None:
        return None
    record = Record(
        trial=0,
        state="complete",
        ending=Ending.FINISHED.value,
        map50_95=candidate.scores["map50_95"],
        fingerprint=stock.fingerprint,
        picks={},
        role="stock",
    )
    return slope(settings, [record], base=base.scores["map50_95"], measure="nas search --calibrate")
