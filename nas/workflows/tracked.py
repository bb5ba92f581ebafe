"""What MLflow shows of a study beside its results: data sets with their sizes, searched choices, who started it."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nas.study.storage import study_id
from nas.study.study import Study
from nas.tracking.context import Context, DataInput, source_tags
from search_spaces.architecture import STOCK
from search_spaces.errors import NasError
from search_spaces.scaling import MACRO
from trials.data.datasets import DIGITS, name_of

_log = logging.getLogger(__name__)

_OPERATOR = ".operator"


def context_of(study: Study) -> Context:
    """Return what is the same for all runs of a study; data set and storage are read when the tracker asks."""
    return Context(
        data=_data_of(study),
        sizes=partial(_sizes_of, study),
        choices=partial(_stock_choices, study),
        source=source_tags(),
    )


def _data_of(study: Study) -> tuple[DataInput, ...]:
    """Return the data set that trials train on, and the images by which a confirmation judges."""
    settings = study.settings
    file = Path(settings.budget.data).absolute()
    name, place = (DIGITS, "") if settings.data == DIGITS else (name_of(file), str(file))
    trained = DataInput(name=name, digest=settings.data_fingerprint, place=place)
    judging = settings.judging
    if judging is None:
        return (trained,)
    fresh = DataInput(name=f"{name}-{judging.source}", digest=judging.fingerprint, place=place, use="evaluation")
    return trained, fresh


def _sizes_of(study: Study) -> Mapping[str, int]:
    """Return the sizes of the data set that trials train on; none if it is not on this machine, or has changed."""
    try:
        data = study.data_set()
    except NasError as problem:
        _log.debug("MLflow is not sent the sizes of the data set of %s: %s", study.name, problem)
        return {}
    if data.fingerprint != study.settings.data_fingerprint:
        return {}
    summary = data.summary
    images = {"train_images": summary.train.images, "val_images": summary.val.images}
    boxes = {"train_boxes": summary.train.boxes, "val_boxes": summary.val.boxes}
    return {"num_rows": sum(images.values()), **images, **boxes, "classes": len(study.settings.classes)}


def _stock_choices(study: Study) -> Mapping[str, str]:
    """Return the stock value of every operator and scaling factor that is searched, by its name in Optuna.

    The names are those of the first trials, the stock models of all members. From the space they would come with
    PyTorch.
    """
    found: dict[str, str] = {}
    try:
        of_study = study_id(study.storage, study.file.name)
        for number in range(max(1, len(study.settings.members))):
            trial = study.storage.get_trial(study.storage.get_trial_id_from_study_id_trial_number(of_study, number))
            found |= _choices_of({**trial.system_attrs.get("fixed_params", {}), **trial.params})
    except (KeyError, NasError) as problem:  # a full training may be logged where the storage is out of reach
        _log.debug("MLflow is not sent all stock choices of %s: %s", study.name, problem)
    return found


def _choices_of(values: Mapping[str, Any]) -> Mapping[str, str]:
    operators = {name: STOCK.operator for name in values if name.endswith(_OPERATOR)}
    is_stock = all(values[name] == STOCK.operator for name in operators)
    factors = {name: f"{value:g}" for name, value in values.items() if name.startswith(f"{MACRO}.") and is_stock}
    return operators | factors
