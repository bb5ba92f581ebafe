"""Every family of the catalog: random architectures, and one model with the whole vocabulary."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from ultralytics import YOLO

from search_spaces import Architecture, Choice, SearchSpace, build, yaml_text
from search_spaces.derive import derive
from search_spaces.operators import OPERATORS
from search_spaces.space_file import parse
from search_spaces.space_names import catalog
from trials import Budget, Ending, evaluate
from trials.costing import cost
from trials.data import datasets
from trials.weights import save

CLASSES = 10
FAMILIES = [name for name in catalog() if not name.endswith("-plus")]
PLUS = [f"{family}-plus" for family in FAMILIES]

pytestmark = [  # of torch.onnx
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Constant folding:UserWarning"),
]

PLUS_AT_LENGTH = [pytest.param(name, marks=pytest.mark.slow) for name in PLUS if name != "v8-plus"]
each_family = pytest.mark.parametrize("family", [*FAMILIES, "v8-plus", *PLUS_AT_LENGTH])


@pytest.fixture
def no_kernel_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def agrees(table: cost.CostTable, architecture: Architecture) -> bool:
    counted = cost.measure(architecture.document(CLASSES), CLASSES, architecture.image_size or table.image_size)
    return table.cost(architecture) == counted


def passes(architecture: Architecture) -> None:
    """Build the model, compute gradients, predict with it."""
    model = build.model(architecture.document(CLASSES), CLASSES).train()
    image = torch.rand(2, 3, 64, 96)
    torch.stack([part.float().square().mean() for part in flattened(model(image))]).sum().backward()
    without_gradient = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert [
        name for name in without_gradient if not name.endswith("dfl.conv.weight")
    ] == []  # which Ultralytics freezes
    with torch.no_grad():
        boxes = model.eval()(image)[0]
    assert boxes.isfinite().all()


def flattened(predicted: object) -> list[torch.Tensor]:
    if isinstance(predicted, torch.Tensor):
        return [predicted] if predicted.requires_grad else []
    inner = predicted.values() if isinstance(predicted, dict) else predicted
    return [tensor for one in inner for tensor in flattened(one)]  # type: ignore[attr-defined]


@each_family
def test_sum_over_layers_is_the_cost_of_random_architectures(
    family: str, space_of: Callable[[str], SearchSpace]
) -> None:
    space, rng = space_of(family), random.Random(family)
    table = cost.CostTable(space, CLASSES, 128)
    for _ in range(3):
        assert agrees(table, space.sample(rng))


@pytest.mark.parametrize("model", ["yolov3-tiny.yaml", "yolov6n.yaml"])
def test_sum_over_layers_is_the_cost_in_a_derived_space(model: str) -> None:
    space, rng = parse(yaml_text.parse_yaml(derive(model))), random.Random(model)
    table = cost.CostTable(space, CLASSES, 128)
    for _ in range(2):
        assert agrees(table, space.sample(rng))


@pytest.mark.slow
@pytest.mark.usefixtures("no_kernel_compilation")
@each_family
def test_a_hundred_random_architectures_train_and_export(
    family: str, space_of: Callable[[str], SearchSpace], tmp_path: Path
) -> None:
    space, rng = space_of(family), random.Random(family)
    table = cost.CostTable(space, CLASSES, 128)
    for number in range(100):
        architecture = space.sample(rng)
        assert agrees(table, architecture), str(architecture)
        passes(architecture)
        if number % 25 == 0:
            model = build.model(architecture.document(CLASSES), CLASSES)
            assert_exports(model, tmp_path / f"{number}.pt", architecture)


SCALES = {"v5": "smlx", "v8": "smlx", "v9": "smce", "v10": "smblx", "v11": "smlx", "v12": "smlx", "v26": "smlx"}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "scale"), [(family, scale) for family in SCALES for scale in SCALES[family]])
def test_sum_over_layers_is_the_cost_at_other_scales(
    family: str, scale: str, space_of: Callable[[str], SearchSpace]
) -> None:
    space, rng = space_of(f"{family}:{scale}"), random.Random(scale)
    table = cost.CostTable(space, CLASSES, 128)
    assert all(agrees(table, space.sample(rng)) for _ in range(5))


def vocabulary_of(space: SearchSpace) -> list[Architecture]:
    """Return few architectures that have every operator of the space, each in the last free slot that offers it."""
    left, architectures = [name for name in OPERATORS if any(name in slot.operators for slot in space.slots)], []
    while left:
        choices: dict[str, Choice] = {}
        for name in left[:]:
            offering = [slot for slot in space.slots if name in slot.operators and slot.name not in choices]
            if offering:
                choices[offering[-1].name] = offering[-1].of(name)[-1]
                left.remove(name)
        architectures.append(space.of(choices))
    return architectures


def operators_of(architecture: Architecture) -> set[str]:
    chosen = [choice for _, choice in architecture.picks] + [new.choice for new in architecture.insertions]
    return {choice.operator for choice in chosen}


@each_family
def test_few_architectures_have_the_whole_vocabulary(family: str, space_of: Callable[[str], SearchSpace]) -> None:
    space = space_of(family)
    offered = {name for slot in space.slots for name in slot.operators} - {"stock"}
    assert set().union(*map(operators_of, vocabulary_of(space))) == offered


@pytest.mark.slow
@each_family
def test_family_trains_and_exports_with_the_whole_vocabulary(
    family: str, space_of: Callable[[str], SearchSpace], digits: Budget, tmp_path: Path
) -> None:
    for number, architecture in enumerate(vocabulary_of(space_of(family))):
        outcome = evaluate(architecture, digits, tmp_path / str(number), lambda *_: True)
        assert outcome.ending is Ending.FINISHED, outcome.detail
        assert outcome.weights is not None
        assert_exports(YOLO(outcome.weights).model, tmp_path / f"{number}.pt", architecture)


@pytest.fixture
def digits(tiny: Callable[..., Budget]) -> Budget:
    """Return a budget of two epochs on digit scenes, enough to change the weights."""
    return tiny(epochs=2, image_size=128, deploy_size=128)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["v10", "v26"])
def test_one_to_one_head_is_scored(
    family: str, space_of: Callable[[str], SearchSpace], digits: Budget, tmp_path: Path
) -> None:
    """Both heads score 0 until something is learned, so this trains longer than other tests."""
    budget = digits.model_copy(update={"epochs": 12})
    outcome = evaluate(space_of(family).stock, budget, tmp_path, lambda *_: True)
    assert outcome.scores is not None, outcome.detail
    (tmp_path / "data.yaml").write_text(datasets.resolved(datasets.load(str(budget.data))), encoding="utf-8")

    def score(**head: bool) -> float:
        model = YOLO(tmp_path / "weights.pt")
        given = {"data": str(tmp_path / "data.yaml"), "imgsz": 128, "batch": 16, "plots": False, "workers": 0}
        return float(model.val(**given, **head, device="cpu", verbose=False, project=str(tmp_path)).box.map)

    assert score(nms=False) == pytest.approx(outcome.scores.map50_95, abs=2e-3)
    assert score(nms=False) != score()


ARTICLE = """
name: article
base: yolov9{scale}.yaml
scale: c
insert:
  - {after: 9, feeds: next, choices: {DCNv4: {groups: [4, 32]}, UIB: {}, MMQA: {}, DynamicConv: {}}}
