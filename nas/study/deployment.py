"""Write the files of an exported model that run elsewhere: other formats, a folder for Ultralytics alone, the card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.deployment import formats as exported_formats
from nas.deployment import standalone
from nas.deployment.formats import ExportedFormat, TorchAccuracy
from nas.deployment.model_card import ModelCard
from nas.records.record import Record
from nas.settings import Settings
from nas.study.export import Exported
from nas.words import with_unit
from search_spaces import Architecture, base, build
from search_spaces.errors import StudyError
from search_spaces.files import write_atomically
from search_spaces.stored_model import read as read_stored
from trials.budget import Budget

CARD, STANDALONE = "README.md", "standalone"
_FILES = {
    "model.yaml": "the architecture",
    "weights.pt": "the weights",
    "data.yaml": "the data set it was trained on",
    "summary.json": "scores, costs, study and versions",
}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Further files of an export, besides the model for this package.

    Attributes:
        standalone: a folder for an Ultralytics without this package.
        formats: of Ultralytics.
        check: measure mAP50-95 of each format.
        arguments: of Ultralytics' export.
        on_step: called with what begins, in words.
    """

    standalone: bool = False
    formats: tuple[str, ...] = ()
    check: bool = False
    arguments: Mapping[str, Any]
    on_step: Callable[[str], None]


def deploy(
    exported: Exported,
    architecture: Architecture,
    settings: Settings,
    wanted: Deployment,
    *,
    weights: Path,
    budget: Budget,
    study: str,
    train: str,
    stock: Record | None,
    verdict: Sequence[str],
) -> Exported:
    """Write further formats, the folder for Ultralytics alone and the model card; return the export with them.

    Args:
        weights: file of the trial, which may be missing.
        budget: with which the trial was trained.
        train: command that trains the trial in full.
        stock: the stock model's record, with the means over its seeds.
        verdict: what fresh seeds have shown, in lines.

    Raises:
        SpecError: an operator's source cannot become part of a file.
        StudyError: formats are wanted of a trial whose weights were deleted.
    """
    if wanted.formats and exported.weights is None:
        raise StudyError(
            f"trial {exported.record.trial}: its weights were not saved, so there is nothing to convert; train it "
            f"({train})"
        )
    document = architecture.document(len(settings.classes))
    operators = {one.operator.name: one.operator.reference for one in standalone.lowered_rows(document).values()}
    operators |= standalone.classes(document)
    folder: Path | None = None
    libraries: tuple[str, ...] = ()
    if wanted.standalone and operators:
        wanted.on_step("writing the folder for Ultralytics alone, and trying it there")
        folder = exported.folder / STANDALONE
        libraries = standalone.write(
            folder,
            name=f"{study}, trial {exported.record.trial}",
            model_text=(exported.folder / "model.yaml").read_text(encoding="utf-8"),
            document=document,
            stored=read_stored(weights) if exported.weights is not None else None,
        )
    found, accuracy = _formats(exported, wanted, budget, end_to_end=build.is_end_to_end(document))
    whole = replace(exported, standalone=folder, formats=found, torch_accuracy=accuracy)
    card = _card(whole, architecture, settings, budget, study=study, stock=stock, verdict=verdict, operators=operators)
    write_atomically(exported.folder / CARD, card.text())
    if folder is not None:
        alone = replace(card, usage=_plain_usage(folder, libraries), files=_plain_files(folder), formats=())
        write_atomically(folder / CARD, alone.text())
    return whole


