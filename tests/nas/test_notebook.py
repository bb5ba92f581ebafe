"""A study shows its front in a notebook, without scripts."""

import io
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from IPython.lib.pretty import RepresentationPrinter

from nas.records.record import Record
from nas.report.notebook import as_html
from nas.report.verdict import Verdict
from nas.study.study import Study
from search_spaces.errors import StudyError

OBJECTIVES = ("map50_95", "gflops")


def record(trial: int, accuracy: float, gflops: float, role: str = "") -> Record:
    return Record(
        trial=trial,
        state="complete",
        ending="finished",
        map50_95=accuracy,
        gflops=gflops,
        picks={},
        fingerprint=str(trial),
        role=role,
        summary="<script>" if trial else "stock",
    )


def test_front_is_a_drawing_and_a_table() -> None:
    records = [record(0, 0.38, 7.6, "stock"), record(1, 0.3, 7.8), record(2, 0.42, 7.0)]
    page = as_html("mine", records, [records[2]], OBJECTIVES)
    assert "<script" not in page
    (drawing,) = [part for part in ET.fromstring(page) if part.tag == "svg"]  # noqa: S314 - ours
    assert len(drawing.findall("circle")) == 5
    assert [cell.text for cell in ET.fromstring(page).iter("td")][:3] == ["2", "0.420", "+4.0"]  # noqa: S314
    assert "mine" in page


def test_one_architecture_has_a_table_only() -> None:
    alone = record(0, 0.38, 7.6, "stock")
    assert "<svg" not in as_html("mine", [alone], [alone], OBJECTIVES)


def test_a_verdict_prints_as_its_lines_also_in_a_cell() -> None:
    verdict = Verdict(
        study="mine",
        seeds=(),
        planned=2,
        unfinished=0,
        look=1,
        epochs=3,
        epochs_of_search=3,
        margin=0.5,
        stock_map50_95=None,
        stock_map50_95_by_seed=(),
        finalists=(),
        left_out=(),
        reason="it has no front",
    )
    printed = io.StringIO()
    verdict._repr_pretty_(RepresentationPrinter(printed), cycle=False)
    assert printed.getvalue() == str(verdict) == "No verdict on mine: it has no front"


def test_a_study_without_trials_says_so(make_study: Callable[..., Study]) -> None:
    study = make_study()
    assert "no trial has finished yet" in study._repr_html_()
    with pytest.raises(StudyError, match="no finished trial"):
        study.plot()
