"""Auxiliary branch: gradients in training, no cost in eval mode, complete removal."""

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.loss import v8DetectionLoss

from search_spaces import Architecture, Choice, auxiliary, build, model_reader
from search_spaces.architecture import Insertion
from search_spaces.pgi import (
    AUXILIARY_SHARE,
    AuxiliaryLayer,
    DualDetect,
    DualLoss,
    PGIModel,
    drop_auxiliary,
    unwrap_auxiliary,
    wrap_auxiliary,
)
from search_spaces.pgi_setting import LEAD_GUIDED

CLASSES = 3
HEAD = {"t": 29, "m": 38}
"""Index of the head in training."""

each_scale = pytest.mark.parametrize("scale", ["t", "m"])
"""Scales with a second top-down path (t) and with a second backbone (m)."""

Models = Callable[[str], PGIModel]


def document(scale: str) -> dict[str, Any]:
    return auxiliary.with_branch(model_reader.model_document(f"yolov9{scale}.yaml"))


def batch() -> dict[str, torch.Tensor]:
    """Return two small images with three objects."""
    return {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.tensor([[0.0], [1.0], [2.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.3], [0.6, 0.5, 0.5, 0.7]]),
    }


def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def predicted(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(image())[0]


def raw_of(model: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Return raw predictions in train mode."""
    return model.train()(images)


@pytest.fixture(scope="module")
def models(awake: Callable[[nn.Module], nn.Module]) -> Models:
    """Return a function to copies of models in train mode, with random weights and statistics."""
    stored: dict[str, nn.Module] = {}

    def model(scale: str) -> PGIModel:
        if scale not in stored:
            torch.manual_seed(0)
            stored[scale] = awake(build.model(document(scale), CLASSES))
        copy = deepcopy(stored[scale])
        assert isinstance(copy, PGIModel)
        copy.args = DEFAULT_CFG
        return copy

    return model


class TestDualHead:
    def test_dual_head_refuses_an_odd_number_of_maps(self) -> None:
        with pytest.raises(ValueError, match=r"^DualDetect: as many auxiliary maps as main ones .*, got 5 in all$"):
            DualDetect(2, ch=(16, 16, 16, 16, 16))

    def test_main_half_has_the_names_and_shapes_of_a_plain_head(self) -> None:
        dual, plain = DualDetect(2, ch=(8, 16, 24, 32)), Detect(2, ch=(24, 32))
        main = {name: value.shape for name, value in dual.state_dict().items() if not name.startswith("auxiliary.")}
        assert main == {name: value.shape for name, value in plain.state_dict().items()}
        half = {name: value.shape for name, value in dual.auxiliary.state_dict().items()}
        assert half == {name: value.shape for name, value in Detect(2, ch=(8, 16)).state_dict().items()}

    def test_halves_of_a_dual_head_predict_what_two_plain_heads_do(self) -> None:
        dual, first, second = DualDetect(2, ch=(8, 16, 24, 32)), Detect(2, ch=(8, 16)), Detect(2, ch=(24, 32))
        first.load_state_dict(dual.auxiliary.state_dict())
        second.load_state_dict(dual.state_dict(), strict=False)
        maps = [torch.rand(2, c, side, side) for c, side in ((8, 4), (16, 2), (24, 4), (32, 2))]
        both = dual.train()([*maps])
        for raw, half in ((both["auxiliary"], first.train()(maps[:2])), (both, second.train()(maps[2:]))):
            assert torch.equal(raw["boxes"], half["boxes"])
            assert torch.equal(raw["scores"], half["scores"])

    def test_auxiliary_half_ignores_absent_maps(self) -> None:
        dual = DualDetect(2, ch=(8, 16)).train()
        assert "auxiliary" not in dual([None, torch.rand(1, 16, 4, 4)])

    def test_both_halves_of_a_dual_head_begin_with_the_same_biases(self) -> None:
        head: Any = build.model(document("t"), CLASSES).model[-1]
        assert head.stride.tolist() == head.auxiliary.stride.tolist() == [8, 16, 32]
        for branch in ("cv2", "cv3"):
            for main, half in zip(getattr(head, branch), getattr(head.auxiliary, branch), strict=True):
                assert torch.equal(main[-1].bias, half[-1].bias)

    def test_activation_of_a_dual_head_is_that_of_the_document(self) -> None:
        asked = document("t") | {"activation": "nn.ReLU()"}
        dual, plain = (build.skeleton(one, CLASSES)[-1] for one in (asked, auxiliary.without_branch(asked)))
        kinds = {type(module) for module in plain.modules() if isinstance(module, (nn.SiLU, nn.ReLU))}
        assert kinds == {nn.ReLU}
        assert {type(module) for module in dual.modules() if isinstance(module, (nn.SiLU, nn.ReLU))} == kinds

    def test_bins_of_a_dual_head_are_those_of_the_document(self) -> None:
        dual: Any = build.skeleton(document("t") | {"reg_max": 8}, CLASSES)[-1]
        assert (dual.reg_max, dual.auxiliary.reg_max, dual.no) == (8, 8, CLASSES + 32)


class TestDualModel:
    @each_scale
    def test_dual_model_is_built_wherever_the_head_is_dual(self, scale: str, tmp_path: Path) -> None:
        path = tmp_path / "dual.yaml"
        path.write_text(yaml.safe_dump(document(scale)), encoding="utf-8")
        model = YOLO(path, task="detect").model
        assert (type(model), type(model.model[-1])) == (PGIModel, DualDetect)
        assert type(PGIModel(model.yaml, nc=2, verbose=False)) is PGIModel  # as Ultralytics' trainer builds it again

    def test_document_with_a_plain_head_builds_a_plain_model(self) -> None:
        model = build.model(model_reader.model_document("yolov9t.yaml"), CLASSES)
        assert type(model) is DetectionModel
        assert drop_auxiliary(model) is model

    def test_dual_model_has_names_strides_and_classes(self) -> None:
        model = DetectionModel(document("t"), nc=CLASSES, verbose=True)
        assert (model.names, model.stride.tolist()) == ({0: "0", 1: "1", 2: "2"}, [8, 16, 32])
        assert model.yaml["nc"] == CLASSES

    @each_scale
    def test_dual_model_routes_layers_as_in_the_document(self, scale: str, models: Models) -> None:
        written = document(scale)
        rows = [*written["backbone"], *written["head"]]
        layers: list[Any] = list(models(scale).model)
        assert [(layer.i, layer.f) for layer in layers] == [(index, row[0]) for index, row in enumerate(rows)]
        assert [layer.np for layer in layers] == [sum(p.numel() for p in layer.parameters()) for layer in layers]

    @each_scale
    def test_layers_that_only_the_auxiliary_half_reads_are_marked(self, scale: str, models: Models) -> None:
        layers = models(scale).model
        marked = [index for index, layer in enumerate(layers) if isinstance(layer, AuxiliaryLayer)]
        assert marked == auxiliary.auxiliary_layers([layer.f for layer in layers])

    def test_marks_of_auxiliary_layers_are_removed(self, models: Models) -> None:
        layers = models("t").model
        bare = unwrap_auxiliary(deepcopy(layers))
        assert not any(isinstance(layer, AuxiliaryLayer) for layer in bare)
        assert [layer.type for layer in bare] == [layer.type for layer in layers]
        wrap_auxiliary(bare)
        assert list(bare.state_dict()) == list(layers.state_dict())

    @each_scale
    def test_nothing_auxiliary_is_computed_in_eval_mode(self, scale: str, models: Models) -> None:
        model = models(scale).eval()
        computed: list[nn.Module] = []
        for layer in model.model:
            if isinstance(layer, AuxiliaryLayer):
                layer.layer.register_forward_hook(lambda module, *_: computed.append(module))
        model.model[-1].auxiliary.cv2[0].register_forward_hook(lambda module, *_: computed.append(module))
        _, raw = model(image())
        assert (computed, "auxiliary" in raw) == ([], False)
        assert "auxiliary" in raw_of(model, torch.rand(2, 3, 64, 64))
        assert len(computed) == len(auxiliary.auxiliary_layers([layer.f for layer in model.model])) + 1

    @each_scale
    def test_dual_model_can_be_copied_and_saved(self, scale: str, models: Models) -> None:
        model = models(scale)
        model.loss(batch())  # with a criterion, as Ultralytics copies it
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twins = deepcopy(model), torch.load(file, weights_only=False)
        expected, images = predicted(model), batch()["img"]
        for twin in twins:
            assert type(twin) is PGIModel
            assert torch.equal(predicted(twin), expected)
        boxes = raw_of(model, images)["auxiliary"]["boxes"]
        for twin in twins:
            assert torch.equal(raw_of(twin, images)["auxiliary"]["boxes"], boxes)

    def test_copied_lead_guided_loss_has_a_separate_assigner(self, models: Models) -> None:
        model = models("t")
        model.yaml["pgi"] = LEAD_GUIDED
        targets = batch()
        model.loss(targets)
        twin = deepcopy(model)
        assert twin.criterion.main.assigner.__self__ is not model.criterion.main.assigner.__self__
        assert twin.criterion.main.assigner.__self__ is twin.criterion.auxiliary.assigner.__self__
        assert torch.equal(twin.loss(targets)[0], model.loss(targets)[0])

    @each_scale
    def test_dual_model_runs_in_half_precision(self, scale: str, models: Models) -> None:
        exact = predicted(models(scale))
        model = models(scale).half().eval()
        with torch.no_grad():
            rough = model(image().half())[0]
        assert (rough.dtype, rough.shape) == (torch.float16, exact.shape)
        assert rough.isfinite().all()
        assert (rough.float() - exact).abs().mean() <= 0.01 * exact.abs().mean()


class TestDualLoss:
    @each_scale
    def test_dual_loss_is_the_main_loss_and_a_quarter_of_the_auxiliary_one(self, scale: str, models: Models) -> None:
        model, targets = models(scale), batch()
        raw = raw_of(model, targets["img"])
        loss, parts = model.loss(targets, raw)
        main, main_parts = v8DetectionLoss(model)(raw, targets)
        extra, extra_parts = v8DetectionLoss(model)(raw["auxiliary"], targets)
        assert AUXILIARY_SHARE == 0.25
        assert torch.equal(loss, main + 0.25 * extra)
        assert not torch.equal(loss, main)
        assert list(parts) == ["box_loss", "cls_loss", "dfl_loss"]
        assert all(torch.equal(parts[name], main_parts[name] + 0.25 * extra_parts[name]) for name in parts)
        assert not any(part.requires_grad for part in parts.values())

    @each_scale
    def test_the_auxiliary_loss_has_gradients_for_backbone_and_branch(self, scale: str, models: Models) -> None:
        model, targets = models(scale), batch()
        raw = raw_of(model, targets["img"])
        loss, _ = DualLoss(model).auxiliary(raw["auxiliary"], targets)
        loss.sum().backward()
        taught = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        written = document(scale)
        sources = [row[0] for row in (*written["backbone"], *written["head"])]
        expected = {
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and self.feeds_auxiliary(name, set(auxiliary.auxiliary_layers(sources)), scale)
        }
        assert taught == expected
        zero = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()]
        assert zero == []

    @staticmethod
    def feeds_auxiliary(name: str, dropped: set[int], scale: str) -> bool:
        """Return whether a parameter is in the backbone, without the pooling behind it, or in the auxiliary half."""
        _, layer, *rest = name.split(".")
        last = {"t": 8, "m": 9}[scale]
        return int(layer) <= last or int(layer) in dropped or (int(layer) == HEAD[scale] and rest[0] == "auxiliary")

    @each_scale
    def test_the_main_loss_has_no_gradient_for_the_branch(self, scale: str, models: Models) -> None:
        model, targets = models(scale), batch()
        raw = raw_of(model, targets["img"])
        DualLoss(model).main(raw, targets)[0].sum().backward()
        dropped = [index for index, layer in enumerate(model.model) if isinstance(layer, AuxiliaryLayer)]
        assert all(p.grad is None for index in dropped for p in model.model[index].parameters())
        assert all(p.grad is None for p in model.model[-1].auxiliary.parameters())

    @each_scale
    def test_both_losses_give_every_parameter_a_gradient(self, scale: str, models: Models) -> None:
        model = models(scale)
        loss, _ = model.loss(batch())
        loss.sum().backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    @each_scale
    def test_dual_loss_is_only_the_main_loss_in_eval_mode(self, scale: str, models: Models) -> None:
        model, targets = models(scale).eval(), batch()
        with torch.no_grad():
            predictions = model(targets["img"])
            loss, parts = model.loss(targets, predictions)
            expected, expected_parts = v8DetectionLoss(model)(predictions, targets)
        assert torch.equal(loss, expected)
        assert parts == expected_parts

    def test_dual_loss_accepts_images_without_objects(self, models: Models) -> None:
        empty = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
        for asked in (True, LEAD_GUIDED):
            model = models("t")
            model.yaml["pgi"] = asked
            loss, _ = model.loss(batch() | empty)
            loss.sum().backward()
            assert loss.isfinite().all()

    def test_each_half_is_assigned_its_targets(self, models: Models) -> None:
        loss = DualLoss(models("t"))
        calls = self.spied(loss.main), self.spied(loss.auxiliary)
        raw = raw_of(models("t"), (targets := batch())["img"])
        loss(raw, targets)
        assert [len(half) for half in calls] == [1, 1]

    def test_lead_guided_assigns_once_and_by_the_main_half(self, models: Models) -> None:
        model, targets = models("t"), batch()
        raw = raw_of(model, targets["img"])
        alone = v8DetectionLoss(model)
        assigned = self.spied(alone)
        alone(raw, targets)
        loss = DualLoss(model, lead_guided=True)
        asked: list[Any] = []
        inner = loss.main.assigner.__self__._assigner
        inner.register_forward_hook(lambda _module, _inputs, found: asked.append(found))
        halves = self.spied(loss.main), self.spied(loss.auxiliary)
        for step in (1, 2):
            loss(raw, targets)
            assert [len(asked), *map(len, halves)] == [step] * 3
            for found in (asked[-1], halves[0][-1], halves[1][-1]):
                assert all(torch.equal(one, other) for one, other in zip(found, assigned[0], strict=True))

    def test_lead_guided_is_the_auxiliary_loss_on_the_main_halfs_targets(self, models: Models) -> None:
        model, targets = models("t"), batch()
        raw = raw_of(model, targets["img"])
        main, extra = v8DetectionLoss(model), v8DetectionLoss(model)
        assigned = self.spied(main)
        expected, _ = main(raw, targets)
        extra.assigner = lambda *_arguments, **_options: assigned[0]
        expected = expected + 0.25 * extra(raw["auxiliary"], targets)[0]
        assert torch.equal(DualLoss(model, lead_guided=True)(raw, targets)[0], expected)
        assert not torch.equal(DualLoss(model)(raw, targets)[0], expected)

    def test_document_selects_the_assignment_of_the_auxiliary_half(self, models: Models) -> None:
        model, targets = models("t"), batch()
        raw = raw_of(model, targets["img"])
        for asked in (False, True, LEAD_GUIDED):
            model.yaml["pgi"], model.criterion = asked, None
            expected, _ = DualLoss(model, lead_guided=asked == LEAD_GUIDED)(raw, targets)
            assert torch.equal(model.loss(targets, raw)[0], expected)

    @staticmethod
    def spied(loss: Any) -> list[Any]:
        """Record what the loss's assigner returns, call by call."""
        found: list[Any] = []
        assigner = loss.assigner

        def spy(*arguments: Any, **options: Any) -> Any:
            found.append(assigner(*arguments, **options))
            return found[-1]

        loss.assigner = spy
        return found


class TestDropping:
    @each_scale
    def test_dropping_the_branch_changes_no_bit_of_the_predictions(self, scale: str, models: Models) -> None:
        model = models(scale)
        before = predicted(model)
        assert torch.equal(predicted(drop_auxiliary(model)), before)
        assert before.isfinite().all()

    @each_scale
    def test_dropping_the_branch_gives_the_deployed_model(self, scale: str, models: Models) -> None:
        left: Any = drop_auxiliary(models(scale))
        plain: Any = build.model(auxiliary.without_branch(document(scale)), CLASSES)
        assert (type(left), type(left.model[-1])) == (DetectionModel, Detect)
        assert list(left.state_dict()) == list(plain.state_dict())
        assert repr(left.model) == repr(plain.model)
        marks = [[(layer.i, layer.f, layer.type, layer.np) for layer in model.model] for model in (left, plain)]
        assert marks[0] == marks[1]
        assert (left.save, left.yaml, left.names) == (plain.save, plain.yaml, plain.names)
        assert left.stride.tolist() == plain.stride.tolist()

    @each_scale
    def test_weights_after_dropping_the_branch_are_those_of_the_deployed_model(
        self, scale: str, models: Models
    ) -> None:
        left = drop_auxiliary(models(scale))
        plain = build.model(auxiliary.without_branch(document(scale)), CLASSES)
        plain.load_state_dict(left.state_dict())
        assert torch.equal(predicted(plain), predicted(left))

    def test_branch_of_a_candidate_with_operators_and_an_insertion_is_dropped(
        self, awake: Callable[[nn.Module], nn.Module]
    ) -> None:
        picks = {4: Choice.of("DynamicConv", {}), 8: Choice.of("MMQA", {}), 10: Choice.of("DySample", {})}
        new = Insertion(after=9, feeds="all", choice=Choice.of("DCNv4", {}))
        candidate = Architecture.of("yolov9{scale}.yaml", "t", picks, inserted=[new]).document(CLASSES)
        model = awake(build.model(auxiliary.with_branch(candidate), CLASSES))
        before = predicted(model)
        assert isinstance(model, PGIModel)
        left = drop_auxiliary(model)
        assert torch.equal(predicted(left), before)
        assert list(left.state_dict()) == list(build.model(candidate, CLASSES).state_dict())
        assert {**left.yaml, "channels": 3} == {**candidate, "channels": 3}

    @each_scale
    def test_fusing_drops_the_branch_and_predicts_the_same(self, scale: str, models: Models) -> None:
        before = predicted(models(scale))
        model: Any = models(scale).eval()
        assert model.fuse(verbose=False) is model
        assert type(model) is DetectionModel
        assert not any(isinstance(module, (nn.BatchNorm2d, DualDetect)) for module in model.modules())
        assert (predicted(model) - before).abs().max() <= 1e-4 * before.abs().max()

    def test_dropping_the_branch_twice_is_dropping_it_once(self, models: Models) -> None:
        left = drop_auxiliary(models("t"))
        keys = list(left.state_dict())
        assert list(drop_auxiliary(left).state_dict()) == keys

    def test_model_without_its_branch_trains_and_is_saved(self, models: Models) -> None:
        model = models("t")
        model.loss(batch())
        left = drop_auxiliary(model).train()
        targets = batch()
        loss, _ = left.loss(targets, raw_of(left, targets["img"]))
        loss.sum().backward()
        assert type(left.criterion) is v8DetectionLoss
        left.criterion = None
        file = io.BytesIO()
        torch.save(left, file)
        assert b"PGIModel" not in file.getvalue()
        assert b"search_spaces" not in file.getvalue()
