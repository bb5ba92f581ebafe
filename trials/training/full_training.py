"""Full training by Ultralytics' command, of models with our operators, optionally with YOLOv9's auxiliary branch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from ultralytics.engine.model import Model
from ultralytics.models import yolo
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import LOGGER, RANK, SETTINGS, callbacks

from search_spaces import auxiliary, foreign_files, model_reader
from search_spaces.errors import SpecError
from search_spaces.operators.dynamic_conv import DynamicConv
from search_spaces.pgi_setting import LEAD_GUIDED, Pgi
from trials.budget import Recipe
from trials.torch_devices import training_format
from trials.training.inheritance import transfer
from trials.training.user_data import UserDataTrainer, UserDataValidator
from trials.weights import lighten


class FullTrainer(UserDataTrainer):
    """Ultralytics' detection trainer for models with our operators.

    Differences to Ultralytics' trainer:

    - a model with `pgi: true` is trained with the auxiliary branch, which is in `last.pt` and `best.pt`, so that a
      training can go on; it is dropped for predicting, validating and exporting;
    - weights are transferred by role;
    - the temperature of dynamic convolutions falls over the same share of the training as in a trial;
    - nothing is logged to MLflow unless it is asked for.

    Ultralytics' processes for several GPUs import this class, and our operators with it.
    """

    pgi: ClassVar[Pgi | None] = None
    """Whether to train with the auxiliary branch; None for what the model file says."""

    on_begin: ClassVar[Callable[[Path, Mapping[str, Any]], None] | None] = None
    """Called with folder and arguments of each training that begins; only in the main process, not once per GPU."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Set up a training as Ultralytics does, without its logging to MLflow."""
        disable_mlflow_logging()
        super().__init__(*arguments, **options)
        if RANK == -1 and (on_begin := type(self).on_begin) is not None:
            on_begin(self.save_dir, vars(self.args))

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> DetectionModel:  # noqa: FBT001, FBT002 - Ultralytics' signature
        """Build the model, with or without the auxiliary branch, and transfer weights to it."""
        document = dict(cfg) if isinstance(cfg, Mapping) else yaml_model_load(cfg)
        document = foreign_files.translate(document).document
        wanted = document.get("pgi", auxiliary.has_auxiliary(document)) if self.pgi is None else self.pgi
        in_training = auxiliary.with_branch(document) if wanted else auxiliary.without_branch(document)
        if wanted and getattr(self.args, "distill_model", None):
            raise SpecError(
                "distill_model: a teacher cannot train a model with YOLOv9's auxiliary branch, whose head has further "
                "levels (pgi=False)"
            )
        is_changed = auxiliary.has_auxiliary(in_training) != auxiliary.has_auxiliary(document)
        rows = in_training if is_changed else document
        model = super().get_model({**rows, "pgi": wanted}, None, verbose)
        if training_format(model) != torch.channels_last:
            self.args.channels_last = False  # else Ultralytics converts the model on a GPU, and for validating
        if weights is not None:
            share = _transfer(model, weights)
            if not getattr(self, "resume", False):
                _report(share)
        return model

    def _setup_train(self) -> None:
        """Set up the training.

        Raises:
            SpecError: the teacher does not fit.
        """
        try:
            super()._setup_train()
        except ValueError as error:
            if self.args.distill_model and "feature levels" in str(error):  # nn/distill_model.py:86
                raise SpecError(f"distill_model: {self.args.distill_model}: {error}") from error
            raise

    def resume_training(self, ckpt: Any) -> None:
        """Resume from a checkpoint; set temperatures by the schedule, since the checkpoint's EMA lags behind it."""
        super().resume_training(ckpt)
        self._set_annealing()
        done = self.start_epoch * len(self.train_loader)
        for module in self._dynamic_convs() if done else ():
            module.temperature.clamp_(max=module.annealed(done))

    def save_model(self) -> Any:
        """Save the checkpoints as Ultralytics does, but keep the earlier ones until the new ones are whole."""
        files = [file for file in (self.last, self.best) if file.is_file()]
        for file in files:
            file.replace(_earlier(file))
        saved = super().save_model()
        for file in files:
            if file.is_file():
                _earlier(file).unlink()
            else:  # this epoch was not the best
                _earlier(file).replace(file)
        return saved

    def final_eval(self) -> None:
        """Validate the best checkpoint, then store checkpoints with our layers as numbers and YAML."""
        super().final_eval()
        if RANK in {-1, 0}:
            for path in (self.last, self.best):
                lighten(path)

    def _model_train(self) -> None:
        """Set train mode and the schedule of temperatures before every epoch.

        A limit of time or memory may have changed the number of steps.
        """
        super()._model_train()
        self._set_annealing()

    def _set_annealing(self) -> None:
        steps = len(self.train_loader) * self.epochs
        for module in self._dynamic_convs():
            module.anneal_steps = max(1, round(steps * Recipe().anneal))

    def _dynamic_convs(self) -> Iterator[DynamicConv]:
        return (module for module in self.model.modules() if isinstance(module, DynamicConv))


