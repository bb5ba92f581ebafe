"""Trainer and validator of `nas yolo`, which read a user's data as a search does, and write nothing beside them.

A data.yaml is rewritten with absolute paths first (`datasets.resolved_text`), so that nothing is downloaded, no script
in the file runs, and it names the same data from any working directory.
"""

from pathlib import Path
from types import FunctionType
from typing import Any

from ultralytics.data import build
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils.torch_utils import unwrap_model

from search_spaces.files import write_atomically
from trials.data import datasets
from trials.data.image_cache import UserImages


class UserDataTrainer(DetectionTrainer):
    """Ultralytics' detection trainer, on data that it leaves unchanged."""

    def get_dataset(self) -> dict[str, Any]:
        """Return Ultralytics' description of the data set, from a copy of data.yaml with absolute paths.

        Raises:
            DataError: data.yaml or one of its folders does not exist.
        """
        self.args.data = _with_absolute_paths(self.args.data, Path(self.save_dir), "train", "val")
        return super().get_dataset()

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> UserImages:
        """Return an instance of our data set class, from Ultralytics' arguments."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        return _build(self.args, img_path, batch, self.data, mode=mode, rect=mode == "val", stride=stride)


class UserDataValidator(DetectionValidator):
    """Ultralytics' detection validator, on data that it leaves unchanged."""

    def __call__(self, trainer: Any = None, model: Any = None) -> Any:
        """Validate a trainer's model, or another model on the data that the arguments name."""
        if trainer is None:
            self.args.data = _with_absolute_paths(self.args.data, Path(self.save_dir), self.args.split or "val")
        return super().__call__(trainer, model)

    def build_dataset(self, img_path: Any, mode: str = "val", batch: int | None = None) -> UserImages:
        """Return an instance of our data set class, from Ultralytics' arguments."""
        fraction = build.get_split_fraction(self.args.fraction, self.args.split or "val")
        return _build(self.args, img_path, batch, self.data, mode=mode, stride=self.stride, fraction=fraction)


def _build(*arguments: Any, **options: Any) -> Any:
    """Call Ultralytics' `build_yolo_dataset` with our class in place of `YOLODataset`; the module stays unchanged."""
    theirs = build.build_yolo_dataset
    ours = FunctionType(
        theirs.__code__, {**theirs.__globals__, "YOLODataset": UserImages}, theirs.__name__, theirs.__defaults__
    )
    return ours(*arguments, **options)


def _with_absolute_paths(data: Any, folder: Path, *needed: str) -> Any:
    """Write a data.yaml with absolute paths into a folder, and return its path; return an archive or URL as it is.

    Raises:
        DataError: there is no data.yaml, or a needed split does not exist.
    """
    name = str(data or "")
    if not name or "://" in name or (Path(name).is_file() and Path(name).suffix.lower() not in {".yaml", ".yml"}):
        return data
    text = datasets.resolved_text(_yaml_in_folder(name), needed)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "data.yaml"
    write_atomically(written, text)
    return str(written)


def _yaml_in_folder(name: str) -> str:
    """Return the only YAML file of a folder, as Ultralytics searches for it; any other name as it is."""
    found = list(Path(name).glob("*.yaml")) or list(Path(name).rglob("*.yaml")) if Path(name).is_dir() else []
    return str(found[0]) if len(found) == 1 else name
