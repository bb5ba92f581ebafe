"""Properties of random architectures of every catalog space, and golden text."""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import OPERATORS, STOCK, Architecture, Choice, SearchSpace, build, load
from search_spaces import base as bases
from search_spaces.errors import SpecError

SPACES = ("v5", "v8", "v9", "v9:c")

laws = settings(max_examples=15, deadline=None)
"""Settings of properties that build no network."""

building_laws = settings(max_examples=4, deadline=None)
"""Settings of properties that build two networks on the meta device, a few tenths of a second each."""

each_space = pytest.mark.parametrize("space", SPACES)
seeds = st.integers(0, 2**32)


@cache
def read(name: str) -> SearchSpace:
    space, _, scale = name.partition(":")
    return load(space, scale=scale or None)


def sampled(space: str, seed: int) -> Architecture:
    return read(space).sample(random.Random(seed))


def network(architecture: Architecture) -> str:
    return repr(build.skeleton(architecture.document(80), 80))


@each_space
@laws
@given(seed=seeds, classes=st.integers(1, 1000))
def test_yaml_contains_the_whole_architecture(space: str, seed: int, classes: int) -> None:
    architecture = sampled(space, seed)
    text = architecture.to_yaml(classes)
    back = Architecture.from_yaml(text)
    assert back == architecture
    assert back.to_yaml(classes) == text


@each_space
@laws
@given(seed=seeds, classes=st.integers(1, 1000))
def test_text_of_an_architecture_yaml_is_its_document(space: str, seed: int, classes: int) -> None:
    architecture = sampled(space, seed)
    written = yaml.safe_load(architecture.to_yaml(classes))
    assert written == architecture.document(classes)
    assert written["nc"] == classes
    base = bases.load(architecture.base, architecture.scale)
    origin = {"base": architecture.base, "scale": architecture.scale, "fingerprint": architecture.fingerprint}
    whole = [layer for layer, choice in architecture.picks if choice.operator == "UIB"]
    replaced = {layer: base.rows[layer][2:] for layer in whole if base.rows[layer][2] in {"AConv", "ADown"}}
    assert written["nas"] == origin | ({"stock": replaced} if replaced else {})


@each_space
@laws
@given(seed=seeds)
def test_architecture_is_rebuilt_from_its_values(space: str, seed: int) -> None:
    architecture = sampled(space, seed)
    values = read(space).values(architecture)
    assert read(space).architecture(values) == architecture
    spelled = read(space).parameters
    assert all(value in spelled[name] for name, value in values.items())


@each_space
@laws
@given(seed=seeds)
def test_any_values_give_an_architecture_of_the_space(space: str, seed: int) -> None:
    rng = random.Random(seed)
    values = {name: rng.choice(options) for name, options in read(space).parameters.items()}
    architecture = read(space).architecture(values)
    legal = {slot.layer: slot for slot in read(space).slots}
    assert all(choice in legal[layer].choices for layer, choice in architecture.picks)
    picks = dict(architecture.picks)
    assert all(picks.get(layer, STOCK).operator == values[f"{layer}.operator"] for layer in legal)


@each_space
@laws
@given(seed=seeds)
def test_a_mutation_changes_exactly_one_slot(space: str, seed: int) -> None:
    rng = random.Random(seed)
    parent = read(space).sample(rng)
    child = read(space).mutate(parent, rng)
    before, after = dict(parent.picks), dict(child.picks)
    changed = [slot for slot in read(space).slots if before.get(slot.layer, STOCK) != after.get(slot.layer, STOCK)]
    assert len(changed) == 1
    assert after.get(changed[0].layer, STOCK) in changed[0].choices
    assert child.fingerprint != parent.fingerprint


@each_space
@laws
@given(seed=seeds, steps=st.integers(0, 4))
def test_several_mutation_steps_change_several_slots(space: str, seed: int, steps: int) -> None:
    parent = read(space).sample(random.Random(seed))
    rng = random.Random(seed)
    one_by_one = parent
    for _ in range(steps):
        one_by_one = read(space).mutate(one_by_one, rng)
    assert read(space).mutate(parent, random.Random(seed), steps=steps) == one_by_one


@pytest.mark.parametrize("space", ["v5", "v8", "v9"])
@building_laws
@given(seed=seeds, data=st.data())
def test_fingerprints_are_equal_if_and_only_if_networks_are(space: str, seed: int, data: st.DataObject) -> None:
    """Compare with a network that differs in one slot, in one parameter of one slot, or not at all."""
    first = sampled(space, seed)
    picks = dict(first.picks)
    if picks:
        layer = data.draw(st.sampled_from(sorted(picks)))
        slot = next(slot for slot in read(space).slots if slot.layer == layer)
        picks[layer] = data.draw(st.sampled_from(slot.of(picks[layer].operator)))
    second = read(space).of(picks)
    assert (first.fingerprint == second.fingerprint) == (network(first) == network(second))
    assert (first.fingerprint == second.fingerprint) == (first == second)


