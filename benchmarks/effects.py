"""Coverage of the intervals of `nas effects`, on simulated studies whose effects are planted.

    python benchmarks/effects.py [STUDIES] [TRIALS]

Each study has 12 slots with two operators each. Architectures are drawn as `SearchSpace.sample` draws them; the first
is stock. An accuracy is 0.4 plus the effects plus what the case adds. For each case are printed:

- coverage: share of the 95 % intervals that contain the planted effect, that of an operator alone in the stock model;
  mean over studies with its standard error; a tenth of the studies has at most the coverage of the next column;
- of means: the same for the effect that is the mean over architectures, that is, the additive model which is nearest
  to all architectures. Both effects are equal where effects add up;
- false claims: share of the effects of 0 that are called better or worse;
- wrong sign: share of the other claims whose sign is wrong;
- found: share of effects of at least one point that are claimed with the right sign;
- length: of an interval, in points, mean.

The second group of cases is not as the model assumes.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nas.algorithms import operator_effects
from nas.algorithms.arrays import FloatArray, IndexArray

SLOTS, OPERATORS = 12, 2
EFFECTS = SLOTS * OPERATORS
POINT = 0.01
"""One point of mAP: standard deviation of the noise, and of effects where they are normal."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Simulated study.

    Attributes:
        features: `(trainings, effects)`.
        accuracies: `(trainings,)`.
        effects: planted, each of an operator alone in the stock model, `(effects,)`.
        means: effects as means over architectures, `(effects,)`.
        architectures: index of each training's architecture, `(trainings,)`.
        seeds: index of each training's seed, `(trainings,)`.
        rungs: accuracies at the rungs, `(trainings, rungs)`; None without any.
    """

    features: FloatArray
    accuracies: FloatArray
    effects: FloatArray
    means: FloatArray
    architectures: IndexArray
    seeds: IndexArray
    rungs: FloatArray | None = None

    @classmethod
    def of(cls, features: FloatArray, effects: FloatArray, deviations: FloatArray) -> "Study":
        """Return a study that trained each architecture once; `deviations` is what is added to the sum of effects."""
        trials = len(features)
        return cls(
            features=features,
            accuracies=0.4 + features @ effects + deviations,
            effects=effects,
            means=effects,
            architectures=np.arange(trials),
            seeds=np.zeros(trials, dtype=np.intp),
        )

    def of_rows(self, rows: IndexArray) -> "Study":
        """Return the study with these trainings only."""
        return replace(
            self,
            features=self.features[rows],
            accuracies=self.accuracies[rows],
            architectures=self.architectures[rows],
            seeds=self.seeds[rows],
        )

    @classmethod
    def not_additive(cls, rng: np.random.Generator, trials: int, effects: FloatArray, extra: "Extra") -> "Study":
        """Return a study of an accuracy that is not additive; `extra` is what is added to the sum of effects."""
        features, population = draw(rng, trials), draw(rng, _POPULATION)
        study = cls.of(features, effects, noise(rng, trials) + extra(features))
        design = np.hstack([np.ones((_POPULATION, 1)), population])
        _, *means = np.linalg.lstsq(design, population @ effects + extra(population))[0]
        return replace(study, means=np.array(means))


_POPULATION = 2000
"""Architectures over which effects are means."""
Extra = Callable[[FloatArray], FloatArray]
Case = Callable[[np.random.Generator, int], Study]


def draw(rng: np.random.Generator, trials: int) -> FloatArray:
    """Draw architectures as features, `(trials, effects)`: first a probability of change, then the operators."""
    is_changed = rng.random((trials, SLOTS)) < rng.random((trials, 1))
    is_changed[0] = False
    choices = np.where(is_changed, rng.integers(1, OPERATORS + 1, (trials, SLOTS)), 0)
    return np.concatenate([choices == operator for operator in range(1, OPERATORS + 1)], axis=1).astype(np.float64)


def noise(rng: np.random.Generator, trials: int) -> FloatArray:
    return rng.normal(0.0, POINT, trials)


def normal(rng: np.random.Generator, trials: int) -> Study:
    return Study.of(draw(rng, trials), rng.normal(0.0, POINT, EFFECTS), noise(rng, trials))


def null(rng: np.random.Generator, trials: int) -> Study:
    return Study.of(draw(rng, trials), np.zeros(EFFECTS), noise(rng, trials))


def repeats(rng: np.random.Generator, trials: int) -> Study:
    """Train the best fifth with two more seeds; seeds have an effect, and architectures one that is not additive."""
    once = Study.of(draw(rng, trials), rng.normal(0.0, POINT, EFFECTS), noise(rng, trials))
    first = once.accuracies + noise(rng, trials)
    best = np.argsort(-first)[: trials // 5]
    again = np.concatenate([np.arange(trials), best, best])
    seeds = np.repeat([0, 1, 2], [trials, len(best), len(best)])
    seed_effects = np.array([0.0, *rng.normal(0.0, POINT, 2)])
    study = replace(once.of_rows(again), seeds=seeds)
    repeated = study.accuracies + noise(rng, len(again)) + seed_effects[seeds]
    return replace(study, accuracies=np.where(seeds == 0, first[again], repeated))


def guided(rng: np.random.Generator, trials: int) -> Study:
    """Search: after a fifth of random trials, each changes two slots of the best one so far."""
    effects, deviations, features = rng.normal(0.0, POINT, EFFECTS), noise(rng, trials), draw(rng, trials)
    for trial in range(trials // 5, trials):
        features[trial] = features[np.argmax(features[:trial] @ effects + deviations[:trial])]
        for slot in rng.choice(SLOTS, 2, replace=False):
            features[trial, slot::SLOTS] = np.eye(OPERATORS + 1)[rng.integers(OPERATORS + 1), 1:]
    return Study.of(features, effects, deviations)


def sparse(rng: np.random.Generator, trials: int) -> Study:
    """Give a sixth of the operators an effect of two points, and the others none."""
    effects = np.where(rng.random(EFFECTS) < 1 / 6, rng.choice([-2.0, 2.0], EFFECTS) * POINT, 0.0)
    return Study.of(draw(rng, trials), effects, noise(rng, trials))


def harmful(rng: np.random.Generator, trials: int) -> Study:
    """Make nearly every operator harmful, as a short training does."""
    return Study.of(draw(rng, trials), rng.normal(-POINT, POINT / 2, EFFECTS), noise(rng, trials))


def heavy_tails(rng: np.random.Generator, trials: int) -> Study:
    """Draw noise from a Student t distribution with two degrees of freedom: now and then a training fails."""
    return Study.of(draw(rng, trials), rng.normal(0.0, POINT, EFFECTS), POINT / 2 * rng.standard_t(2, trials))


def interactions(rng: np.random.Generator, trials: int) -> Study:
    """Let every pair of operators interact, with a third of the standard deviation of effects."""
    pairs = np.triu(rng.normal(0.0, POINT / 3, (EFFECTS, EFFECTS)), 1)

    def extra(features: FloatArray) -> FloatArray:
        added: FloatArray = ((features @ pairs) * features).sum(axis=1)
        return added

    return Study.not_additive(rng, trials, rng.normal(0.0, POINT, EFFECTS), extra)


def saturation(rng: np.random.Generator, trials: int) -> Study:
    """Let harm add up less than additively: two harmful operators cost less than the sum of both alone."""
    effects = rng.normal(-POINT, POINT, EFFECTS)

    def extra(features: FloatArray) -> FloatArray:
        total = features @ effects
        added: FloatArray = 0.1 * np.tanh(total / 0.1) - total
        return added

    return Study.not_additive(rng, trials, effects, extra)


def stopped(
    rng: np.random.Generator, trials: int, *, imputed: bool, speeds: float = 0.0, noise_in_common: float = 0.5
) -> Study:
    """Stop the worse half of the trials at a rung, by the accuracy there, so that it has no final one.

    Args:
        rng: source of the draws.
        trials: number of trials that finish.
        imputed: whether the accuracies at the rung are given, so that final ones are imputed.
        speeds: standard deviation, in points, of what operators add to the accuracy at the rung alone.
        noise_in_common: correlation of the noise at the rung and at the end.
    """
    study = normal(rng, 2 * trials)
    deviation = study.accuracies - 0.4 - study.features @ study.effects
    early = noise_in_common * deviation + np.sqrt(1 - noise_in_common**2) * noise(rng, 2 * trials)
    at_rung = 0.25 + study.features @ (0.6 * study.effects + speeds * rng.normal(0.0, POINT, EFFECTS)) + early
    goes_on = np.isin(np.arange(2 * trials), np.argsort(-at_rung)[:trials])
    if not imputed:
        return study.of_rows(np.flatnonzero(goes_on))
    return replace(study, accuracies=np.where(goes_on, study.accuracies, np.nan), rungs=at_rung[:, None])


AS_ASSUMED: dict[str, Case] = {
    "normal effects": normal,
    "no effects": null,
    "repeats with seeds": repeats,
    "guided search": guided,
}
NOT_AS_ASSUMED: dict[str, Case] = {
    "few large effects": sparse,
    "all harmful": harmful,
    "heavy-tailed noise": heavy_tails,
    "interactions": interactions,
    "saturation": saturation,
    "half stopped": partial(stopped, imputed=False),
    "- imputed": partial(stopped, imputed=True),
    "half stopped, speeds": partial(stopped, imputed=False, speeds=0.5),
    "- imputed, speeds": partial(stopped, imputed=True, speeds=0.5),
    "half stopped, alike": partial(stopped, imputed=False, noise_in_common=0.95),
    "- imputed, alike": partial(stopped, imputed=True, noise_in_common=0.95),
}


def figures(study: Study) -> tuple[float, ...]:
    """Return coverages of one study, counts of claims by their truth, and the mean length of its intervals."""
    tried = study.features.any(axis=0)
    fitted = operator_effects.fit(
        study.features[:, tried],
        study.accuracies,
        groups=np.zeros(tried.sum(), dtype=np.intp),
        architectures=study.architectures,
        seeds=study.seeds,
        rungs=study.rungs,
    )
    truth, lower, upper = study.effects[tried], fitted.lower, fitted.upper
    is_claimed, has_right_sign = (lower > 0) | (upper < 0), np.sign(lower + upper) == np.sign(truth)
    is_large, is_zero = np.abs(truth) >= POINT, truth == 0
    return (
        float(((lower <= truth) & (truth <= upper)).mean()),
        float(((lower <= study.means[tried]) & (study.means[tried] <= upper)).mean()),
        float((is_claimed & is_zero).sum()),
        float(is_zero.sum()),
        float((is_claimed & ~is_zero & ~has_right_sign).sum()),
        float((is_claimed & ~is_zero).sum()),
        float((is_claimed & is_large & has_right_sign).sum()),
        float(is_large.sum()),
        float((upper - lower).mean() / POINT),
    )


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def main(studies: int, trials: int) -> None:
    began = time.perf_counter()
    print(f"{studies} studies of {trials} trials, {EFFECTS} effects")
    columns = ("lowest tenth", "of means", "false claims", "wrong sign", "found", "length")
    print(f"{'case':20} {'coverage':>16}", *(f"{column:>12}" for column in columns))
    for title, cases in (("as assumed", AS_ASSUMED), ("not as assumed", NOT_AS_ASSUMED)):
        print(f"{title}:")
        for name, case in cases.items():
            rng = np.random.default_rng(0)
            table = np.array([figures(case(rng, trials)) for _ in range(studies)])
            covered, (false, zero, wrong, claims, found, large) = table[:, 0], table[:, 2:-1].sum(axis=0)
            coverage = f"{covered.mean():.3f} +- {covered.std(ddof=1) / np.sqrt(studies):.3f}"
            cells = [f"{np.quantile(covered, 0.1):.2f}", f"{table[:, 1].mean():.3f}"]
            cells += [share(false, zero), share(wrong, claims), share(found, large), f"{table[:, -1].mean():.1f}"]
            print(f"{name:20} {coverage:>16}", *(f"{cell:>12}" for cell in cells))
    print(f"{(time.perf_counter() - began) / studies / len(AS_ASSUMED | NOT_AS_ASSUMED):.3f} s a study")


if __name__ == "__main__":
    main(*map(int, [*sys.argv[1:], *("200", "40")[len(sys.argv) - 1 :]]))
