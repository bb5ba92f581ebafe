"""Functions of Ultralytics that are replaced as soon as a program imports it, so that it reads operators.

Nothing of Ultralytics or PyTorch is imported here: `import search_spaces` takes milliseconds, and a command that only
reads a study never pays for them. The work is done by `parser_hooks` and `stored_model`, which are imported with the
first model that is built or loaded.
"""

from functools import wraps
from typing import Any

from wrapt import register_post_import_hook

_MODULE = "ultralytics.nn.tasks"


def register() -> None:
    """Replace them when Ultralytics is imported, at once if it is already; a side effect of `import search_spaces`."""
    register_post_import_hook(install, _MODULE)


def install(tasks: Any) -> None:
    """Replace the functions of `ultralytics.nn.tasks`. Idempotent."""
    if getattr(tasks.parse_model, "reads_operators", False):
        return
    tasks.parse_model = _reading_operators(tasks.parse_model)
    tasks.DetectionModel.__init__ = _translating(tasks.DetectionModel.__init__)
    tasks.torch_safe_load = _reading_stored_models(tasks.torch_safe_load)
    tasks.BaseModel.to = _keeping_contiguous(tasks.BaseModel.to)


def _reading_operators(stock: Any) -> Any:
    @wraps(stock)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> Any:  # noqa: FBT001, FBT002 - Ultralytics' signature
        from search_spaces import parser_hooks  # noqa: PLC0415 - imports PyTorch

        return parser_hooks.parse_model(stock, d, ch, verbose=verbose)

    parse_model.reads_operators = True  # type: ignore[attr-defined]  # the mark that install() looks for
    return parse_model


def _translating(stock: Any) -> Any:
    @wraps(stock)
    def __init__(self: Any, cfg: Any = "yolo26n.yaml", *arguments: Any, **options: Any) -> None:  # noqa: N807 - it becomes that method
        from search_spaces import parser_hooks  # noqa: PLC0415 - imports PyTorch

        parser_hooks.initialise(stock, self, cfg, *arguments, **options)

    return __init__


def _reading_stored_models(stock: Any) -> Any:
    @wraps(stock)
    def torch_safe_load(weight: Any, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        from search_spaces import stored_model  # noqa: PLC0415 - imports PyTorch

        return stored_model.load_checkpoint(stock, weight, *arguments, **options)

    return torch_safe_load


def _keeping_contiguous(stock: Any) -> Any:
    from search_spaces import memory_format  # noqa: PLC0415 - imports PyTorch, which Ultralytics has imported by now

    return memory_format.keeping_contiguous(stock)
