"""Does a teacher make short trainings rank architectures better for the same processor time?

    python benchmarks/teacher.py train [--results FILE] [--teachers stock larger] [--seeds N]
    python benchmarks/teacher.py table [--results FILE]

`train` trains the twelve architectures of `benchmarks/fraction.py` on all of its 4,000 scenes, with Ultralytics'
distillation (`distill_model`, `dis` at its default): from the stock model from which the architectures start, or from a
larger one, YOLOv5 at scale `s`, which is trained once. It appends one line per training to FILE, and skips those that
FILE has. The stock models are those of `fraction.py train --ways whole`, and are trained where they are missing.

`table` compares them with the trainings without a teacher, which are in the results of `fraction.py`: the noise between
seeds, and how well two seeds agree on the order of the architectures.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from unittest import mock

from scipy.stats import kendalltau
from torch import nn, optim

from benchmarks import fraction, results_file
from benchmarks.fraction import Result
from search_spaces import load
from trials import Budget, recipes
from trials.data import digit_scenes
from trials.training import short_training
from trials.training.short_training import ShortTraining

RESULTS = Path(__file__).with_name("results") / "teacher.csv"
TEACHERS = ("stock", "larger")
LARGER_SCALE, LARGER_EPOCHS = "s", 6
NO_TEACHER = "whole"
"""Way of `benchmarks/fraction.py` without a teacher."""


class Distilled(ShortTraining):
    """Short training with a teacher, by Ultralytics' wrapper around the two models."""

    teacher: ClassVar[Path]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.args.distill_model = str(self.teacher)

    def build_optimizer(self, model: nn.Module, *arguments: Any, **options: Any) -> optim.Optimizer:
        """Build the optimizer; new tensors have their names in the wrapper."""
        new = frozenset(f"student_model.{name}" for name in self.coverage.new)
        with mock.patch.object(self, "coverage", mock.Mock(new=new)):
            return super().build_optimizer(model, *arguments, **options)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the wrapped model the average."""
        with super().averaged() as wrapper:
            yield wrapper.get_submodule("student_model")


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks, seed by seed."""
    architectures = fraction.drawn(load(fraction.SPACE), digit_scenes.CLASSES)
    folder = options.results.with_suffix(".bases")
    folder.mkdir(exist_ok=True)
    finished = {(one.way, one.seed, one.fingerprint) for one in results_file.read(options.results, Result)}
    for seed, teacher in product(range(options.seeds), options.teachers):
        weights = folder / f"{NO_TEACHER}-{seed}.pt"
        if not weights.is_file():
            fraction.measured(NO_TEACHER, seed, *architectures[0], weights, is_base=True)
        Distilled.teacher = weights if teacher == "stock" else _larger(folder)
        for done, (architecture, gflops) in enumerate(architectures, start=1):
            if (teacher, seed, architecture.fingerprint) in finished:
                continue
            with mock.patch.object(short_training, "ShortTraining", Distilled):
                result = fraction.measured(NO_TEACHER, seed, architecture, gflops, weights)
            results_file.append(options.results, [Result(**{**vars(result), "way": teacher})])
            line = f"{result.map50_95:.4f}  {result.cpu_seconds:.0f} s  {result.summary}"
            print(f"{teacher}  seed {seed}  {done}/{len(architectures)}  {line}", flush=True)


def _larger(folder: Path) -> Path:
    """Return the weights of the larger model, trained unless they are there."""
    weights = folder / "larger.pt"
    if not weights.is_file():
        data = fraction.data_of(fraction.WAYS[NO_TEACHER], 0)
        budget = Budget(
            data=data.path,
            epochs=LARGER_EPOCHS,
            image_size=fraction.IMAGE_SIZE,
            batch=fraction.BATCH,
            recipe=recipes.DIGITS_SCRATCH,
        )
        document = load(fraction.SPACE, scale=LARGER_SCALE).stock.document(len(data.classes))
        with TemporaryDirectory() as scratch:
            trained = short_training.train(document, budget, data, Path(scratch), lambda *_: True, weights=weights)
        print(f"larger teacher: mAP50-95 {trained.epochs[-1].map50_95:.4f}", flush=True)
    return weights


def table(options: argparse.Namespace) -> None:
    """Print the table, as Markdown."""
    results = [*results_file.read(fraction.RESULTS, Result), *results_file.read(options.results, Result)]
    print("| teacher | trainings | CPU-s each | mean mAP50-95 | sd between architectures | sd between seeds | tau |")
    print("|---|---|---|---|---|---|---|")
    for way in (NO_TEACHER, *TEACHERS):
        accuracy = fraction.scores_of(results, way).accuracy
        tau = fraction.in_words(list(combinations(accuracy, 2)), kendalltau) if len(accuracy) > 1 else "-"
        print(f"| {'none' if way == NO_TEACHER else way} | {fraction.figures(results, way)} | {tau} |")


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, RESULTS, train=train, table=table)
    command["train"].add_argument("--teachers", nargs="*", default=list(TEACHERS), choices=TEACHERS)
    command["train"].add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
