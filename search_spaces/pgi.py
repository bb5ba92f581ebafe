"""Programmable gradient information (PGI): YOLOv9's auxiliary branch, used in training and dropped before deployment.

Source: YOLOv9, Wang et al. 2024, arXiv 2402.13616, section 4.1; the original code (WongKinYiu/yolov9) is GPL-3.0. A
second set of layers computes a second set of feature maps; the head predicts from both, and the auxiliary loss is added
to the main one. The rows of those layers are in `search_spaces/auxiliary.py`.

Checkpoints hold instances of the classes here: their names, their module and their attributes are part of the format.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from search_spaces import auxiliary
from search_spaces.pgi_setting import LEAD_GUIDED

AUXILIARY_SHARE = 0.25
"""Weight of the auxiliary loss; the main loss has 1 (`utils/loss_tal_dual.py` of the original)."""

_AUXILIARY = "auxiliary"
"""Key of the auxiliary half in raw predictions."""

Raw = dict[str, Any]
"""Predictions before decoding: `boxes`, `scores`, `feats`."""


class DualDetect(Detect):
    """Ultralytics' detection head with a second, auxiliary one that only training uses.

    Takes six maps, the auxiliary ones first, and predicts from the last three. Auxiliary maps are None in eval mode;
    then the auxiliary half computes nothing. Parameters of the main half have the names that `Detect` gives them.

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
        """Return what `Detect` returns for the main maps; in train mode with the auxiliary raw predictions."""
        maps, main = x[: -self.nl], x[-self.nl :]
        predicted = super().forward(main)
        if maps and maps[0] is not None:
            raw = self.auxiliary.forward_head(maps, **self.auxiliary.one2many)
            if self.training:
                predicted[_AUXILIARY] = raw
        return predicted

    def bias_init(self) -> None:
        """Initialise the biases of both halves; the strides are those of the main half."""
        super().bias_init()
        self.auxiliary.stride = self.stride
        self.auxiliary.bias_init()


class AuxiliaryLayer(nn.Module):
    """Layer that only the auxiliary half reads: in eval mode it computes nothing and returns None."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        for mark in ("i", "f", "type", "np"):  # by which Ultralytics routes and describes a layer
            setattr(self, mark, getattr(layer, mark))

    def forward(self, x: Any) -> Any:
        """Return the layer's output; None in eval mode."""
        return self.layer(x) if self.training else None


def wrap_auxiliary(layers: nn.Sequential) -> None:
    """Wrap, in place, the layers that only the auxiliary half of a dual head reads; nothing for another head."""
    if not isinstance(layers[-1], DualDetect):
        return
    sources: list[Any] = [layer.f for layer in layers]
    for index in auxiliary.auxiliary_layers(sources):
        layers[index] = AuxiliaryLayer(layers[index])


def unwrap_auxiliary(layers: nn.Sequential) -> nn.Sequential:
    """Remove those wrappers in place, so that every forward pass computes all layers; return the layers."""
    for index, layer in enumerate(layers):
        if isinstance(layer, AuxiliaryLayer):
            layers[index] = layer.layer
    return layers


class PGIModel(DetectionModel):
    """Detection model with a dual head: `parser_hooks` makes every model whose YAML has that head one."""

    def init_criterion(self) -> Callable[..., Any]:
        """Return the loss of both halves."""
        return DualLoss(self, lead_guided=self.yaml.get("pgi") == LEAD_GUIDED)

    def fuse(self, verbose: bool = True, imgsz: int = 640) -> DetectionModel:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """Drop the auxiliary half, then fuse; Ultralytics calls this before it predicts, validates or exports."""
        return drop_auxiliary(self).fuse(verbose=verbose, imgsz=imgsz)


def deployed_layers(layers: Sequence[Any]) -> list[int]:
    """Return the indices of a built model's layers that are deployed; all of them for a head without auxiliary half."""
    if not isinstance(layers[-1], DualDetect):
        return list(range(len(layers)))
    return auxiliary.deployed_layers(
        [layer.f for layer in layers], begins_with_identity=isinstance(layers[0], nn.Identity)
    )


def drop_auxiliary(model: DetectionModel) -> DetectionModel:
    """Turn a model, in place, into the deployed one: a plain `DetectionModel` with bit-identical outputs."""
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
    """Ultralytics' detection loss of the main half, plus a quarter of the same loss of the auxiliary half.

    Each half is assigned targets by its predictions; with `lead_guided` the auxiliary half gets the assignment of the
    main one (`ComputeLossLH` in the original's `utils/loss_tal_dual.py`). In eval mode the auxiliary half is not
    computed, and this is the main loss alone.
    """

    def __init__(self, model: DetectionModel, *, lead_guided: bool = False) -> None:
        self.main, self.auxiliary = v8DetectionLoss(model), v8DetectionLoss(model)
        if lead_guided:
            led = _Led(self.main.assigner)
            self.main.assigner, self.auxiliary.assigner = led.lead, led.follow

    def __call__(
        self, predicted: Raw | tuple[Tensor, Raw], batch: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, `(box, cls, dfl)` times the batch size, and its detached parts by name."""
        raw = predicted[1] if isinstance(predicted, tuple) else predicted
        loss, parts = self.main(raw, batch)
        if _AUXILIARY not in raw:
            return loss, parts
        extra, extra_parts = self.auxiliary(raw[_AUXILIARY], batch)
        return loss + AUXILIARY_SHARE * extra, {
            name: part + AUXILIARY_SHARE * extra_parts[name] for name, part in parts.items()
        }


class _Led:
    """Assigner of both halves: the auxiliary half gets what was assigned to the main half."""

    def __init__(self, assigner: Callable[..., Any]) -> None:
        self._assigner = assigner
        self._found: Any = None

    def lead(self, *arguments: Any, **options: Any) -> Any:
        self._found = self._assigner(*arguments, **options)
        return self._found

    def follow(self, *_arguments: Any, **_options: Any) -> Any:
        found, self._found = self._found, None
        return found
