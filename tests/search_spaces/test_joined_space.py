"""Several spaces joined: names, files and their mistakes, and the parameters of samplers."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Architecture, JoinedSpace, SearchSpace, Space, joined_file, load, space_file, space_names
from search_spaces.errors import SpecError
from search_spaces.yaml_text import parse_yaml

EIGHT = """\
name: eight
base: yolov8{scale}.yaml
scale: n
slots:
  - at: {layers: [4]}
    choices: {UIB: {start_kernel: [0, 3]}, DynamicConv: {kernels: [2, 4]}}
  - at: {layers: [10]}
    choices: {DySample: {style: [lp, pl]}}
"""
NINE = """\
name: nine
base: yolov9{scale}.yaml
scale: t
slots:
  - at: {layers: [4]}
    choices: {UIB: {start_kernel: [0, 3]}}
macro:
  depth: [1, 2]
"""


OWN = "in a space file that the member names; or `base` instead of `space`"
HINT = f"one of {', '.join(space_names.catalog())}, or a path"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "eight.yaml").write_text(EIGHT)
    (folder / "nine.yaml").write_text(NINE)
    return folder


@pytest.fixture(scope="module")
def joined(folder: Path) -> JoinedSpace:
    return several(joined_file.load(written(folder, "- {space: eight.yaml}\n  - {space: nine.yaml}")))


def written(folder: Path, members: str, name: str = "edge") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nmembers:\n  {members}\n")
    return path


def several(space: Space) -> JoinedSpace:
    assert isinstance(space, JoinedSpace)
    return space


def drawn(space: Space, seed: int) -> Architecture:
    rng = random.Random(seed)
    architecture = space.sample(rng)
    for _ in range(rng.randrange(4)):
        architecture = space.mutate(architecture, rng)
    return architecture


def mistakes_of(space: str | Path, scale: str | None = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        joined_file.load(space, scale=scale)
    return list(caught.value.mistakes)


class TestParameters:
    def test_names_are_fixed(self, joined: JoinedSpace) -> None:
        assert joined.parameters == {
            "member": ("eightn", "ninet"),
            "eightn/4.operator": ("stock", "UIB", "DynamicConv"),
            "eightn/4.UIB.start_kernel": (0, 3),
            "eightn/4.DynamicConv.kernels": (2, 4),
            "eightn/10.operator": ("stock", "DySample"),
            "eightn/10.DySample.style": ("lp", "pl"),
            "ninet/4.operator": ("stock", "UIB"),
            "ninet/4.UIB.start_kernel": (0, 3),
            "ninet/macro.depth": (1.0, 2.0),
        }

    @given(st.integers(0, 2**32))
    def test_values_are_those_of_the_architecture(self, joined: JoinedSpace, seed: int) -> None:
        architecture = drawn(joined, seed)
        values = joined.values(architecture)
        assert joined.architecture(values) == architecture
        assert joined.has_all(values)
        assert values.keys() <= joined.parameters.keys()
        assert values["member"] == joined.member_name(architecture)
        flat = joined.flat_values(architecture)
        assert flat.keys() == joined.flat_parameters.keys()
        assert joined.of_flat(flat) == architecture

    @given(st.integers(0, 2**32))
    def test_only_parameters_of_the_architecture_are_asked_for(self, joined: JoinedSpace, seed: int) -> None:
        architecture = drawn(joined, seed)
        values, asked = joined.values(architecture), []

        def choose(name: str, options: tuple[object, ...]) -> object:
            assert joined.parameters[name] == options
            asked.append(name)
            return values[name]

        assert joined.ask(choose) == architecture  # type: ignore[arg-type]  # values of parameters
        assert asked == list(values)

    def test_parameters_without_all_slots_make_no_architecture(self, joined: JoinedSpace) -> None:
        assert not joined.has_all({})
        assert not joined.has_all({"member": "eightn", "eightn/4.operator": "stock"})

    def test_every_architecture_is_there_once(self, joined: JoinedSpace) -> None:
        every = list(joined.every())
        assert len({one.fingerprint for one in every}) == joined.size == 5 * 3 + 3 * 2

    @given(st.integers(0, 2**32))
    def test_cross_and_mutation_stay_in_the_space(self, joined: JoinedSpace, seed: int) -> None:
        rng = random.Random(seed)
        child = joined.cross(drawn(joined, seed), drawn(joined, seed + 1), rng)
        assert joined.architecture(joined.values(child)) == child

    def test_mutations_reach_every_member(self, joined: JoinedSpace) -> None:
        rng, architecture, found = random.Random(0), joined.stock, set()
        for _ in range(200):
            architecture = joined.mutate(architecture, rng)
            found.add(joined.member_name(architecture))
        assert found == {"eightn", "ninet"}

    def test_neighbours_of_a_closed_member_are_of_another(self, joined: JoinedSpace) -> None:
        first, *_ = joined.members
        left, rng = joined.without([first.short_name]), random.Random(0)
        mutated = [left.mutate(first.stock, rng) for _ in range(20)]
        crossed = [left.cross(first.stock, other, rng) for other in (first.stock, joined.members[1].stock)]
        assert all(left.is_open(one) for one in (*mutated, *crossed))

    def test_factors_of_another_member_are_at_stock(self, joined: JoinedSpace) -> None:
        assert joined.factor_values(joined.stock) == {"depth": 1.0}

    def test_architecture_of_another_base_model_has_no_member(self, joined: JoinedSpace) -> None:
        with pytest.raises(SpecError, match=r"^edge: no member has the base model yolo11\{scale\}\.yaml at scale n$"):
            joined.member_of(Architecture.of("yolo11{scale}.yaml", "n", {}))

    def test_space_of_one_member_is_its_own_member(self, joined: JoinedSpace) -> None:
        space = joined.members[0]
        assert space.members == (space,)
        assert (space.member_of(space.stock), space.member_name(space.stock)) == (space, "")
        assert space.stocks == (space.stock,)


class TestHash:
    def test_it_depends_on_members_and_their_names(self, folder: Path, joined: JoinedSpace) -> None:
        one = several(joined_file.load(written(folder, "- {space: nine.yaml}\n  - {space: eight.yaml}", "other")))
        assert one.hash != joined.hash
        assert joined.hash == "1004341d612b"

    def test_it_does_not_depend_on_the_name_of_the_whole(self, folder: Path, joined: JoinedSpace) -> None:
        other = joined_file.load(written(folder, "- {space: eight.yaml}\n  - {space: nine.yaml}", "another"))
        assert other.hash == joined.hash


class TestNames:
    def test_catalog_space_with_a_scale_is_that_space(self) -> None:
        assert joined_file.load("v8s") == load("v8", scale="s")
        assert joined_file.text("v8s") == joined_file.text("v8", scale="s")

    def test_several_names_are_members(self) -> None:
        space = several(joined_file.load("v8n, v5"))
        assert space.name == "v8n,v5n"
        assert space.members == (load("v8", scale="n"), load("v5"))

    def test_all_mistakes_are_reported_at_once(self) -> None:
        assert mistakes_of("v8q,,foo,v8") == [
            f"space : no such space or file, got '' ({HINT})",
            f"space foo: no such space or file, got 'foo' ({HINT})",
            "space v8q: scale: yolov8{scale}.yaml has no scale 'q' (one of n, s, m, l, x)",
        ]

    def test_member_twice_is_a_mistake(self) -> None:
        assert mistakes_of("v8,v8n") == [
            "space v8n: v8 at scale n has the base model and scale of space v8 (each once)"
        ]

    def test_scale_beside_several_is_a_mistake(self) -> None:
        assert mistakes_of("v8,v9", "s") == ["scale: each of several spaces has its own, got 's' (v8n,v9t)"]

    def test_scale_beside_another_scale_is_a_mistake(self) -> None:
        assert mistakes_of("v8n", "s") == ["scale: v8n is v8 at scale n already, got 's' (leave --scale out)"]


class TestFile:
    def test_entry_with_several_scales_is_several_members(self, folder: Path) -> None:
        space = several(joined_file.load(written(folder, "- {space: eight.yaml, scale: [n, s]}", "scales")))
        assert [member.short_name for member in space.members] == ["eightn", "eights"]

    def test_single_member_is_a_space_itself(self, folder: Path) -> None:
        space = joined_file.load(written(folder, "- {space: eight.yaml, scale: s}", "single"))
        assert space == space_file.load(folder / "eight.yaml", scale="s")

    def test_name_may_be_missing(self, folder: Path) -> None:
        path = folder / "nameless.yaml"
        path.write_text("members: [{space: eight.yaml}, {space: nine.yaml}]")
        assert joined_file.load(path).name == "eightn,ninet"

    def test_text_needs_no_other_file(self, folder: Path, joined: JoinedSpace, tmp_path: Path) -> None:
        text = joined_file.text(folder / "edge.yaml")
        assert joined_file.parse(parse_yaml(text)) == joined
        space_file.save(text, tmp_path / "space.yaml")
        assert joined_file.load(tmp_path / "space.yaml") == joined

    def test_operator_files_of_members_are_copied(self, tmp_path: Path, own_operator: str) -> None:
        (tmp_path / "spaces").mkdir()
        (tmp_path / "spaces" / "own.py").write_text(own_operator)
        for name, base in (("eight", "yolov8n.yaml"), ("five", "yolov5n.yaml")):
            slots = "slots: [{at: {layers: [4]}, choices: {Twice: {}}}]"
            text = f"name: {name}\nbase: {base}\nmodules: [own.py]\n{slots}\n"
            (tmp_path / "spaces" / f"{name}.yaml").write_text(text)
        path = written(tmp_path / "spaces", "- {space: eight.yaml}\n  - {space: five.yaml}")
        space = several(joined_file.load(path))
        (tmp_path / "study").mkdir()
        space_file.save(joined_file.text(path), tmp_path / "study" / "space.yaml")
        assert [one.name for one in (tmp_path / "study" / "modules").iterdir()] == ["own.py"]
        assert joined_file.load(tmp_path / "study" / "space.yaml").hash == space.hash

    def test_all_mistakes_are_reported_at_once(self, folder: Path) -> None:
        (folder / "wrong.yaml").write_text(EIGHT.replace("UIB", "UIBB").replace("eight", "wrong"))
        path = written(
            folder,
            "- {space: wrong.yaml}\n  - {spaces: v9}\n  - {space: nothing.yaml}\n  - v9\n  - {space: edge.yaml}\n"
            "  - {space: v9, slots: []}",
            "mistaken",
        )
        written(folder, "- {space: eight.yaml}\n  - {space: nine.yaml}")
        assert mistakes_of(path) == [
            "mistaken.yaml: members[1].space: missing",
            "mistaken.yaml: members[1].spaces: unknown key (did you mean 'space'?)",
            f"mistaken.yaml: members[2]: no such space or file, got 'nothing.yaml' ({HINT})",
            "mistaken.yaml: members[3]: a mapping is expected, got 'v9' ({space: v9})",
            "mistaken.yaml: members[4]: joins several spaces itself (list its members instead)",
            f"mistaken.yaml: members[5].slots: not beside the name of a space ({OWN})",
            "mistaken.yaml: members[0]: slots[0].choices.UIBB: unknown operator (did you mean 'UIB'?)",
        ]

    def test_members_must_be_a_list(self, folder: Path) -> None:
        path = folder / "list.yaml"
        path.write_text("name: list\nmembers: {}\n")
        assert mistakes_of(path) == [
            "list.yaml: members: a list of spaces is expected, got {} (- {space: v8, scale: n})"
        ]

    @pytest.mark.parametrize("key", ["member", "Members", "memebers"])
    def test_members_that_are_spelled_otherwise(self, folder: Path, key: str) -> None:
        (folder / "odd.yaml").write_text(f"name: edge\n{key}:\n  - {{space: v8, scale: n}}\n")
        assert mistakes_of(folder / "odd.yaml") == [f"odd.yaml: {key}: unknown key (did you mean 'members'?)"]

    def test_name_of_two_members_is_a_mistake(self, folder: Path) -> None:
        (folder / "same.yaml").write_text(
            NINE.replace("nine", "eight").replace("scale: t", "scale: s").replace("4", "6")
        )
        (folder / "small.yaml").write_text(EIGHT.replace("scale: n", "scale: s"))
        path = written(folder, "- {space: same.yaml}\n  - {space: small.yaml}", "names")
        assert mistakes_of(path) == [
            "names.yaml: members[1]: members[0] is named eights, too (another `name` in one of the files)"
        ]

    def test_image_sizes_must_agree(self, folder: Path) -> None:
        for name, text, size in (("a", EIGHT, 640), ("b", NINE.replace("  depth: [1, 2]\n", ""), 320)):
            macro = "" if "macro" in text else "macro:\n"
            (folder / f"{name}.yaml").write_text(f"{text}{macro}  image_size: [{size}, 256]\n")
        path = written(folder, "- {space: a.yaml}\n  - {space: b.yaml}", "sizes")
        (mistake,) = mistakes_of(path)
        what = "the largest macro.image_size must be the same in all members"
        assert mistake == f"sizes.yaml: members[1]: {what}, got 320 (640 in members[0])"

    def test_scale_beside_the_file_is_a_mistake(self, folder: Path, joined: JoinedSpace) -> None:
        assert isinstance(joined.members[0], SearchSpace)
        assert mistakes_of(folder / "edge.yaml", "s") == [
            "scale: each of several spaces has its own, got 's' (`scale` of each entry in edge.yaml)"
        ]
