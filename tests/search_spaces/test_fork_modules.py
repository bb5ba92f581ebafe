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


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnetv2_s", "swin_tiny_patch4_window7_224", "repvgg_a0", "dla34"]
)
def test_whole_network_of_timm_is_said_to_be_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError) as caught:
        layers.require_layer(name, OURS)
    here = f"`def {name}(*_): return timm.create_model('{name}', features_only=True)`"
    assert f"unknown module '{name}' (a whole network, which forks take from the package timm: " in str(caught.value)
    assert str(caught.value).partition(here)[2] in {")", "; timm is not installed here: pip install timm)"}
    monkeypatch.setattr(layers, "find_spec", lambda _name: None)
    with pytest.raises(SpecError, match="; timm is not installed here: pip install timm"):
        layers.require_layer(name, OURS)


@pytest.mark.parametrize("name", ["swin_t", "mobilenet_v2", "shufflenet_v2_x1_0", "alexnet"])
def test_network_that_only_torchvision_has_is_no_network_of_timm(name: str) -> None:
    with pytest.raises(SpecError, match="a classification network of torchvision: TorchVision with null for"):
        layers.require_layer(name, OURS)


@pytest.mark.parametrize("name", ["resnetblock", "Swin", "vitality", "nest", "mobilenet_v3"])
def test_other_names_are_not_taken_for_whole_networks(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        layers.require_layer(name, OURS)
    assert ("timm" in str(caught.value)) is (name == "nest")
