"""How long and how one candidate is trained, and what is out of the question."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from search_spaces.auxiliary import Pgi

Precision = Literal["fp32", "bf16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(_Frozen):
    """The settings of a short training; two scores compare only under equal ones.

    Made for tens to hundreds of steps, where Ultralytics' defaults score 0: gradients are not accumulated, warm-up is
    short, mosaic is off, and batch norm's momentum is high enough that its statistics arrive in time.

    Attributes:
        learning_rate: of AdamW at its peak; it falls linearly over the whole budget.
        new_rate: of the tensors that no checkpoint gave, as a multiple of the learning rate.
        warmup_epochs: during which the learning rate rises.
        bn_momentum: of every batch norm, in PyTorch's sense: the share of the newest batch.
        mosaic: the probability of composing an image of four.
        scale: the greatest zoom, in or out.
        fliplr: the probability of a mirror image; 0 where left and right mean something, as for digits.
        average_epochs: how far back the moving average of the weights reaches, which is what a score is of. None leaves
            Ultralytics' own: made for hundreds of thousands of steps, it is the last weights alone after hundreds.
        anneal: the share of the training steps over which a dynamic convolution's temperature falls to 1.
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


class Budget(_Frozen):
    """What one candidate gets: data, epochs, size, and where its weights start.

    Attributes:
        data: a data.yaml, absolute.
        epochs: the learning rate's schedule spans exactly these.
        image_size: of training and validation, in pixels, a multiple of 32.
        deploy_size: in pixels, for cost and latency.
        batch: images a step; gradients are not accumulated over steps.
        seed: of weights, order and augmentation.
        weights: a checkpoint whose tensors are taken over where name and shape agree; None is from scratch.
        rungs: epochs after which to validate besides the last.
        timeout: seconds for the training of one candidate; None is without end.
        device: `cpu`, or the index of a GPU.
        precision: of a step's matrix products and convolutions; weights and their average are fp32 in any case.
    """

    data: Path
    epochs: Annotated[StrictInt, Field(ge=1)] = 5
    image_size: Annotated[StrictInt, Field(ge=32, multiple_of=32)] = 128
    deploy_size: Annotated[StrictInt, Field(ge=32, multiple_of=32)] = 640
    batch: Annotated[StrictInt, Field(ge=1)] = 8
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    weights: Path | None = None
    rungs: tuple[StrictInt, ...] = ()
    recipe: Recipe = Recipe()
    timeout: Annotated[StrictFloat, Field(gt=0)] | None = None
    device: str = "cpu"
    precision: Precision = "fp32"

    @property
    def said(self) -> str:
        """In words."""
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        told = f"{epochs} at {self.image_size} px, batch {self.batch}"
        return told if self.precision == "fp32" else f"{told}, in {self.precision}"

    def at(self, deploy_size: int | None) -> Self:
        """The budget for a candidate that is deployed at a size of its own; None changes nothing.

        It is trained at the same share of that size, the next multiple of 32 above: what smaller images cost in
        accuracy shows in the score.
        """
        if deploy_size is None or deploy_size == self.deploy_size:
            return self
        image_size = math.ceil(self.image_size * deploy_size / self.deploy_size / 32) * 32
        return self.model_copy(update={"image_size": image_size, "deploy_size": deploy_size})


class Limits(_Frozen):
    """Hard ceilings on a deployed candidate, checked before it is trained; None is no ceiling."""

    gflops: Annotated[StrictFloat, Field(gt=0)] | None = None
    params: Annotated[StrictInt, Field(gt=0)] | None = None
    latency_ms: Annotated[StrictFloat, Field(gt=0)] | None = None