def _formats(
    exported: Exported, wanted: Deployment, budget: Budget, *, end_to_end: bool
) -> tuple[tuple[ExportedFormat, ...], TorchAccuracy | None]:
    """Export to each format; return them, and PyTorch's accuracy if it was wanted."""
    weights, size = exported.weights, wanted.arguments.get("imgsz", budget.deploy_size)
    if weights is None or not wanted.formats:
        return (), None
    device, data = wanted.arguments.get("device", "cpu"), exported.folder / "data.yaml"
    found = []
    for name in wanted.formats:
        wanted.on_step(f"{name}: exporting, and comparing it with PyTorch")
        found.append(exported_formats.export(weights, name, size, end_to_end=end_to_end, arguments=wanted.arguments))
    if not wanted.check:
        return tuple(found), None
    wanted.on_step("measuring mAP50-95 of PyTorch")
    accuracy = exported_formats.torch_accuracy(
        weights, data, size, budget.image_size, end_to_end=end_to_end, device=device
    )
    measured = []
    for one in found:
        wanted.on_step(f"{one.name}: measuring its mAP50-95")
        measured.append(exported_formats.with_accuracy(one, data, size, end_to_end=end_to_end, device=device))
    return tuple(measured), accuracy


def _card(
    exported: Exported,
    architecture: Architecture,
    settings: Settings,
    budget: Budget,
    *,
    study: str,
    stock: Record | None,
    verdict: Sequence[str],
    operators: Mapping[str, str],
) -> ModelCard:
    """Return the card of an export for this package; `operators` are papers by name."""
    mean = exported.mean
    seeds = "one seed" if mean.seeds == 1 else f"the mean of {mean.seeds} seeds"
    trained = f"{with_unit(settings.budget.epochs, 'epoch')} at {budget.image_size} px, {seeds}"
    scored = (
        f"mAP is that of short trainings ({trained}) on the validation images of {settings.data}, by which the search "
        f"chose; GFLOPs are of the deployed model at {budget.deploy_size} px."
    )
    here = exported.train.replace(f"{exported.folder}/", "")
    usage = [("With nas, in this folder:", "bash", here)]
    if exported.standalone is not None:
        usage.append((f"With Ultralytics alone, in the folder `{STANDALONE}/`:", "python", standalone.LINES))
    elif exported.weights is not None and not operators:
        usage.append(("With Ultralytics alone:", "python", 'from ultralytics import YOLO\nmodel = YOLO("weights.pt")'))
    return ModelCard(
        title=f"{study}, trial {mean.trial}",
        base=base.load(architecture.base, architecture.scale).name,
        model=mean,
        stock=stock,
        scored=scored,
        verdict=verdict,
        operators=operators,
        usage=usage,
        files=_card_files(exported),
        formats=exported.formats,
        torch_accuracy=exported.torch_accuracy,
    )


def _card_files(exported: Exported) -> dict[str, str]:
    """Return what each file and folder of an export is, by its name."""
    files = {name: what for name, what in _FILES.items() if (exported.folder / name).is_file()}
    for one in exported.formats:
        if one.path is not None:
            files[f"{one.path.name}/" if one.path.is_dir() else one.path.name] = f"the model as {one.name}"
    if exported.standalone is not None:
        files[f"{STANDALONE}/"] = "the model for an Ultralytics without nas, with the operators in a Python file"
    return files


def _plain_usage(folder: Path, libraries: Sequence[str]) -> list[tuple[str, str, str]]:
    sentence = "In this folder (or with this folder on Python's path), with Ultralytics alone"
    needs = f"; `modules.py` also imports {', '.join(libraries)}" if libraries else ""
    lines = standalone.LINES if (folder / standalone.WEIGHTS).is_file() else standalone.LINES_WITHOUT_WEIGHTS
    train = 'model.train(data="YOUR.yaml", epochs=100)\nmodel.val()\nmodel.export(format="onnx")'
    return [(f"{sentence}{needs}:", "python", f"{lines}\n\n{train}")]


def _plain_files(folder: Path) -> dict[str, str]:
    files = {
        standalone.MODULES: "the operators, and what registers them with Ultralytics; checkpoints need it, so keep it",
        standalone.MODEL: "the architecture",
        standalone.WEIGHTS: "the weights, as a checkpoint of Ultralytics",
    }
    return {name: what for name, what in files.items() if (folder / name).is_file()}
