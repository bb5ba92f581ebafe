"""Export a trial's model as a folder that needs no study."""

import json
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.records.recommended import BEST, recommended
from nas.records.record import Record, find_record, pareto_front_of
from nas.records.trial_files import TrialFiles
from nas.settings import Settings
from search_spaces import Architecture, build
from search_spaces.errors import EnvironmentProblem, SpecError, StudyError, nearest
from search_spaces.files import make_durable_folder, write_atomically
from search_spaces.operators import modules as user_modules
from trials import Budget
from trials import weights as weight_files
from trials.costing import cost
from trials.data import datasets

if TYPE_CHECKING:
    from nas.deployment.formats import ExportedFormat, TorchAccuracy

_VERSIONS = ("nas-for-yolo", "torch", "ultralytics", "ultralytics-thop", "optuna")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Files and commands of an exported model.

    Attributes:
        record: of the exported trial itself, whose weights these are.
        mean: the same with the means over all seeds of its architecture.
        weights: None if the trial's weights were deleted.
        train_arguments: arguments of `yolo train` for the model, its data and its weights.
        deploy_size: image size for which it was searched, in pixels.
        retrain: the command that trains it as the trial did.
        standalone: folder for an Ultralytics without this package; None if it was not wanted, or is not needed.
        formats: further formats of the model.
        torch_accuracy: with which those of the formats are compared; None if it was not measured.
    """

    folder: Path
    record: Record
    mean: Record
    weights: Path | None
    train_arguments: tuple[str, ...]
    deploy_size: int
    retrain: str
    standalone: Path | None = None
    formats: "tuple[ExportedFormat, ...]" = ()
    torch_accuracy: "TorchAccuracy | None" = None

    @property
    def train(self) -> str:
        """Command that trains the model in full."""
        return f"{_command(self.train_arguments)} epochs=100 imgsz={self.deploy_size}"

    def as_document(self) -> dict[str, Any]:
        """Return what was written, and how it compares with PyTorch, for JSON."""
        return {
            "folder": str(self.folder),
            "trial": self.record.trial,
            "map50_95": self.mean.map50_95,
            "weights": None if self.weights is None else str(self.weights),
            "standalone": None if self.standalone is None else str(self.standalone),
            "formats": [{**asdict(one), "path": None if one.path is None else str(one.path)} for one in self.formats],
            "torch_map50_95": None if self.torch_accuracy is None else self.torch_accuracy.map50_95,
            "torch": None if self.torch_accuracy is None else asdict(self.torch_accuracy),
            "train": self.train,
            "retrain": self.retrain,
        }


def export(
    record: Record,
    mean: Record,
    architecture: Architecture,
    files: TrialFiles,
    settings: Settings,
    *,
    study: str,
    budget: Budget,
    folder: Path,
) -> Exported:
    """Write `model.yaml`, `data.yaml`, `summary.json` and, if the trial still has them, `weights.pt`.

    Args:
        record: of a finished trial.
        mean: of its architecture, over all its seeds.
        files: of that trial.
        settings: of its study.
        study: the study's name.
        budget: with which the trial was trained, its seed and initial weights included.
        folder: to write to; created if missing.

    Raises:
        EnvironmentProblem: the folder cannot be created.
    """
    folder = folder.absolute()
    try:
        make_durable_folder(folder)
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: cannot be made ({error.strerror}); choose another --out") from None
    _write_model_and_data(architecture, settings, budget, folder)
    write_atomically(
        folder / "summary.json", json.dumps(_summary(record, mean, architecture, settings, study), indent=1)
    )
    weights = folder / "weights.pt" if files.weights.is_file() else None
    if weights is not None:
        weight_files.export(files.weights, weights)
    budget = budget.at(architecture.image_size)
    arguments = [f"model={folder / 'model.yaml'}", f"data={folder / 'data.yaml'}"]
    if build.is_end_to_end(architecture.document(len(settings.classes))):
        arguments.append("nms=False")  # validated by the head that scored it
    return Exported(
        folder=folder,
        record=record,
        mean=mean,
        weights=weights,
        train_arguments=(*arguments, *_pretrained(weights)),
        deploy_size=budget.deploy_size,
        retrain=f"{_command([*arguments, *_pretrained(budget.weights)])} {_budget_arguments(budget)}",
    )


def _command(arguments: Sequence[str]) -> str:
    return f"nas yolo train {shlex.join(arguments)}"


def _write_model_and_data(architecture: Architecture, settings: Settings, budget: Budget, folder: Path) -> None:
    """Write `model.yaml` with the user's modules beside it, and `data.yaml`, whose `test` are the sealed images."""
    data = datasets.load_for(budget.data, budget.sealed, None)
    for source in architecture.sources:
        write_atomically(folder / source.file_name, source.text)
        user_modules.trust(source)
    branch = settings.budget.recipe.pgi
    write_atomically(folder / "model.yaml", architecture.to_yaml(len(settings.classes), folder=folder, pgi=branch))
    datasets.write(data, folder)


