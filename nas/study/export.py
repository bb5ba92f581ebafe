"""A trial's model as a folder that needs no study any more."""

import json
import platform
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.algorithms.pareto import OBJECTIVES, knee_point, main_cost
from nas.records.record import Record, point_of
from search_spaces import build
from search_spaces.errors import SpecError, StudyError, nearest
from search_spaces.files import write_atomically
from search_spaces.operators import modules as user_modules
from trials import Budget
from trials import weights as weight_files
from trials.costing import cost
from trials.data import datasets

if TYPE_CHECKING:
    from nas.study.study import Study

_VERSIONS = ("nas-for-yolo", "torch", "ultralytics", "ultralytics-thop", "optuna")
BEST = ("map", "knee", "cheapest")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        weights: None if the study keeps none for this trial.
        train: the command that trains the model in full.
        retrain: the command that trains it as the trial did.
    """

    folder: Path
    record: Record
    weights: Path | None
    train: str
    retrain: str


def export(study: "Study", record: Record, folder: Path | None = None) -> Exported:
    """Write `model.yaml`, `data.yaml`, `summary.json` and, where they are kept, `weights.pt`.

    Args:
        folder: by default `export/trial-0007` in the study's folder.

    Raises:
        StudyError: the trial has no architecture yet.
    """
    if not record.fingerprint or not record.finished:
        raise StudyError(f"trial {record.trial} is {record.status}; only a finished trial can be exported")
    folder = (folder or study.folder / "export" / f"trial-{record.trial:04d}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings, files = study.settings, study.files(record.trial)
    data = datasets.load(settings.budget.data)
    architecture = study.architecture(record)
    for source in architecture.sources:
        write_atomically(folder / source.path.name, source.text)
        user_modules.trust(source)
    branch = settings.budget.recipe.pgi
    write_atomically(folder / "model.yaml", architecture.to_yaml(len(settings.classes), folder=folder, pgi=branch))
    write_atomically(folder / "data.yaml", datasets.resolved(data))
    write_atomically(folder / "summary.json", json.dumps(_summary(study, record), indent=1))
    weights = folder / "weights.pt" if files.weights.is_file() else None
    if weights is not None:
        weight_files.export(files.weights, weights)
    budget = study.budget_of(record.repeat).at(architecture.image_size)
    model, where = shlex.quote(f"model={folder / 'model.yaml'}"), shlex.quote(f"data={folder / 'data.yaml'}")
    if build.is_end_to_end(architecture.document(len(settings.classes))):
        where += " nms=False"  # validated by the head that scored it
    return Exported(
        folder=folder,
        record=record,
        weights=weights,
        train=f"nas yolo train {model} {where}{_pretrained(weights)} epochs=100 imgsz={budget.deploy_size}",
        retrain=f"nas yolo train {model} {where}{_pretrained(budget.weights)} {_as_the_trial(budget)}",
    )


def _pretrained(weights: Path | None) -> str:
    """Where a training starts, in Ultralytics' words; nothing where the weights are not there."""
    return " " + shlex.quote(f"pretrained={weights}") if weights is not None and weights.is_file() else ""


def chosen(study: "Study", *, trial: int | None = None, best: str = "map") -> Record:
    """The trial by its number, or the best of the front by one of `map`, `knee`, `cheapest`.

    Raises:
        SpecError: no such trial or choice.
        StudyError: nothing has finished yet.
    """
    records = study.records()
    if trial is not None:
        if not 0 <= trial < len(records):
            raise SpecError(f"trial: {study.name} has no trial {trial} (0 to {len(records) - 1})")
        return records[trial]
    if best not in BEST:
        raise SpecError(f"best: got {best!r} ({nearest(best, BEST)})")
    front = study.front(records)
    if not front:
        raise StudyError(f"{study.name} has no finished trial within its limits yet")
    weighed = main_cost(study.settings.objectives)
    match best:
        case "map":
            return max(front, key=lambda record: record.map50_95 or 0.0)
        case "cheapest":
            return min(front, key=lambda record: getattr(record, weighed) or 0.0)
        case _:
            objectives = ("map50_95", weighed)
            points = [point_of(record, objectives) for record in front]
            return front[knee_point(points, [OBJECTIVES[name] for name in objectives])]


def _summary(study: "Study", record: Record) -> dict[str, Any]:
    settings = study.settings
    architecture = study.architecture(record)
    document = architecture.document(len(settings.classes))
    size = settings.budget.at(architecture.image_size).deploy_size
    built = cost.measure(document, len(settings.classes), size, deployed=False)
    return {
        **record.as_row(),
        "study": study.name,
        "space": {"name": settings.space, "scale": settings.scale, "hash": settings.space_hash},
        "classes": list(settings.classes),
        "data": {"name": settings.data, "fingerprint": settings.data_fingerprint},
        "budget": settings.budget.model_dump(mode="json"),
        "inherited": record.inherited,
        "as_built": {"params": built.params, "gflops": built.gflops, "image_size": built.image_size},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONS},
    }


def _as_the_trial(budget: Budget) -> str:
    """A budget in Ultralytics' words, as far as it has words for it."""
    recipe = budget.recipe
    words: dict[str, Any] = {
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
    return " ".join(f"{name}={value}" for name, value in words.items())
