"""What other studies found of a study's trials, and which study another one is a stage of: values to be tracked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class JudgedTrial:
    """Finding on a trial over fresh seeds.

    Attributes:
        finding: `better`, `worse`, `equivalent`, `undecided` or `pending`.
        sentence: the finding in words.
        seeds: number of seeds that it rests on.
        difference: to the stock model, in points of mAP50-95.
        low: lower end of the 95 % interval.
        high: upper end of it.
    """

    finding: str
    sentence: str
    seeds: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Findings of other studies on a study's trials.

    Attributes:
        lines: in words, the heading first.
        remarks: in words, of the search's own scores: of its budget, and of effects of operators.
        trials: by number.
        tables: texts of artifacts, by file name.
    """

    lines: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    trials: Mapping[int, JudgedTrial] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A study's place in another one, whose models it trains again.

    Attributes:
        kind: `confirm`, `longer`, `ablate` or `calibrate`.
        folder: of the other study.
        purpose: in words, such as `trains the finalists of v9t-digits with fresh seeds`.
    """

    kind: str
    folder: Path
    purpose: str
