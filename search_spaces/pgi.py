"""Programmable gradient information: YOLOv9's auxiliary half, which is trained with and never deployed.

Source: YOLOv9, arXiv 2402.13616, section 4.1; the original repository (WongKinYiu/yolov9) is GPL-3.0. A second set of
layers gives the head a second set of maps, and the loss of what is predicted from them is added to the main one. Which
rows those layers are: `search_spaces/auxiliary.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from search_spaces import auxiliary
from search_spaces.auxiliary import LEAD_GUIDED

AUXILIARY_SHARE = 0.25
"""Of the auxiliary loss in the sum, beside the main one's 1 (`utils/loss_tal_dual.py` of the original)."""

_AUXILIARY = "auxiliary"
"""The key of the auxiliary half among raw predictions."""

Raw = dict[str, Any]
"""Predictions before they are decoded: `boxes`, `scores`, `feats`."""


class DualDetect(Detect):
    """Ultralytics' detection head with a second one beside it, which is there for its gradient alone.

    Six maps enter, the auxiliary ones first; predictions come from the last three. An auxiliary map that is None, as in
    eval mode, is predicted nothing from. Parameters of the main half have the names that `Detect` gives them.

    Args:
        nc: classes.
        reg_max: bins of the distribution over a box's side.
        ch: channels of all maps, fine to coarse, the auxiliary ones first.
    """

    def __init__(self, nc: int = 80, reg_max: int = 16, ch: Sequence[int] = ()) -> None:
        if len(ch) % 2:
            raise ValueError(f"DualDetect: as many auxiliary maps as main ones are expected, got {len(ch)} in all")
        main = len(ch) // 2
        super().__init__(nc, reg_max, False, tuple(ch[main:]))
        self.auxiliary = Detect(nc, reg_max, False, tuple(ch[:main]))

    def forward(self, x: list[Tensor | None]) -> Any:
        """What `Detect` returns for the main maps; raw predictions in train mode hold the auxiliary ones as well."""
        maps, main = x[: -self.nl], x[-self.nl :]
        predicted = super().forward(main)
        if maps and maps[0] is not None:
            raw = self.auxiliary.forward_head(maps, **self.auxiliary.one2many)
            if self.training:
                predicted[_AUXILIARY] = raw
        return predicted

    def bias_init(self) -> None:
        """Both halves' biases; the strides are those of the main half."""
        super().bias_init()
        self.auxiliary.stride = self.stride
        self.auxiliary.bias_init()


class AuxiliaryLayer(nn.Module):
    """A layer that only the auxiliary half reads: in eval mode nothing is computed, and None is passed on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        for mark in ("i", "f", "type", "np"):  # by which Ultralytics routes and describes a layer
            setattr(self, mark, getattr(layer, mark))

    def forward(self, x: Any) -> Any:
        """What the layer returns; None in eval mode."""
        return self.layer(x) if self.training else None


def wrap_auxiliary(layers: nn.Sequential) -> None:
    """Wrap the layers that only the auxiliary half of a dual head reads; a model without such a head has none."""
    if not isinstance(layers[-1], DualDetect):
        return
    sources: list[Any] = [layer.f for layer in layers]
    for index in auxiliary.auxiliary_layers(sources):
        layers[index] = AuxiliaryLayer(layers[index])


def unwrap_auxiliary(layers: nn.Sequential) -> nn.Sequential:
    """The layers without those wrappers, so that every pass computes all of them."""
    for index, layer in enumerate(layers):
        if isinstance(layer, AuxiliaryLayer):
            layers[index] = layer.layer
    return layers


class PGIModel(DetectionModel):
    """A detection model with a dual head; `YOLO()` and the trainers get one wherever a document has that head."""

    def init_criterion(self) -> Callable[..., Any]:
        """The loss of both halves."""
        return DualLoss(self, lead_guided=self.yaml.get("pgi") == LEAD_GUIDED)

    def fuse(self, verbose: bool = True, imgsz: int = 640) -> DetectionModel:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """Drop the auxiliary half, then fuse as Ultralytics does: before it predicts, validates or exports."""
        return drop_auxiliary(self).fuse(verbose=verbose, imgsz=imgsz)


def deployed_layers(layers: Sequence[Any]) -> list[int]:
    """The layers of a built model that are deployed: all of them, if its head has no auxiliary half."""
    if not isinstance(layers[-1], DualDetect):
        return list(range(len(layers)))
    return auxiliary.deployed_layers(
        [layer.f for layer in layers], begins_with_identity=isinstance(layers[0], nn.Identity)
    )


def drop_auxiliary(model: DetectionModel) -> DetectionModel:
    """Make a model, in place, what it is deployed as: a plain one whose outputs are bit for bit the same."""
    if not isinstance(model, PGIModel):
        return model
    layers: list[Any] = list(model.model)
    sources, keep = [layer.f for layer in layers], deployed_layers(layers)
    model.model = nn.Sequential(*(layers[index] for index in keep))
    for index, (layer, source) in enumerate(zip(model.model, auxiliary.renumber(sources, keep), strict=True)):
        layer.i, layer.f = index, source
    read = (source for layer in model.model for source in ([layer.f] if isinstance(layer.f, int) else layer.f))
    model.save = sorted({source for source in read if source != -1})
    model.yaml = auxiliary.without_branch(model.yaml)
    model.criterion = None
    head = model.model[-1]
    del head.auxiliary
    head.type = f"{Detect.__module__}.{Detect.__qualname__}"
    head.np = sum(parameter.numel() for parameter in head.parameters())
    head.__class__, model.__class__ = Detect, DetectionModel
    return model


class DualLoss:
    """Ultralytics' detection loss of the main half, and a quarter of the same for the auxiliary half.

    Each half is assigned its targets by its own predictions; `lead_guided` gives the auxiliary half the assignment of
    the main one (`ComputeLossLH` in the original's `utils/loss_tal_dual.py`). In eval mode, where the auxiliary half is
    not computed, the main loss alone.
    """

    def __init__(self, model: DetectionModel, *, lead_guided: bool = False) -> None:
        self.main, self.auxiliary = v8DetectionLoss(model), v8DetectionLoss(model)
        if lead_guided:
            led = _Led(self.main.assigner)
            self.main.assigner, self.auxiliary.assigner = led.lead, led.follow

    def __call__(
        self, predicted: Raw | tuple[Tensor, Raw], batch: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, `(box, cls, dfl)` times the batch, and its detached parts by name."""
        raw = predicted[1] if isinstance(predicted, tuple) else predicted
        loss, parts = self.main(raw, batch)
        if _AUXILIARY not in raw:
            return loss, parts
        extra, extra_parts = self.auxiliary(raw[_AUXILIARY], batch)
        return loss + AUXILIARY_SHARE * extra, {
            name: part + AUXILIARY_SHARE * extra_parts[name] for name, part in parts.items()
        }


class _Led:
    """One assigner for both halves: what it finds for the main half is the auxiliary half's as well."""

    def __init__(self, assigner: Callable[..., Any]) -> None:
        self._assigner = assigner
        self._found: Any = None

    def lead(self, *arguments: Any, **options: Any) -> Any:
        self._found = self._assigner(*arguments, **options)
        return self._found

    def follow(self, *_arguments: Any, **_options: Any) -> Any:
        found, self._found = self._found, None
        return found
