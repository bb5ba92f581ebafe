"""What a checkpoint's settings (`train_args`) may decide: not where Ultralytics writes, what it fetches or builds."""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from ultralytics.engine.model import Model
from ultralytics.engine.trainer import BaseTrainer

from search_spaces.errors import SpecError
from trials.training import fetched_addresses


def guard(
    typed: Mapping[str, str], *, uses_data: bool, trusted: bool, require_harmless: Callable[[Path], None]
) -> None:
    """Check settings of every checkpoint where Ultralytics takes them over, in this process from now on.

    Args:
        typed: what the user has given by name; it replaces what a checkpoint says.
        uses_data: whether the command reads the data set that a checkpoint names.
        trusted: whether a checkpoint may say how images are augmented.
        require_harmless: raises where a pickle has code in it.
    """
    stock_load, stock_check = Model._load, BaseTrainer.check_resume  # noqa: SLF001 - every command gets its model here

    @wraps(stock_load)
    def load(model: Any, weights: Any, *arguments: Any, **options: Any) -> None:
        stock_load(model, weights, *arguments, **options)
        if uses_data and "data" not in typed:
            fetched_addresses.require_none_in_settings({"data": model.overrides.get("data")}, Path(str(weights)))
        elif "data" not in typed:  # Ultralytics would look for names of classes there
            model.overrides.pop("data", None)

    @wraps(stock_check)
    def check_resume(trainer: Any, overrides: Any) -> None:
        stock_check(trainer, overrides)
        if not trainer.resume:
            return
        checkpoint = Path(trainer.args.resume)
        others = {key: value for key, value in vars(trainer.args).items() if str(value) != typed.get(key)}
        fetched_addresses.require_none_in_settings(others, checkpoint)
        if others.get("augmentations") and not trusted:
            raise SpecError(
                f"{checkpoint}: augmentations of its train_args: albumentations would build what they say, which may "
                "read files and reach the network (leave them out: augmentations=None; if you trust that file, add "
                "--trust)"
            )
        if "save_dir" not in typed:
            trainer.args.save_dir = str(run_folder(checkpoint))
        for name in ("last.pt", "best.pt"):  # at the end Ultralytics opens both, whoever has put them there
            require_harmless(Path(trainer.args.save_dir) / "weights" / name)

    Model._load, BaseTrainer.check_resume = load, check_resume  # noqa: SLF001


def run_folder(checkpoint: Path) -> Path:
    """Return the folder of the training that a checkpoint belongs to: that of its `weights/`, or its own."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == "weights" else folder
