"""Images of a data set that are no plain files, under `nas yolo`: at a pipe Ultralytics would wait without end."""

from collections.abc import Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from ultralytics.data import base
from ultralytics.data.dataset import ClassificationDataset

from search_spaces.errors import DataError
from search_spaces.files import SPECIAL, is_special


def guard() -> None:
    """Refuse such images wherever Ultralytics lists those of a data set, in this process from now on."""
    stock_timing, stock_verify = base.check_file_speeds, ClassificationDataset.verify_images

    @wraps(stock_timing)
    def timed(files: Any, *arguments: Any, **options: Any) -> None:  # the first that opens some, with the list of all
        _require_plain(files)
        stock_timing(files, *arguments, **options)

    @wraps(stock_verify)
    def verified(dataset: Any) -> Any:
        _require_plain(sample[0] for sample in dataset.samples)
        return stock_verify(dataset)

    base.check_file_speeds, ClassificationDataset.verify_images = timed, verified


def _require_plain(files: Iterable[str]) -> None:
    special = next((file for file in files if is_special(Path(file))), None)
    if special is not None:
        raise DataError(f"{special}: {SPECIAL}")
