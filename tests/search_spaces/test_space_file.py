"""Format of space files, the message of every mistake, and the catalog."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonschema import Draft7Validator
from ultralytics.nn import tasks

from search_spaces import (
    STOCK,
    Choice,
    SearchSpace,
    Slot,
    build,
    grammar,
    joined_file,
    json_schema,
    load,
    parser_rules,
    space_names,
    yaml_text,
)
from search_spaces import base as bases
from search_spaces.derive import derive
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS
from search_spaces.space_file import parse
from search_spaces.space_names import catalog
from search_spaces.yaml_text import parse_yaml

HEADING = "name: mine\nbase: yolov8{scale}.yaml\nscale: n\n"

FAMILIES = {"v5": "nsmlx", "v6": "nsmlx", "v8": "nsmlx", "v9": "tsmce", "v10": "nsmblx"}
FAMILIES |= {"11": "nsmlx", "12": "nsmlx", "26": "nsmlx"}
MODELS = [(f"yolo{family}{{scale}}.yaml", scale) for family, scales in FAMILIES.items() for scale in scales]
SCALES = {"v5": "nsmlx", "v8": "nsmlx", "v9": "tsmce", "v10": "nmbx", "v11": "nmx", "v12": "nlx", "v26": "nmx"}
PLUS = [f"{space}-plus" for space in SCALES]
FIRST = {"UIB", "MMQA", "DCNv4", "DynamicConv", "DySample"}
"""Operators of the spaces of version 0.1.0, whose hashes studies store; the others are in `PLUS`."""
SPACES = [f"{space}:{scale}" for space, scales in SCALES.items() for scale in scales]


def parsed(slots: str, heading: str = HEADING) -> SearchSpace:
    return parse(yaml_text.parse_yaml(f"{heading}slots:\n{slots}"))


def mistakes(slots: str, heading: str = HEADING) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parsed(slots, heading)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return list(caught.value.mistakes)


def choices(slots: str) -> list[str]:
    """Return the choices of the only slot as texts."""
    (slot,) = parsed(slots).slots
    return [str(choice) for choice in slot.choices]


class TestGrammar:
    def test_entry_makes_a_slot_of_each_matching_layer(self) -> None:
        space = parsed("- {at: {section: head, host: C2f}, choices: {DynamicConv: {}}}")
        assert [(slot.layer, slot.host) for slot in space.slots] == [(12, "C2f"), (15, "C2f"), (18, "C2f"), (21, "C2f")]

    def test_entry_may_name_several_hosts(self) -> None:
        space = parsed("- {at: {section: backbone, host: [C2f, Conv]}, choices: {DynamicConv: {}}}")
        assert [slot.layer for slot in space.slots] == [0, 1, 2, 3, 4, 5, 6, 7, 8]

    def test_layer_must_meet_all_conditions_of_an_entry(self) -> None:
        space = parsed("- {at: {section: backbone, host: C2f, layers: [3, 4, 12]}, choices: {DynamicConv: {}}}")
        assert [slot.layer for slot in space.slots] == [4]

    def test_stock_is_the_first_choice_of_a_slot(self) -> None:
        written = parsed("- {at: {layers: [4]}, choices: {UIB: {}, stock: {}}}")
        assert written == parsed("- {at: {layers: [4]}, choices: {UIB: {}}}")
        assert written.slots[0].choices == (STOCK, Choice.of("UIB", {}))

    def test_value_fixes_a_parameter_and_a_list_opens_it(self) -> None:
        (slot,) = parsed("- {at: {layers: [4]}, choices: {UIB: {mid_kernel: 5, expansion: [2, 6]}}}").slots
        assert [str(choice) for choice in slot.choices] == [
            "stock",
            "UIB(mid_kernel=5, expansion=2)",
            "UIB(mid_kernel=5, expansion=6)",
        ]
        assert slot.free("UIB") == {"expansion": (2, 6)}

    def test_an_unlisted_parameter_has_its_default(self) -> None:
        assert choices("- {at: {layers: [4]}, choices: {DynamicConv: {}}}") == ["stock", "DynamicConv"]

    def test_whole_number_is_allowed_in_place_of_a_fraction(self) -> None:
        assert choices("- {at: {layers: [4]}, choices: {DCNv4: {offset_scale: 2}}}") == [
            "stock",
            "DCNv4(offset_scale=2.0)",
        ]

    def test_entries_that_match_the_same_layer_merge(self) -> None:
        first = "- {at: {host: C2f}, choices: {UIB: {}}}\n"
        second = "- {at: {layers: [6, 8]}, choices: {MMQA: {}}}\n"
        space = parsed(first + second)
        assert [slot.operators for slot in space.slots if slot.layer in {4, 6}] == [
            ("stock", "UIB"),
            ("stock", "UIB", "MMQA"),
        ]
        assert {s.layer: set(s.choices) for s in space.slots} == {
            s.layer: set(s.choices) for s in parsed(second + first).slots
        }

    def test_illegal_combination_of_parameters_is_not_offered(self) -> None:
        at_one_eighth = choices("- {at: {layers: [4]}, choices: {MMQA: {kv_stride: [1, 2, 4]}}}")
        at_one_sixteenth = choices("- {at: {layers: [6]}, choices: {MMQA: {kv_stride: [1, 2, 4]}}}")
        assert at_one_eighth == ["stock", "MMQA(kv_stride=4)"]
        assert at_one_sixteenth == ["stock", "MMQA", "MMQA(kv_stride=2)", "MMQA(kv_stride=4)"]

    def test_an_operator_may_fit_some_layers_of_its_entry(self) -> None:
        space = parsed("- {at: {layers: [4, 6]}, choices: {UIB: {}, MMQA: {}}}")
        assert [slot.operators for slot in space.slots] == [("stock", "UIB"), ("stock", "UIB", "MMQA")]

    def test_parameters_without_effect_make_no_second_choice(self) -> None:
        offered = choices("- {at: {layers: [4]}, choices: {DynamicConv: {kernels: 1, temperature: [1.0, 30.0]}}}")
        assert offered == ["stock", "DynamicConv(kernels=1)"]

    def test_scale_given_to_load_wins(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(HEADING + "slots:\n- {at: {layers: [4]}, choices: {UIB: {}}}\n", encoding="utf-8")
        assert (load(path).scale, load(path, scale="m").scale) == ("n", "m")

    def test_base_may_be_the_path_of_a_model_file(self, tmp_path: Path) -> None:
        own = tmp_path / "tiny.yaml"
        document = {**bases.load("yolov8{scale}.yaml", "n").document}
        own.write_text(yaml.safe_dump(document), encoding="utf-8")
        space = parsed("- {at: {layers: [4]}, choices: {UIB: {}}}", f"name: mine\nbase: {own}\n")
        assert repr(build.skeleton(space.stock.document(80), 80)) == repr(build.skeleton(document, 80))

    def test_yaml_anchors_and_merge_keys_are_allowed(self) -> None:
        space = parsed(
            """\
