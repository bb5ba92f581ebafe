"""The data of `nas yolo`: Ultralytics trains and validates on them as a search does, and never writes beside them.

A data.yaml is put into absolute words first (`datasets.resolved_text`), so that nothing is downloaded, no script of the
file's runs, and the same data are meant from any working directory.
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
    """Ultralytics' detection trainer, on data that it does not change."""

    def get_dataset(self) -> dict[str, Any]:
        """Ultralytics', of the data.yaml in absolute words, which lies in the training's folder.

        Raises:
            DataError: no data.yaml, or a folder that is not there.
        """
        self.args.data = _in_absolute_words(self.args.data, Path(self.save_dir), "train", "val")
        return super().get_dataset()

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> UserImages:
        """Ultralytics' arguments, our class."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        return _build(self.args, img_path, batch, self.data, mode=mode, rect=mode == "val", stride=stride)


class UserDataValidator(DetectionValidator):
    """Ultralytics' detection validator, on data that it does not change."""

    def __call__(self, trainer: Any = None, model: Any = None) -> Any:
        """Validate a trainer's model, or any other on the data of the arguments."""
        if trainer is None:
            self.args.data = _in_absolute_words(self.args.data, Path(self.save_dir), self.args.split or "val")
        return super().__call__(trainer, model)

    def build_dataset(self, img_path: Any, mode: str = "val", batch: int | None = None) -> UserImages:
        """Ultralytics' arguments, our class."""
        fraction = build.get_split_fraction(self.args.fraction, self.args.split or "val")
        return _build(self.args, img_path, batch, self.data, mode=mode, stride=self.stride, fraction=fraction)


def _build(*arguments: Any, **options: Any) -> Any:
    """Ultralytics' function, which names the class that it makes; the module itself stays as it is."""
    theirs = build.build_yolo_dataset
    ours = FunctionType(
        theirs.__code__, {**theirs.__globals__, "YOLODataset": UserImages}, theirs.__name__, theirs.__defaults__
    )
    return ours(*arguments, **options)


def _in_absolute_words(data: Any, folder: Path, *needed: str) -> Any:
    """Write the data.yaml that is meant into a folder, and return its path; an archive or an address is returned as is.

    Raises:
        DataError: there is none, or one of the splits that are needed is not there.
    """
    name = str(data or "")
    if not name or "://" in name or (Path(name).is_file() and Path(name).suffix.lower() not in {".yaml", ".yml"}):
        return data
    text = datasets.resolved_text(_in_folder(name), needed)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "data.yaml"
    write_atomically(written, text)
    return str(written)


def _in_folder(name: str) -> str:
    """The only YAML file of a folder, where Ultralytics looks for it; any other name as it is."""
    found = list(Path(name).glob("*.yaml")) or list(Path(name).rglob("*.yaml")) if Path(name).is_dir() else []
    return str(found[0]) if len(found) == 1 else name
