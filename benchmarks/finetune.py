"""Which learning rate, and how many epochs, from weights that were trained on other images?

    python -m benchmarks.finetune train --data bccd/data.yaml [--seeds 0 1 2] [--results FILE]
    python -m benchmarks.finetune table [--results FILE]

`train` trains the stock model YOLOv8-n on the built-in digits once for each seed, then from its weights on DATA with
each learning rate and number of epochs below; and as often from random weights. Trainings of one seed see the same
images in the same order, so differences are paired. A line per training is appended to FILE and what FILE has is
skipped, so it may be stopped at any time. A seed takes about 5 minutes of one core on 205 images; the models trained on
digits are in a folder next to FILE, with its name.

Weights of digits stand for released ones, which were trained on far more images: what is found here is not about those.
"""

import argparse
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import one_training, results_file
from search_spaces import load
from trials import Budget, recipes
from trials.budget import Recipe
from trials.data.datasets import DIGITS

RESULTS = Path(__file__).with_name("results") / "finetune.csv"
SPACE, SCALE, IMAGE_SIZE, BATCH = "v8", "n", 128, 8
SOURCE_EPOCHS = 24
EPOCHS = (4, 8, 16)
RATES = (5e-4, 1e-3, 2e-3, 4e-3)
"""Learning rates from the weights of digits; the recipe of inherited weights has the second."""
RANDOM, PRETRAINED = "random", "digits"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Line of the results file: one training.

    Attributes:
        start: weights from which it starts.
    """

    start: str
    learning_rate: float
    epochs: int
    seed: int
    map50_95: float
    cpu_seconds: float

    @property
    def training(self) -> tuple[object, ...]:
        """Key of the training."""
        return (self.start, self.learning_rate, self.epochs, self.seed)


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks."""
    folder = options.results.with_suffix(".bases")
    folder.mkdir(parents=True, exist_ok=True)
    starts = [(PRETRAINED, recipes.INHERITED.model_copy(update={"learning_rate": rate})) for rate in RATES]
    for seed in options.seeds:
        source = folder / f"{SPACE}{SCALE}-{SOURCE_EPOCHS}-{seed}.pt"
        if not source.is_file():
            _trained(DIGITS, recipes.DIGITS_SCRATCH, SOURCE_EPOCHS, seed, keep=source)
        for epochs in EPOCHS:
            for start, recipe in [(RANDOM, recipes.SCRATCH), *starts]:
                weights = source if start == PRETRAINED else None
                key = (start, recipe.learning_rate, epochs, seed)
                if key in {one.training for one in results_file.read(options.results, Result)}:
                    continue
                began = time.process_time()
                accuracy = _trained(options.data, recipe, epochs, seed, weights=weights)
                result = Result(
                    start=start,
                    learning_rate=recipe.learning_rate,
                    epochs=epochs,
                    seed=seed,
                    map50_95=round(accuracy, 5),
                    cpu_seconds=round(time.process_time() - began, 1),
                )
                results_file.append(options.results, [result])
                print(f"{result.map50_95:.4f}  {result.cpu_seconds:.0f} s  {key}", flush=True)


def _trained(
    data: str, recipe: Recipe, epochs: int, seed: int, *, weights: Path | None = None, keep: Path | None = None
) -> float:
    """Train the stock model; return its mAP50-95.

    Args:
        keep: file that gets the weights.
    """
    budget = Budget(
        data=data, epochs=epochs, image_size=IMAGE_SIZE, batch=BATCH, seed=seed, recipe=recipe, weights=weights
    )
    _, scores = one_training.run(load(SPACE, scale=SCALE).stock, budget, keep=keep)
    return scores.map50_95


def table(options: argparse.Namespace) -> None:
    """Print the mean of each start, and its difference to the recipe's learning rate, seed by seed."""
    found: dict[tuple[int, str, float], dict[int, float]] = defaultdict(dict)
    for one in results_file.read(options.results, Result):
        found[one.epochs, one.start, one.learning_rate][one.seed] = 100 * one.map50_95
    usual = recipes.INHERITED.learning_rate
    print("| start | learning rate | epochs | seeds | mAP50-95 | less the recipe's rate, seed by seed | mean |")
    print("|---|---|---|---|---|---|---|")
    for (epochs, start, rate), by_seed in sorted(
        found.items(), key=lambda one: (one[0][0], one[0][1] != RANDOM, one[0])
    ):
        beside = found[epochs, PRETRAINED, usual]
        differences = [by_seed[seed] - beside[seed] for seed in sorted(by_seed.keys() & beside.keys())]
        each = " ".join(f"{one:+.1f}" for one in differences)
        mean = f"{fmean(differences):+.1f}" if differences else ""
        cells = (start, f"{rate:g}", epochs, len(by_seed), f"{fmean(by_seed.values()):.1f}", each, mean)
        print(f"| {' | '.join(map(str, cells))} |")


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, RESULTS, train=train, table=table)
    command["train"].add_argument("--data", required=True, help="data.yaml of the images to tune on")
    command["train"].add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
