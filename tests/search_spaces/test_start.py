"""Keys of a space file about the search: `start` and `pgi`."""

from typing import Any

import pytest
import yaml

from search_spaces import Choice, SearchSpace, yaml_text
from search_spaces.errors import SpecError
from search_spaces.space_file import parse

SPACE = """\
name: mine
base: yolov9{scale}.yaml
scale: t
slots:
- {at: {layers: [4, 6]}, choices: {UIB: {expansion: [2, 4]}}}
- {at: {layers: [12, 18]}, tie: true, choices: {DynamicConv: {kernels: [1, 4]}}}
insert:
- {after: 9, choices: {DCNv4: {}}}
macro: {depth: [0.67, 1], image_size: [320, 640]}
"""
PLAIN = SPACE.replace("v9", "v8").replace("scale: t", "scale: n")


def parsed(more: str = "", space: str = SPACE) -> SearchSpace:
    return parse(yaml_text.parse_yaml(space + more))


def mistakes(more: str, space: str = SPACE) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parsed(more, space)
    return list(caught.value.mistakes)


class TestStart:
    def test_space_without_start_tries_nothing_first(self) -> None:
        assert parsed().start == parsed("start: []\n").start == ()

    def test_each_entry_of_start_is_an_architecture(self) -> None:
        space = parsed("start:\n- 4: {UIB: {expansion: 2}}\n  after-9: {DCNv4: {}}\n- 6: {UIB: {}}\n")
        assert space.start == (
            space.of({4: Choice.of("UIB", {"expansion": 2}), "after-9": Choice.of("DCNv4", {})}),
            space.of({6: Choice.of("UIB", {})}),
        )

    def test_tied_slot_has_the_name_of_its_first_layer(self) -> None:
        (architecture,) = parsed("start: [{12: {DynamicConv: {}}}]\n").start
        assert [layer for layer, _ in architecture.picks] == [12, 18]

    def test_scaling_factors_of_a_start_are_at_stock(self) -> None:
        space = parsed("start: [{4: {UIB: {}}}]\n")
        (architecture,) = space.start
        assert space.factor_values(architecture) == space.factor_values(space.stock)

    def test_start_ignores_parameters_without_effect(self) -> None:
        given = "start: [{'12': {DynamicConv: {kernels: 1, reduction: 8}}}]\n"
        assert parsed(given).start == parsed("start: [{12: {DynamicConv: {kernels: 1}}}]\n").start

    def test_architectures_of_start_belong_to_the_space(self) -> None:
        space = parsed("start: [{4: {UIB: {}}, 12: {DynamicConv: {}}, after-9: {DCNv4: {}}}]\n")
        (architecture,) = space.start
        assert space.architecture(space.values(architecture)) == architecture
        assert space.incompatibility(architecture) is None

    @pytest.mark.parametrize("raw", [None, 3, "stock", [3], [{}], [[4]], {4: {"UIB": {}}}])
    def test_start_that_is_no_list_of_architectures_is_refused(self, raw: Any) -> None:
        assert mistakes(yaml.safe_dump({"start": raw})) == [
            f"start: a list of architectures is expected, got {raw!r} (- {{LAYER: {{OPERATOR: {{}}}}}})"
        ]

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("5: {UIB: {}}", "5: no such slot (one of 4, 6, 12, after-9)"),
            ("after-8: {DCNv4: {}}", "after-8: no such slot (did you mean 'after-9'?)"),
            ("macro: {depth: 2}", "macro.depth: not a value in this space, got 2 (one of 0.67, 1)"),
            ("4: UIB", "4: an operator with its parameters is expected, got 'UIB' ({UIB: {}})"),
            ("4: {UIB: }", "4: an operator with its parameters is expected, got {'UIB': None} ({UIB: {}})"),
            ("4: {}", "4: an operator with its parameters is expected, got {} ({UIB: {}})"),
            (
                "4: {UIB: {}, DCNv4: {}}",
                "4: an operator with its parameters is expected, got {'UIB': {}, 'DCNv4': {}} ({UIB: {}})",
            ),
            ("4: {UBI: {}}", "4: unknown operator 'UBI' (did you mean 'UIB'?)"),
            ("4: {UIB: {expnsion: 2}}", "4: UIB has no parameter 'expnsion' (did you mean 'expansion'?)"),
            ("4: {UIB: {expansion: 5}}", "4: not a value of expansion, got 5 (one of 1, 2, 3, 4, 6)"),
            ("4: {UIB: {expansion: true}}", "4: not a value of expansion, got True (one of 1, 2, 3, 4, 6)"),
            ("4: {UIB: {expansion: 6}}", "4: UIB(expansion=6) is not among the choices of layer 4"),
            ("4: {DCNv4: {}}", "4: DCNv4 is not among the choices of layer 4"),
            ("after-9: {UIB: {}}", "after-9: UIB is not among the choices of after-9"),
        ],
    )
    def test_impossible_architecture_of_start_is_refused(self, written: str, expected: str) -> None:
        assert mistakes(f"start: [{{6: {{UIB: {{}}}}}}, {{{written}}}]\n") == [f"start[1].{expected}"]

    def test_all_mistakes_of_start_are_reported_at_once(self) -> None:
        wrong = PLAIN.replace("expansion: [2, 4]", "expansion: [2, 5]").replace("after: 9", "after: 99")
        more = "pgi: true\nstart: [{4: {UIB: {expansion: 6}}, 5: {UIB: {}}}, {6: UIB}]\n"
        assert mistakes(more, wrong) == [
            "slots[0].choices.UIB.expansion: not a value of expansion, got 5 (one of 1, 2, 3, 4, 6)",
            "insert[0].after: no such layer before the head, got 99 (0 to 21)",
            "pgi: only YOLOv9's models (SPPELAN, RepNCSPELAN4, three maps) have an auxiliary branch",
            "start[0].4: UIB(expansion=6) is not among the choices of layer 4",
            "start[0].5: no such slot (one of 4, 6, 12)",
            "start[1].6: an operator with its parameters is expected, got 'UIB' ({UIB: {}})",
        ]

    def test_names_in_start_are_checked_without_a_base_model(self) -> None:
        lost = SPACE.replace("yolov9", "yolov7")
        assert mistakes("start: [{4: {UBI: {}}}]\n", lost) == [
            "base: unknown model 'yolov7t.yaml' (did you mean 'yolov9t.yaml'?)",
            "start[0].4: unknown operator 'UBI' (did you mean 'UIB'?)",
        ]


