"""A table of architectures that somebody has trained, each with its accuracy and costs: what `nas bench` searches in.

What is looked up instead of trained costs nothing, so samplers can be compared over as many repeats as it takes.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, nan
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.gaussian_process import Features
from nas.algorithms.pareto import Direction, directions_for
from nas.algorithms.proposer import Candidates
from search_spaces.errors import SpecError, nearest

Column = tuple[str, ...] | tuple[float, ...]
CostFeatures = Literal["all costs", "costs that count", "no costs"]

_NAME, _ACCURACY, _COST_ENDING = "model_name", "mAP_0.5:0.95", "_latency"
_NAMED = re.compile(r"(yolo[34578]|yolo6[sml])-?(?:d(1|33|67|6)w(1|25|5|75)|([nsml]))_(\d+)")
_FILES = "one such as YOLOBench's VOC_scratch_100epochs.csv"
_MODELS = "models are called such as yolo3d1w25_160, yolo6l-d33w5_320 or yolo5n_480"
_SHARES = {"1": 1.0, "67": 0.67, "6": 0.6, "33": 0.33, "75": 0.75, "5": 0.5, "25": 0.25}
_SCALES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0)}
"""Depth and width that a letter stands for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Architectures, one a row.

    Attributes:
        columns: what can be chosen; texts, or numbers above 0.
        accuracies: mAP50-95, 0 to 1.
        costs: the logarithms of the costs that the front is spanned by, a column each, less is better.
        figures: the logarithms of all costs that are known of an architecture, those among them, a column each.
    """

    names: tuple[str, ...]
    columns: Mapping[str, Column]
    accuracies: FloatArray
    costs: FloatArray
    figures: FloatArray
    cost_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of accuracy, and of each cost."""
        return directions_for(costs=len(self.cost_names))

    @cached_property
    def levels(self) -> dict[str, Column]:
        """The different values of each column, ascending."""
        return {name: tuple(np.unique(values).tolist()) for name, values in self.columns.items()}

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Each row's values as places among their column's levels."""
        places = [np.unique(values, return_inverse=True)[1] for values in self.columns.values()]
        return np.array(places, dtype=np.intp).T

    def candidates(self, learned_from: CostFeatures = "all costs") -> Candidates:
        """The rows as a proposer reads them.

        Args:
            learned_from: which costs accuracy is learned from; those that count are known in any case.
        """
        scales = [min_max_scaled(np.log(np.array(values))) for values in self.columns.values() if is_numeric(values)]
        figures = {"all costs": self.figures, "costs that count": self.costs, "no costs": self.costs[:, :0]}
        scales += [min_max_scaled(costs) for costs in figures[learned_from].T]
        texts = [values for values in self.columns.values() if not is_numeric(values)]
        picks = [one_hot(values) / np.sqrt(len(texts)) for values in texts]
        nothing = np.empty((len(self), 0))
        features = Features(np.column_stack([nothing, *scales]), np.hstack([nothing, *picks]))
        return Candidates(features, self.costs)

    def dealt(self, rows: IndexArray, *, with_costs: bool) -> "Table":
        """The same architectures, with the accuracies of other rows; with their costs, too, or with their own."""
        dealt = replace(self, accuracies=self.accuracies[rows])
        return replace(dealt, costs=self.costs[rows], figures=self.figures[rows]) if with_costs else dealt


def is_numeric(values: Column) -> bool:
    """Whether a column's values are more or less of something."""
    return not isinstance(values[0], str)


def min_max_scaled(values: FloatArray) -> FloatArray:
    """From 0 to 1; all 0 if they are all the same."""
    shifted: FloatArray = (values - values.min()) / (np.ptp(values) or 1.0)
    return shifted


def one_hot(values: Column) -> FloatArray:
    """A column for each different text."""
    levels, places = np.unique(values, return_inverse=True)
    return np.eye(len(levels))[places]