@each_space
def test_no_two_random_architectures_share_a_fingerprint(space: str) -> None:
    rng = random.Random(0)
    architectures = {read(space).sample(rng) for _ in range(300)}
    assert len(architectures) > 200
    assert len({architecture.fingerprint for architecture in architectures}) == len(architectures)


class TestFingerprint:
    def test_fingerprint_contains_base_and_scale(self) -> None:
        found = {read(name).stock.fingerprint for name in ("v5", "v8", "v9", "v9:s", "v9:c")}
        assert len(found) == 5

    def test_fingerprint_does_not_contain_the_classes(self) -> None:
        architecture = sampled("v9", 1)
        assert yaml.safe_load(architecture.to_yaml(1))["nas"] == yaml.safe_load(architecture.to_yaml(80))["nas"]

    def test_fingerprint_does_not_contain_a_parameter_without_effect(self) -> None:
        def with_one_kernel(temperature: float) -> Architecture:
            choice = Choice.of("DynamicConv", {"kernels": 1, "temperature": temperature})
            return read("v9").of({8: choice})

        assert with_one_kernel(1.0) == with_one_kernel(10.0)
        assert with_one_kernel(1.0).fingerprint == with_one_kernel(10.0).fingerprint
        assert network(with_one_kernel(1.0)) == network(with_one_kernel(10.0))

    @pytest.mark.parametrize("temperature", [1.0, 10.0])
    def test_fingerprint_contains_a_parameter_that_changes_no_weight(self, temperature: float) -> None:
        default = read("v9").of({8: Choice.of("DynamicConv", {})})
        other = read("v9").of({8: Choice.of("DynamicConv", {"temperature": temperature})})
        assert default.fingerprint != other.fingerprint
        assert network(default) != network(other)

    def test_fingerprint_does_not_depend_on_stock_picks_and_their_order(self) -> None:
        uib, sample = Choice.of("UIB", {}), Choice.of("DySample", {})
        assert read("v9").of({10: sample, 4: uib, 6: STOCK}) == read("v9").of({4: uib, 10: sample})

    def test_fingerprint_does_not_contain_a_default(self) -> None:
        written = Choice.of("UIB", {"start_kernel": 0, "mid_kernel": 3, "expansion": 4, "layer_scale": 0})
        assert written == Choice.of("UIB", {})
        assert read("v9").of({4: written}).fingerprint == "ce30e86fe1b9"


GOLDEN = """\
# A YOLO detector with searched operators. The rows that carry one end in a mapping of its parameters.
# Load it with:  import search_spaces; from ultralytics import YOLO; YOLO("model.yaml")
# Train it with: nas yolo train model=model.yaml data=YOUR.yaml
nas: {base: 'yolov9{scale}.yaml', scale: t, fingerprint: d7fca31e08a2, stock: {5: [AConv, [96]]}}
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, ELAN1_DCNv4, [32, 32, 16, {groups: 2, offset_scale: 1.0, dw_kernel: 3, remove_center: false, \
center_scale: false}]]
  - [-1, 1, AConv_DynamicConv, [64, {kernels: 2, reduction: 4, temperature: 30.0}]]
  - [-1, 1, RepNCSPELAN4_UIB, [64, 64, 32, 3, {start_kernel: 5, mid_kernel: 3, expansion: 2, layer_scale: 0.0}]]
  - [-1, 1, UIB, [96, 3, 2, {start_kernel: 3, mid_kernel: 5, expansion: 4, layer_scale: 0.0}]]
  - [-1, 1, RepNCSPELAN4, [96, 96, 48, 3]]
  - [-1, 1, AConv, [128]]
  - [-1, 1, RepNCSPELAN4_MMQA, [128, 128, 64, 3, {heads: 2, key_dim: 16, kv_stride: 2, query_stride: 1, layer_scale: 0.0}]]
  - [-1, 1, SPPELAN, [128, 64]]
head:
  - [-1, 1, DySample, [None, 2, nearest, {style: pl, groups: 4, dynamic_scope: true}]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [96, 96, 48, 3]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [64, 64, 32, 3]]
  - [-1, 1, AConv, [48]]
  - [[-1, 12], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [96, 96, 48, 3]]
  - [-1, 1, AConv, [64]]
  - [[-1, 9], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [128, 128, 64, 3]]
  - [[15, 18, 21], 1, Detect, [nc]]
"""  # noqa: E501


def golden() -> Architecture:
    return read("v9").of(
        {
            2: Choice.of("DCNv4", {"groups": 2, "dw_kernel": 3}),
            3: Choice.of("DynamicConv", {"kernels": 2}),
            4: Choice.of("UIB", {"start_kernel": 5, "expansion": 2}),
            5: Choice.of("UIB", {"start_kernel": 3, "mid_kernel": 5}),
            8: Choice.of("MMQA", {"heads": 2, "key_dim": 16, "kv_stride": 2}),
            10: Choice.of("DySample", {"style": "pl", "dynamic_scope": True}),
        }
    )


def test_yaml_of_an_architecture_is_unchanged(tmp_path: Path) -> None:
    assert golden().to_yaml(3) == GOLDEN
    path = tmp_path / "best.yaml"
    path.write_text(GOLDEN, encoding="utf-8")
    assert Architecture.read(path) == golden()


