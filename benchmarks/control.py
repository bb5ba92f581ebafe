"""How often a confirmation finds a gain where there is none: a real control.

    python benchmarks/control.py [--data digits|PATH] [--studies 20] [--jobs 2]
    python benchmarks/control.py --table [--results FILE]

Each study searches `control_space/space.yaml`, whose only operator is the stock block under another name: nothing but
random numbers, and cost, tells an architecture from the stock model. Its finalists, at most three, are confirmed with
five fresh seeds. At 5 %, "better" may be said in one of 20 studies. First it is checked that a model of copies has the
stock model's parameters and, with its weights, the same outputs to the bit.

All studies start from one stock model, which is trained on the same subset of images. A study whose front is the stock
model alone has nothing to confirm, and another takes its place. Killed at any time, the same command goes on.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from scipy.stats import binomtest, t

import nas
from benchmarks import results_file
from nas.study.judging import judged_records
from nas.workflows.confirm import finalists_of
from search_spaces import OPERATORS, build, load
from search_spaces.errors import NasError
from trials.data import data_yaml, datasets, image_files
from trials.training.inheritance import inherit

HERE = Path(__file__).parent
SPACE = HERE / "control_space" / "space.yaml"
SEEDS, TOP = 5, 3
SEED_STRIDE = 10_000
"""Difference between the seeds of two studies; a confirmation's begin 1000 above its search's."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Data and budget of all studies of a control."""

    data: str
    train: int
    val: int
    image_size: int
    epochs: int
    base_epochs: int
    trials: int
    runs: Path

    @property
    def name(self) -> str:
        """Name of the data set, then what makes scores comparable."""
        images = f"{self.train}+{self.val} images, {self.image_size} px"
        return f"{images}, {self.base_epochs} + {self.epochs} epochs, {self.trials} trials"

    @property
    def data_name(self) -> str:
        """Name of the data set: `digits`, or the folder of the data.yaml."""
        return Path(self.data).parent.name if Path(self.data).suffix else self.data

    @property
    def folder(self) -> Path:
        """Folder of the studies, of which each setting has another."""
        return self.runs / f"{self.data_name} {self.name}".replace(",", "").replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finalist of a study, or a study without one.

    Attributes:
        finding: of the verdict; `none` for a study without finalists, whose other columns are empty.
        search_difference: to the stock model in the search, in points; likewise what follows.
        accuracies: with each fresh seed.
        stock_accuracies: of the stock model with the same seeds.
        images: that judged.
    """

    data: str
    setting: str
    study: int
    finding: str
    images: str = ""
    architecture: str = ""
    search_difference: float = 0.0
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p_better: float = 1.0
    accuracies: str = ""
    stock_accuracies: str = ""
    seconds: float = 0.0

    @property
    def paired_differences(self) -> list[float]:
        """Differences to the stock model with each fresh seed, in points."""
        pairs = zip(self.accuracies.split(), self.stock_accuracies.split(), strict=True)
        return [float(one) - float(stock) for one, stock in pairs]


def subset(setting: Setting) -> Path:
    """Write a data.yaml with evenly spaced images of a data set, and all of its test split, if it has one."""
    whole = datasets.load(setting.data)
    description = data_yaml.parse(whole.path)
    test = data_yaml.sources(data_yaml.root(whole.path, description), description.get("test"))
    setting.folder.mkdir(parents=True, exist_ok=True)
    for name, sources, wanted in (("train", whole.train, setting.train), ("val", whole.val, setting.val)):
        found = image_files.find(sources, Path(whole.root))
        if len(found) < wanted:
            raise SystemExit(f"--{name}: {whole.path} has {len(found)} images of it, not {wanted}")
        chosen = [found[index * len(found) // wanted] for index in range(wanted)]
        (setting.folder / f"{name}.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    names = dict(enumerate(whole.classes))
    splits: dict[str, Any] = {"train": "train.txt", "val": "val.txt"}
    if test:
        splits["test"] = [str(source) for source in test]
    text = yaml.safe_dump({**splits, "names": names}, sort_keys=False)
    path = setting.folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def stock_weights(setting: Setting) -> Path:
    """Train the stock model from which all studies start, and return its weights."""
    study = nas.search(
        space=SPACE,
        data=subset(setting),
        trials=1,
        epochs=1,
        base_epochs=setting.base_epochs,
        image_size=setting.image_size,
        workers=1,
        study="stock",
        runs=setting.folder,
    )
    training = study.stock_training
    if training is None or not training.is_done:
        raise SystemExit(f"{study.folder}: the stock model was not trained")
    return training.weights.absolute()


def require_equal(weights: Path, classes: int) -> int:
    """Check that a model of copies is the stock model; return the number of copies in it.

    Raises:
        AssertionError: parameters, or outputs with the weights of the stock model, differ in a bit.
    """
    space = load(SPACE)
    copies = space.architecture({f"{slot.name}.operator": "StockCopy" for slot in space.slots})
    stock, copied = (build.model(architecture.document(classes), classes) for architecture in (space.stock, copies))
    for model in (stock, copied):
        if inherit(model, weights).share < 1:
            raise AssertionError("not all parameters are inherited")
    parameters = [dict(model.named_parameters()) for model in (stock, copied)]
    torch.testing.assert_close(*parameters, rtol=0, atol=0)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for training in (True, False):
            outputs = [model.train(training)(images) for model in (stock, copied)]
            torch.testing.assert_close(*outputs, rtol=0, atol=0)
    number = sum(type(module) is OPERATORS["StockCopy"].module for module in copied.modules())
    if number < len(space.slots):
        raise AssertionError("a slot has no copy")
    return number


def run_study(setting: Setting, data: Path, weights: Path, number: int) -> list[Row]:
    """Search, confirm and judge; or go on with that."""
    began, name = time.monotonic(), f"study-{number:03d}"
    study = nas.search(
        space=SPACE,
        data=data,
        weights=weights,
        base_epochs=0,
        trials=setting.trials,
        epochs=setting.epochs,
        image_size=setting.image_size,
        seed=SEED_STRIDE * number,
        workers=1,
        study=name,
        runs=setting.folder,
    )
    row = Row(data=setting.data_name, setting=setting.name, study=number, finding="none")
    if not finalists_of(study, top=TOP):
        return [replace(row, seconds=time.monotonic() - began)]
    verdict = nas.confirm(name, seeds=SEEDS, top=TOP, runs=setting.folder)
    if verdict.reason or verdict.left_out or verdict.unfinished:
        raise SystemExit("\n".join([f"{setting.folder / name}: not all finalists could be judged", *verdict.lines()]))
    seconds, confirmation = time.monotonic() - began, nas.open_study(f"{name}-confirm", runs=setting.folder)
    fresh, _ = judged_records(confirmation.records(), confirmation.settings, confirmation.folder, name)
    stock = next(record.fingerprint for record in fresh if record.role == "stock")
    points = {
        fingerprint: " ".join(
            f"{100 * (record.map50_95 or 0.0):.4f}"
            for record in sorted(fresh, key=lambda one: one.repeat)
            if record.fingerprint == fingerprint and record.finished
        )
        for fingerprint in {record.fingerprint for record in fresh}
    }
    return [
        replace(
            row,
            finding=str(one.finding),
            images=verdict.images,
            architecture=one.summary,
            search_difference=one.search_difference or 0.0,
            difference=one.difference,
            low=one.low,
            high=one.high,
            p_better=one.p_better,
            accuracies=points[one.fingerprint],
            stock_accuracies=points[stock],
            seconds=seconds,
        )
        for one in verdict.finalists
    ]


def run(setting: Setting, studies: int, jobs: int, results: Path) -> None:
    """Run studies until so many have had finalists; each is written to the results as it ends."""
    data, weights = subset(setting), stock_weights(setting)
    classes = len(datasets.load(data).classes)
    print(f"{require_equal(weights, classes)} copies compute what the stock blocks do, to the bit", flush=True)
    done = {row.study: row.finding != "none" for row in results_file.read(results, Row) if is_of(row, setting)}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while (missing := studies - sum(done.values())) > 0:
            first = max(done, default=-1) + 1
            numbers = [number for number in range(first) if number not in done]
            numbers += range(first, first + max(0, missing - len(numbers)))
            futures = {pool.submit(run_study, setting, data, weights, number): number for number in numbers}
            for future in as_completed(futures):
                rows = future.result()
                results_file.append(results, rows)
                done[futures[future]] = rows[0].finding != "none"
                findings = ", ".join(f"{row.finding} ({row.difference:+.2f})" for row in rows)
                print(f"{setting.data_name} {futures[future]:3}: {findings}  {rows[0].seconds:.0f} s", flush=True)


def is_of(row: Row, setting: Setting) -> bool:
    return (row.data, row.setting) == (setting.data_name, setting.name)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a report on each data set and setting."""
    for data, setting in dict.fromkeys((row.data, row.setting) for row in rows):
        mine = [row for row in rows if (row.data, row.setting) == (data, setting)]
        yield f"{data}: {setting}, {SEEDS} fresh seeds"
        yield from report(mine)
        yield ""


