"""Measure what each operator is worth in each kind of place: accuracy beside the stock model, exact costs, and latency.

    python -m benchmarks.modules train [--data digits DATA.yaml ...] [--only WORD ...] [--seeds N] [--results FILE]
    python -m benchmarks.modules latency [--only WORD ...] [--image-size PX] [--results FILE]
    python -m benchmarks.modules table [--page docs/modules.md] [--results FILE]

`train` puts every operator that a space `*-plus` offers into one layer of each kind (`PLACES_OF`), with the parameters
nearest to its defaults, and trains it for a few epochs from the weights of a trained stock model; so is the stock model
itself. Each seed has a stock model of its own, and two models with the same seed see the same images in the same order:
differences are paired. A line per training is appended to FILE, and what FILE has is skipped, so it may be stopped at
any time and goes on. A data.yaml that does not exist is skipped with a word. All of digits takes about 65 minutes of
one core: 67 models of YOLOv8-n and 31 of YOLOv9-t, three seeds.

`--only` takes words that have to be in `v8-plus n: neck 15 UIB`, any of them.

`latency` times each model beside the stock model, in turns, on an idle machine; it refuses on one that is not.

`table` prints the table, or writes it into a page. The stock models are in a folder next to FILE, with its name. Where
they are gone they are trained again, which gives the same ones on the same kind of machine only: elsewhere begin anew,
with another FILE.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import modules_table, one_training, results_file
from benchmarks.modules_table import STOCK, Latency, Result
from search_spaces import OPERATORS, Architecture, Choice, build, load
from trials import Budget, Costs, recipes
from trials.budget import Recipe
from trials.costing import cost
from trials.data import datasets, digit_scenes
from trials.data.datasets import DIGITS, DataSet
from trials.devices import CPU, processor
from trials.latency import measurement

RESULTS = Path(__file__).with_name("results") / "modules.csv"
DEPLOY_SIZE, BATCH = 640, 8
PLACES_OF = {
    ("v8-plus", "n"): {
        "backbone, late": "8",
        "fusion": "11",
        "downsampling": "5",
        "upsampling": "13",
        "spatial pyramid": "9",
        "behind the backbone": "after-9",
        "neck": "15",
        "behind the neck": "after-15",
        "backbone, early": "4",
        "behind an early stage": "after-4",
    },
    ("v9-plus", "t"): {
        "backbone, late": "8",
        "fusion": "11",
        "downsampling": "5",
        "upsampling": "13",
        "spatial pyramid": "9",
        "behind the backbone": "after-9",
    },
}
"""Slot of each kind of place, by space and scale, in the order of the trainings."""
_IDLE = 0.3
"""Most processes that wait for a processor, in the mean of a minute, on a machine that counts as idle."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How a data set is trained on.

    Attributes:
        base_epochs: of the stock model.
        epochs: of each model, which starts from it.
        scratch: recipe of the first.
        inherited: recipe of the second.
    """

    base_epochs: int
    epochs: int
    image_size: int
    scratch: Recipe
    inherited: Recipe

    def __str__(self) -> str:
        return f"{self.epochs} epochs from a stock model of {self.base_epochs}, {self.image_size} px"


ON_DIGITS = Lengths(
    base_epochs=24, epochs=4, image_size=128, scratch=recipes.DIGITS_SCRATCH, inherited=recipes.DIGITS_INHERITED
)
ON_IMAGES = Lengths(base_epochs=24, epochs=8, image_size=128, scratch=recipes.SCRATCH, inherited=recipes.INHERITED)
"""As `inherit-8` of `benchmarks/recipe.py`, which was measured on BCCD."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One operator in one place, or the stock model."""

    space: str
    scale: str
    place: str
    slot: str
    choice: Choice
    architecture: Architecture

    def __str__(self) -> str:
        return f"{self.space} {self.scale}: {' '.join(filter(None, (self.place, self.slot, str(self.choice))))}"


def candidates(only: Sequence[str] = ()) -> list[list[Candidate]]:
    """Return the stock model and then the operators in their places, of each space; none of a space without any."""
    found = [list(_of_space(name, scale, only)) for name, scale in PLACES_OF]
    return [each for each in found if len(each) > 1]


def _of_space(name: str, scale: str, only: Sequence[str]) -> Iterator[Candidate]:
    space = load(name, scale=scale)
    slots = {slot.name: slot for slot in space.slots}
    stock = Choice(operator=STOCK)
    yield Candidate(space=name, scale=scale, place=STOCK, slot="", choice=stock, architecture=space.stock)
    for place, slot in PLACES_OF[name, scale].items():
        for operator in slots[slot].operators:
            if operator == STOCK:
                continue
            choice = slots[slot].nearest(operator, OPERATORS[operator].complete({}))
            one = Candidate(
                space=name,
                scale=scale,
                place=place,
                slot=slot,
                choice=choice,
                architecture=space.of({slot: choice}),
            )
            if not only or any(word in str(one) for word in only):
                yield one


