"""What the documents print works as printed."""

import re
from pathlib import Path

import pytest
import torch

from search_spaces import OPERATORS, auxiliary, build, foreign_files, model_reader, yaml_text
from search_spaces.operators import modules
from search_spaces.space_file import load, parse
from trials.contracts import cases, operator_contract
from trials.costing import cost

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documents are not part of the wheel")


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
    assert [failure for case in found for failure in operator_contract.check(case)] == []


def test_the_spaces() -> None:
    whole, heading = blocks("README.md", "yaml")[0], "name: x\nbase: yolo11{scale}.yaml\nscale: n\n"
    assert parse(yaml_text.parse_yaml(whole)).slots
    first, further = blocks("docs/spaces.md", "yaml")[:2]
    assert parse(yaml_text.parse_yaml(first)).slots
    space = parse(yaml_text.parse_yaml(heading + further.replace("modules: [my_ops.py]", "modules: []")))
    assert len(space.scaling_factors) == 4
    assert [slot.name for slot in space.slots] == ["2", "after-9"]


def test_every_operator_and_parameter_is_documented() -> None:
    page = (ROOT / "docs/spaces.md").read_text(encoding="utf-8")
    for record in OPERATORS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{record.name}` |")]
        assert all(f"`{parameter.name}`" in row for parameter in record.parameters)


def test_the_auxiliary_branchs_parameters() -> None:
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    for scale in "tsmce":
        document = auxiliary.with_branch(model_reader.model_document(f"yolov9{scale}.yaml"))
        original = {**document, "head": [*document["head"][:-1], [*document["head"][-1][:2], "DualDDetect", ["nc"]]]}
        for built in (document, original):
            params = sum(parameter.numel() for parameter in build.skeleton(built, 80).parameters())
            assert f"{params:,}" in page


def test_the_articles_figures() -> None:
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    (built,) = re.findall(r"\| right operators, as built \| ([\d,]+) \| ([\d.]+) \|", page)
    (deployed,) = re.findall(r"\| right operators, deployed \| ([\d,]+) \| ([\d.]+) \|", page)
    document = model_reader.model_document("yolov9c-mmqa")
    for told, counted in (
        (built, cost.measure(auxiliary.with_branch(document), 1, 640, deployed=False)),
        (deployed, cost.measure(document, 1, 640)),
    ):
        assert told == (f"{counted.params:,}", f"{counted.gflops:.1f}")


def test_the_words_of_other_dialects() -> None:
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    read = {name for row in re.findall(r"^\| `(.+?)\|", page, re.MULTILINE) for name in re.findall(r"[A-Z]\w+", row)}
    assert read >= set(foreign_files.FOREIGN_MODULES) - {"Silence"}