def restore_checkpoints(folder: Path) -> None:
    """Put back the earlier checkpoints of a training that was killed as it saved: the new ones may be torn."""
    for earlier in folder.glob(f"*{_EARLIER}"):
        earlier.replace(earlier.with_name(earlier.name.removesuffix(_EARLIER)))


_EARLIER = ".earlier"


def _earlier(file: Path) -> Path:
    return file.with_name(f"{file.name}{_EARLIER}")


class PGITrainer(FullTrainer):
    """Trainer that always uses the auxiliary branch."""

    pgi = True


class PlainTrainer(FullTrainer):
    """Trainer that never uses the auxiliary branch."""

    pgi = False


class LeadGuidedTrainer(FullTrainer):
    """Trainer that always uses the auxiliary branch, with the main head's targets assigned to both heads."""

    pgi = LEAD_GUIDED


_MIN_SHARE = 0.05
"""If a smaller share of parameters is transferred, two models are unrelated."""


def _transfer(model: DetectionModel, weights: nn.Module) -> float:
    """Transfer weights as Ultralytics does between models of equal layers, and by role between others.

    Returns:
        Share of the deployed model's parameters that were transferred.
    """
    source = weights.float()
    offered, head = source.state_dict(), f"model.{len(model.model) - 1}."
    state = model.state_dict()
    has_equal_layers = offered.keys() == state.keys() and all(
        offered[name].shape == value.shape for name, value in state.items() if not name.startswith(head)
    )
    if not has_equal_layers:
        model.pt_path = getattr(source, "pt_path", None)  # as `load` notes it
        return transfer(model, source, channels="important").share
    model.load(source)
    parameters = dict(model.named_parameters())
    loaded = sum(value.numel() for name, value in parameters.items() if value.shape == offered[name].shape)
    return loaded / sum(value.numel() for value in parameters.values())


def _report(share: float) -> None:
    LOGGER.info(f"{share:.1%} inherited: that share of the deployed model's parameters comes from the given weights")
    if share < _MIN_SHARE:
        LOGGER.warning("the given weights hold next to nothing of this model; are they of the same base and scale?")


_TRAINERS = {"true": PGITrainer, LEAD_GUIDED: LeadGuidedTrainer, "false": PlainTrainer}


def prepare_command(arguments: Sequence[str]) -> list[str]:
    """Let Ultralytics' command train with `FullTrainer`, and return its arguments without ours.

    Args:
        arguments: of the command `yolo`; `model=` may name a model of our catalog, `pgi=True` or `pgi=lead-guided`
            asks for the auxiliary branch, and `mlflow=True` for Ultralytics' logging to MLflow.

    Raises:
        SpecError: another value of `pgi`.
    """
    trainer: type[FullTrainer] = FullTrainer
    theirs = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "pgi":
            if value.lower() not in _TRAINERS:
                raise SpecError(f"pgi: True, False or {LEAD_GUIDED} is expected, got {value!r}")
            trainer = _TRAINERS[value.lower()]
        elif key == "mlflow":
            os.environ[_MLFLOW_WANTED[0]] = value if value.lower() == "true" else ""
        elif key == "model" and value.removesuffix(".yaml") in model_reader.catalog() and not Path(value).exists():
            theirs.append(f"model={model_reader.catalog()[value.removesuffix('.yaml')]}")
        else:
            theirs.append(argument)
    disable_mlflow_logging()
    yolo.detect.DetectionTrainer, yolo.detect.DetectionValidator = trainer, UserDataValidator
    if not any(argument.lstrip("-").partition("=")[0].strip() == "nms" for argument in theirs):
        _use_one_to_one_heads()
    return theirs


def disable_mlflow_logging() -> None:
    """Keep Ultralytics from logging each training, and a second copy of all weights, to MLflow. Idempotent.

    By default it logs wherever MLflow is installed. `mlflow=True`, or the name of a run or an experiment in the
    environment, asks for it.
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
"""Environment variables, which all processes of a training share; Ultralytics reads the last two."""


def _use_one_to_one_heads() -> None:
    """Use the one-to-one head of models that have one (YOLOv10, YOLO26), as a search scores them. Idempotent."""
    if not getattr(Model._load, "uses_one_to_one", False):  # noqa: SLF001 - every command gets its model here
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
