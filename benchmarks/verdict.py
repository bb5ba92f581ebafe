"""How often the verdict of a confirmation is right, on simulated studies of which the truth is known.

python benchmarks/verdict.py [--studies 2000] [--image-studies 500] [--seeds 5] [--csv FILE]
python benchmarks/verdict.py --part gains
python benchmarks/verdict.py --part looks
python benchmarks/verdict.py --part few
python benchmarks/verdict.py --part training

The verdict is spoken by `nas.report.judging.judge`, the code of `nas confirm`, from records that this script makes; it
is told neither the noise nor the truth. Simulated: mAP50-95 in points, with a paired standard deviation of 0.19 between
seeds; a seed moves all models of a study alike, by another 0.1. Noise between seeds: normal; Student's t with three
degrees of freedom and the same deviation ("heavy"); normal with deviations that differ up to fourfold between
architectures ("unequal").

The images are those that the search chose by (0), whose sampling the verdict leaves out and the simulation, too; or 72
or 500 that it has not read. Then an image adds to the difference of two models an effect that all seeds have in common
(standard deviation 2 points for one image: 0.24 for the mean of 72, 0.09 for 500), and one of its own for each seed (3
points: 0.35 and 0.13). The latter is noise between seeds, which is 0.19 in all with 500 images and 0.38 with 72. The
verdict gets accuracies on bootstrap resamples of the images, as from a trial's file, and not these deviations. Beside
it stands what would be claimed if the sample of images were ignored.

Seeds are added in the rows with several looks (5+10: judged with five seeds, then with ten): a gain is claimed, or
found, if it is at any of them.

The old rule (until December 2026) is beside it: the seeds that put an architecture on the Pareto front also judge it,
and a gain is claimed where the best one is above the stock model with each of three seeds.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.algorithms.paired_comparison import Finding
from nas.records.record import Record
from nas.report.judging import judge
from nas.report.verdict import JudgedFinalist
from nas.settings import Judging, Settings
from trials import Budget
from trials.accuracy.resampling import image_weights

FloatArray = NDArray[np.float64]
Finalists = list[JudgedFinalist]
PAIRED_DEVIATION, SEED_EFFECT = 0.19, 0.1
IMAGES, IMAGE_DEVIATION, INTERACTION = (72, 500), 2.0, 3.0
TRAINING_DEVIATION = sqrt(PAIRED_DEVIATION**2 - INTERACTION**2 / max(IMAGES))
"""Standard deviation of paired differences between seeds, without what the images add."""
LEVEL, IMAGE_LEVEL = 50.0, 25.0
"""Accuracy of all models, and how much harder one image is than another, in points."""
FINALISTS, GAINS = (3, 5, 10, 20), (0.1, 0.2, 0.3, 0.5)
FEW_SEEDS = (2, 3, 5)
OLD_SEEDS = 3
RESAMPLES = 200
"""Number of resamples of the images; a confirmation takes 1,000, which would make this script five times as long."""


def normal(rng: np.random.Generator, models: int, seeds: int) -> FloatArray:
    return rng.standard_normal((models, seeds))


def heavy(rng: np.random.Generator, models: int, seeds: int) -> FloatArray:
    return rng.standard_t(3, (models, seeds)) / sqrt(3)


def unequal(rng: np.random.Generator, models: int, seeds: int) -> FloatArray:
    """Return noise of which each architecture has its own deviation, with the usual one in the mean of squares."""
    deviations = np.exp(rng.uniform(-np.log(2), np.log(2), (models, 1)))
    deviations[0] = 1.0
    return rng.standard_normal((models, seeds)) * deviations / np.sqrt((deviations**2).mean())


NOISES: dict[str, Callable[[np.random.Generator, int, int], FloatArray]] = {
    "normal": normal,
    "heavy": heavy,
    "unequal": unequal,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Kind of studies.

    Attributes:
        images: number of unseen ones.
        finalists: their number.
        noise: between seeds.
        gain: true gain of the first finalist.
        looks: numbers of seeds at which it is judged; empty for one look.
        seeds: of one look; 0 for the option's.
        training: factor of the deviation that is left without the images.
    """

    images: int
    finalists: int
    noise: str
    gain: float = 0.0
    looks: tuple[int, ...] = ()
    seeds: int = 0
    training: float = 1.0

    def accuracies(self, rng: np.random.Generator, seeds: int) -> FloatArray:
        """Return accuracies without the effects of images, `(1 + finalists, seeds)`, in points."""
        deviation = TRAINING_DEVIATION if self.images else PAIRED_DEVIATION
        values = NOISES[self.noise](rng, 1 + self.finalists, seeds) * self.training * deviation / sqrt(2)
        values += LEVEL + rng.standard_normal(seeds) * SEED_EFFECT
        values[1] += self.gain
        return values


