"""The five published models of the catalog: their headers are true."""

import re
from pathlib import Path

import pytest

from search_spaces import base as bases
from search_spaces import build, foreign_files, model_reader, yaml_text
from search_spaces.derive import derive
from search_spaces.space_file import parse
from trials.costing import cost

MODELS = model_reader.catalog()
PUBLISHED = Path(__file__).parents[2].parent / "shared" / "published"
ARTICLES = {
    "yolov9c-dcnv4": "yolov9-c-Bottleneck_DCNV4.yaml",
    "yolov9c-mmqa": "yolov9-c-MMQARepNCSPELAN4.yaml",
    "yolov5n-uib": "yolov5n-C3_UIB.yaml",
    "yolov5l-dynamic-conv": "yolov5l-dynamic.yaml",
    "yolov8n-dysample": "yolov8n-DySample.yaml",
}

each_model = pytest.mark.parametrize("name", MODELS)


def header(name: str) -> dict[str, str]:
    """Return the entries of the comment at the beginning of a file."""
    lines = [line[2:] for line in MODELS[name].read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return {key: text for key, text in (re.split(r"  +", line, maxsplit=1) for line in lines if "  " in line) if key}


def test_every_catalog_model_has_an_article() -> None:
    assert set(MODELS) == set(ARTICLES)


@each_model
def test_catalog_model_header_has_origin_and_licences(name: str) -> None:
    assert set(header(name)) == {"origin", "licences", "claimed", "printed", "true", "changed"}


@each_model
def test_figures_of_a_catalog_model_are_counted(name: str) -> None:
    figures = re.match(r"([\d,]+) parameters, ([\d.]+) GFLOPs, deployed.* \(nc (\d+), 640 px\)", header(name)["true"])
    assert figures is not None
    document = model_reader.model_document(name)
    counted = cost.measure(document, document["nc"], 640)
    assert figures.groups() == (f"{counted.params:,}", f"{counted.gflops:.1f}", str(document["nc"]))


@each_model
def test_catalog_model_needs_no_translation(name: str) -> None:
    document = yaml_text.read_yaml(MODELS[name])
    assert foreign_files.translate(document) == foreign_files.Translation(document=document)


@each_model
def test_row_numbers_in_comments_of_a_catalog_model_are_right(name: str) -> None:
    """Check that `# 9` behind a row is its index."""
    text = MODELS[name].read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"  - \[", line)]
    noted = {index: int(found[1]) for index, row in enumerate(rows) if (found := re.search(r"  # (\d+)", row))}
    assert len(noted) > 8
    assert all(index == number for index, number in noted.items())


@each_model
def test_catalog_model_is_found_by_its_name(name: str) -> None:
    assert (
        model_reader.model_document(name)
        == model_reader.model_document(f"{name}.yaml")
        == model_reader.model_document(str(MODELS[name]))
    )
    space = parse(yaml_text.parse_yaml(derive(name)))
    assert space.base == name
    assert len(space.start) == 1


@each_model
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not on this machine")
def test_catalog_model_equals_the_translated_printed_file(name: str) -> None:
    """Compare base model and operators of both files."""
    ours, printed = (
        bases.load(*model_reader.base_and_scale(model, None)) for model in (name, str(PUBLISHED / ARTICLES[name]))
    )
    assert dict(ours.operators) == dict(printed.operators)
    assert ours.pgi == printed.pgi
    both = [build.skeleton(base.document, 3) for base in (ours, printed)]
    assert repr(both[0]) == repr(both[1])
    assert [row[0] for row in ours.rows] == [row[0] for row in printed.rows]


@each_model
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not on this machine")
def test_printed_figures_of_a_catalog_model_are_counted(name: str) -> None:
    figures = re.match(r"([\d,]+) parameters.*?, ([\d.]+) GFLOPs", header(name)["printed"])
    assert figures is not None
    document = model_reader.read_model(str(PUBLISHED / ARTICLES[name]), as_printed=True).document
    counted = cost.measure(document, document["nc"], 640, deployed=False)
    assert figures.groups() == (f"{counted.params:,}", f"{counted.gflops:.1f}")