class TestPgi:
    @pytest.mark.parametrize(
        ("written", "meant"),
        [("true", True), ("false", False), ("lead-guided", "lead-guided"), ("'lead-guided'", "lead-guided")],
    )
    def test_valid_settings_of_pgi(self, written: str, meant: object) -> None:
        assert parsed(f"pgi: {written}\n").pgi == meant
        assert type(parsed(f"pgi: {written}\n").pgi) is type(meant)

    def test_space_without_pgi_has_no_branch(self) -> None:
        assert parsed().pgi is False

    @pytest.mark.parametrize("raw", [1, 0, 1.0, None, "true", "lead_guided", [True], {"share": 0.25}])
    def test_invalid_settings_of_pgi_are_refused(self, raw: object) -> None:
        assert mistakes(yaml.safe_dump({"pgi": raw})) == [f"pgi: true, false or lead-guided is expected, got {raw!r}"]

    @pytest.mark.parametrize("written", ["true", "lead-guided"])
    def test_pgi_is_refused_for_other_families(self, written: str) -> None:
        assert mistakes(f"pgi: {written}\n", PLAIN) == [
            "pgi: only YOLOv9's models (SPPELAN, RepNCSPELAN4, three maps) have an auxiliary branch"
        ]
        assert parsed("pgi: false\n", PLAIN).pgi is False

    @pytest.mark.parametrize("scale", "tsmce")
    def test_every_yolov9_accepts_pgi(self, scale: str) -> None:
        slots = "slots: [{at: {section: head, host: RepNCSPELAN4}, choices: {UIB: {}}}]\n"
        assert parsed("pgi: true\n", f"name: mine\nbase: yolov9{{scale}}.yaml\nscale: {scale}\n{slots}").pgi is True


@pytest.mark.parametrize(
    "more", ["pgi: true\n", "pgi: lead-guided\n", "start: [{4: {UIB: {}}}]\n", "start: [{6: {UIB: {}}}]\npgi: true\n"]
)
def test_hash_of_a_space_does_not_depend_on_start_and_pgi(more: str) -> None:
    plain, other = parsed(), parsed(more)
    assert plain.hash == other.hash
    assert (plain.size, plain.parameters) == (other.size, other.parameters)
    assert plain.stock.fingerprint == other.stock.fingerprint