def on_images(rng: np.random.Generator, values: FloatArray, images: int) -> FloatArray:
    """Return accuracies on each image, `(models, seeds, images)`, from those without its effects, `(models, seeds)`."""
    models, seeds = values.shape
    hardness = IMAGE_LEVEL * rng.standard_normal(images)
    common = IMAGE_DEVIATION / sqrt(2) * rng.standard_normal((models, 1, images))
    own = INTERACTION / sqrt(2) * rng.standard_normal((models, seeds, images))
    return values[:, :, None] + hardness + common + own


def on_resamples(each: FloatArray) -> dict[int, FloatArray]:
    """Return accuracies on resamples of the images, of 1, by trial: model by model, seed by seed."""
    images = each.shape[-1]
    weights = image_weights(images)[:RESAMPLES] / images
    return dict(enumerate(each.reshape(-1, images) @ weights.T / 100))


def judged(
    records: list[Record], images: int = 0, resampled: dict[int, FloatArray] | None = None, look: int = 1
) -> Finalists:
    """Return the finalists of a confirmation as judged, in the order of its models."""
    settings = SETTINGS[images]
    verdict = judge([], records, before=settings, after=settings, study="simulated", look=look, resampled=resampled)
    return sorted(verdict.finalists, key=lambda one: one.fingerprint)


def simulated(rng: np.random.Generator, case: Case, seeds: int) -> tuple[Finalists, Finalists]:
    """Simulate a study; return its finalists as judged, and as judged if the sample of images is ignored."""
    values = case.accuracies(rng, max(case.looks, default=seeds))
    if not case.images:
        looks = [
            judged(records_of(values[:, :number]), look=look) for look, number in enumerate(case.looks or (seeds,), 1)
        ]
        finalists = [best(one) for one in zip(*looks, strict=True)]
        return finalists, finalists
    each = on_images(rng, values, case.images)
    records = records_of(each.mean(axis=2))
    finalists = judged(records, case.images, on_resamples(each))
    return finalists, finalists if case.gain else judged(records)


def best(looks: Sequence[JudgedFinalist]) -> JudgedFinalist:
    """Return a finalist as judged at the first look that claims a gain, else at the last."""
    return next((one for one in looks if one.finding is Finding.BETTER), looks[-1])


def records_of(values: FloatArray) -> list[Record]:
    """Return the records of a confirmation: model by model, seed by seed."""
    return [
        Record(
            trial=model * values.shape[1] + repeat,
            state="complete",
            ending="finished",
            map50_95=accuracy / 100,
            gflops=8.0,
            picks={},
            fingerprint=f"{model:03d}",
            repeat=repeat,
            role="" if model else "stock",
        )
        for model, row in enumerate(values.tolist())
        for repeat, accuracy in enumerate(row)
    ]


def settings_for(images: int) -> Settings:
    judging = Judging(source="test", images=images, fingerprint="simulated") if images else None
    names = {"space": "x", "scale": "t", "space_hash": "", "data": "x", "data_fingerprint": "", "classes": ("x",)}
    return Settings.model_validate({**names, "budget": Budget(data=Path("x"), epochs=20), "judging": judging})


SETTINGS = {images: settings_for(images) for images in (0, *IMAGES)}


def old_rule(values: FloatArray) -> bool:
    """Whether the rule until December 2026 claims a gain."""
    differences = values[1:] - values[0]
    return bool(differences[differences.mean(axis=1).argmax()].min() > 0)


