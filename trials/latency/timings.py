"""A device's table of latencies as a file: CSV, with the device's profile above it.

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

from search_spaces.errors import EnvironmentProblem, SpecError
from search_spaces.files import write_atomically
from trials.devices import DeviceProfile
from trials.latency.measurement import Comparison, Latency

_SUFFIX = ".csv"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one layer, or one whole model, takes on the device.

    Attributes:
        key: equal for what is built alike and receives maps of the same shapes.
        what: the same in words.
        received: the shapes, in words.
        steady: whether the reference stayed where it was while this was timed.
    """

    key: str
    what: str
    received: str
    median_ms: float
    spread_ms: float
    p90_ms: float
    passes: int
    steady: bool

    @classmethod
    def alone(cls, key: str, what: str, received: str, latency: Latency) -> Self:
        """Of what was timed alone."""
        return cls(key=key, what=what, received=received, steady=latency.steady, **asdict(latency))

    @classmethod
    def beside(cls, key: str, what: str, received: str, comparison: Comparison, reference_ms: float) -> Self:
        """Of what was timed in turns with a reference whose time is in the table.

        The reference says how fast the machine was at the moment, so that what is recorded on another day, or beside
        other work, is of one piece with the rest.
        """
        own, median_ms = comparison.candidate, comparison.ratio * reference_ms
        scale = median_ms / own.median_ms
        return cls(
            key=key,
            what=what,
            received=received,
            median_ms=median_ms,
            spread_ms=own.spread_ms * scale,
            p90_ms=own.p90_ms * scale,
            passes=own.passes,
            steady=comparison.steady,
        )


COLUMNS = tuple(field.name for field in fields(Timing))


@dataclass(frozen=True, kw_only=True)
class Timings:
    """All that was timed under one profile, by key."""

    profile: DeviceProfile
    entries: Mapping[str, Timing]

    def plus(self, timing: Timing) -> Self:
        """With one more."""
        return replace(self, entries={**self.entries, timing.key: timing})

    def merged(self, other: "Timings") -> "Timings":
        """With what another table of the same profile has; the other's entries win.

        Raises:
            LatencyError: it is of another profile.
        """
        self.profile.require(other.profile, f"the table {self.profile.name}")
        return replace(self, entries={**self.entries, **other.entries})

    @property
    def text(self) -> str:
        """The file."""
        written = io.StringIO()
        for name, value in asdict(self.profile).items():
            written.write(f"# {name}: {value}\n")
        rows = csv.DictWriter(written, COLUMNS, lineterminator="\n")
        rows.writeheader()
        for timing in self.entries.values():
            row = {
                name: f"{value:.6g}" if isinstance(value, float) else value for name, value in asdict(timing).items()
            }
            rows.writerow(row | {"steady": "yes" if timing.steady else "no"})
        return written.getvalue()

    def write(self, path: Path) -> None:
        """Written aside, then renamed: a killed process leaves the table as it was.

        Raises:
            EnvironmentProblem: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.text)
        except OSError as error:
            raise EnvironmentProblem(f"{path}: cannot be written ({error.strerror})") from None


def path_of(folder: Path, device_name: str) -> Path:
    """The file of a device's table."""
    return folder / f"{device_name}{_SUFFIX}"


def known(folder: Path) -> list[str]:
    """The names of the devices that have a table."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"[!.]*{_SUFFIX}"))


def read(path: Path) -> Timings:
    """A table's file.

    Raises:
        SpecError: it is not there, or not a table: all mistakes at once, one a line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
    told = [line.removeprefix("#").partition(":") for line in heading]
    written = {name.strip(): value.strip() for name, _, value in told}
    expected = [field.name for field in fields(DeviceProfile)]
    missing = [name for name in expected if name not in written and name != "governor"]
    if missing:
        raise SpecError(
            f"{path}: not a latency table: above the columns `# NAME: VALUE` is expected for {', '.join(missing)}"
        )
    try:
        return DeviceProfile.of({name: written.get(name, "") for name in expected})
    except ValueError:
        raise SpecError(f"{path}: threads: a whole number is expected, got {written['threads']!r}") from None


def _timing(row: Mapping[str, Any]) -> Timing:
    """Raises ValueError, of which the text says what is wrong with the row."""
    if None in row or None in row.values():
        raise ValueError(f"{len(COLUMNS)} values are expected")
    if row["steady"] not in {"yes", "no"}:
        raise ValueError(f"steady: yes or no is expected, got {row['steady']!r}")
    timing = Timing(
        key=row["key"],
        what=row["what"],
        received=row["received"],
        median_ms=_milliseconds("median_ms", row["median_ms"]),
        spread_ms=_milliseconds("spread_ms", row["spread_ms"]),
        p90_ms=_milliseconds("p90_ms", row["p90_ms"]),
        passes=int(row["passes"]),
        steady=row["steady"] == "yes",
    )
    if not timing.median_ms:
        raise ValueError("median_ms: a latency is above 0")
    return timing


def _milliseconds(name: str, text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: milliseconds are expected, got {text!r}")
    return value
