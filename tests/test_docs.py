"""What the documents print works as printed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from search_spaces import OPERATORS, build
from search_spaces import base as bases
from search_spaces.operators import modules
from search_spaces.space_file import load, parse
from trials import cases, contract

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documents are not part of the wheel")


@pytest.fixture(autouse=True)
def vocabulary() -> Iterator[None]:
    """Only what this package brings, before and after."""
    before = dict(OPERATORS)
    yield
    OPERATORS.clear()
    OPERATORS.update(before)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_ops.py").write_text(blocks("docs/operators.md", "python")[0], encoding="utf-8")
    (tmp_path / "faster.yaml").write_text(blocks("docs/operators.md", "yaml")[0], encoding="utf-8")
    return tmp_path


def test_the_operator_of_ones_own(folder: Path) -> None:
    space = load(folder / "faster.yaml")
    assert {name for slot in space.slots for name in slot.operators} == {"stock", "FasterBlock", "UIB"}
    choices = {slot.name: slot.of("FasterBlock")[0] for slot in space.slots}
    model = build.model(space.of(choices).document(3), 3)
    model.train()(torch.rand(2, 3, 64, 64))


def test_the_operator_of_ones_own_keeps_every_promise(folder: Path) -> None:
    (record,) = modules.load(folder / "my_ops.py")
    found = cases.of_operator(record)
    assert len(found) > 3
    assert [failure for case in found for failure in contract.check(case)] == []


def test_the_spaces() -> None:
    whole, heading = blocks("README.md", "yaml")[0], "name: x\nbase: yolo11{scale}.yaml\nscale: n\n"
    assert parse(bases.parse_yaml(whole)).slots
    first, further = blocks("docs/spaces.md", "yaml")[:2]
    assert parse(bases.parse_yaml(first)).slots
    space = parse(bases.parse_yaml(heading + further.replace("modules: [my_ops.py]", "modules: []")))
    assert len(space.dials) == 4
    assert [slot.name for slot in space.slots] == ["2", "after-9"]


def test_every_operator_and_parameter_is_documented() -> None:
    page = (ROOT / "docs/spaces.md").read_text(encoding="utf-8")
    for record in OPERATORS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{record.name}` |")]
        assert all(f"`{parameter.name}`" in row for parameter in record.parameters)
