"""Options of a deployed model, for commands that count or time models without a search; as a search declares them."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from nas.workflows.option import Option, declared
from nas.workflows.search_options import DATA_SETS, DEFAULT_SPACE, DEPLOY_SIZE, FilePath, SearchOptions

COCO_CLASSES = 80
PANEL = "Space and deployment"
MODEL_SCALE = "the one in the name, else the first"
"""Scale of a model file if none is given."""


def _of_search(name: str, **changes: Any) -> Option:
    """Return the declaration of an option of a search, with changes for other commands."""
    return replace(declared(SearchOptions)[name].option, **{"panel": PANEL, **changes})


@dataclass(frozen=True, kw_only=True)
class DeploymentOptions:
    """A space as it is deployed."""

    space: Annotated[FilePath, _of_search("space", unset="")] = DEFAULT_SPACE
    scale: Annotated[str | None, _of_search("scale")] = SearchOptions.scale
    deploy_size: Annotated[int, _of_search("deploy_size", unset="")] = DEPLOY_SIZE
    classes: Annotated[
        int | None,
        Option(help="Number of classes.", panel=PANEL, metavar="N", unset=f"{COCO_CLASSES}, as in COCO"),
    ] = None
    data: Annotated[
        FilePath | None,
        _of_search("data", help=f"Data set from which the number of classes is taken: {DATA_SETS}.", unset=""),
    ] = None

    def __post_init__(self) -> None:
        """Refuse a space that does not exist, before PyTorch is imported.

        Raises:
            SpecError: there is no such space.
        """
        from search_spaces.space_names import require_files  # noqa: PLC0415 - the help needs none

        require_files(self.space)