- at: {layers: [4]}
  choices: &blocks {UIB: {}, DynamicConv: {}}
- at: {layers: [6]}
  choices: {<<: *blocks, DynamicConv: {kernels: 2}}
"""
        )
        assert [str(choice) for choice in space.slots[1].choices] == ["stock", "UIB", "DynamicConv(kernels=2)"]

    def test_sampler_parameters_are_spelled_by_layer_operator_and_name(self) -> None:
        space = parsed("- {at: {layers: [6]}, choices: {UIB: {expansion: [2, 4]}, MMQA: {}}}")
        assert space.parameters == {"6.operator": ("stock", "UIB", "MMQA"), "6.UIB.expansion": (2, 4)}


def test_all_mistakes_of_a_space_file_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        """\
name: two words
base: yolov8{scale}.yaml
scale: q
colour: red
macro: {depth: [1, x], widht: 2, image_size: [320, 400]}
insert: []
slots:
  - at: {host: C2g}
    choices: {UIB: {}}
  - at: {host: C2f}
    choice: {UIB: {}}
  - at: {layers: [yes, 4]}
    choices: {UIB: {}}
    name: stages
  - at: {section: neck}
    choices: {UIB: {}}
  - at: {host: C2f}
    choices:
      stock: {kernel: 3}
      DySampel: {}
      UIB: {expansion: [2, 5, true], expnsion: 4, mid_kernel: []}
  - 7
""",
        encoding="utf-8",
    )
    with pytest.raises(SpecError) as caught:
        load(path)
    assert list(caught.value.mistakes) == [
        "wrong.yaml: name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', got 'two words'",
        "wrong.yaml: colour: unknown key (one of name, base, scale, modules, pgi, start, slots, insert, macro)",
        "wrong.yaml: scale: yolov8{scale}.yaml has no scale 'q' (one of n, s, m, l, x)",
        "wrong.yaml: macro.depth[1]: a number is expected, got 'x'",
        "wrong.yaml: macro.image_size[1]: input should be a multiple of 32, got 400",
        "wrong.yaml: macro.widht: unknown key (did you mean 'width'?)",
        "wrong.yaml: slots[1].choices: missing",
        "wrong.yaml: slots[1].choice: unknown key (did you mean 'choices'?)",
        "wrong.yaml: slots[2].name: not yet; this key is reserved",
        "wrong.yaml: slots[2].at.layers[0]: input should be a valid integer, got True",
        "wrong.yaml: slots[3].at.section: input should be 'backbone' or 'head', got 'neck'",
        "wrong.yaml: slots[4].choices.stock: stock has no parameters, got {'kernel': 3} ({})",
        "wrong.yaml: slots[4].choices.DySampel: unknown operator (did you mean 'DySample'?)",
        "wrong.yaml: slots[4].choices.UIB.expansion: not a value of expansion, got 5 (one of 1, 2, 3, 4, 6)",
        "wrong.yaml: slots[4].choices.UIB.expansion: not a value of expansion, got True (one of 1, 2, 3, 4, 6)",
        "wrong.yaml: slots[4].choices.UIB.expnsion: UIB has no parameter 'expnsion' (did you mean 'expansion'?)",
        "wrong.yaml: slots[4].choices.UIB.mid_kernel: an empty list offers nothing (a value or several)",
        "wrong.yaml: slots[5]: a mapping is expected, got 7",
        "wrong.yaml: insert: a list of entries is expected, got [] (- after: LAYER\\n  feeds: next\\n  choices: ...)",
    ]


def test_all_mistakes_about_layers_are_reported_at_once() -> None:
    assert mistakes(
        """\
