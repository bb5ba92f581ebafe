"""Provenance of a score: all that must be equal for two trainings to have the same result."""

import hashlib
import platform
import subprocess
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import search_spaces
from search_spaces.files import digest
from trials.budget import Budget
from trials.data.datasets import DataSet
from trials.devices import CPU, processor

_PACKAGES = ("nas-for-yolo", "torchvision", "ultralytics", "numpy", "opencv-python")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of one score.

    Attributes:
        recipe: hash of the recipe.
        data: fingerprint of the data set.
        device: model name of the processor or GPU.
        threads: number of threads of a training on a CPU.
        code: hash of the source files that build and train.
        commit: commit of this package's repository, with a `+` if files were changed; empty if it is installed
            without a repository.
        versions: of Python and the packages that compute, by name.
        weights: hash of the tensors that the training starts from; empty for random weights, and in records of
            versions that stored none.
    """

    seed: int
    recipe: str
    data: str
    device: str
    threads: int
    code: str
    commit: str
    versions: dict[str, str]
    weights: str = ""

    @classmethod
    def of(cls, budget: Budget, data: DataSet) -> "Provenance":
        """Return the provenance of a training with this budget on this machine."""
        import torch  # noqa: PLC0415 - the provenance of stored scores is read without PyTorch

        return cls(
            seed=budget.seed,
            recipe=hashlib.sha256(budget.recipe.model_dump_json().encode()).hexdigest()[:12],
            data=data.fingerprint,
            device=processor(budget.device),
            threads=1 if budget.device == CPU else torch.get_num_threads(),
            code=_code(),
            commit=commit(),
            versions=_versions(),
            weights=_weights(budget.weights),
        )


def _weights(path: Path | None) -> str:
    """Return a hash of a checkpoint's tensors; it is read again only if its size or time has changed."""
    if path is None or not path.is_file():  # a training that lacks its weights fails by itself
        return ""
    found = path.stat()
    return _tensors(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _tensors(path: Path, _size: int, _changed: int) -> str:
    """Return a hash of the tensors of a checkpoint; of a file that is no archive of PyTorch, of all of it.

    `torch.save` stores each tensor's numbers as a file of a zip archive, whose folder has the name under which it was
    written. That name, and paths among the other values, differ between equal trainings.
    """
    hashed = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if "/data/" in name]
            for name in sorted(names, key=lambda name: name.partition("/")[2]):
                hashed.update(archive.read(name))
    except zipfile.BadZipFile:
        names = []
    return (hashed.hexdigest() if names else digest(path))[:12]


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    import torch  # noqa: PLC0415 - as above

    found = {"python": platform.python_version(), "torch": torch.__version__}  # with its build, such as +cpu
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another build of the same module, such as opencv-python-headless
            continue
    return found


@lru_cache(maxsize=1)
def _code() -> str:
    """Return a hash of the source files of the two packages that a score depends on."""
    folders = [Path(__file__).parent, Path(search_spaces.__file__).parent]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the commit of the repository that this file is in; git is called once per process."""
    here = Path(__file__).resolve().parent
    git = ("git", "-C", str(here))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False)
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    if tracked.returncode:
        return ""  # installed into an environment inside another repository
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
