"""Latency table of a device as a file: CSV, with the device's profile above the columns.

# name: bench-cpu-torch-1t
# processor: Intel(R) Xeon(R) Processor
key,what,received,median_ms,spread_ms,p90_ms,passes,steady
1f0c...,RepNCSPELAN4 with UIB(expansion=2),1x64x80x80,12.31,0.42,13.05,100,yes
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from search_spaces.errors import EnvironmentProblem, SpecError, shortened
from search_spaces.files import read_plain_text, write_atomically
from trials.devices import MOST_THREADS, DeviceProfile
from trials.latency.measurement import Comparison, Latency

_SUFFIX = ".csv"
_MOST_MS = 1e9
"""Longest latency, eleven days: sums of such ones are finite."""
_MOST_PASSES = 10**9


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latency of one layer or of one whole model on the device, in milliseconds.

    Attributes:
        key: equal for equal structures with inputs of equal shapes.
        description: of the layer or model, in words.
        input_shapes: as text, `1x64x80x80`.
        iterations: number of timed iterations.
        steady: whether the measurement, or its reference, was steady.
    """

    key: str
    description: str
    input_shapes: str
    median_ms: float
    spread_ms: float
    p90_ms: float
    iterations: int
    steady: bool

    @classmethod
    def of_latency(cls, key: str, description: str, input_shapes: str, latency: Latency) -> Self:
        """Return the entry of a single measurement."""
        return cls(
            key=key, description=description, input_shapes=input_shapes, steady=latency.steady, **asdict(latency)
        )

    @classmethod
    def of_comparison(
        cls, key: str, description: str, input_shapes: str, comparison: Comparison, reference_ms: float
    ) -> Self:
        """Return the entry of a paired comparison, scaled to the reference's latency in the table.

        So entries that were recorded on different days, or under different load, are consistent with each other.
        """
        candidate, median_ms = comparison.candidate, comparison.ratio * reference_ms
        scale = median_ms / candidate.median_ms
        return cls(
            key=key,
            description=description,
            input_shapes=input_shapes,
            median_ms=median_ms,
            spread_ms=candidate.spread_ms * scale,
            p90_ms=candidate.p90_ms * scale,
            iterations=candidate.iterations,
            steady=comparison.steady,
        )


_STORED_NAMES = {"description": "what", "input_shapes": "received", "iterations": "passes"}
"""Columns with another name than the field: tables recorded by older versions stay readable."""
COLUMNS = tuple(_STORED_NAMES.get(field.name, field.name) for field in fields(Timing))


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Entries of a latency table by key, all recorded under one profile."""

    profile: DeviceProfile
    entries: Mapping[str, Timing]

    def with_entry(self, timing: Timing) -> Self:
        """Return the table with one more entry."""
        return replace(self, entries={**self.entries, timing.key: timing})

    def merged(self, other: "Timings") -> "Timings":
        """Return the union with another table of the same profile; the other's entries replace equal keys.

        Raises:
            LatencyError: the other table has another profile.
        """
        self.profile.require(other.profile, f"the table {self.profile.name}")
        return replace(self, entries={**self.entries, **other.entries})

    @property
    def text(self) -> str:
        """Text of the table's file."""
        written = io.StringIO()
        for name, value in asdict(self.profile).items():
            if name == "calibration" and not value:
                continue  # tables of float models are written as before
            written.write(f"# {name}: {value}\n")
        rows = csv.DictWriter(written, COLUMNS, lineterminator="\n")
        rows.writeheader()
        for timing in self.entries.values():
            row = {
                _STORED_NAMES.get(name, name): f"{value:.6g}" if isinstance(value, float) else value
                for name, value in asdict(timing).items()
            }
            rows.writerow(row | {"steady": "yes" if timing.steady else "no"})
        return written.getvalue()

    def write(self, path: Path) -> None:
        """Write the file atomically, by renaming a temporary file.

        Raises:
            EnvironmentProblem: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.text)
        except OSError as error:
            raise EnvironmentProblem(f"{path}: cannot be written ({error.strerror})") from None


def path_of(folder: Path, device_name: str) -> Path:
    """Return the path of a device's table."""
    return folder / f"{device_name}{_SUFFIX}"


def device_names(folder: Path) -> list[str]:
    """Return the names of the devices that have a table."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"[!.]*{_SUFFIX}"))


def read(path: Path) -> Timings:
    """Read a table's file.

    Raises:
        SpecError: it does not exist or is no table; lists all mistakes, one per line.
    """
    try:
        lines = read_plain_text(path).splitlines()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not a text file") from None
    try:
        return _parsed(path, lines)
    except csv.Error as error:
        raise SpecError(f"{path}: not a table: {error}") from None


def _parsed(path: Path, lines: Sequence[str]) -> Timings:
    heading = [line for line in lines if line.startswith("#")]
    profile = _profile(path, heading)
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise SpecError(f"{path}: the columns are expected to be {','.join(COLUMNS)}, got {rows.fieldnames}")
    entries: dict[str, Timing] = {}
    mistakes: list[str] = []
    for number, row in enumerate(rows, start=len(heading) + 2):
        try:
            timing = _timing(row)
            entries[timing.key] = timing
        except (TypeError, ValueError) as error:
            mistakes.append(f"{path}: line {number}: {error}")
    if mistakes:
        raise SpecError(mistakes)
    return Timings(profile=profile, entries=entries)


def _profile(path: Path, heading: list[str]) -> DeviceProfile:
    split = [line.removeprefix("#").partition(":") for line in heading]
    written = {name.strip(): value.strip() for name, _, value in split}
    expected = [field.name for field in fields(DeviceProfile)]
    missing = [name for name in expected if name not in written and name not in {"governor", "calibration"}]
    if missing:
        raise SpecError(
            f"{path}: not a latency table: above the columns `# NAME: VALUE` is expected for {', '.join(missing)}"
        )
    try:
        return DeviceProfile.from_text({name: written.get(name, "") for name in expected})
    except ValueError:
        got = shortened(written["threads"])
        raise SpecError(f"{path}: threads: a whole number is expected, got {got} (from 1 to {MOST_THREADS})") from None


def _timing(row: Mapping[str, Any]) -> Timing:
    """Convert a row.

    Raises:
        ValueError: the row is wrong; its text says how.
    """
    if None in row or None in row.values():
        raise ValueError(f"{len(COLUMNS)} values are expected")
    if row["steady"] not in {"yes", "no"}:
        raise ValueError(f"steady: yes or no is expected, got {row['steady']!r}")
    timing = Timing(
        key=row["key"],
        description=row["what"],
        input_shapes=row["received"],
        median_ms=_milliseconds("median_ms", row["median_ms"]),
        spread_ms=_milliseconds("spread_ms", row["spread_ms"]),
        p90_ms=_milliseconds("p90_ms", row["p90_ms"]),
        iterations=_passes(row["passes"]),
        steady=row["steady"] == "yes",
    )
    if not timing.median_ms:
        raise ValueError("median_ms: a latency is above 0")
    return timing


def _milliseconds(name: str, text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= _MOST_MS):
        raise ValueError(f"{name}: milliseconds are expected, got {text!r}")
    return value


def _passes(text: str) -> int:
    passes = int(text)
    if not 1 <= passes <= _MOST_PASSES:
        raise ValueError(f"passes: a number of timed passes is expected, got {text!r}")
    return passes