def read_yolobench(path: Path, cost: str = "ov_latency") -> Table:
    """A file as YOLOBench publishes it: results/yolobench/*.csv of Deeplite/deeplite-torch-zoo, Apache-2.0.

    A model's name says its family, depth, width and resolution; YOLOv6's three sizes are families of their own.

    Source: Lazarevich et al. 2023, "YOLOBench: Benchmarking efficient object detectors on embedded systems",
    arXiv:2307.13901.

    Args:
        cost: the name of one of its columns of latencies; the others are known as well, as a search knows GFLOPs and
            parameters whatever counts, unless they have gaps.

    Raises:
        SpecError: the file is not such a table.
    """
    lines = _lines(path)
    header = tuple(lines[0][1]) if lines else ()
    mistakes = list(_mistakes_of_header(header, cost))
    seen: set[str] = set()
    for number, record in lines if not mistakes else []:
        mistakes += [f"line {number}: {mistake}" for mistake in _mistakes(record, cost, seen)]
        seen.add(record[_NAME])
    if mistakes:
        raise SpecError(mistakes).within(str(path))
    records = [record for _, record in lines]
    measured = {name: [_number(record[name]) for record in records] for name in header if name.endswith(_COST_ENDING)}
    figures = [values for values in measured.values() if all(0 < value < inf for value in values)]
    said = [_said(record[_NAME]) for record in records]
    return Table(
        names=tuple(record[_NAME] for record in records),
        columns={
            "family": tuple(family for family, _, _, _ in said),
            "depth": tuple(depth for _, depth, _, _ in said),
            "width": tuple(width for _, _, width, _ in said),
            "resolution": tuple(resolution for _, _, _, resolution in said),
        },
        accuracies=np.array([float(record[_ACCURACY]) for record in records]),
        costs=np.log(np.column_stack([measured[cost]])),
        figures=np.log(np.column_stack(figures)),
        cost_names=(cost,),
    )


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The records of a CSV file, each with the number of its line; what is missing in one is empty."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            return [(reader.line_num, record) for record in reader]
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file ({_FILES})") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: cannot be read as CSV, {error} ({_FILES})") from None


def _mistakes_of_header(header: tuple[str, ...], cost: str) -> Iterator[str]:
    """What keeps a file from being a table at all."""
    if not header:
        yield f"there are no rows ({_FILES})"
        return
    for name in (_NAME, _ACCURACY):
        if name not in header:
            yield f"line 1: no column {name!r} ({_FILES})"
    costs = [name for name in header if name.endswith(_COST_ENDING)]
    if not costs:
        yield f"line 1: no column of latencies, {cost!r} or another ({_FILES})"
    elif cost not in costs:
        yield f"line 1: no column of latencies is called {cost!r} ({nearest(cost, costs)})"


def _mistakes(record: Mapping[str, str], cost: str, seen: set[str]) -> Iterator[str]:
    """What is wrong in one row."""
    name = record[_NAME]
    if not _NAMED.fullmatch(name):
        yield f"{_NAME}: no model of YOLOBench's, got {name!r} ({_MODELS})"
    elif name in seen:
        yield f"{_NAME}: {name!r} is there twice (one row for each model)"
    if not 0 <= _number(record[_ACCURACY]) <= 1:
        yield f"{_ACCURACY}: no accuracy, got {record[_ACCURACY]!r} (a number from 0 to 1)"
    if not 0 < _number(record[cost]) < inf:
        yield f"{cost}: no latency, got {record[cost]!r} (a number above 0)"


def _number(text: str) -> float:
    """NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return nan


def _said(name: str) -> tuple[str, float, float, float]:
    """Family, depth, width and resolution in a model's name."""
    found = _NAMED.fullmatch(name)
    assert found  # noqa: S101 - what does not match was refused
    family, depth, width, letter, resolution = found.groups()
    shape = _SCALES[letter] if letter else (_SHARES[depth], _SHARES[width])
    return family, *shape, float(resolution)
