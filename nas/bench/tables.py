"""Tabular benchmark: architectures with their measured accuracy and costs, which `nas bench` looks up.

A look-up takes no training, so that samplers can be compared over many repeats.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, nan, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.algorithms.arrays import FloatArray, IndexArray
from nas.algorithms.gaussian_process import Features
from nas.algorithms.pareto import Direction, directions_for
from nas.algorithms.proposer import Candidates
from nas.samplers.categories import SHARE_OF_MEMBER
from search_spaces.errors import SpecError, nearest, shortened
from search_spaces.files import read_plain

Column = tuple[str, ...] | tuple[float, ...]
CostFeatures = Literal["all", "objectives", "none"]
"""Costs among the features of the surrogate."""
Members = Literal["column", "joined", "apart"]
"""Ways in which families can be features of the surrogate."""
_APART = 1000.0
"""Distance at which the surrogate's kernel is 0, whatever its length scales are."""

_NAME, _ACCURACY, _COST_ENDING = "model_name", "mAP_0.5:0.95", "_latency"
_NAME_PATTERN = re.compile(r"(yolo[34578]|yolo6[sml])-?(?:d(1|33|67|6)w(1|25|5|75)|([nsml]))_([0-9]+)")
_FILES = "one such as YOLOBench's VOC_scratch_100epochs.csv"
_MODELS = "models are called such as yolo3d1w25_160, yolo6l-d33w5_320 or yolo5n_480"
_MOST_PIXELS, _MOST_LATENCY = 8192, 10**9
_SHARES = {"1": 1.0, "67": 0.67, "6": 0.6, "33": 0.33, "75": 0.75, "5": 0.5, "25": 0.25}
_SCALES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0)}
"""Depth and width factors of a letter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Architectures, one row each.

    Attributes:
        names: of the models.
        columns: parameters of the search space; texts, or numbers above 0.
        accuracies: mAP50-95, 0 to 1, `(rows,)`.
        costs: logarithms of the costs among the objectives, less is better, `(rows, costs)`.
        figures: logarithms of all measured costs, these among them, `(rows, measured costs)`.
        cost_names: of the columns of `costs`.
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
        """Directions of accuracy and of each cost."""
        return directions_for(costs=len(self.cost_names))

    @cached_property
    def levels(self) -> dict[str, Column]:
        """Distinct values of each column, ascending."""
        return {name: tuple(np.unique(values).tolist()) for name, values in self.columns.items()}

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Index of each value among its column's levels, `(rows, columns)`."""
        indices = [np.unique(values, return_inverse=True)[1] for values in self.columns.values()]
        return np.array(indices, dtype=np.intp).T

    def candidates(self, cost_features: CostFeatures = "all", members: Members = "column") -> Candidates:
        """Return the rows as candidates of a proposer.

        Args:
            cost_features: costs among the features. The costs among the objectives are known in any case.
            members: what families are to the surrogate: a categorical feature like any other; members of a joined
                space, whose rows share costs and scaling factors; or members of which none says anything of another.
        """
        continuous = [
            min_max_scaled(np.log(np.array(values))) for values in self.columns.values() if is_numeric(values)
        ]
        figures = {"all": self.figures, "objectives": self.costs, "none": self.costs[:, :0]}
        continuous += [min_max_scaled(costs) for costs in figures[cost_features].T]
        texts = [values for values in self.columns.values() if not is_numeric(values)]
        share = 1.0 if members == "column" else SHARE_OF_MEMBER
        categorical = [one_hot(values) * sqrt(share / len(texts)) for values in texts]
        if members == "apart":
            places = (np.unique(values, return_inverse=True)[1].astype(np.float64) for values in texts)
            continuous += [_APART * place for place in places]
        empty = np.empty((len(self), 0))
        features = Features(np.column_stack([empty, *continuous]), np.hstack([empty, *categorical]))
        return Candidates(features, self.costs)

    def permuted(self, rows: IndexArray, *, with_costs: bool) -> "Table":
        """Return the same architectures with the accuracies of other rows, and optionally with their costs, too."""
        permuted = replace(self, accuracies=self.accuracies[rows])
        return replace(permuted, costs=self.costs[rows], figures=self.figures[rows]) if with_costs else permuted


def is_numeric(values: Column) -> bool:
    """Return whether a column has numbers, not texts."""
    return not isinstance(values[0], str)


