"""What an unknown module of a fork is said to be: never another module."""

import pytest

from search_spaces import fork_modules, layers
from search_spaces.errors import SpecError

OURS = ["UIB", "MMQA", "DCNv4", "DynamicConv", "DySample", "SE", "CoordAtt", "WeightedFusion"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SimAM", "an attention"),
        ("simam_module", ""),
        ("GAM_Attention", "an attention"),
        ("C2f_EMA", "a C2f with EMA in it"),
        ("C3STR", "a block"),
        ("Faster_C3k2", "a C3k2 with Faster in it"),
        ("BiFPN_Concat2", "a fusion of several maps"),
        ("Detect_Mine", "a head"),
        ("Gate", ""),
    ],
)
def test_kind_of_a_module_is_found_by_its_name(name: str, expected: str) -> None:
    assert fork_modules.description(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SELayer", "SE"),
        ("CoordAttention", None),
        ("Coord_Att", "CoordAtt"),
        ("DynamicLayer", None),
        ("PConv", None),
        ("BiFPN_Concat3", "WeightedFusion"),
        ("BiFPN_Add2", None),
    ],
)
def test_our_operator_is_named_only_where_it_is_meant(name: str, expected: str | None) -> None:
    assert fork_modules.same(name, OURS) == expected


@pytest.mark.parametrize(
    "name", ["SimAM", "CBAM", "SPDConv", "GSConv", "C2f_EMA", "BiFPN_Concat2", "MP", "Gate", "DDetect"]
)
def test_message_of_an_unknown_module_suggests_no_other_module(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        layers.require_layer(name, OURS)
    message = str(caught.value)
    assert "did you mean" not in message
    assert message.endswith(f"{layers.BRING})")


def test_message_names_our_operator_of_the_same_meaning() -> None:
    with pytest.raises(
        SpecError, match=r"unknown module 'SELayer' \(an attention of the file's own fork: this package's is SE;"
    ):
        layers.require_layer("SELayer", OURS)
