"""Names of a package that are imported when they are first used, because their modules need PyTorch or Optuna."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def importer(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports names on their first use (PEP 562).

    Args:
        package: its name.
        homes: module of each name.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - it becomes that function
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return __getattr__