def _pretrained(weights: Path | None) -> tuple[str, ...]:
    """Return Ultralytics' argument for the initial weights; empty if there are none or the file is missing."""
    return (f"pretrained={weights}",) if weights is not None and weights.is_file() else ()


def choose(
    records: Sequence[Record],
    objectives: Sequence[str],
    *,
    study: str,
    trial: int | None = None,
    best: str | None = None,
) -> Record:
    """Return a finished trial by its number, or the best of the Pareto front by `map`, `knee` or `cheapest`.

    Args:
        records: of all trials of the study.
        study: its name, for messages.
        best: by default `map`; not together with a trial.

    Raises:
        SpecError: no such trial or choice, or both are given.
        StudyError: the trial, or every trial, is unfinished.
    """
    if trial is not None and best is not None:
        raise SpecError(f"best: trial {trial} is to be exported, and the {best} of the front (give one of the two)")
    best = best or "map"
    if trial is not None:
        return _by_number(records, trial, study)
    if best not in BEST:
        raise SpecError(f"best: got {best!r} ({nearest(best, BEST)})")
    front = pareto_front_of(records, objectives)
    if not front:
        raise StudyError(f"{study} has no finished trial within its limits yet")
    return recommended(front, objectives, best)


def _by_number(records: Sequence[Record], trial: int, study: str) -> Record:
    record = find_record(records, trial, study=study)
    if not record.fingerprint or not record.finished:
        raise StudyError(f"trial {record.trial} is {record.status}; only a finished trial can be exported")
    return record


def _summary(
    record: Record, mean: Record, architecture: Architecture, settings: Settings, study: str
) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    document = architecture.document(len(settings.classes))
    size = settings.budget.at(architecture.image_size).deploy_size
    built = cost.measure(document, len(settings.classes), size, deployed=False)
    return {
        **record.as_row(),
        "mean_over_seeds": {"map50_95": mean.map50_95, "map50": mean.map50, "seeds": mean.seeds},
        "study": study,
        "space": {"name": settings.space, "scale": settings.scale, "hash": settings.space_hash},
        "classes": list(settings.classes),
        "data": {"name": settings.data, "fingerprint": settings.data_fingerprint},
        "budget": settings.budget.model_dump(mode="json"),
        "inherited": record.inherited,
        "as_built": {"params": built.params, "gflops": built.gflops, "image_size": built.image_size},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONS},
    }


def _budget_arguments(budget: Budget) -> str:
    """Return a budget as arguments of `yolo train`, for all fields that have one."""
    recipe = budget.recipe
    arguments: dict[str, Any] = {
        "epochs": budget.epochs,
        "imgsz": budget.image_size,
        "batch": budget.batch,
        "nbs": budget.batch,
        "seed": budget.seed,
        "optimizer": recipe.optimizer,
        "lr0": recipe.learning_rate,
        "lrf": recipe.final_learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_epochs": recipe.warmup_epochs,
        "mosaic": recipe.mosaic,
        "scale": recipe.scale,
        "fliplr": recipe.fliplr,
    }
    return " ".join(f"{name}={value}" for name, value in arguments.items())