def report(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a report on studies of one setting."""
    finalists = [row for row in rows if row.finding != "none"]
    studies = {row.study for row in finalists}
    if not studies:
        yield "  no study has finalists yet"
        return
    yield f"  judged on {finalists[0].images}"
    for finding in ("better", "worse", "equivalent"):
        count = len({row.study for row in finalists if row.finding == finding})
        yield f'  "{finding}" of at least one finalist   {share(count, len(studies))} of studies'
    holding = sum(row.low <= 0 <= row.high for row in finalists)
    yield f"  95 % intervals that hold 0             {share(holding, len(finalists))} of finalists"
    differences = [difference for row in finalists for difference in row.paired_differences]
    deviation = statistics.fmean(statistics.variance(row.paired_differences) for row in finalists) ** 0.5
    zeros = sum(difference == 0 for difference in differences)
    yield f"  sd of a paired difference              {deviation:.2f} points; {zeros} of {len(differences)} are 0"
    stock = [float(value) for row in finalists for value in row.stock_accuracies.split()]
    yield f"  stock model, mAP50-95 in points        {min(stock):.1f} to {max(stock):.1f}"
    yield f"  finalists over stock in the search     {mean_over_studies(finalists, 'search_difference')}"
    yield f"  finalists over stock with fresh seeds  {mean_over_studies(finalists, 'difference')}"
    seconds = statistics.median({row.study: row.seconds for row in finalists}.values())
    yield f"  studies without finalists              {len({row.study for row in rows} - studies)}"
    yield f"  a study                                {seconds:.0f} s (median)"


def mean_over_studies(rows: Sequence[Row], column: str) -> str:
    """Return the mean of a column over studies, each with the mean over its finalists, with its 95 % interval."""
    by_study: dict[int, list[float]] = {}
    for row in rows:
        by_study.setdefault(row.study, []).append(getattr(row, column))
    means = [statistics.fmean(values) for values in by_study.values()]
    mean = statistics.fmean(means)
    if len(means) == 1:
        return f"{mean:+.2f} points"
    reach = t.ppf(0.975, len(means) - 1) * statistics.stdev(means) / len(means) ** 0.5
    return f"{mean:+.2f} points ({mean - reach:+.2f} to {mean + reach:+.2f})"


def share(count: int, total: int) -> str:
    """Return a share with its exact 95 % interval (Clopper and Pearson 1934)."""
    interval = binomtest(count, total).proportion_ci(method="exact")
    return f"{count} of {total}, {count / total:.0%} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=datasets.DIGITS, help="digits, or the path of a data.yaml")
    parser.add_argument("--studies", type=int, default=20, help="number of studies with finalists")
    parser.add_argument("--jobs", type=int, default=2, help="studies at once, each on one core")
    parser.add_argument("--train", type=int, default=64, help="images to train on")
    parser.add_argument("--val", type=int, default=48, help="images to validate on")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1, help="of each candidate")
    parser.add_argument("--base-epochs", type=int, default=30, help="of the stock model")
    parser.add_argument("--trials", type=int, default=6, help="of each search, the stock model's included")
    parser.add_argument("--runs", type=Path, default=Path("runs/control"), help="folder of the studies")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "control.csv")
    parser.add_argument("--table", action="store_true", help="print the table of the results, and run nothing")
    given = vars(parser.parse_args())
    results, only_table = given.pop("results"), given.pop("table")
    studies, jobs = given.pop("studies"), given.pop("jobs")
    setting = Setting(**given)
    try:
        if not only_table:
            run(setting, studies, jobs, results)
    except NasError as error:
        raise SystemExit(str(error)) from None
    print("\n".join(table(results_file.read(results, Row))))


if __name__ == "__main__":
    main()