- {at: {host: C2g}, choices: {UIB: {}}}
- {at: {layers: [4, 22, 99, -1]}, choices: {DCNv4: {}}}
- {at: {layers: [4], section: head}, choices: {DCNv4: {}}}
- {at: {}, choices: {UIB: {}}}
- {at: {host: C2f}, choices: {UIB: {}, DySample: {}, DCNv4: {}}}
- {at: {layers: [2, 6]}, choices: {MMQA: {}}}
- {at: {layers: [10]}, choices: {DySample: {}}}
- {at: {section: head, host: nn.Upsample}, choices: {DySample: {style: pl}}}
- {at: {host: Conv}, choices: {UIB: {}, DCNv4: {}}}
- {at: {host: C3}, choices: {UIB: {}}}
"""
    ) == [
        "slots[0].at.host: no such host, got 'C2g' (did you mean 'C2f'?)",
        "slots[1].at.layers[1]: layer 22 is Detect, which hosts no operator",
        "slots[1].at.layers[2]: no such layer, got 99 (0 to 22)",
        "slots[1].at.layers[3]: no such layer, got -1 (0 to 22)",
        "slots[2].at: matches no layer of the base model",
        "slots[3].at: empty (section, host or layers)",
        "slots[4].choices.DySample: fits no layer of this entry (layer 2: C2f has no site for DySample)",
        "slots[4].choices.DCNv4: layer 4 has DCNv4 already, from slots[1]",
        "slots[7].choices.DySample: layer 10 has DySample already, from slots[6]",
        "slots[8].choices.DCNv4: fits no layer of this entry (layer 0: it needs stride 1)",
        "slots[9].at: matches no layer of the base model",
    ]


ENTRIES: list[tuple[str, list[str]]] = [
    ("{choices: {UIB: {}}}", ["slots[0].at: missing"]),
    ("{at: {host: 3}, choices: {UIB: {}}}", ["slots[0].at.host[0]: input should be a valid string, got 3"]),
    ("{at: {host: []}, choices: {UIB: {}}}", ["slots[0].at.host: empty"]),
    (
        "{at: {host: [C2f, 3]}, choices: {UIB: {}}}",
        ["slots[0].at.host[1]: input should be a valid string, got 3"],
    ),
    ("{at: {layers: 4}, choices: {UIB: {}}}", ["slots[0].at.layers: a list is expected, got 4"]),
    ("{at: {layers: []}, choices: {UIB: {}}}", ["slots[0].at.layers: empty"]),
    (
        "{at: {layers: ['4', 4.0]}, choices: {UIB: {}}}",
        [
            "slots[0].at.layers[0]: input should be a valid integer, got '4'",
            "slots[0].at.layers[1]: input should be a valid integer, got 4.0",
        ],
    ),
    ("{at: {layer: [4]}, choices: {UIB: {}}}", ["slots[0].at.layer: unknown key (did you mean 'layers'?)"]),
    ("{at: 4, choices: {UIB: {}}}", ["slots[0].at: a mapping is expected, got 4"]),
    ("{at: {layers: [4]}, choices: {}}", ["slots[0].choices: empty"]),
    ("{at: {layers: [4]}, choices: [UIB]}", ["slots[0].choices: a mapping is expected, got ['UIB']"]),
    ("{at: {layers: [4]}, choices: {UIB: }}", ["slots[0].choices.UIB: a mapping is expected, got None"]),
    (
        "{at: {layers: [4]}, choices: {UIB: {}}, tie: a, name: b}",
        [
            "slots[0].name: not yet; this key is reserved",
            "slots[0].tie: input should be a valid boolean, got 'a'",
        ],
    ),
    (
        "{at: {layers: [4]}, choices: {DynamicConv: {kernels: 3}}}",
        ["slots[0].choices.DynamicConv.kernels: not a value of kernels, got 3 (one of 1, 2, 4, 8)"],
    ),
    (
        "{at: {layers: [4]}, choices: {DynamicConv: {kernels: '4'}}}",
        ["slots[0].choices.DynamicConv.kernels: not a value of kernels, got '4' (one of 1, 2, 4, 8)"],
    ),
    (
        "{at: {layers: [10]}, choices: {DySample: {dynamic_scope: 1}}}",
        [
            "slots[0].choices.DySample.dynamic_scope: not a value of dynamic_scope, got 1 (one of false, true)",
        ],
    ),
    (
        "{at: {layers: [4]}, choices: {UIB: {layer_scale: 1e-5}}}",  # YAML reads 1e-5 as text
        ["slots[0].choices.UIB.layer_scale: not a value of layer_scale, got '1e-5' (one of 0.0, 1.0e-05, 0.1)"],
    ),
    (
        "{at: {layers: [4]}, choices: {MMQA: {}}}",
        [
            (
                "slots[0].choices.MMQA: fits no layer of this entry (layer 4: the attention matrix grows with the "
                "square of the pixels; at 1/8 of the image it needs kv_stride 4)"
            )
        ],
    ),
    (
        "{at: {layers: [4]}, choices: {UIB: {mid_kernel: 0}}}",
        [
            (
                "slots[0].choices.UIB: fits no layer of this entry (layer 4: without start_kernel and mid_kernel "
                "nothing here would mix pixels)"
            )
        ],
    ),
    (
        "{at: {layers: [2, 6]}, choices: {MMQA: {}}}",
        [
            (
                "slots[0]: layer 2 has stock as its only choice (MMQA: the attention matrix grows with the square of "
                "the pixels; at 1/4 of the image it needs too much memory)"
            )
        ],
    ),
    ("{at: {layers: [4]}, choices: {stock: {}}}", ["slots[0]: layer 4 has stock as its only choice"]),
    (
        "{at: {layers: [4]}, choices: {stock: {}, uib: {}}}",
        ["slots[0].choices.uib: unknown operator (did you mean 'UIB'?)"],
    ),
]
"""Entries of `slots` with their mistakes."""


@pytest.mark.parametrize(("entry", "expected"), ENTRIES, ids=lambda value: value if isinstance(value, str) else "")
def test_mistake_in_an_entry_is_reported(entry: str, expected: list[str]) -> None:
    assert mistakes(f"- {entry}") == expected


def test_later_entry_adds_choices_to_a_slot() -> None:
    attention = "- {at: {layers: [2, 6]}, choices: {MMQA: {}}}\n"
    blocks = "- {at: {layers: [2]}, choices: {UIB: {}}}\n"
    assert [slot.operators for slot in parsed(attention + blocks).slots] == [("stock", "UIB"), ("stock", "MMQA")]
    assert parsed(attention + blocks) == parsed(blocks + attention)


HEADINGS: list[tuple[str, list[str]]] = [
    ("name: x\n", ["base: missing"]),
    ("name: x\nbase: yolov8{scale}.yaml\n", ["scale: yolov8.yaml has no scale '' (one of n, s, m, l, x)"]),
    (
        "name: x\nbase: yolov9{scale}.yaml\n",
        ["scale: yolov9{scale}.yaml has no scale '' (one of c, e, m, s, t)"],
    ),
    (
        "name: x\nbase: yolov8{scale}.yaml\nscale: t\n",
        ["scale: yolov8{scale}.yaml has no scale 't' (one of n, s, m, l, x)"],
    ),
    (
        "name: x\nbase: yolov9{scale}.yaml\nscale: n\n",
        ["scale: yolov9{scale}.yaml has no scale 'n' (one of c, e, m, s, t)"],
    ),
    ("name: x\nbase: yolov8.yaml\n", ["scale: yolov8.yaml has no scale '' (one of n, s, m, l, x)"]),
    ("name: x\nbase: yolov9q.yaml\n", ["base: unknown model 'yolov9q.yaml' (did you mean 'yolov9c.yaml'?)"]),
    (
        "name: x\nbase: /no/such.yaml\n",
        ["base: no such file, got '/no/such.yaml' (a path, or an Ultralytics model such as yolov9{scale}.yaml)"],
    ),
    (
        "name: x\nbase: '{family}{scale}.yaml'\nscale: n\n",
        ["base: no such file, got '{family}n.yaml' (a path, or an Ultralytics model such as yolov9{scale}.yaml)"],
    ),
    (
        "name: x\nbase: yolov8n-seg.yaml\n",
        [
            (
                "base: yolov8n-seg.yaml: head[12]: only detection models can be searched, got Segment "
                "(Detect or v10Detect); nas cost counts this one, and nas yolo trains a model for another task as it is"
            ),
        ],
    ),
    ("name: x\nbase: 8\n", ["base: input should be a valid string, got 8"]),
    (
        "name: -x\nbase: yolov8n.yaml\n",
        ["name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', got '-x'"],
    ),
]
"""Top levels of files with their mistakes."""


@pytest.mark.parametrize(("heading", "expected"), HEADINGS, ids=lambda value: value if isinstance(value, str) else "")
def test_mistake_in_the_heading_is_reported(heading: str, expected: list[str]) -> None:
    assert mistakes("- {at: {layers: [4]}, choices: {UIB: {}}}", heading) == expected


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    return Draft7Validator(json_schema.space_schema())


def as_json(text: str) -> Any:
    """Return a YAML text as an editor sees it: keys are texts."""
    return json.loads(json.dumps(yaml_text.parse_yaml(text)))


NEEDS_MODEL = (
    *("fits no layer", "as its only choice", "has no scale", "unknown model", "no such file", "only detection models"),
    "got 4.0",  # a whole number in JSON
)
"""Mistakes that JSON Schema cannot find."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"{HEADING}slots:\n- {entry}\n", expected) for entry, expected in ENTRIES),
        *((f"{heading}slots: [{{at: {{layers: [4]}}, choices: {{UIB: {{}}}}}}]", found) for heading, found in HEADINGS),
        *((f"{HEADING}slots: {slots}", ["slots: a list is expected"]) for slots in ("{}", "[]", "", "4")),
        *((f"{HEADING}macro: {macro}", ["macro: wrong"]) for macro in ("{}", "{depth: x}", "{width: {P9: 1}}", "4")),
        *(
            (f"{HEADING}macro: {macro}", ["macro: wrong"])
            for macro in ("{image_size: 400}", "{depth: 5}", "{width: []}")
        ),
        *((f"{HEADING}insert: {insert}", ["insert: wrong"]) for insert in ("[]", "[{after: 9}]", "[{after: x}]")),
        *(
            (f"{HEADING}start: {start}", ["start: wrong"])
            for start in ("4", "[{}]", "[{4: UIB}]", "[{neck: {UIB: {}}}]")
        ),
        (HEADING, ["neither slots nor insert nor macro"]),
        (f"{HEADING}colour: red\nmacro: {{depth: 1}}", ["colour: unknown key"]),
    ],
    ids=str,
)
def test_schema_refuses_every_mistake_that_needs_no_model(
    text: str, expected: list[str], schema: Draft7Validator
) -> None:
    beyond = all(any(reason in mistake for reason in NEEDS_MODEL) for mistake in expected)
    assert schema.is_valid(as_json(text)) == beyond


