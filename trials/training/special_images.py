"""Images and videos that are no plain files, under `nas yolo`: at a pipe Ultralytics would wait without end."""

from collections.abc import Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from ultralytics.data import base
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.loaders import LoadImagesAndVideos

from search_spaces.errors import DataError
from search_spaces.files import SPECIAL, is_special


def guard() -> None:
    """Refuse such files wherever Ultralytics lists those of a data set or a folder, in this process from now on."""
    stock_timing, stock_verify = base.check_file_speeds, ClassificationDataset.verify_images
    stock_list, stock_open = LoadImagesAndVideos.__init__, LoadImagesAndVideos._new_video  # noqa: SLF001 - opens each video

    @wraps(stock_timing)
    def timed(files: Any, *arguments: Any, **options: Any) -> None:  # the first that opens some, with the list of all
        _require_plain(files)
        stock_timing(files, *arguments, **options)

    @wraps(stock_verify)
    def verified(dataset: Any) -> Any:
        _require_plain(sample[0] for sample in dataset.samples)
        return stock_verify(dataset)

    @wraps(stock_list)
    def listed(loader: Any, *arguments: Any, **options: Any) -> None:
        stock_list(loader, *arguments, **options)
        _require_plain(loader.files)

    @wraps(stock_open)
    def opened(loader: Any, path: str) -> None:  # the first video is opened while the folder is listed
        _require_plain([path])
        stock_open(loader, path)

    base.check_file_speeds, ClassificationDataset.verify_images = timed, verified
    LoadImagesAndVideos.__init__, LoadImagesAndVideos._new_video = listed, opened  # noqa: SLF001


def _require_plain(files: Iterable[str]) -> None:
    special = next((file for file in files if is_special(Path(file))), None)
    if special is not None:
        raise DataError(f"{special}: {SPECIAL}")
