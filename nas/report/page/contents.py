"""Contents of a study's report: what the page shows, as text, SVG and values for Plotly."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Figure of the page.

    Attributes:
        name: id of its element.
        figure: data and layout for Plotly.
    """

    name: str
    figure: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Member:
    """Model of the front that is recommended for a reason.

    Attributes:
        reasons: such as `most accurate`.
        facts: accuracy and costs by heading.
        operators: names of its operators, for the legend of the drawing.
        drawing: of its network, an SVG element.
        commands: by purpose.
    """

    trial: int
    reasons: tuple[str, ...]
    summary: str
    facts: dict[str, str]
    operators: tuple[str, ...]
    drawing: str
    commands: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Validation image with the detections of the stock model and of another one.

    Attributes:
        captions: of the two pictures.
        pictures: as data URLs.
    """

    captions: tuple[str, str]
    pictures: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of the page, in its order.

    Attributes:
        about: what was searched, on what data, for how long; by heading.
        findings: what the scores show, or the verdict in one sentence.
        judged: columns and rows of the finalists of a confirmation; without rows before it.
        remarks: on the verdict, one sentence each.
        front: the Pareto front as rows of cells under `columns`.
        trust: what to conclude of the ranking, one sentence each.
        basis: what that rests on, by heading.
        samples: validation images on which the stock model and the best one differ most.
        reproduce: command that trains a trial again.
        conditions: what determines the scores, by heading: seed, data, code, versions, device.
        endings: number of trials by ending that is not `finished`, with advice.
        problems: reasons why parts of the report could not be made, by part.
    """

    study: str
    made: str
    version: str
    about: dict[str, str]
    findings: list[str]
    judged: tuple[tuple[str, ...], list[tuple[str, ...]]]
    remarks: list[str]
    charts: dict[str, Chart]
    columns: tuple[str, ...]
    front: list[tuple[str, ...]]
    members: list[Member]
    effects: list[str]
    ablations: list[list[str]]
    trust: list[str]
    basis: list[tuple[str, str]]
    latency: str
    samples: list[Sample]
    endings: list[tuple[str, int, str]]
    reproduce: str
    conditions: dict[str, str]
    commands: dict[str, str]
    problems: dict[str, str] = field(default_factory=dict)