def test_schema_accepts_every_right_file(schema: Draft7Validator) -> None:
    right = [path.read_text(encoding="utf-8") for path in catalog().values()]
    right += [derive("yolo11n.yaml"), derive("yolov9c-mmqa")]
    right.append(
        f"{HEADING}modules: [my_ops.py]\nslots: [{{at: {{host: C2f}}, choices: {{FasterBlock: {{part: 2}}}}}}]"
    )
    right.append(
        f"""{HEADING}pgi: lead-guided
macro: {{depth: 1, width: {{P4: [0.75, 1]}}, image_size: [480, 640]}}
insert: [{{after: 9, feeds: all, choices: {{DCNv4: {{groups: [4, 8], offset_scale: 2}}}}}}]
start: [{{after-9: {{DCNv4: {{groups: 4}}}}, macro: {{width.P4: 0.75}}}}]
"""
    )
    right += ["members: [{space: v8, scale: [n, s]}, {space: mine.yaml}]", "name: x\nmembers: [{space: v9, scale: t}]"]
    right.append("members: [{name: x, base: yolov8n.yaml, slots: [{at: {host: C2f}, choices: {UIB: {}}}]}]")
    assert [error.message for text in right for error in schema.iter_errors(as_json(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "members: []",
        "members: {space: v8}",
        "members: [v8]",
        "members: [{space: v8, size: n}]",
        "members: [{space: v8, scale: []}]",
        "members: [{space: v8}]\nslots: []",
        f"{HEADING}members: [{{space: v8}}]\nmacro: {{depth: 1}}",
        f"{HEADING}members: [{{space: v8}}]",
    ],
)
def test_schema_refuses_mistakes_in_members(text: str, schema: Draft7Validator) -> None:
    assert not schema.is_valid(as_json(text))


def test_schema_has_every_key_and_explains_it(schema: Draft7Validator) -> None:
    Draft7Validator.check_schema(schema.schema)
    keys = schema.schema["properties"]
    assert keys.keys() == {*grammar.Heading.model_fields, grammar.MEMBERS}
    for key, entry in (("slots", grammar.Entry), ("insert", grammar.Insert)):
        assert keys[key]["items"]["properties"].keys() == entry.model_fields.keys()
    assert all(one["description"] for one in keys.values())
    offered = schema.schema["definitions"]["choices"]["properties"]
    assert offered.keys() == {"stock", *OPERATORS}


@pytest.mark.parametrize("slots", ["{}", "[]", "", "4"])
def test_slots_that_are_no_list_are_refused(slots: str) -> None:
    got = yaml.safe_load(slots)
    message = f"slots: a list of entries is expected, got {got!r} (- at: ...\\n  choices: ...)"
    assert mistakes(f" {slots}") == [message]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "not YAML: line 2: the key 'name' appears twice"),
        (
            "slots:\n- at: {layers: [4], section: head, layers: [5]}\n",
            "not YAML: line 2: the key 'layers' appears twice",
        ),
        ("slots: [\n", "not YAML: line 2: expected the node content, but found '<stream end>'"),
        ("- 1\n", "a mapping is expected, got list"),
        ("", "empty: a mapping is expected"),
    ],
)
def test_space_file_that_is_no_mapping_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {expected}"


