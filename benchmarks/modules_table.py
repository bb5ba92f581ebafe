"""Results of `benchmarks/modules.py` as a table: each operator beside the stock model, over paired seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.algorithms.paired_comparison import Comparison, Finding, compare
from nas.defaults import MARGIN

STOCK = "stock"
LEAST_SEEDS = 3
PLACES = (
    "backbone, early",
    "behind an early stage",
    "downsampling",
    "backbone, late",
    "spatial pyramid",
    "behind the backbone",
    "upsampling",
    "fusion",
    "neck",
    "behind the neck",
)
"""Kinds of place, in the order in which they are listed: that of the layers."""
BEGIN, END = "<!-- table of benchmarks/modules.py -->", "<!-- end of the table -->"
"""Lines of a page between which the table stands."""

FINDINGS = {
    Finding.BETTER: "better",
    Finding.WORSE: "worse",
    Finding.EQUIVALENT: f"as accurate, within {MARGIN:g} points",
    Finding.UNDECIDED: "not told apart from stock",
}
_COLUMNS = ("place", "operator", "mAP50-95, points over stock", "finding", "GFLOPs", "parameters", "inherited")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Line of the results file: one training.

    Attributes:
        budget: epochs of the stock model and of this training, and image size, in words.
        place: kind of place, or `stock`.
        slot: name of the layer, as in `4` and `after-4`; empty for the stock model.
        choice: operator with the parameters that differ from its defaults.
        inherited: share of the parameters that came from the stock model.
        macs: for one image of 640 pixels, deployed; likewise `params`.
    """

    data: str
    budget: str
    space: str
    scale: str
    place: str
    slot: str
    operator: str
    choice: str
    fingerprint: str
    seed: int
    inherited: float
    params: int
    macs: int
    map50_95: float
    map50: float
    cpu_seconds: float

    @property
    def training(self) -> tuple[object, ...]:
        """Key of the training: architectures that are built alike are trained once."""
        return (self.data, self.budget, self.space, self.scale, self.fingerprint, self.seed)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Key of the trainings that are compared with each other."""
        return (self.data, self.budget, self.space, self.scale)

    @property
    def position(self) -> tuple[int, str]:
        """Place among the rows of a table or figure."""
        return PLACES.index(self.place), self.operator.lower()

    @property
    def label(self) -> str:
        """Name of the row in a figure."""
        return f"{self.operator}, {self.place} ({self.slot})"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Line of the file of latencies: a model beside the stock model, timed in turns on one processor."""

    space: str
    scale: str
    slot: str
    choice: str
    fingerprint: str
    image_size: int
    threads: int
    processor: str
    median_ms: float
    stock_ms: float
    ratio: float
    steady: str
    load: float


@dataclass(frozen=True, kw_only=True)
class Worth:
    """An operator in a place beside the stock model: one row of the table.

    Attributes:
        one: one of its trainings, for what all of them share.
        stock: one of the stock model's.
        compared: accuracies in points.
    """

    one: Result
    stock: Result
    compared: Comparison


def groups(results: Sequence[Result]) -> Iterator[tuple[list[Worth], int, int]]:
    """Yield, for each data set and model, its rows, the number of seeds, and how many models lack a seed.

    They come as they were begun; one of which nothing has all seeds is left out. Tests of one group are corrected for
    the number of its rows, by Holm's procedure.
    """
    by_group: dict[object, dict[str, dict[int, Result]]] = {}
    for one in results:
        by_group.setdefault(one.group, {}).setdefault(one.fingerprint, {})[one.seed] = one
    for by_model in by_group.values():
        stock = next((each for each in by_model.values() if any(one.place == STOCK for one in each.values())), {})
        seeds = sorted(stock)
        if len(seeds) < LEAST_SEEDS:
            continue
        others = [each for each in by_model.values() if each is not stock]
        whole = sorted((each for each in others if set(seeds) <= set(each)), key=lambda each: each[seeds[0]].position)
        if not whole:
            continue
        accuracies = np.array([[100 * each[seed].map50_95 for seed in seeds] for each in (stock, *whole)])
        compared = compare(accuracies, margin=MARGIN)
        rows = [
            Worth(one=each[seeds[0]], stock=stock[seeds[0]], compared=comparison)
            for each, comparison in zip(whole, compared, strict=True)
        ]
        yield rows, len(seeds), len(others) - len(whole)


def text(results: Sequence[Result], latencies: Sequence[Latency]) -> str:
    """Return the tables as Markdown, each with a line above it that says what it is of."""
    return "\n".join(line for group in groups(results) for line in _lines(*group, latencies))


def _lines(rows: list[Worth], seeds: int, unfinished: int, latencies: Sequence[Latency]) -> Iterator[str]:
    stock = rows[0].stock
    measured = {one.fingerprint: one for one in latencies}
    is_timed = any(row.one.fingerprint in measured for row in rows)
    alone = sum(row.compared.low > 0 or row.compared.high < 0 for row in rows)
    left = f"; not trained with all seeds yet: {unfinished}" if unfinished else ""
    yield f"**{stock.data}, `{stock.space}` at scale {stock.scale}**: {stock.budget}, {seeds} seeds{left}."
    yield (
        f"The stock model has {2 * stock.macs / 1e9:.2f} GFLOPs and {stock.params / 1e6:.3f} M parameters. {alone} of "
        f"{len(rows)} intervals do not hold 0, where chance alone would make {0.05 * len(rows):.1f}."
    )
    yield ""
    columns = (*_COLUMNS, *(("latency",) if is_timed else ()))
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        one, compared = row.one, row.compared
        cells = [
            f"{one.place} ({one.slot})",
            f"`{one.choice}`",
            f"{compared.difference:+.2f} ({compared.low:+.2f} to {compared.high:+.2f})",
            FINDINGS[compared.finding],
            f"{100 * (one.macs / row.stock.macs - 1):+.1f} %",
            f"{100 * (one.params / row.stock.params - 1):+.1f} %",
            f"{100 * one.inherited:.0f} %",
        ]
        if is_timed:
            timed = measured.get(one.fingerprint)
            cells.append("" if timed is None else f"{100 * (timed.ratio - 1):+.0f} %{_remark(timed)}")
        yield f"| {' | '.join(cells)} |"
    yield ""


def _remark(timed: Latency) -> str:
    return "" if timed.steady == "yes" else ", not steady"


def put(table: str, page: Path) -> None:
    """Write the table into a page, in the place of the one that is there.

    Raises:
        ValueError: the page does not have the two lines.
    """
    written = page.read_text(encoding="utf-8")
    if BEGIN not in written or END not in written:
        raise ValueError(f"{page}: the lines {BEGIN} and {END} are missing")
    before, _, rest = written.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}", encoding="utf-8")
