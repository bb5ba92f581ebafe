"""Finer spaces derived from the results of a search."""

from typing import Any

import pytest

from search_spaces import SearchSpace
from search_spaces.errors import SpecError
from search_spaces.refine import refine
from search_spaces.space_file import parse
from search_spaces.yaml_text import parse_yaml

COARSE = """
name: coarse
base: yolov8{scale}.yaml
scale: n
slots:
  - {at: {layers: [4, 6]}, tie: true, choices: {UIB: {expansion: [3]}, DCNv4: {groups: [4]}}}
  - {at: {layers: [8, 12]}, choices: {DynamicConv: {}}}
insert:
  - {after: 9, choices: {MMQA: {}}}
macro: {depth: [0.67, 1], width: {P4: [0.75, 1], P5: [0.75, 1]}, image_size: [320, 640]}
"""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return parse_yaml(COARSE)


@pytest.fixture(scope="module")
def coarse(document: dict[str, Any]) -> SearchSpace:
    return parse(document)


def choice(space: SearchSpace, slot: str, operator: str) -> Any:
    (found,) = (one for each in space.slots if each.name == slot for one in each.of(operator))
    return found


def test_refined_space_starts_with_the_found_architectures(document: dict[str, Any], coarse: SearchSpace) -> None:
    found = [
        coarse.of({"4": choice(coarse, "4", "UIB")}),
        coarse.of({"8": choice(coarse, "8", "DynamicConv"), "after-9": choice(coarse, "after-9", "MMQA")}),
        coarse.of({"4": choice(coarse, "4", "DCNv4")}, {"width.P4": 0.75, "image_size": 320}),
    ]
    fine = parse(parse_yaml(refine(document, coarse, [coarse.stock, *found])))
    assert fine.name == "coarse-fine"
    assert [each.fingerprint for each in fine.start] == [each.fingerprint for each in found]
    assert all(fine.architecture(fine.values(each)).fingerprint == each.fingerprint for each in fine.start)


def test_refined_space_unties_layers_and_opens_parameters(document: dict[str, Any], coarse: SearchSpace) -> None:
    fine = parse(parse_yaml(refine(document, coarse, [coarse.of({"4": choice(coarse, "4", "UIB")})])))
    assert [(slot.name, slot.tied, slot.operators) for slot in fine.slots] == [
        ("4", (), ("stock", "UIB")),
        ("6", (), ("stock", "UIB")),
    ]
    free = fine.slots[0].free("UIB")
    assert {"start_kernel", "expansion"} <= set(free)
    assert 3 in free["expansion"]  # as it was found, though no derived space would offer it


def test_refined_space_keeps_other_scaling_factors_at_stock(document: dict[str, Any], coarse: SearchSpace) -> None:
    found = coarse.of({"8": choice(coarse, "8", "DynamicConv")}, {"width.P5": 0.75})
    fine = parse(parse_yaml(refine(document, coarse, [found])))
    assert {factor.name: factor.values for factor in fine.scaling_factors} == {
        "width.P5": (0.75, 1.0),
        "image_size": (640.0,),
    }
    assert fine.image_size == coarse.image_size


def test_the_stock_model_alone_cannot_be_refined(document: dict[str, Any], coarse: SearchSpace) -> None:
    with pytest.raises(SpecError) as error:
        refine(document, coarse, [coarse.stock])
    assert str(error.value) == (
        "refine: nothing was found but the stock model, around which there is nothing to refine"
    )


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("3", "start[0].macro: scaling factors with a number each are expected, got 3 ({width.P4: 0.75})"),
        ("{width.P3: 1}", "start[0].macro.width.P3: no such scaling factor (did you mean 'width.P5'?)"),
        ("{depth: 2}", "start[0].macro.depth: not a value in this space, got 2 (one of 0.67, 1)"),
    ],
)
def test_wrong_scaling_factors_of_a_start_are_reported(macro: str, expected: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(parse_yaml(f"{COARSE}start: [{{8: {{DynamicConv: {{}}}}, macro: {macro}}}]\n"))
    assert list(error.value.mistakes) == [expected]