def test_model_file_in_the_place_of_a_space_is_one_line(tmp_path: Path) -> None:
    text = "nc: 2\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "model.yaml")
    reason = "a model file, where a space is expected (nas spaces derive FILE prints the space around it)"
    assert caught.value.mistakes == (f"model.yaml: {reason}",)


def test_unreadable_space_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"binary\.yaml: not a text file \(UTF-8 is expected\)$"):
        load(tmp_path / "binary.yaml")
    with pytest.raises(SpecError) as caught:
        load("v88")
    assert str(caught.value) == "space: no such space or file, got 'v88' (did you mean 'v8'? or a path)"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("yolov8", "v8"),
        ("yolov8n", "v8n"),
        ("yolo11n.yaml", "v11n"),
        ("yolov9t", "v9t"),
        ("yolov6n.yaml", "yolov6n"),
        ("yolov8n-p2", "yolov8-p2n"),
    ],
)
def test_model_of_a_family_is_answered_with_its_space(name: str, meant: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(name)
    assert str(caught.value) == f"space: no such space or file, got {name!r} (did you mean {meant!r}? or a path)"


def test_space_around_a_model_of_ultralytics_that_has_none_is_derived(tmp_path: Path) -> None:
    space = joined_file.load("yolov8-p2s")
    assert (space.name, space.scale) == ("yolov8-p2", "s")
    assert space == joined_file.parse(parse_yaml(joined_file.text("yolov8-p2s")))
    derived = parse_yaml(derive("yolov8-p2.yaml"))
    assert space == joined_file.parse({**derived, "name": "yolov8-p2", "scale": "s"})
    space_names.require_files("v8n,yolov8-p2")
    file = tmp_path / "edge.yaml"
    file.write_text("name: edge\nmembers: [{space: v8, scale: n}, {space: yolov8-p2, scale: [n, s]}]\n")
    assert [member.short_name for member in joined_file.load(file).members] == ["v8n", "yolov8-p2n", "yolov8-p2s"]
    with pytest.raises(SpecError, match="only detection models can be searched, got Segment"):
        load("yolo11-seg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "own.yaml: not YAML: line 1: expected ',' or ']', but got '<stream end>'"),
        ("nc: 80\n", "base: own.yaml: not a model YAML: `backbone` and `head` must be lists of rows"),
        (
            "backbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [[[0], 1, Detect, [nc]]]\n",
            "own.yaml: nc: the number of classes",
        ),
        (
            "nc: 80\nbackbone: [[-1, 1, Cnv, [16, 3, 2]]]\nhead: [[[0], 1, Detect, [nc]]]\n",
            "backbone[0]: unknown module 'Cnv' (did you mean 'Conv'?)",
        ),
    ],
)
def test_invalid_base_of_the_user_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text, encoding="utf-8")
    (mistake,) = mistakes("- {at: {layers: [0]}, choices: {UIB: {}}}", f"name: mine\nbase: {own}\n")
    assert expected in mistake


