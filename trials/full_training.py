"""Training in full, by Ultralytics' command: models of ours, and with YOLOv9's auxiliary branch where it is wanted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ultralytics.models import yolo
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import LOGGER

from search_spaces import auxiliary, dialects
from search_spaces import base as bases
from search_spaces.auxiliary import LEAD_GUIDED, Pgi
from search_spaces.errors import SpecError
from trials.inheritance import take_over


class FullTrainer(DetectionTrainer):
    """Ultralytics' detection trainer, which gives a model with `pgi: true` the auxiliary branch to train with.

    The branch is in `last.pt` and `best.pt`, so that a training can go on; whatever predicts, validates or exports
    drops it. A class of this package, so that a further process that trains, one for each GPU, knows our layers.
    """

    pgi: ClassVar[Pgi | None] = None
    """Whether to train with the branch; None is what the model's file says."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> DetectionModel:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """The model, with the auxiliary branch where it is wanted and not there yet."""
        document = dict(cfg) if isinstance(cfg, Mapping) else yaml_model_load(cfg)
        document = dialects.read(document).document
        wanted = document.get("pgi", auxiliary.has_auxiliary(document)) if self.pgi is None else self.pgi
        in_training = auxiliary.trained(document) if wanted else auxiliary.deployed(document)
        if auxiliary.has_auxiliary(in_training) == auxiliary.has_auxiliary(document):
            return super().get_model({**document, "pgi": wanted}, weights, verbose)
        model = super().get_model({**in_training, "pgi": wanted}, None, verbose)
        if weights is not None:
            share = take_over(model, weights.float()).share
            LOGGER.info(f"{share:.1%} of the deployed model's parameters taken over")
        return model


class PGITrainer(FullTrainer):
    """Always with the auxiliary branch."""

    pgi = True


class PlainTrainer(FullTrainer):
    """Never with the auxiliary branch."""

    pgi = False


class LeadGuidedTrainer(FullTrainer):
    """Always with the auxiliary branch, both halves assigned the main half's targets."""

    pgi = LEAD_GUIDED


_TRAINERS = {"true": PGITrainer, LEAD_GUIDED: LeadGuidedTrainer, "false": PlainTrainer}


def prepared(arguments: Sequence[str]) -> list[str]:
    """Let Ultralytics' command train with `FullTrainer`, and put what it does not know into its words.

    Args:
        arguments: of the command `yolo`; `model=` may name a model of our catalog, and `pgi=True` or `pgi=lead-guided`
            asks for the auxiliary branch.

    Raises:
        SpecError: another value of `pgi`.
    """
    trainer: type[FullTrainer] = FullTrainer
    understood = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "pgi":
            if value.lower() not in _TRAINERS:
                raise SpecError(f"pgi: True, False or {LEAD_GUIDED} is expected, got {value!r}")
            trainer = _TRAINERS[value.lower()]
        elif key == "model" and value.removesuffix(".yaml") in bases.catalog() and not Path(value).exists():
            understood.append(f"model={bases.catalog()[value.removesuffix('.yaml')]}")
        else:
            understood.append(argument)
    yolo.detect.DetectionTrainer = trainer
    return understood