def min_max_scaled(values: FloatArray) -> FloatArray:
    """Scale values to 0 to 1; to 0 if all are equal."""
    shifted: FloatArray = (values - values.min()) / (np.ptp(values) or 1.0)
    return shifted


def one_hot(values: Column) -> FloatArray:
    """Return a column for each distinct text, `(rows, levels)`."""
    levels, indices = np.unique(values, return_inverse=True)
    return np.eye(len(levels))[indices]


def read_yolobench(path: Path, cost: str = "ov_latency") -> Table:
    """Read a file that YOLOBench publishes: results/yolobench/*.csv of Deeplite/deeplite-torch-zoo, Apache-2.0.

    Family, depth, width and resolution are parsed from a model's name; YOLOv6's three sizes are separate families.

    Source: Lazarevich et al. 2023, "YOLOBench: Benchmarking efficient object detectors on embedded systems",
    arXiv:2307.13901.

    Args:
        path: of the CSV file.
        cost: column of latencies that is an objective. The others are features, unless they have gaps: a search knows
            GFLOPs and parameters in any case.

    Raises:
        SpecError: the file is not such a table.
    """
    lines = _lines(path)
    header = tuple(lines[0][1]) if lines else ()
    mistakes = list(_mistakes_of_header(header, cost))
    names: set[str] = set()
    for number, record in lines if not mistakes else []:
        mistakes += [f"line {number}: {mistake}" for mistake in _mistakes(record, cost, names)]
        names.add(record[_NAME])
    if mistakes:
        raise SpecError(mistakes).within(str(path))
    records = [record for _, record in lines]
    measured = {name: [_number(record[name]) for record in records] for name in header if name.endswith(_COST_ENDING)}
    figures = [values for values in measured.values() if all(0 < value < inf for value in values)]
    parsed = [_parse_name(record[_NAME]) for record in records]
    return Table(
        names=tuple(record[_NAME] for record in records),
        columns={
            "family": tuple(family for family, _, _, _ in parsed),
            "depth": tuple(depth for _, depth, _, _ in parsed),
            "width": tuple(width for _, _, width, _ in parsed),
            "resolution": tuple(resolution for _, _, _, resolution in parsed),
        },
        accuracies=np.array([float(record[_ACCURACY]) for record in records]),
        costs=np.log(np.column_stack([measured[cost]])),
        figures=np.log(np.column_stack(figures)),
        cost_names=(cost,),
    )


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the records of a CSV file, each with its line number; missing cells are empty."""
    try:
        reader = csv.DictReader(io.StringIO(read_plain(path).decode(), newline=""), restkey="", restval="")
        return [(reader.line_num, record) for record in reader]
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file ({_FILES})") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: cannot be read as CSV, {error} ({_FILES})") from None


def _mistakes_of_header(header: tuple[str, ...], cost: str) -> Iterator[str]:
    """Yield the mistakes of a header."""
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


def _mistakes(record: Mapping[str, str], cost: str, names: set[str]) -> Iterator[str]:
    """Yield the mistakes of one row."""
    name = record[_NAME]
    if not _NAME_PATTERN.fullmatch(name):
        yield f"{_NAME}: no model of YOLOBench's, got {name!r} ({_MODELS})"
    elif not 1 <= _number(name.rpartition("_")[2]) <= _MOST_PIXELS:
        yield f"{_NAME}: no resolution, got {shortened(name)} (from 1 to {_MOST_PIXELS} pixels)"
    elif name in names:
        yield f"{_NAME}: {name!r} is there twice (one row for each model)"
    if not 0 <= _number(record[_ACCURACY]) <= 1:
        yield f"{_ACCURACY}: no accuracy, got {record[_ACCURACY]!r} (a number from 0 to 1)"
    if not 0 < _number(record[cost]) <= _MOST_LATENCY:
        yield f"{cost}: no latency, got {record[cost]!r} (a number above 0, at most {_MOST_LATENCY:,})"


def _number(text: str) -> float:
    """Return a number; NaN if the text is none."""
    try:
        return float(text)
    except ValueError:
        return nan


def _parse_name(name: str) -> tuple[str, float, float, float]:
    """Return the family, depth, width and resolution in a model's name."""
    found = _NAME_PATTERN.fullmatch(name)
    assert found  # noqa: S101 - `_mistakes` refuses other names
    family, depth, width, letter, resolution = found.groups()
    shape = _SCALES[letter] if letter else (_SHARES[depth], _SHARES[width])
    return family, *shape, float(resolution)