class TestCatalog:
    def test_catalog_has_the_spaces_of_the_package(self) -> None:
        assert list(catalog()) == [name for space in SCALES for name in (space, f"{space}-plus")]
        assert all(path.is_file() for path in catalog().values())

    @pytest.mark.parametrize("name", SPACES)
    def test_catalog_space_loads_at_every_scale(self, name: str, space_of: Callable[[str], SearchSpace]) -> None:
        space = space_of(name)
        assert f"{space.name}:{space.scale}" == name
        assert all(slot.choices[0] is STOCK and len(slot.choices) > 1 for slot in space.slots)
        assert [slot.layer for slot in space.slots] == sorted({slot.layer for slot in space.slots})

    def test_catalog_offers_every_operator(self, space_of: Callable[[str], SearchSpace]) -> None:
        for space in SCALES:
            assert {name for slot in space_of(space).slots for name in slot.operators} == {"stock", *FIRST}
        offered = {
            space: {name for slot in space_of(space).slots for name in slot.operators} - {"stock"} for space in PLUS
        }
        assert all(names >= FIRST for names in offered.values())
        assert set().union(*offered.values()) == {*OPERATORS}
        missing = {space: {*OPERATORS} - names for space, names in offered.items()}
        assert {space: names for space, names in missing.items() if names} == {
            "v12-plus": {"SPPCSPC"}
        }  # it has no SPPF

    def test_plus_space_offers_what_the_plain_one_does(self, space_of: Callable[[str], SearchSpace]) -> None:
        for space in SCALES:
            plain, plus = ({slot.name: slot for slot in space_of(name).slots} for name in (space, f"{space}-plus"))
            assert all({*slot.choices} <= {*plus[name].choices} for name, slot in plain.items())

    def test_attention_is_inserted_at_every_scale(self, space_of: Callable[[str], SearchSpace]) -> None:
        for scale in "tsmce":
            inserted = [slot for slot in space_of(f"v9-plus:{scale}").slots if slot.feeds]
            assert {name for slot in inserted for name in slot.operators} >= {"SE", "LSKA", "ShuffleAttention"}

    @pytest.mark.parametrize(
        ("name", "size"),
        [
            # Choices of: stages at 1/4, 1/8, 1/16 and 1/32, convolutions that halve, 1x1 ones, the neck's stages.
            ("v5", 15 * 15 * 23 * 23 * 11**5 * 5**2 * 15**4 * 5**2),
            ("v8", 15 * 15 * 23 * 23 * 11**5 * 15**4 * 5**2),
            ("v9", 9 * 15 * 23 * 23 * 11**5 * 15**4 * 5**2),  # an ELAN1 has no block for a UIB
            ("v9:m", 15 * 15 * 23 * 23 * 11**5 * 15**4 * 5**2),
            # One more stage of depthwise blocks, and attention in a block of its own.
            ("v10", 15**4 * 11**2 * 11**3 * 9 * 15**3 * 5**2 * 13),
            ("v11", 15**8 * 11**5 * 9 * 5**2),
            ("v12", 15**6 * 11**5 * 9**2 * 5**2),
            ("v26", 15**7 * 23 * 11**5 * 9 * 5**2),
            ("v9:e", (15 * 15 * 23 * 23) ** 2 * 11**8 * 15**4 * 5**2),  # two backbones
        ],
    )
    def test_sizes_of_the_catalog_spaces(self, name: str, size: int, space_of: Callable[[str], SearchSpace]) -> None:
        assert space_of(name).size == size

    def test_hashes_of_catalog_spaces_are_those_of_stored_studies(self, space_of: Callable[[str], SearchSpace]) -> None:
        assert {name: space_of(name).hash for name in SCALES} == {
            "v5": "d9b292d358b3",
            "v8": "8d2caa3c7cb8",
            "v9": "7620b43f0386",
            "v10": "a9c412dea498",
            "v11": "3e54160b1b75",
            "v12": "2291f8f519ad",
            "v26": "42fbae69a68c",
        }
        assert len({space_of(name).hash for name in SPACES}) == len(SPACES)

    @pytest.mark.parametrize("name", SCALES)
    def test_catalog_offers_no_attention_before_one_sixteenth(
        self, name: str, space_of: Callable[[str], SearchSpace]
    ) -> None:
        space = space_of(name)
        base = bases.load(space.base, space.scale)
        assert {base.reduction(slot.layer) for slot in space.slots if "MMQA" in slot.operators} <= {16, 32}


class TestTied:
    def test_tied_layers_have_one_choice(self) -> None:
        (slot,) = parsed("- {at: {host: C2f}, tie: true, choices: {UIB: {expansion: [2, 4]}}}").slots
        assert (slot.name, slot.layers, slot.host) == ("2", (2, 4, 6, 8, 12, 15, 18, 21), "C2f")
        assert [str(choice) for choice in slot.choices] == ["stock", "UIB(expansion=2)", "UIB"]

    def test_choice_must_be_legal_in_all_tied_layers(self) -> None:
        (slot,) = parsed("- {at: {layers: [4, 6]}, tie: true, choices: {UIB: {}, MMQA: {kv_stride: [1, 4]}}}").slots
        assert [str(choice) for choice in slot.choices] == ["stock", "UIB", "MMQA(kv_stride=4)"]
        assert mistakes("- {at: {layers: [4, 6]}, tie: true, choices: {UIB: {}, MMQA: {}}}")[0].startswith(
            "slots[0].choices.MMQA: fits no layer of this entry (layer 4: the attention matrix"
        )

    def test_tied_layers_are_one_parameter(self) -> None:
        tied = parsed("- {at: {layers: [4, 6]}, tie: true, choices: {UIB: {}}}")
        free = parsed("- {at: {layers: [4, 6]}, choices: {UIB: {}}}")
        uib = Choice.of("UIB", {})
        assert tied.of({"4": uib}) == free.of({4: uib, 6: uib})
        assert tied.parameters == {"4.operator": ("stock", "UIB")}
        assert tied.values(tied.of({"4": uib})) == {"4.operator": "UIB"}
        assert (tied.size, free.size) == (2, 4)
        assert tied.hash != free.hash

    def test_entries_over_the_same_tied_layers_merge(self) -> None:
        first = "- {at: {layers: [4, 6]}, tie: true, choices: {UIB: {}}}\n"
        second = "- {at: {layers: [4, 6]}, tie: true, choices: {DynamicConv: {}}}\n"
        (slot,) = parsed(first + second).slots
        assert slot.operators == ("stock", "UIB", "DynamicConv")

    def test_layer_cannot_be_tied_and_free(self) -> None:
        free, tied = "{at: {layers: [4]}, choices: {UIB: {}}}", "{at: {layers: [2, 4]}, tie: true, choices: {UIB: {}}}"
        message = "layer 4 is in slots[0], too; both must tie the same layers (2, 4)"
        assert mistakes(f"- {free}\n- {tied}") == [f"slots[1]: {message}"]
        assert mistakes(f"- {tied}\n- {free}") == [f"slots[1]: {message}"]


