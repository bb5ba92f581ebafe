"""Training in full, by Ultralytics' command: models of ours, and with YOLOv9's auxiliary branch where it is wanted."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from ultralytics.engine.model import Model
from ultralytics.models import yolo
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import LOGGER, RANK, SETTINGS, callbacks

from search_spaces import auxiliary, foreign_files, model_reader
from search_spaces.auxiliary import LEAD_GUIDED, Pgi
from search_spaces.errors import SpecError
from search_spaces.operators.dynamic_conv import DynamicConv
from trials.budget import Recipe
from trials.training.inheritance import take_over
from trials.training.user_data import UserDataTrainer, UserDataValidator
from trials.weights import lighten


class FullTrainer(UserDataTrainer):
    """Ultralytics' detection trainer, with what a trial does differently to a model of ours.

    A model with `pgi: true` gets the auxiliary branch to train with. The branch is in `last.pt` and `best.pt`, so that
    a training can go on; whatever predicts, validates or exports drops it. Weights are taken over by role. Dynamic
    convolutions' temperature falls over the share of the training over which it falls in a trial. A class of this
    package, so that a further process that trains, one for each GPU, knows our layers.
    """

    pgi: ClassVar[Pgi | None] = None
    """Whether to train with the branch; None is what the model's file says."""

    begun: ClassVar[Callable[[Path, Mapping[str, Any]], None] | None] = None
    """Called with the folder and the arguments of a training that begins, in the process that was asked for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Begin a training, as Ultralytics does, without its own logging to MLflow."""
        leave_mlflow_out()
        super().__init__(*arguments, **options)
        if RANK == -1 and (begun := type(self).begun) is not None:
            begun(self.save_dir, vars(self.args))

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> DetectionModel:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """The model, with the auxiliary branch where it is wanted and not there yet."""
        document = dict(cfg) if isinstance(cfg, Mapping) else yaml_model_load(cfg)
        document = foreign_files.translate(document).document
        wanted = document.get("pgi", auxiliary.has_auxiliary(document)) if self.pgi is None else self.pgi
        in_training = auxiliary.with_branch(document) if wanted else auxiliary.without_branch(document)
        is_changed = auxiliary.has_auxiliary(in_training) != auxiliary.has_auxiliary(document)
        rows = in_training if is_changed else document
        model = super().get_model({**rows, "pgi": wanted}, None, verbose)
        if weights is not None:
            share = _load(model, weights)
            if not getattr(self, "resume", False):
                _report(share)
        return model

    def resume_training(self, ckpt: Any) -> None:
        """Go on from a checkpoint; temperatures stand where the schedule has them, and not where the average lags."""
        super().resume_training(ckpt)
        self._set_annealing()
        done = self.start_epoch * len(self.train_loader)
        for module in self._dynamic_convs() if done else ():
            module.temperature.clamp_(max=module.annealed(done))

    def final_eval(self) -> None:
        """Validate the best checkpoint, then store those with layers of ours as numbers and YAML."""
        super().final_eval()
        if RANK in {-1, 0}:
            for path in (self.last, self.best):
                lighten(path)

    def _model_train(self) -> None:
        """Before every epoch, since a limit of time or of memory changes how many steps there are."""
        super()._model_train()
        self._set_annealing()

    def _set_annealing(self) -> None:
        steps = len(self.train_loader) * self.epochs
        for module in self._dynamic_convs():
            module.anneal_steps = max(1, round(steps * Recipe().anneal))

    def _dynamic_convs(self) -> Iterator[DynamicConv]:
        return (module for module in self.model.modules() if isinstance(module, DynamicConv))


class PGITrainer(FullTrainer):
    """Always with the auxiliary branch."""

    pgi = True


class PlainTrainer(FullTrainer):
    """Never with the auxiliary branch."""

    pgi = False


class LeadGuidedTrainer(FullTrainer):
    """Always with the auxiliary branch, both halves assigned the main half's targets."""

    pgi = LEAD_GUIDED


_FEW = 0.05
"""A smaller share inherited means that two models have nothing to do with each other."""


