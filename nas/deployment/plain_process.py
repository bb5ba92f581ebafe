"""Build, save, load and run a standalone model in a process that can import Ultralytics, but nothing of this project.

It is started by its path. `python plain_process.py FOLDER GIVEN ANSWER`: a folder with `modules.py` and `model.yaml`, a
file with tensors, and the file for the answer. It writes `weights.pt` into the folder.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORBIDDEN = ("nas", "search_spaces", "trials")
_MISSING = (
    "this model needs the file modules.py, which came with it: put its folder on Python's path, and do not install a "
    "package of that name"
)


class Absent:
    """Import finder for which the packages of this project are not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:  # noqa: ARG002 - Python's signature
        """Raise an error for a module of this project; leave others to the next finder."""
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r} (it must not be needed)", name=name)


class _Spec:
    """Object that is pickled as the search for `modules.py`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.util.find_spec, ("modules",)


class _Requirement:
    """Object that is pickled as a check: it raises where `modules.py` is missing, before Ultralytics looks for it."""

    def __reduce__(self) -> tuple[Any, ...]:
        import torch  # noqa: PLC0415 - after the finder

        return torch._assert, (_Spec(), _MISSING)  # noqa: SLF001 - by name


def main(folder: Path, given: Path, answer: Path) -> None:
    """Build the model; with tensors, save it and run the saved one."""
    sys.meta_path.insert(0, Absent())
    sys.path[:] = [str(folder), *sys.path[1:]]
    import modules  # noqa: F401, PLC0415 - registers the operators
    import torch  # noqa: PLC0415 - after the finder
    from ultralytics import YOLO  # noqa: PLC0415 - the same
    from ultralytics import __version__ as ultralytics_version  # noqa: PLC0415 - the same

    asked = torch.load(given, weights_only=True)
    model = YOLO(folder / "model.yaml", task="detect").model
    found: dict[str, Any] = {"sizes": {name: tuple(value.shape) for name, value in model.state_dict().items()}}
    if asked["tensors"]:
        model.load_state_dict(asked["tensors"])
        model.names = asked["names"]
        model.eval().requires_grad_(False)
        if asked["end2end"]:
            model.end2end = True
        entries = {"train_args": asked["train_args"], "version": ultralytics_version, "epoch": -1}
        unfinished = folder / ".part.weights.pt"  # whoever stops the export finds no half of a file
        try:
            torch.save({"requires": _Requirement(), "model": model, **entries}, unfinished)
            with torch.no_grad():
                found["output"] = _first(YOLO(unfinished).model.float().eval()(asked["image"]))
            unfinished.replace(folder / "weights.pt")
        finally:
            unfinished.unlink(missing_ok=True)
    torch.save(found, answer)


def _first(value: Any) -> Any:
    return _first(value[0]) if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