def row_of(case: Case, *, studies: int, seeds: int) -> dict[str, Any]:
    """Return the counts of one kind of studies, as shares with their 95 % intervals."""
    rng = np.random.default_rng(0)
    seeds = case.seeds or seeds
    claimed = found = covered = intervals = ignoring = old = 0
    for _ in range(studies):
        finalists, without = simulated(rng, case, seeds)
        first, *others = finalists
        no_gain = others if case.gain else finalists
        claimed += any(one.finding is Finding.BETTER for one in no_gain)
        ignoring += any(one.finding is Finding.BETTER for one in (without[1:] if case.gain else without))
        found += first.finding is Finding.BETTER
        covered += (first.low <= case.gain <= first.high) + sum(one.low <= 0 <= one.high for one in others)
        intervals += len(finalists)
        old += old_rule(case.accuracies(rng, OLD_SEEDS))
    return {
        "studies": studies,
        "unseen_images": case.images,
        "finalists": case.finalists,
        "noise": case.noise,
        "gain": case.gain,
        "training_noise": case.training,
        "seeds": "+".join(map(str, case.looks or (seeds,))),
        "claimed_without_gain": share(claimed, studies) if len(finalists) > bool(case.gain) else "",
        "gain_found": share(found, studies) if case.gain else "",
        "coverage": share(covered, intervals),
        "claimed_ignoring_images": share(ignoring, studies) if case.images and not case.gain else "",
        "old_rule": share(old, studies) if not (case.images or case.looks or case.seeds) else "",
    }


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z, part = 1.96, successes / total
    middle = (part + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * sqrt(part * (1 - part) / total + z**2 / (4 * total**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def share(count: int, total: int) -> str:
    """Return a share in per cent with its interval: `3.1 (2.4-3.9)`."""
    low, high = wilson(count, total)
    return f"{100 * count / total:.1f} ({100 * low:.1f}-{100 * high:.1f})"


CASES = {
    "null": [Case(images=0, finalists=number, noise=noise) for number in FINALISTS for noise in NOISES],
    "gains": [
        Case(images=images, finalists=number, noise=noise, gain=gain)
        for images, number in ((0, 1), (0, 5), (max(IMAGES), 5))
        for noise in ("normal", "heavy")
        for gain in GAINS
    ],
    "looks": [
        Case(images=0, finalists=number, noise=noise, gain=gain, looks=looks)
        for number in (1, 3, 8)
        for looks in ((5,), (5, 10), (5, 10, 15, 20))
        for noise in ("normal", "heavy")
        for gain in (0.0, 0.2)
    ],
    "images": [
        Case(images=images, finalists=number, noise=noise)
        for images in IMAGES
        for number in FINALISTS
        for noise in ("normal", "heavy")
    ],
    "few": [
        Case(images=images, finalists=number, noise=noise, gain=gain, seeds=seeds)
        for images in (0, *IMAGES)
        for number in (1, 3)
        for seeds in FEW_SEEDS
        for noise, gain in (("normal", 0.0), ("heavy", 0.0), ("unequal", 0.0), ("normal", 0.5))
    ],
    "training": [
        Case(images=images, finalists=1, noise=noise, seeds=seeds, training=factor)
        for images in IMAGES
        for seeds in FEW_SEEDS
        for factor in (3.0, 10.0, 30.0)
        for noise in ("normal", "heavy")
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--image-studies", type=int, default=500, help="of a row with unseen images")
    parser.add_argument("--part", choices=tuple(CASES), help="only these rows")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    cases = [case for part in ([arguments.part] if arguments.part else CASES) for case in CASES[part]]
    print(f"{arguments.seeds} paired seeds; per cent, with 95 % intervals\n")
    rows: list[dict[str, Any]] = []
    for case in cases:
        studies = arguments.image_studies if case.images else arguments.studies
        row = row_of(case, studies=studies, seeds=arguments.seeds)
        if not rows:
            print("  ".join(f"{name:>23}" for name in row))
        rows.append(row)
        print("  ".join(f"{value!s:>23}" for value in row.values()), flush=True)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