class TestInsert:
    def test_insert_makes_a_slot_behind_a_layer(self) -> None:
        space = parse(yaml_text.parse_yaml(HEADING + "insert: [{after: 9, feeds: all, choices: {UIB: {}, DCNv4: {}}}]"))
        (slot,) = space.slots
        assert (slot.name, slot.layer, slot.feeds) == ("after-9", 9, "all")
        assert space.parameters == {"after-9.operator": ("stock", "UIB", "DCNv4")}

    def test_layer_before_an_insertion_can_be_a_slot(self) -> None:
        entry = "{at: {layers: [8]}, choices: {UIB: {}}}"
        space = parse(
            yaml_text.parse_yaml(f"{HEADING}slots: [{entry}]\ninsert: [{{after: [8, 9], choices: {{UIB: {{}}}}}}]")
        )
        assert [slot.name for slot in space.slots] == ["8", "after-8", "after-9"]
        architecture = space.of({"8": Choice.of("UIB", {}), "after-9": Choice.of("UIB", {})})
        assert str(architecture) == "8 UIB · after-9 UIB"
        assert space.architecture(space.values(architecture)) == architecture

    @pytest.mark.parametrize(
        ("entry", "expected"),
        [
            ("{after: 22, choices: {UIB: {}}}", "insert[0].after: no such layer before the head, got 22 (0 to 21)"),
            (
                "{after: [9, -1], choices: {UIB: {}}}",
                "insert[0].after[1]: no such layer before the head, got -1 (0 to 21)",
            ),
            (
                "{after: 9, choices: {DySample: {}}}",
                "insert[0].choices.DySample: fits no layer of this entry (after-9: Conv has no site for DySample)",
            ),
            (
                "{after: 9, feeds: some, choices: {UIB: {}}}",
                "insert[0].feeds: input should be 'next' or 'all', got 'some'",
            ),
            ("{choices: {UIB: {}}}", "insert[0].after: missing"),
            ("{after: 9, at: 3, choices: {UIB: {}}}", "insert[0].at: unknown key (one of after, feeds, choices)"),
            ("{after: 9, choices: {stock: {}}}", "insert[0]: after-9 has stock as its only choice"),
        ],
        ids=lambda _: "",
    )
    def test_mistake_in_insert_is_reported(self, entry: str, expected: str) -> None:
        with pytest.raises(SpecError) as caught:
            parse(yaml_text.parse_yaml(f"{HEADING}insert: [{entry}]"))
        assert caught.value.mistakes == (expected,)

    def test_insertion_without_a_reader_is_refused(self) -> None:
        heading = "name: mine\nbase: yolov9e.yaml\n"
        with pytest.raises(SpecError) as caught:
            parse(yaml_text.parse_yaml(f"{heading}insert: [{{after: [9, 10], choices: {{UIB: {{}}}}}}]"))
        assert caught.value.mistakes == (
            "insert[0].after[0]: layer 10 does not read layer 9, so nothing would read the insertion (feeds: all)",
            "insert[0].after[1]: layer 10 is CBLinear, which returns several maps",
        )


class TestScalingFactors:
    def test_scaling_factors_have_their_values_and_stock(self) -> None:
        space = parse(
            yaml_text.parse_yaml(
                HEADING + "macro: {depth: 2, width: {P4: [0.5], P5: [0.5, 1]}, image_size: [320, 640]}"
            )
        )
        assert [(factor.name, factor.values, factor.stock) for factor in space.scaling_factors] == [
            ("depth", (1, 2), 1),
            ("width.P4", (0.5, 1), 1),
            ("width.P5", (0.5, 1), 1),
            ("image_size", (320, 640), 640),
        ]
        assert space.parameters == {
            "macro.depth": (1, 2),
            "macro.width.P4": (0.5, 1),
            "macro.width.P5": (0.5, 1),
            "macro.image_size": (320, 640),
        }
        assert (space.size, space.image_size, space.stock.image_size) == (16, 640, 640)
        architecture = space.of({}, {"depth": 2, "width.P5": 0.5, "image_size": 320})
        assert str(architecture) == "depth 2 · width P5 0.5 · 320 px"
        assert space.architecture(space.values(architecture)) == architecture

    def test_choice_must_be_legal_at_every_scaling_factor(self) -> None:
        slots = "slots: [{at: {layers: [2]}, choices: {DCNv4: {groups: [1, 4]}}}]\n"
        (plain,) = parse(yaml_text.parse_yaml(HEADING + slots)).slots
        (narrow,) = parse(yaml_text.parse_yaml(HEADING + slots + "macro: {width: 0.5}")).slots
        assert len(plain.choices) == 3
        assert [str(choice) for choice in narrow.choices] == ["stock", "DCNv4(groups=1)"]

    @pytest.mark.parametrize(
        ("heading", "entry", "expected"),
        [
            (HEADING, "{}", "macro: empty (depth, width or image_size)"),
            (
                HEADING,
                "{width: {P9: 0.5}}",
                "macro.width.P9: unknown stage (one of P1, P2, P3, P4, P5, P6, P7)",
            ),
            (HEADING, "{width: {P6: 0.5}}", "macro.width.P6: the base model has no such stage (P1, P2, P3, P4, P5)"),
            (HEADING, "{width: 0}", "macro.width[0]: input should be greater than or equal to 0.1, got 0"),
            (
                "name: mine\nbase: yolov9e.yaml\n",
                "{width: 0.5}",
                "macro.width: 0.5 is not possible: width: the channels of CBLinear cannot be scaled",
            ),
        ],
        ids=lambda _: "",
    )
    def test_mistake_in_macro_is_reported(self, heading: str, entry: str, expected: str) -> None:
        with pytest.raises(SpecError) as caught:
            parse(yaml_text.parse_yaml(f"{heading}macro: {entry}"))
        assert caught.value.mistakes == (expected,)