def trained(
    candidate: Candidate, data: DataSet, lengths: Lengths, seed: int, weights: Path, *, is_base: bool
) -> Result:
    """Train once; the training of the stock model writes the weights from which all others start."""
    budget = Budget(
        data=data.path,
        epochs=lengths.base_epochs if is_base else lengths.epochs,
        image_size=lengths.image_size,
        deploy_size=DEPLOY_SIZE,
        batch=BATCH,
        seed=seed,
        recipe=lengths.scratch if is_base else lengths.inherited,
        weights=None if is_base else weights,
    )
    space = load(candidate.space, scale=candidate.scale)
    counted = cost.table(space, len(data.classes), DEPLOY_SIZE).cost(candidate.architecture)
    costs = Costs(params=counted.params, gflops=counted.gflops)
    began = time.process_time()
    keep = weights if is_base else None
    outcome, scores = one_training.run(candidate.architecture, budget, costs=costs, keep=keep)
    return Result(
        data=data.name,
        budget=str(lengths),
        space=candidate.space,
        scale=candidate.scale,
        place=candidate.place,
        slot=candidate.slot,
        operator=candidate.choice.operator,
        choice=str(candidate.choice),
        fingerprint=candidate.architecture.fingerprint,
        seed=seed,
        inherited=round(outcome.coverage.share if outcome.coverage else 0.0, 4),
        params=counted.params,
        macs=counted.macs,
        map50_95=round(scores.map50_95, 5),
        map50=round(scores.map50, 5),
        cpu_seconds=round(time.process_time() - began, 1),
    )


def train(options: argparse.Namespace) -> None:
    """Train all that the results file lacks, place by place, each model with all seeds."""
    for name in options.data:
        if name != DIGITS and not Path(name).is_file():
            print(f"{name}: skipped, there is no such file", file=sys.stderr)
            continue
        data = datasets.load(name)
        lengths = ON_DIGITS if name == DIGITS else ON_IMAGES
        for of_space in candidates(options.only):
            _train_all(of_space, data, lengths, options)


def _train_all(of_space: Sequence[Candidate], data: DataSet, lengths: Lengths, options: argparse.Namespace) -> None:
    finished = {one.training for one in results_file.read(options.results, Result)}
    group = (data.name, str(lengths), of_space[0].space, of_space[0].scale)
    missing = [
        (one, seed)
        for one in of_space
        for seed in range(options.seeds)
        if (*group, one.architecture.fingerprint, seed) not in finished
    ]
    folder = options.results.with_suffix(".bases")
    folder.mkdir(parents=True, exist_ok=True)
    bases = {
        seed: folder / f"{data.name}-{group[2]}-{group[3]}-{lengths.base_epochs}-{seed}.pt"
        for seed in sorted({seed for _, seed in missing})
    }
    for seed, weights in bases.items():
        if not weights.is_file():
            base = trained(of_space[0], data, lengths, seed, weights, is_base=True)
            print(f"{data.name}  stock model of seed {seed}: {base.map50_95:.4f}  {base.cpu_seconds:.0f} s", flush=True)
    for done, (one, seed) in enumerate(missing, start=1):
        result = trained(one, data, lengths, seed, bases[seed], is_base=False)
        results_file.append(options.results, [result])
        line = f"seed {seed}  {result.map50_95:.4f}  {result.cpu_seconds:.0f} s  {one}"
        print(f"{data.name}  {done}/{len(missing)}  {line}", flush=True)


def latency_file(results: Path) -> Path:
    """Return the file of latencies beside a file of results."""
    return results.with_name(f"{results.stem}-latency.csv")


def latency(options: argparse.Namespace) -> None:
    """Time each model that the file lacks beside the stock model, in turns."""
    load_average = os.getloadavg()[0]
    if load_average > _IDLE:
        sys.exit(f"the machine is busy (load {load_average:.1f}, over {_IDLE:g}): latencies would measure that")
    file = latency_file(options.results)
    threads, name = torch.get_num_threads(), processor()
    key = (options.image_size, threads, name)
    finished = {
        one.fingerprint
        for one in results_file.read(file, Latency)
        if (one.image_size, one.threads, one.processor) == key
    }
    for stock, *others in candidates(options.only):
        reference = _deployed(stock, options.image_size)
        for one in others:
            if one.architecture.fingerprint in finished:
                continue
            compared = measurement.compare(
                _deployed(one, options.image_size), reference, protocol=measurement.protocol_for(CPU)
            )
            timed = Latency(
                space=one.space,
                scale=one.scale,
                slot=one.slot,
                choice=str(one.choice),
                fingerprint=one.architecture.fingerprint,
                image_size=options.image_size,
                threads=threads,
                processor=name,
                median_ms=round(compared.candidate.median_ms, 3),
                stock_ms=round(compared.reference.median_ms, 3),
                ratio=round(compared.ratio, 4),
                steady="yes" if compared.steady else "no",
                load=round(os.getloadavg()[0], 2),
            )
            results_file.append(file, [timed])
            print(f"{timed.median_ms:.1f} ms, stock {timed.stock_ms:.1f}  {one}", flush=True)


def _deployed(candidate: Candidate, image_size: int) -> measurement.Iteration:
    model = build.model(candidate.architecture.document(digit_scenes.CLASSES), digit_scenes.CLASSES).eval()
    model.fuse(verbose=False)
    image = torch.zeros(1, 3, image_size, image_size)
    return measurement.iteration_of(model, image, description=str(candidate))


def table(options: argparse.Namespace) -> None:
    """Print the table, or write it into a page."""
    results = results_file.read(options.results, Result)
    written = modules_table.text(results, results_file.read(latency_file(options.results), Latency))
    if options.page is None:
        print(written)
    else:
        modules_table.put(written, options.page)


def main() -> None:
    """Run the command line."""
    parser, command = results_file.commands(__doc__, RESULTS, train=train, latency=latency, table=table)
    command["train"].add_argument("--data", nargs="+", default=[DIGITS], help="digits, or data.yaml files")
    command["train"].add_argument("--seeds", type=int, default=modules_table.LEAST_SEEDS)
    command["latency"].add_argument("--image-size", type=int, default=DEPLOY_SIZE)
    for name in ("train", "latency"):
        command[name].add_argument("--only", nargs="*", default=[], help="words, one of which a model's line has")
    command["table"].add_argument("--page", type=Path, help="page whose table is written anew")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