def _load(model: DetectionModel, weights: nn.Module) -> float:
    """Take over weights: as Ultralytics does where both models have the same layers, by role where they do not.

    Returns:
        The share of the deployed model's parameters that came.
    """
    source = weights.float()
    offered, head = source.state_dict(), f"model.{len(model.model) - 1}."
    own = model.state_dict()
    alike = offered.keys() == own.keys() and all(
        offered[name].shape == value.shape for name, value in own.items() if not name.startswith(head)
    )
    if not alike:
        model.pt_path = getattr(source, "pt_path", None)  # as `load` notes it
        return take_over(model, source).share
    model.load(source)
    parameters = dict(model.named_parameters())
    came = sum(value.numel() for name, value in parameters.items() if value.shape == offered[name].shape)
    return came / sum(value.numel() for value in parameters.values())


def _report(share: float) -> None:
    LOGGER.info(f"{share:.1%} inherited: that share of the deployed model's parameters comes from the given weights")
    if share < _FEW:
        LOGGER.warning("the given weights hold next to nothing of this model; are they of the same base and scale?")


_TRAINERS = {"true": PGITrainer, LEAD_GUIDED: LeadGuidedTrainer, "false": PlainTrainer}


def prepared(arguments: Sequence[str]) -> list[str]:
    """Let Ultralytics' command train with `FullTrainer`, and put what it does not know into its words.

    Args:
        arguments: of the command `yolo`; `model=` may name a model of our catalog, `pgi=True` or `pgi=lead-guided`
            asks for the auxiliary branch, and `mlflow=True` for what Ultralytics logs to MLflow.

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
        elif key == "mlflow":
            os.environ[_MLFLOW_WANTED[0]] = value if value.lower() == "true" else ""
        elif key == "model" and value.removesuffix(".yaml") in model_reader.catalog() and not Path(value).exists():
            understood.append(f"model={model_reader.catalog()[value.removesuffix('.yaml')]}")
        else:
            understood.append(argument)
    leave_mlflow_out()
    yolo.detect.DetectionTrainer, yolo.detect.DetectionValidator = trainer, UserDataValidator
    if not any(argument.lstrip("-").partition("=")[0].strip() == "nms" for argument in understood):
        _use_one_to_one_heads()
    return understood


def leave_mlflow_out() -> None:
    """Keep Ultralytics from logging to an MLflow of its own, with a second copy of all weights. Idempotent.

    It does so by default wherever MLflow is installed. Whoever wants it says `mlflow=True`, or names a run or an
    experiment.
    """
    stock_add = callbacks.add_integration_callbacks
    if getattr(stock_add, "leaves_mlflow_out", False):
        return

    @wraps(stock_add)
    def add(instance: Any) -> None:
        wanted = SETTINGS["mlflow"]
        if not any(os.environ.get(name) for name in _MLFLOW_WANTED):
            dict.__setitem__(SETTINGS, "mlflow", False)  # in memory: the user's file stays as it is
        try:
            stock_add(instance)
        finally:
            dict.__setitem__(SETTINGS, "mlflow", wanted)

    add.leaves_mlflow_out = True  # type: ignore[attr-defined]  # the mark that is looked for above
    callbacks.add_integration_callbacks = add


_MLFLOW_WANTED = ("NAS_YOLO_MLFLOW", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN")
"""In the environment, which further processes of a training share; Ultralytics reads the last two."""


def _use_one_to_one_heads() -> None:
    """Let a model with a one-to-one head (YOLOv10, YOLO26) be used with it, as a search scores it. Idempotent."""
    if not getattr(Model._load, "uses_one_to_one", False):  # noqa: SLF001 - where every command gets its model
        Model._load = _using_one_to_one(Model._load)  # noqa: SLF001
        Model._new = _using_one_to_one(Model._new)  # noqa: SLF001


def _using_one_to_one(stock_load: Any) -> Any:
    @wraps(stock_load)
    def load(self: Model, *arguments: Any, **options: Any) -> None:
        stock_load(self, *arguments, **options)
        head = list(getattr(self.model, "model", None) or [None])[-1]
        if getattr(head, "one2one_cv2", None) is not None:
            self.overrides = {**self.overrides, "nms": False}
            LOGGER.info("end-to-end model: its one-to-one head is used, as in a search (nms=True asks for the other)")

    load.uses_one_to_one = True  # type: ignore[attr-defined]  # the mark that the caller looks for
    return load