class TestBase:
    @pytest.mark.parametrize(("name", "scale"), MODELS)
    def test_explicit_document_builds_what_ultralytics_builds(self, name: str, scale: str) -> None:
        document = bases.load(name, scale).document
        ours = build.skeleton(document, 80)
        with torch.device("meta"):
            stock, _ = tasks.parse_model(tasks.yaml_model_load(name.format(scale=scale)), ch=3, verbose=False)
        assert repr(ours) == repr(stock)
        assert [p.shape for p in ours.parameters()] == [p.shape for p in stock.parameters()]
        assert [(m.i, m.f, m.type, m.np) for m in ours] == [(m.i, m.f, m.type, m.np) for m in stock]
        assert "scales" not in document

    @pytest.mark.parametrize("name", ["yolov3.yaml", "yolov3-tiny.yaml", "yolov5n-p6.yaml", "yolov8n-ghost.yaml"])
    def test_other_detectors_can_be_bases(self, name: str) -> None:
        ours = build.skeleton(bases.load(name, "").document, 80)
        with torch.device("meta"):
            stock, _ = tasks.parse_model(tasks.yaml_model_load(name), ch=3, verbose=False)
        assert repr(ours) == repr(stock)

    def test_an_unknown_rule_about_scales_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parser_rules, "at_scale", lambda _module, arguments, _scale: list(arguments))
        bases._load.cache_clear()
        with pytest.raises(SpecError, match=r"at scale 'm' has rules that a YAML without scales cannot express$"):
            bases.load("yolo11{scale}.yaml", "m")

    @pytest.mark.parametrize(
        ("name", "scale", "params"),
        [("yolov5{scale}.yaml", "n", 2_654_816), ("yolov9{scale}.yaml", "c", 25_590_912)],
    )
    def test_base_has_the_parameters_that_ultralytics_prints(self, name: str, scale: str, params: int) -> None:
        layers = build.skeleton(bases.load(name, scale).document, 80)
        assert sum(parameter.numel() for parameter in layers.parameters()) == params

    def test_layers_of_a_base_have_reduction_and_section(self) -> None:
        base = bases.load("yolov9{scale}.yaml", "t")
        assert [base.reduction(layer) for layer in (0, 2, 4, 8, 10, 15, 21)] == [1, 4, 8, 32, 32, 8, 32]
        assert (base.section(9), base.section(10)) == ("backbone", "head")

    def test_base_file_is_identified_by_its_content_not_its_folder(self, tmp_path: Path) -> None:
        text = yaml.safe_dump(dict(bases.load("yolov8{scale}.yaml", "n").document))
        for folder, content in (("a", text), ("b", text), ("c", text + "activation: nn.ReLU()\n")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "own.yaml").write_text(content, encoding="utf-8")
        a, b, c = (bases.identity(str(tmp_path / folder / "own.yaml"), "") for folder in "abc")
        assert a == b != c
        assert bases.identity("yolov8{scale}.yaml", "n") == "yolov8n.yaml"


class TestSlot:
    def test_nearest_choice_agrees_in_most_parameters(self) -> None:
        (slot,) = parsed(
            "- {at: {layers: [4]}, choices: {UIB: {start_kernel: [0, 3], mid_kernel: [0, 3], expansion: [2, 4]}}}"
        ).slots
        assert str(slot.nearest("UIB", {"start_kernel": 3, "mid_kernel": 0, "expansion": 2})) == (
            "UIB(start_kernel=3, mid_kernel=0, expansion=2)"
        )
        illegal = {"start_kernel": 0, "mid_kernel": 0, "expansion": 2}
        assert str(slot.nearest("UIB", illegal)) in {
            "UIB(expansion=2)",
            "UIB(start_kernel=3, mid_kernel=0, expansion=2)",
        }

    def test_hosts_are_spelled_as_in_the_model(self) -> None:
        slots: tuple[Slot, ...] = load("v9").slots
        assert {slot.host for slot in slots} <= set(HOSTS)


class TestNestedMistakes:
    """All mistakes of a file are reported at once, also after a mistake of form."""

    @staticmethod
    def mistakes_of(text: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            parse(parse_yaml(text))
        return [mistake.partition(" (")[0] for mistake in caught.value.mistakes]

    def test_mistake_in_at_hides_no_mistake_in_operators(self) -> None:
        assert self.mistakes_of(
            HEADING + "slots:\n"
            "  - {at: {layer: [4]}, choices: {UIBB: {}, MMQA: {headz: 2}, UIB: {expansion: 7}}}\n"
            "  - {at: 4, choices: {UIBB: {}}}\n"
            "  - {choices: {DCNv4: {groupz: 4}}}\n"
            "  - {at: {layers: [99]}, choices: [UIB]}\n"
            "insert:\n  - {after: last, choices: {UIBB: {}, MMQA: {headz: 2}}}\n"
        ) == [
            "slots[0].at.layer: unknown key",
            "slots[0].choices.UIBB: unknown operator",
            "slots[0].choices.MMQA.headz: MMQA has no parameter 'headz'",
            "slots[0].choices.UIB.expansion: not a value of expansion, got 7",
            "slots[1].at: a mapping is expected, got 4",
            "slots[1].choices.UIBB: unknown operator",
            "slots[2].at: missing",
            "slots[2].choices.DCNv4.groupz: DCNv4 has no parameter 'groupz'",
            "slots[3].choices: a mapping is expected, got ['UIB']",
            "slots[3].at.layers[0]: no such layer, got 99",
            "insert[0].after[0]: input should be a valid integer, got 'last'",
            "insert[0].choices.UIBB: unknown operator",
            "insert[0].choices.MMQA.headz: MMQA has no parameter 'headz'",
        ]

    def test_mistake_in_the_heading_hides_no_mistake_in_the_base_model(self) -> None:
        heading = "name: a b\nbase: yolov9q.yaml\nnmae: x\n"
        assert self.mistakes_of(heading + "slots: [{at: {host: C3x}, choices: {UIBB: {}}}]\n")[1:] == [
            "nmae: unknown key",
            "base: unknown model 'yolov9q.yaml'",
            "slots[0].choices.UIBB: unknown operator",
        ]

    def test_mistake_in_a_scaling_factor_hides_no_mistake_in_another(self) -> None:
        message = self.mistakes_of(HEADING + "macro: {depth: [9], width: {P9: 1, P7: [0.5]}, image_size: 100}\n")
        assert [one.partition(":")[0] for one in message] == ["macro.depth[0]", "macro.width.P9", "macro.image_size[0]"]
        message = self.mistakes_of(HEADING + "macro: {depth: [9], width: {P7: [0.5]}}\n")
        assert message == [
            "macro.depth[0]: input should be less than or equal to 4, got 9",
            "macro.width.P7: the base model has no such stage",
        ]