macro:
  width: {P4: [0.75, 1], P5: [0.5, 0.75]}
"""


@pytest.mark.slow
def test_an_insertion_and_a_width_per_stage_train_and_export(tiny: Callable[..., Budget], tmp_path: Path) -> None:
    space = parse(yaml_text.parse_yaml(ARTICLE))
    choices = {"after-9": Choice.of("DCNv4", {"groups": 32})}
    architecture = space.of(choices, {"width.P4": 0.75, "width.P5": 0.75})
    assert agrees(cost.CostTable(space, CLASSES, 128), architecture)
    outcome = evaluate(architecture, tiny(epochs=1), tmp_path, lambda *_: True)
    assert outcome.ending is Ending.FINISHED, outcome.detail
    assert outcome.weights is not None
    assert Architecture.read(tmp_path / "model.yaml") == architecture
    model = YOLO(outcome.weights).model
    assert isinstance(model, nn.Module)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in YOLO(tmp_path / "model.yaml").model.parameters()
    )
    assert_exports(model, tmp_path / "again.pt", architecture)


def assert_exports(model: nn.Module, weights: Path, architecture: Architecture) -> None:
    """Compare ONNX Runtime, at another size and batch, with the fused model: boxes and scores to 1e-4."""
    save(model, {}, weights)
    exported = YOLO(weights).export(format="onnx", dynamic=True, imgsz=64, simplify=False, device="cpu")
    loaded: Any = YOLO(weights).model
    loaded.end2end = False  # compare all boxes; the top 300 may tie
    fused = loaded.float().eval().fuse(verbose=False)
    torch.manual_seed(0)
    image = torch.rand(2, 3, 160, 224)
    with torch.no_grad():
        expected = fused(image)[0].numpy()
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (predicted,) = session.run(None, {"images": image.numpy()})
    assert predicted.shape == expected.shape, str(architecture)
    assert np.abs(predicted[:, :4] - expected[:, :4]).max() < 1e-4 * 224, str(architecture)
    assert np.abs(predicted[:, 4:] - expected[:, 4:]).max() < 1e-4, str(architecture)