def test_document_of_an_architecture_is_a_copy() -> None:
    document = golden().document(3)
    for row in [*document["backbone"], *document["head"]]:
        row[3].append("spoiled")
    document.clear()
    assert golden().to_yaml(3) == GOLDEN


def test_description_of_an_architecture_lists_its_choices() -> None:
    assert str(golden()) == (
        "2 DCNv4(groups=2, dw_kernel=3) · 3 DynamicConv(kernels=2) · 4 UIB(start_kernel=5, expansion=2) · "
        "5 UIB(start_kernel=3, mid_kernel=5) · 8 MMQA(heads=2, key_dim=16, kv_stride=2) · "
        "10 DySample(style=pl, dynamic_scope=True)"
    )
    assert golden().summary() == "DCNv4 2 · DynamicConv 3 · UIB 4, 5 · MMQA 8 · DySample 10"
    assert golden().as_picks()["3"] == {"DynamicConv": {"kernels": 2, "reduction": 4, "temperature": 30.0}}


def test_description_of_the_stock_architecture() -> None:
    stock = read("v9").stock
    assert stock.is_stock
    assert (str(stock), stock.summary(), stock.as_picks()) == ("stock", "stock", {})
    assert Architecture.from_yaml(stock.to_yaml(80)) == stock


@pytest.mark.parametrize(
    ("operator", "given", "words", "effective"),
    [
        ("UIB", {}, "UIB", {}),
        ("UIB", {"expansion": 2}, "UIB(expansion=2)", {"expansion": 2}),
        ("DySample", {"dynamic_scope": True}, "DySample(dynamic_scope=True)", {"dynamic_scope": True}),
        (
            "DynamicConv",
            {"temperature": 1, "kernels": 2},
            "DynamicConv(kernels=2, temperature=1.0)",
            {"kernels": 2, "temperature": 1.0},
        ),
        ("DynamicConv", {"temperature": 1.0, "kernels": 1}, "DynamicConv(kernels=1)", {"kernels": 1}),
    ],
)
def test_description_of_a_choice_lists_its_parameters(
    operator: str, given: dict[str, float], words: str, effective: dict[str, float]
) -> None:
    choice = Choice.of(operator, given)
    assert str(choice) == words
    assert choice.effective == effective
    assert [name for name, _ in choice.parameters] == [p.name for p in OPERATORS[operator].parameters]
    assert not choice.is_stock


def test_stock_choice_has_no_parameters() -> None:
    assert STOCK.is_stock
    assert (str(STOCK), STOCK.effective) == ("stock", {})


@pytest.mark.parametrize(
    ("operator", "given", "expected"),
    [
        ("DySampel", {}, ["unknown operator 'DySampel' (did you mean 'DySample'?)"]),
        (
            "UIB",
            {"expansion": 5, "expantion": 4},
            [
                "not a value of expansion, got 5 (one of 1, 2, 3, 4, 6)",
                "UIB has no parameter 'expantion' (did you mean 'expansion'?)",
            ],
        ),
    ],
)
def test_invalid_choice_is_an_error(operator: str, given: dict[str, int], expected: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        Choice.of(operator, given)
    assert list(caught.value.mistakes) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _: "", "empty: a mapping is expected"),
        (lambda _: "a: [", "not YAML: line 1: expected the node content, but found '<stream end>'"),
        (
            lambda text: text.replace("nas:", "origin:"),
            "not an exported architecture: the key `nas` with `base` and `scale` is missing",
        ),
        (
            lambda text: text.replace("{base: 'yolov9{scale}.yaml', ", "{"),
            "not an exported architecture: the key `nas` with `base` and `scale` is missing",
        ),
        (
            lambda text: text.partition("head:")[0],
            "not a model YAML: `backbone` and `head` must be lists of rows [from, repeats, module, arguments]",
        ),
        (
            lambda text: text.replace("kernels: 2", "kernels: 3"),
            "backbone[3]: AConv_DynamicConv: not a value of kernels, got 3 (one of 1, 2, 4, 8)",
        ),
        (
            lambda text: text.replace("ELAN1_DCNv4", "Concat_DCNv4"),
            (
                "backbone[2]: Concat_DCNv4: no such row (it stands in Bottleneck, C3, C2f, C3k2, A2C2f, RepNCSPELAN4, "
                "ELAN1, AConv, ADown)"
            ),
        ),
    ],
)
def test_text_that_is_no_exported_architecture_is_refused(change: Callable[[str], str], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        Architecture.from_yaml(change(GOLDEN))
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (99, "layer 99: yolov9{scale}.yaml has 23 layers"),
        (22, "layer 22: Detect hosts no operator"),
        (11, "layer 11: Concat has no site for UIB"),
    ],
)
def test_pick_at_no_slot_is_refused(layer: int, expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        Architecture.of("yolov9{scale}.yaml", "t", {layer: Choice.of("UIB", {})}).document(80)
    assert str(caught.value) == expected
