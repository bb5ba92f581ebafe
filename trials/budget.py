"""Budget and recipe of a candidate's training, and limits on its costs."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_serializer,
)

from search_spaces.pgi_setting import Pgi

Precision = Literal["fp32", "bf16", "fp16"]
Channels = Literal["first", "important"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(_Frozen):
    """Hyperparameters of a short training; only scores with equal recipes are comparable.

    Made for tens to hundreds of steps, where Ultralytics' defaults score 0: gradients are not accumulated, warm-up is
    short, mosaic is off, and batch norm's momentum is so high that its statistics converge in time.

    Attributes:
        learning_rate: peak learning rate of AdamW; it decays linearly over all epochs.
        final_learning_rate: at the end, as a share of the peak.
        new_rate: learning rate of tensors that no checkpoint initialised, as a multiple of `learning_rate`.
        warmup_epochs: epochs of linear warm-up of the learning rate.
        bn_momentum: of every batch norm in PyTorch's sense: weight of the newest batch.
        mosaic: probability of composing an image of four.
        scale: greatest relative zoom, in or out.
        fliplr: probability of a mirrored image; 0 where left and right differ in meaning, as for digits.
        average_epochs: time constant of the EMA of the weights, which is scored, in epochs. None for Ultralytics'
            EMA: it is made for hundreds of thousands of steps, and after hundreds it equals the last weights.
        anneal: share of the training steps over which the temperature of dynamic convolutions decays to 1.
        pgi: train with YOLOv9's auxiliary branch, which makes a step 1.3 (e) to 2.3 (c) times as costly.
    """

    optimizer: str = "AdamW"
    learning_rate: Annotated[StrictFloat, Field(gt=0, le=1)] = 2e-3
    final_learning_rate: Annotated[StrictFloat, Field(gt=0, le=1)] = 0.05
    new_rate: Annotated[StrictFloat, Field(gt=0)] = 1.0
    weight_decay: Annotated[StrictFloat, Field(ge=0, le=1)] = 5e-4
    warmup_epochs: Annotated[StrictFloat, Field(ge=0)] = 0.5
    bn_momentum: Annotated[StrictFloat, Field(gt=0, le=1)] = 0.2
    mosaic: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.0
    scale: Annotated[StrictFloat, Field(ge=0, lt=1)] = 0.25
    fliplr: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.5
    average_epochs: Annotated[StrictFloat, Field(gt=0)] | None = None
    anneal: Annotated[StrictFloat, Field(gt=0, le=1)] = 0.3
    pgi: Pgi = False


class Subset(_Frozen):
    """Numbers of images that a study reads of a data set, chosen by class.

    Attributes:
        seed: with which they are chosen.
        train: images of `train` that are read.
        val: images of `val` that are read.
        of_train: all images of `train`, without sealed ones.
        of_val: all images of `val`, without sealed ones.
    """

    seed: Annotated[StrictInt, Field(ge=0)]
    train: Annotated[StrictInt, Field(ge=1)]
    val: Annotated[StrictInt, Field(ge=1)]
    of_train: Annotated[StrictInt, Field(ge=1)]
    of_val: Annotated[StrictInt, Field(ge=1)]


_LEFT_OUT = {"deterministic": False, "channels": "first"}
"""Values of a budget's fields that are not stored: those of versions that did not have the field."""


class Budget(_Frozen):
    """Data, number of epochs, image sizes and initial weights of a candidate's training.

    Attributes:
        data: absolute path of a data.yaml.
        sealed: a study's `holdout.json`, whose images are left out of the data; None trains on all. The study sets it,
            it is not stored.
        subset: of the data, the images that are read; None reads all. The study sets it, too.
        epochs: length of the training and of its learning rate schedule.
        image_size: of training and validation, in pixels, a multiple of 32.
        deploy_size: image size for cost and latency, in pixels, a multiple of 32.
        batch: images per step; gradients are not accumulated.
        seed: of weights, data order and augmentation.
        weights: checkpoint whose tensors are inherited where name and shape agree; None for random weights.
        channels: those that a candidate narrower than the weights inherits; the first ones in searches of versions that
            knew no others, and where no width is searched.
        rungs: epochs after which the model is validated, in addition to the last.
        timeout: seconds for the training of one candidate; None for no limit.
        device: `cpu`, or the index of a GPU.
        precision: of matrix products and convolutions in training; weights and their EMA are fp32 in any case. fp16
            needs a GPU, and a scaled loss.
        deterministic: whether a GPU uses kernels that repeat to the bit, as far as there are any; a CPU does anyway.
    """

    data: Path
    sealed: Annotated[Path | None, Field(exclude=True)] = None
    subset: Annotated[Subset | None, Field(exclude=True)] = None
    epochs: Annotated[StrictInt, Field(ge=1)] = 5
    image_size: Annotated[StrictInt, Field(ge=32, multiple_of=32)] = 128
    deploy_size: Annotated[StrictInt, Field(ge=32, multiple_of=32)] = 640
    batch: Annotated[StrictInt, Field(ge=1)] = 8
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    weights: Path | None = None
    channels: Channels = "first"
    rungs: tuple[StrictInt, ...] = ()
    recipe: Recipe = Recipe()
    timeout: Annotated[StrictFloat, Field(gt=0)] | None = None
    device: str = "cpu"
    precision: Precision = "fp32"
    deterministic: StrictBool = False

    @model_serializer(mode="wrap")
    def _as_stored(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not asked for: so older studies, and what identifies a training, stay as they are."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name not in _LEFT_OUT or value != _LEFT_OUT[name]}

    @property
    def summary(self) -> str:
        """Budget in words: `20 epochs at 320 px, batch 8`."""
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        text = f"{epochs} at {self.image_size} px, batch {self.batch}"
        return text if self.precision == "fp32" else f"{text}, in {self.precision}"

    def at(self, deploy_size: int | None) -> Self:
        """Return the budget of a candidate with another deployment size; unchanged for None.

        The training size keeps its ratio to the deployment size, rounded up to a multiple of 32. So the accuracy that
        smaller images cost is part of the score.
        """
        if deploy_size is None or deploy_size == self.deploy_size:
            return self
        image_size = math.ceil(self.image_size * deploy_size / self.deploy_size / 32) * 32
        return self.model_copy(update={"image_size": image_size, "deploy_size": deploy_size})


class Limits(_Frozen):
    """Upper limits on the costs of a deployed candidate, checked before its training; None for no limit."""

    gflops: Annotated[StrictFloat, Field(gt=0)] | None = None
    params: Annotated[StrictInt, Field(gt=0)] | None = None
    latency_ms: Annotated[StrictFloat, Field(gt=0)] | None = None
